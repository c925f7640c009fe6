"""From what a user names (a path, a shipped name, a hub identifier) to a path on this machine."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(
    checkpoint: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Resolve a local path, or fetch a repository of the Hugging Face hub.

    Parameters
    ----------
    checkpoint : str or Path
        An existing file or folder, or ``organisation/name`` on the hub.
    revision, token, cache_dir : optional
        As in ``huggingface_hub.snapshot_download``.

    Returns
    -------
    path : Path

    Raises
    ------
    FileNotFoundError
        When `checkpoint` is neither an existing path nor the form of a hub identifier.
    ConnectionError
        At once, when it has to be fetched and the hub is out of reach.
    """
    path = Path(checkpoint).expanduser()
    if path.exists():
        return path
    name = str(checkpoint)
    is_path = isinstance(checkpoint, Path) or name.startswith((".", "~", "/"))
    if is_path or not _HUB_ID.fullmatch(name) or path.suffix in {".yaml", ".yml", ".bin", ".ckpt"}:
        raise FileNotFoundError(f"no such path: {name}")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    options = {"revision": revision, "token": token, "cache_dir": cache_dir}
    try:
        return Path(snapshot_download(name, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        pass
    if not hub_is_reachable():
        raise ConnectionError(
            f"{name!r} is not a path on this machine and not in the hub's cache, and the "
            "Hugging Face hub is out of reach. Give a local folder, or connect to a network."
        )
    try:
        return Path(snapshot_download(name, **options))
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a path on this machine nor a repository of the Hugging Face hub "
            f"that you may read ({error}). Gated repositories need token=..."
        ) from error


def hub_is_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers at all: asked once, instead of five retries of 5 s each."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") in {"1", "ON", "YES", "TRUE"}:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
