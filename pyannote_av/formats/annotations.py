"""Strict readers of RTTM, UEM and LAB files: errors name the file and the line.

The reader of pyannote.database gives no line numbers, accepts NaN and negative times, and
treats a file that is missing from an RTTM as silent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.reading import (
    ANNOTATION_LIMIT,
    ANNOTATION_LINES,
    LONGEST,
    ReadError,
    read_lines,
)

logger = logging.getLogger(__name__)

#: types of RTTM lines that are not turns (RTTM format, version 1.3, table 1)
_OTHER_TYPES = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER"}
_OTHER_TYPES |= {"EDIT", "IP", "SU", "CB", "A/P", "SPKR-INFO"}
_SPEECH = {"speech", "sp", "1"}
_NO_SPEECH = {"nonspeech", "non-speech", "nsp", "sil", "silence", "0"}
#: tolerance for rounded times, in seconds
TOLERANCE = 0.01


class Turn(NamedTuple):
    """One line of an RTTM file; `where` is "FILE, line N"."""

    uri: str
    segment: Segment
    speaker: str
    where: str


def _files(path: str | Path, suffix: str) -> list[Path]:
    path = Path(path)
    if not path.is_dir():
        return [path]
    if not (files := sorted(path.glob(f"*{suffix}"))):
        raise FileNotFoundError(f"no {suffix} file in folder {path}")
    return files


def _lines(file: Path, fewest: int) -> Iterator[tuple[str, list[str]]]:
    """Yield ("FILE, line N", fields) for each line that is neither blank nor a comment."""
    for number, line in enumerate(read_lines(file, ANNOTATION_LIMIT, ANNOTATION_LINES), start=1):
        fields = line.split()
        if not fields or fields[0].startswith((";", "#")):
            continue
        where = f"{file}, line {number}"
        if len(fields) < fewest:
            line = line.strip()
            raise ReadError(
                f"{where}: {len(fields)} fields where at least {fewest} are expected: {line!r}"
            )
        yield where, fields


def _segment(where: str, start: str, end: str, lasts: bool = False) -> Segment:
    """Segment from `start` to `end`; if `lasts` is True, `end` is its duration."""
    # Python also accepts digits of other scripts and 1_000 as numbers
    if not (start + end).isascii() or "_" in start + end:
        raise ReadError(f"{where}: {start!r}, {end!r}: times must be numbers")
    try:
        first, last = float(start), float(end)
    except ValueError as error:
        raise ReadError(f"{where}: {start!r}, {end!r}: times must be numbers") from error
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ReadError(f"{where}: {start}, {end}: times must be finite")
    if max(first, last) > LONGEST:
        raise ReadError(f"{where}: {start}, {end}: times of more than {LONGEST:,.0f} s")
    if first < 0:
        raise ReadError(f"{where}: negative start {start}")
    # round, so that 0.1 + 0.2 is exactly 0.3 and adjacent turns share their boundary
    last = round(first + last, 9) if lasts else last
    if last < first:
        raise ReadError(f"{where}: {'negative duration' if lasts else 'end before start'} {end}")
    return Segment(first, last)


def read_turns(path: str | Path) -> dict[str, list[Turn]]:
    """Turns of an RTTM file, or of the ``.rttm`` files of a folder, by uri.

    Raises
    ------
    ValueError
        With file and line, when a line has too few fields, an unknown type, a time that is
        negative, NaN or not a number, or a uri that another file of the folder already has.
    """
    turns: dict[str, list[Turn]] = {}
    owner: dict[str, Path] = {}
    for file in _files(path, ".rttm"):
        empty = True
        for where, fields in _lines(file, 5):
            empty = False
            if fields[0].upper() in _OTHER_TYPES:
                continue
            if fields[0].upper() != "SPEAKER":
                raise ReadError(f"{where}: {fields[0]!r} is no RTTM type")
            if len(fields) < 8:
                raise ReadError(f"{where}: {len(fields)} fields, the 8th names the speaker")
            uri, speaker = fields[1], fields[7]
            if owner.setdefault(uri, file) != file:
                raise ReadError(f"{where}: {uri!r} is in {owner[uri]} already")
            segment = _segment(where, fields[3], fields[4], lasts=True)
            if segment:
                turns.setdefault(uri, []).append(Turn(uri, segment, speaker, where))
            else:
                turns.setdefault(uri, [])
                logger.warning("%s: a turn of no length, left out", where)
        if empty:
            if owner.setdefault(file.stem, file) != file:
                raise ReadError(f"{file}: {file.stem!r} is in {owner[file.stem]} already")
            turns[file.stem] = []
    return turns


def read_rttm(path: str | Path) -> dict[str, Annotation]:
    """Annotations of an RTTM file, or of the ``.rttm`` files of a folder, by uri.

    An empty file gives an empty annotation, whose uri is the name of the file.
    """
    return {uri: _annotation(uri, turns) for uri, turns in read_turns(path).items()}


def _annotation(uri: str, turns: list[Turn]) -> Annotation:
    annotation = Annotation(uri=uri)
    for track, turn in enumerate(turns):
        annotation[turn.segment, track] = turn.speaker
    return annotation


def read_uem(path: str | Path) -> dict[str, Timeline]:
    """Evaluation maps of a UEM file, or of the ``.uem`` files of a folder, by uri.

    Raises
    ------
    ValueError
        With file and line, when a line is malformed or regions overlap.
    """
    stretches: dict[str, list[tuple[Segment, int, str]]] = {}
    owner: dict[str, Path] = {}
    for file in _files(path, ".uem"):
        for number, (where, fields) in enumerate(_lines(file, 4)):
            uri = fields[0]
            if owner.setdefault(uri, file) != file:
                raise ReadError(f"{where}: {uri!r} is in {owner[uri]} already")
            segment = _segment(where, fields[2], fields[3])
            if not segment:
                raise ReadError(f"{where}: a stretch of no length")
            stretches.setdefault(uri, []).append((segment, number, where))
    for uri, some in stretches.items():
        _check_apart(uri, some)
    return {uri: Timeline((one[0] for one in some), uri=uri) for uri, some in stretches.items()}


def _check_apart(uri: str, stretches: list[tuple[Segment, int, str]]) -> None:
    """Raise ReadError if two regions overlap; the error names the later line."""
    clashes, furthest = [], None
    for one in sorted(stretches):
        if furthest is not None and one[0].intersects(furthest[0]):
            clashes.append(max(one, furthest, key=lambda stretch: stretch[1]))
        if furthest is None or one[0].end > furthest[0].end:
            furthest = one
    if clashes:
        where = min(clashes, key=lambda stretch: stretch[1])[2]
        raise ReadError(f"{where}: {uri!r} has this stretch, or part of it, already")


def read_lab(path: str | Path) -> dict[str, Timeline]:
    """Speech regions of a LAB file, or of the ``.lab`` files of a folder, by name of the file.

    Lines read ``START END [speech]``, in seconds. Lines labelled as non-speech are skipped.
    """
    regions = {}
    for file in _files(path, ".lab"):
        speech = []
        for where, fields in _lines(file, 2):
            segment = _segment(where, *fields[:2])
            label = fields[2].lower() if len(fields) > 2 else "speech"
            if label in _SPEECH:
                speech.append(segment)
            elif label not in _NO_SPEECH:
                raise ReadError(f"{where}: {fields[2]!r} is neither speech nor non-speech")
        regions[file.stem] = Timeline(speech, uri=file.stem).support()
    return regions


def read_reference(
    rttm: str | Path, uem: str | Path | None = None
) -> tuple[dict[str, Annotation], dict[str, Timeline] | None]:
    """Reference turns, and the evaluation maps that say which parts of each file are scored.

    Turns in the gaps of a map are accepted, because they are excluded on purpose. Turns before the
    beginning or after the end of a map are errors; otherwise they would be ignored silently.

    Returns
    -------
    references : dict of uri to Annotation
        Files that occur only in `uem` are left out with a warning.
    maps : dict of uri to Timeline, or None without `uem`

    Raises
    ------
    ValueError
        With file and line of the first turn that is outside the map.
    """
    turns = read_turns(rttm)
    if uem is None:
        return {uri: _annotation(uri, some) for uri, some in turns.items()}, None
    maps = read_uem(uem)
    for uri, some in turns.items():
        if uri not in maps:
            where = some[0].where if some else rttm
            raise ReadError(f"{where}: {uem} says nothing of {uri!r}")
        whole = maps[uri].extent()
        for turn in some:
            if (
                turn.segment.start < whole.start - TOLERANCE
                or turn.segment.end > whole.end + TOLERANCE
            ):
                raise ReadError(
                    f"{turn.where}: {turn.speaker} speaks from {turn.segment.start:.3f} to "
                    f"{turn.segment.end:.3f} s, but {uem} has {uri!r} scored from "
                    f"{whole.start:.3f} to {whole.end:.3f} s only; "
                    "extend it, or cut the reference to what is to be scored"
                )
    if others := sorted(maps.keys() - turns.keys()):
        logger.warning("%s names %d files that %s lacks, not scored", uem, len(others), rttm)
    return {uri: _annotation(uri, some) for uri, some in turns.items()}, maps
