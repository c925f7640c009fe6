"""Where paths lead, and messages about paths that do not exist."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from pyannote_av.core.text import printable

# maximum number of names of a folder that are compared
_NAMES = 10_000


def lies_within(path: Path, *folders: Path) -> bool:
    """Whether a path lies within one of some folders when its links are followed.

    The path need not exist. Links in a circle lie nowhere.
    """
    try:
        real = path.resolve()
    except RuntimeError:  # links in a circle, up to Python 3.12
        return False
    try:
        real.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # links in a circle, from Python 3.13 on
            return False
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def no_such_file(path: str | Path) -> str:
    """Message that a file does not exist, with a suggestion.

    Returns
    -------
    sentence : str
        On one line: ``no such file: PATH``, with the hint of :func:`what_is_there`.
    """
    return printable(f"no such file: {path}{what_is_there(path)}", one_line=True)


def what_is_there(path: str | Path) -> str:
    """Suggestion for a file that does not exist, in parentheses after a space.

    The suggestion is a file of a similar name in the same folder, the nearest folder that exists,
    or the reason why a path of Windows is not found. Empty if there is none.
    """
    path = Path(path)
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", str(path)):
        drive, rest = str(path)[0].lower(), str(path)[3:].replace("\\", "/")
        hint = f"a path of Windows; under WSL it is /mnt/{drive}/{rest}"
    elif os.name != "nt" and "\\" in str(path):
        hint = "folders are separated by / on this machine"
    else:
        hint = _instead(path)
    return printable(f" ({hint})", one_line=True) if hint else ""


def _instead(path: Path) -> str:
    """Similar names in the folder of a file, or the nearest folder that exists"""
    parent = path.parent
    try:
        if not parent.exists():
            there = next((one for one in parent.parents if one.is_dir()), None)
            if there is None:
                return f"there is no folder {parent}"
            missing = parent.relative_to(there).parts[0]
            here = "the working directory" if there == Path() else there
            return f"{here} has no folder {missing!r}"
        if not parent.is_dir():
            return f"{parent} is a file"
        with os.scandir(parent) as entries:
            names = [entry.name for entry in islice(entries, _NAMES)]
    except (OSError, ValueError):
        return ""
    form = unicodedata.normalize("NFC", path.name)
    if same := [name for name in names if unicodedata.normalize("NFC", name) == form]:
        return f"its folder has this name in another Unicode form: {same[0]!a}"
    similar = [name for name in names if name.casefold() == path.name.casefold()]
    similar = similar or get_close_matches(path.name, names, 3, 0.75)
    similar = similar or [name for name in names if Path(name).stem == path.stem][:3]
    if similar:
        return f"its folder has {', '.join(map(repr, similar))}"
    return f"its folder, {parent.absolute()}, has no similar name"
