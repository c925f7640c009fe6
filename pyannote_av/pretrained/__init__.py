"""Pipelines that come with the package, a folder each; nothing heavy is imported here."""

from pathlib import Path

#: where they are
FOLDER = Path(__file__).parent

#: the best of them, used where none is named
DEFAULT = "hmsanet"


def shipped() -> list[str]:
    """Names of the pipelines that come with the package."""
    return sorted(config.parent.name for config in FOLDER.glob("*/config.yaml"))
