"""Names in data files that become paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyannote_av.core.reading.refusing import ReadError


def check_name(name: Any) -> str:
    """`name` if, as a relative path, it stays below the folder it is relative to.

    Raises
    ------
    ReadError
        When it is empty, absolute, has a part ``..`` or a NUL character.
    """
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else []
    above = not parts or parts[0] in ("", ".") or ".." in parts
    if above or "\0" in name or Path(name).anchor:
        raise ReadError(f"{name!r} is no name of a file in a folder")
    return name


def inside(folder: Path, name: str) -> Path:
    """Path of a file in a folder, by a name that somebody else gave it.

    Raises
    ------
    ReadError
        When the name, or a link that it passes through, leads out of the folder.
    """
    path = folder / check_name(name)
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # links in a circle, up to Python 3.12
        within = False
    if not within:
        raise ReadError(f"{path} leads out of {folder}")
    return path
