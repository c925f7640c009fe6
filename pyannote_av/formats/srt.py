"""SRT: subtitles, with speakers as WhisperX writes them, ``[Ann]: What do you think?``

Without words, a cue reads ``[Ann]``. SRT cannot escape anything: what players take for markup is
written with other brackets (``‹``), and is left out on reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError
from pyannote_av.core.transcript import Cue, Transcript
from pyannote_av.formats.content import Content
from pyannote_av.formats.lines import (
    check_times,
    lines_of,
    one_line,
    parse_timecode,
    timecode,
    written_names,
)

# where players see markup: <i>, </font>, <!--, {\an8}
_OPENING = re.compile(r"<(?=[A-Za-z/!?])|\{(?=\\)")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")
_NAMED = re.compile(r"\[(?P<name>.*?)\]:(?:[ \n]|$)(?P<text>.*)", re.DOTALL)
_BARE = re.compile(r"\[(?P<name>.*)\]", re.DOTALL)
_TIMES = re.compile(r"(\S+)\s+-->\s+(\S+)(?:\s.*)?")


def to_srt(output: Any) -> str:
    """Cues as SRT.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation, Transcript or Content

    Raises
    ------
    ValueError
        When two speakers would get the same name.
    """
    content = Content.of(output)
    cues = content.cues()
    names = written_names((cue.speaker for cue in cues), "SRT", content.uri, _name)
    blocks = []
    for number, cue in enumerate(sorted(cues, key=lambda cue: cue.start), start=1):
        text = _text(cue.text)
        if cue.speaker is not None:
            text = f"[{names[cue.speaker]}]: {text}" if text else f"[{names[cue.speaker]}]"
        end = max(cue.end, cue.start + 0.001)
        span = f"{timecode(cue.start, ',')} --> {timecode(end, ',')}"
        blocks.append(f"{number}\n{span}\n{text}\n")
    return "\n".join(blocks)


def _name(name: str) -> str:
    # the end of a name is "]:", or the end of the cue
    return _OPENING.sub("‹", one_line(name)).replace("]:", ")").replace("-->", "→")


def _text(text: str) -> str:
    # a blank line ends a cue
    lines = (one_line(line) for line in text.splitlines())
    return _OPENING.sub("‹", "\n".join(filter(None, lines))).replace("-->", "→")


def write_srt(output: Any, path: str | Path) -> Path:
    """Write cues to an SRT file; return its path. See :func:`to_srt`."""
    return write_text(path, to_srt(output))


def read_srt(path: str | Path) -> Content:
    """Cues of an SRT file, with speakers where the text begins with ``[NAME]:``.

    If every cue of the file is a name in brackets, the file holds turns without words.

    Raises
    ------
    ReadError
        With file and line, when the text does not consist of cues.
    """
    cues = list(_cues(path))
    uri = Path(path).name.split(".")[0]
    bare = [_BARE.fullmatch(cue.text) for cue in cues]
    if all(bare):
        pairs = zip(cues, bare, strict=True)
        cues = [replace(cue, text="", speaker=found["name"]) for cue, found in pairs]
    return Content.of_cues([with_speaker(cue) for cue in cues], uri)


def read_transcript(path: str | Path) -> Transcript:
    """Cues of an SRT file as a transcript; see :func:`read_srt` for errors."""
    cues = [with_speaker(cue) for cue in _cues(path)]
    return Transcript(cues, Path(path).name.split(".")[0])


def with_speaker(cue: Cue) -> Cue:
    """Move a name at the beginning of the text, ``[NAME]:``, to the speaker."""
    found = _NAMED.fullmatch(cue.text)
    return cue if found is None else replace(cue, speaker=found["name"], text=found["text"].strip())


def _cues(path: str | Path) -> Iterator[Cue]:
    """Yield the cues; their text has no markup"""
    block: list[tuple[str, str]] = []
    for where, line in lines_of(path):
        if line.strip():
            block.append((where, line.strip()))
            continue
        yield from _cue(block)
        block = []
    yield from _cue(block)


def _cue(block: list[tuple[str, str]]) -> Iterator[Cue]:
    if not block:
        return
    numbered = block[0][1].isdecimal() and len(block) > 1
    where, line = block[numbered]
    if (found := _TIMES.fullmatch(line)) is None:
        raise ReadError(
            f"{where}: {line[:40]!r} is not a span such as 00:00:01,500 --> 00:00:02,000"
        )
    start, end = (parse_timecode(where, part) for part in found.groups())
    text = "\n".join(text for _, text in block[numbered + 1 :])
    yield Cue(*check_times(where, start, end), _MARKUP.sub("", text).strip())
