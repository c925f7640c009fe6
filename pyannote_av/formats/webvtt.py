"""WebVTT: subtitles of the web, with voices, ``<v Ann>What do you think?</v>``.

Without words, the text of a cue is the name (https://www.w3.org/TR/webvtt1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError
from pyannote_av.core.transcript import Cue
from pyannote_av.formats.content import Content
from pyannote_av.formats.lines import (
    check_times,
    lines_of,
    one_line,
    parse_timecode,
    timecode,
    written_names,
)

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?(?:[ \t\n]+(?P<name>[^>]*))?>", re.IGNORECASE)
_MARKUP = re.compile(r"<[^<>]*>")
_TIMES = re.compile(r"(\S+)[ \t]+-->[ \t]+(\S+)(?:[ \t].*)?")


def to_webvtt(output: Any) -> str:
    """Cues as WebVTT, each with one voice.

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
    names = written_names((cue.speaker for cue in cues), "WebVTT", content.uri)
    blocks = ["WEBVTT\n"]
    for cue in sorted(cues, key=lambda cue: cue.start):
        text = "\n".join(filter(None, map(one_line, cue.text.splitlines())))
        if cue.speaker is not None:
            name = names[cue.speaker]
            # a voice without a name is not valid
            text = f"<v {_escaped(name) or '&nbsp;'}>{_escaped(text or name)}</v>"
        else:
            text = _escaped(text)
        end = max(cue.end, cue.start + 0.001)
        blocks.append(f"{timecode(cue.start, '.')} --> {timecode(end, '.')}\n{text}\n")
    return "\n".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_webvtt(output: Any, path: str | Path) -> Path:
    """Write cues to a WebVTT file; return its path. See :func:`to_webvtt`."""
    return write_text(path, to_webvtt(output))


def read_webvtt(path: str | Path) -> Content:
    """Cues of a WebVTT file, with the voices as speakers.

    A cue of several voices becomes several cues of the same time. Settings, styles, regions and
    other markup are left out.

    Raises
    ------
    ReadError
        With file and line, when the header is missing or the text does not consist of cues.
    """
    cues = [one for cue in _cues(path) for one in _voices(*cue)]
    return Content.of_cues(cues, Path(path).name.split(".")[0])


def _cues(path: str | Path) -> Iterator[tuple[float, float, str]]:
    """Yield start, end and text with markup"""
    block: list[tuple[str, str]] = []
    lines = lines_of(path)
    where, line = next(lines, (f"{path}, line 1", ""))
    if not re.fullmatch(r"WEBVTT(?:[ \t].*)?", line):
        raise ReadError(f"{where}: WebVTT files begin with WEBVTT, not {line[:40]!r}")
    # the rest of the header ends at the first blank line
    header = True
    for where, line in lines:
        if line.strip():
            header = header and "-->" not in line
            if not header:
                block.append((where, line.strip()))
            continue
        header = False
        yield from _cue(block)
        block = []
    yield from _cue(block)


def _cue(block: list[tuple[str, str]]) -> Iterator[tuple[float, float, str]]:
    if not block or block[0][1].split()[0] in ("NOTE", "STYLE", "REGION"):
        return
    # an identifier may stand before the times
    first = next((i for i, (_, line) in enumerate(block[:2]) if "-->" in line), None)
    if first is None:
        where, line = block[0]
        raise ReadError(f"{where}: {line[:40]!r} is not a cue, which needs a line with -->")
    where, line = block[first]
    if (found := _TIMES.fullmatch(line)) is None:
        raise ReadError(f"{where}: {line!r} is not a span such as 00:01.500 --> 00:02.000")
    start, end = (parse_timecode(where, part) for part in found.groups())
    yield (*check_times(where, start, end), "\n".join(text for _, text in block[first + 1 :]))


def _voices(start: float, end: float, text: str) -> Iterator[Cue]:
    # text before the first voice, then name and text of each voice
    parts = _VOICE.split(text)
    pairs = [(None, parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    voices = [
        (None if name is None else _plain(name), _plain(_MARKUP.sub("", said)))
        for name, said in pairs
    ]
    # a cue without text is kept, once
    kept = [one for one in voices if one[1] or one[0] is not None] or voices[:1]
    for name, said in kept:
        yield Cue(start, end, said, name)


def _plain(text: str) -> str:
    return unescape(text).strip()
