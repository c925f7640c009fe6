"""Text that comes from files: made safe to show, and names that are compared."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# newlines and tabs lay text out; nothing else among control characters does
_KEPT = "\n\t"
# Cc: controls (escape sequences of terminals begin with one); Cs: halves of characters, which no
# encoding writes; Zl, Zp: separators that some programs take for the end of a line
_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}
# marks that turn the direction of what follows, so that a name reads as another
_DIRECTION = {*"\u061c\u200e\u200f", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}


def printable(text: str, one_line: bool = False) -> str:
    r"""Replace control characters by visible escapes, as Python writes them.

    Names of files, speakers and classes come from strangers. Raw, an escape sequence in one can
    rewrite what a terminal shows, and a line feed can forge a line of a table.

    Parameters
    ----------
    text : str
    one_line : bool, optional
        Escape line feeds and tabs, too.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    kept = "" if one_line else _KEPT
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if (unicodedata.category(c) in _INVISIBLE or c in _DIRECTION) and c not in kept
        else c
        for c in text
    )


def field_name(name: object) -> str:
    """Name as a field of RTTM and UEM files, whose names hold no white space: it becomes ``_``.

    >>> field_name("my interview")
    'my_interview'
    """
    # names of files may hold bytes that are no text
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"\s+", "_", text) or "<NA>"


def same_name(name: str) -> str:
    """Form of a name that all its spellings share.

    Accented characters are stored in two ways: as one character (NFC; most programs) or as a letter
    with a combining mark (NFD; file names on macOS). White space becomes ``_``, as in RTTM files.

    >>> same_name("Rene\u0301 1") == same_name("Ren\xe9_1")
    True
    """
    return field_name(unicodedata.normalize("NFC", name.strip("\ufeff \t\r\n")))


def name_on_any_disk(name: str) -> str:
    """Form that names share if some disk takes them for one: disks may ignore case and NFC or NFD.

    >>> name_on_any_disk("Talk") == name_on_any_disk("talk")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def match_names(names: Collection[str], found: Mapping[str, T], where: object) -> dict[str, T]:
    """Rename entries of `found` that are in `names` in another spelling; see :func:`same_name`.

    A warning names them. Exact matches go first, and names that two entries could stand for stay
    as they are.

    Parameters
    ----------
    names : collection of str
    found : mapping of str to Any
    where : object
        Origin of `found`, for the warning.
    """
    missing: dict[str, str | None] = {}
    for name in names:
        if name not in found:
            key = same_name(name)
            missing[key] = None if key in missing else name
    if not missing:
        return dict(found)
    known, renamed = set(names), {}
    others: dict[str, list[str]] = {}
    for name in found:
        if name not in known:
            others.setdefault(same_name(name), []).append(name)
    for key, name in missing.items():
        if name is not None and len(others.get(key, ())) == 1:
            renamed[others[key][0]] = name
    for spelled, name in renamed.items():
        logger.warning(
            "%s: %s is treated as %s, which is spelled differently (Unicode form or white space)",
            printable(str(where), one_line=True),
            ascii(spelled),
            ascii(name),
        )
    return {renamed.get(name, name): value for name, value in found.items()}
