"""From what a user names (a path, a shipped name, a hub identifier) to a path on this machine."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path

from pyannote_av.core.paths import what_is_there
from pyannote_av.core.text import printable
from pyannote_av.core.trust import Policy, may_fetch, policy

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# keys of what pyannote makes of ``$model/...``
_REFERENCE = ("checkpoint", "subfolder", "revision", "token", "cache_dir")
# no repository is called like these
_FILES = {".yaml", ".yml", ".bin", ".ckpt", ".pt", ".pth", ".model", ".safetensors", ".npz"}


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
    UntrustedError
        When a local file names a repository that would have to be fetched.
    ConnectionError
        At once, when it has to be fetched and the hub is out of reach.
    """
    name = str(checkpoint)
    try:
        path = Path(checkpoint).expanduser()
        if path.exists():
            return path
    except (RuntimeError, OSError, ValueError) as error:  # no such user, too long a name, NUL
        raise _absent(name, type(error).__name__) from error
    if not named_on_hub(checkpoint):
        raise _absent(name)

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    options = {"revision": revision, "token": token, "cache_dir": cache_dir}
    try:
        return Path(snapshot_download(name, local_files_only=True, **options))
    except LocalEntryNotFoundError:
        pass
    may_fetch(f"{name!r} of the Hugging Face hub")
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


def _absent(name: str, reason: str = "") -> FileNotFoundError:
    """An error that says who named a path"""
    instead = f" ({reason})" if reason else what_is_there(name)
    text = f"no such path: {name[:200]}{instead}"
    if re.fullmatch(rf"{_HUB_ID.pattern}@[\w.-]+", name):
        identifier, _, revision = name.partition("@")
        text += f"; on the hub, write {identifier!r} with revision={revision!r}"
    if policy() != Policy():
        text += f", which {policy().where} names"
    return FileNotFoundError(printable(text, one_line=True))


def locate(
    reference: str | Path | Mapping,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Path of what a configuration refers to.

    Parameters
    ----------
    reference : str, Path or mapping
        See :func:`resolve`; or a mapping with ``checkpoint`` and optionally ``subfolder`` and
        ``revision``, which pyannote makes of ``$model/...``.
    token, cache_dir : optional
        As in ``huggingface_hub.snapshot_download``.

    Raises
    ------
    ValueError
        When the reference is neither text nor a mapping of the right keys.
    FileNotFoundError, ConnectionError, UntrustedError
        See :func:`resolve`.
    """
    if not isinstance(reference, (str, Path, Mapping)):
        raise ValueError(f"a model is a path, a name or a mapping, not {reference!r}")
    if not isinstance(reference, Mapping):
        return resolve(reference, token=token, cache_dir=cache_dir)
    unknown = reference.keys() - _REFERENCE
    if unknown or not isinstance(reference.get("checkpoint"), (str, Path)):
        raise ValueError(
            f"a reference to a model has {', '.join(_REFERENCE)}, not {sorted(map(str, reference))}"
        )
    folder = resolve(
        reference["checkpoint"],
        revision=reference.get("revision"),
        token=reference.get("token", token),
        cache_dir=reference.get("cache_dir", cache_dir),
    )
    return folder / str(reference.get("subfolder") or "")


def old_token(token: str | bool | None, use_auth_token: str | bool | None) -> str | bool | None:
    """`token`, or what is given under its former name."""
    if use_auth_token is None:
        return token
    warnings.warn("use_auth_token is now called token: write token=...", stacklevel=3)
    return use_auth_token if token is None else token


def named_on_hub(checkpoint: str | Path) -> bool:
    """Whether something names a repository of the hub, and is no path on this machine."""
    name = str(checkpoint)
    if isinstance(checkpoint, Path) or name.startswith((".", "~", "/")) or Path(name).exists():
        return False
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix not in _FILES


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
