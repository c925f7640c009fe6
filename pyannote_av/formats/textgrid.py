"""TextGrid: one interval tier per speaker, for Praat.

Intervals hold the text that is said or, without words, the name of the speaker. Both forms of the
format are read, long and short (https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyannote_av.core.atomic import write_text
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import ANNOTATION_LIMIT, ReadError, decimal, read_text
from pyannote_av.core.transcript import Cue
from pyannote_av.formats.content import UNKNOWN, Content, by_speaker
from pyannote_av.formats.lines import check_times

# Praat reads strings in quotes, <flags>, and numbers between spaces; all other text is decoration
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(<[^\s<>]+>|[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?=\s|$)|"')
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


def to_textgrid(output: Any) -> str:
    """Cues as a TextGrid in the long form, from 0 to the end of the file.

    Turns of one speaker that overlap are united; see
    :func:`~pyannote_av.formats.content.by_speaker`.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript or Content
    """
    content = Content.of(output)
    tiers = by_speaker(content.cues())
    ends = [round(content.duration, 3), *(tier[-1].end for tier in tiers.values())]
    end = max(*ends, 0.001)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {end}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (speaker, cues) in enumerate(tiers.items(), start=1):
        intervals = list(_filled(speaker, cues, end))
        lines += [f"    item [{number}]:", f'        class = "{_INTERVALS}"']
        lines += [f"        name = {_quoted(speaker)}", "        xmin = 0", f"        xmax = {end}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for index, (start, stop, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start}"]
            lines += [f"            xmax = {stop}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def _filled(speaker: str, cues: list[Cue], end: float) -> Iterator[tuple[float, float, str]]:
    """Intervals of a tier without gaps; pauses have no text"""
    done = 0.0
    for cue in cues:
        if cue.start > done:
            yield done, cue.start, ""
        # speech without text is told from a pause by the name
        yield cue.start, cue.end, cue.text.strip() or speaker or UNKNOWN
        done = cue.end
    if done < end:
        yield done, end, ""


def _quoted(text: str) -> str:
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return '"' + text.replace("\0", "").replace('"', '""') + '"'


def write_textgrid(output: Any, path: str | Path) -> Path:
    """Write cues to a TextGrid file; return its path. See :func:`to_textgrid`."""
    return write_text(path, to_textgrid(output))


def read_textgrid(path: str | Path) -> Content:
    """Turns of a TextGrid file: all intervals with text, each tier being one speaker.

    Tiers of points are left out.

    Raises
    ------
    ReadError
        With file and line, when the text is not a TextGrid.
    """
    if not Path(path).exists():
        raise FileNotFoundError(no_such_file(path))
    # Praat writes UTF-16 without being asked
    tokens = _Tokens(path, read_text(path, ANNOTATION_LIMIT).removeprefix("\ufeff"))
    if [tokens.text(), tokens.text()] != ["ooTextFile", "TextGrid"]:
        raise ReadError(f"{tokens.where}: not a TextGrid as text (Praat: Save as text file)")
    tokens.number(), tokens.number()
    cues = []
    if tokens.flag():
        for _ in range(tokens.count()):
            cues += _tier(tokens)
    return Content.of_cues(cues, Path(path).name.split(".")[0])


def _tier(tokens: _Tokens) -> Iterator[Cue]:
    kind, name = tokens.text(), tokens.text()
    if kind not in (_INTERVALS, _POINTS):
        raise ReadError(f"{tokens.where}: {kind!r} is not a class of tiers")
    tokens.number(), tokens.number()
    for _ in range(tokens.count()):
        start = tokens.number()
        end = start if kind == _POINTS else tokens.number()
        where, text = tokens.where, tokens.text()
        if kind == _INTERVALS and text.strip():
            text = "" if text == (name or UNKNOWN) else text
            yield Cue(*check_times(where, start, end), text, None if name == UNKNOWN else name)


class _Token(NamedTuple):
    text: str
    quoted: bool
    position: int


class _Tokens:
    """Strings, numbers and flags of a text, one after the other"""

    def __init__(self, path: str | Path, content: str):
        self._path, self._content = path, content
        self._next = self._all()
        self._position, self._line = 0, 1

    def _all(self) -> Iterator[_Token]:
        for found in _TOKEN.finditer(self._content):
            if found[0] == '"':
                self._move(found.start())
                raise ReadError(f"{self.where}: a quotation mark without its other half")
            quoted = found[1] is not None
            text = found[1].replace('""', '"') if quoted else found[2]
            yield _Token(text, quoted, found.start())

    def _move(self, position: int) -> None:
        self._line += self._content.count("\n", self._position, position)
        self._position = position

    @property
    def where(self) -> str:
        """File and line of the last token."""
        return f"{self._path}, line {self._line}"

    def _take(self, what: str) -> _Token:
        token = next(self._next, None)
        if token is None:
            raise ReadError(f"{self._path} ends where {what} is expected: it is truncated")
        self._move(token.position)
        return token

    def text(self) -> str:
        token = self._take("a text")
        if not token.quoted:
            raise ReadError(f"{self.where}: {token.text} where a text in quotes is expected")
        return token.text

    def number(self) -> float:
        token = self._take("a number")
        try:
            if token.quoted:
                raise ValueError
            return decimal(token.text)
        except ValueError:
            raise ReadError(f"{self.where}: {token.text!r} where a number is expected") from None

    def count(self) -> int:
        value = self.number()
        if value < 0 or value != int(value):
            raise ReadError(f"{self.where}: {value} is not a number of tiers or intervals")
        return int(value)

    def flag(self) -> bool:
        return self._take("<exists>").text == "<exists>"
