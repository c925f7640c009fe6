"""CTM: one line per word, with confidence and speaker (NIST).

``FILE CHANNEL START DURATION WORD CONFIDENCE TYPE SPEAKER``, in seconds. The last three fields may
be missing. Lines that begin with ``;;`` are comments. Words of nobody have the speaker ``null``.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError, decimal
from pyannote_av.core.text import field_name
from pyannote_av.core.transcript import Cue, Word
from pyannote_av.formats.content import Content
from pyannote_av.formats.lines import lines_of, times, written_names

_NOBODY, _WORD = "null", "lex"
# pause, in seconds, at which the reader begins a new cue
_PAUSE = 1.0


def to_ctm(output: Any) -> str:
    """Words as CTM lines, sorted by start.

    Parameters
    ----------
    output : AVDiarizeOutput, Transcript or Content

    Raises
    ------
    ValueError
        Without a transcript, or when two speakers would get the same name: names hold no white
        space in CTM.
    """
    content = Content.of(output)
    if content.transcript is None:
        raise ValueError("CTM holds words: add a transcript (--transcript, assign_speakers)")
    words, uri = content.transcript.words, field_name(content.uri or "<NA>")
    names = written_names((word.speaker for word in words), "CTM", content.uri, field_name)
    return "".join(
        f"{uri} 1 {word.start:.3f} {max(word.end - word.start, 0):.3f} {field_name(word.text)} "
        f"{'NA' if word.confidence is None else f'{word.confidence:.4f}'} {_WORD} "
        f"{names.get(word.speaker, _NOBODY)}\n"
        for word in sorted(words, key=lambda word: word.start)
    )


def write_ctm(output: Any, path: str | Path) -> Path:
    """Write words to a CTM file; return its path. See :func:`to_ctm`."""
    return write_text(path, to_ctm(output))


def read_ctm(path: str | Path) -> dict[str | None, Content]:
    """Words of a CTM file, by uri. A new cue begins after a pause, and where the speaker changes.

    Raises
    ------
    ReadError
        With file and line, when a line is malformed.
    """
    words: dict[str | None, list[Word]] = {}
    for where, line in lines_of(path, comment=";;"):
        fields = line.split()
        if not 5 <= len(fields) <= 8:
            raise ReadError(f"{where}: {len(fields)} fields where 5 to 8 are expected")
        start, end = times(where, fields[2], fields[3], lasts=True)
        confidence, speaker = None, None
        if len(fields) > 5 and fields[5].upper() not in ("NA", "<NA>", "-"):
            try:
                confidence = decimal(fields[5])
            except ValueError as error:
                raise ReadError(f"{where}: confidence: {error}") from error
        if len(fields) > 7 and fields[7] not in (_NOBODY, "<NA>", "unknown"):
            speaker = fields[7]
        word = Word(fields[4], start, end, speaker, confidence)
        words.setdefault(fields[0], []).append(word)
    return {uri: Content.of_cues(_cues(some), uri) for uri, some in words.items()}


def _cues(words: list[Word]) -> list[Cue]:
    words = sorted(words, key=lambda word: word.start)
    number, end, numbers = 0, 0.0, []
    for word in words:
        number += word.start > end + _PAUSE
        end = max(end, word.end)
        numbers.append(number)
    groups = groupby(zip(words, numbers, strict=True), lambda one: (one[0].speaker, one[1]))
    return [Cue.of_words(tuple(word for word, _ in some), speaker) for (speaker, _), some in groups]
