"""Text that comes from files, made safe to show."""

from __future__ import annotations

import unicodedata

# newlines and tabs lay text out; nothing else among control characters does
_KEPT = "\n\t"
# Cc: controls (escape sequences of terminals begin with one); Cs: halves of characters, which no
# encoding writes; Zl, Zp: separators that some programs take for the end of a line
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
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
        if (unicodedata.category(c) in _UNSEEN or c in _DIRECTION) and c not in kept
        else c
        for c in text
    )
