"""Files of a corpus as read by its recipe, and their prepared form on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import LONGEST, ReadError, read_text
from pyannote_av.core.text import match_names
from pyannote_av.formats.annotations import TOLERANCE, Turn, read_lab, read_turns

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks
    from recipes.media import Media

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracks:
    """Face tracks provided by a corpus.

    Attributes
    ----------
    read : callable
        Returns the tracks. Must be picklable.
    sources : tuple of Path
        Files that the tracks are read from.
    key : str
        Identifies the tracks, apart from the content of `sources`.
    """

    read: Callable[[], FaceTracks]
    sources: tuple[Path, ...]
    key: str = ""


@dataclass(frozen=True)
class File:
    """One file of a corpus.

    Attributes
    ----------
    uri : str
    list : str
        Name of the list that contains the file.
    annotation : Annotation
        Reference. All times are on the clock of the media.
    annotated : Timeline
        Scored regions.
    lab : Timeline, optional
        Speech regions. Defaults to the turns of `annotation`.
    media : mapping of str to Media
        Media by prepared folder: ``video``, and optionally ``audio``.
    tracks : Tracks, optional
    maps : mapping of str to Timeline
        Further evaluation maps, by column.
    texts : mapping of str to str
        Content of further small files, by path.
    problems : tuple of str
        Irregularities of the file, as sentences.
    """

    uri: str
    list: str
    annotation: Annotation
    annotated: Timeline
    lab: Timeline | None = None
    media: Mapping[str, Media] = field(default_factory=dict)
    tracks: Tracks | None = None
    maps: Mapping[str, Timeline] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@contextmanager
def located(path: Path, number: int) -> Iterator[None]:
    """Add file and line to errors of the enclosed block, which reads one line."""
    try:
        yield
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ReadError(f"{path}, line {number}: {error}") from error


def turns_of(path: Path, uri: str) -> list[Turn]:
    """Read the turns of one file from its own RTTM file.

    Raises
    ------
    ValueError
        If a line is malformed or belongs to another file. The message names file and line.
    """
    found = match_names([uri], read_turns(path), path)
    for other, turns in found.items():
        if other != uri:
            where = turns[0].where if turns else path
            raise ValueError(f"{where}: {other!r} where {uri!r} is expected")
    return found[uri]


def speech_of(path: Path) -> Timeline:
    """Read the speech regions of one LAB file."""
    return next(iter(read_lab(path).values()))


def box_tracks(
    path: Path,
    uri: str,
    rows: Iterable[tuple[str, int, str, Sequence[float]]],
    frame_rate: float,
    frame_size: tuple[int, int],
) -> FaceTracks:
    """Build face tracks from boxes in pixels, with one track per person, named after the person.

    Parameters
    ----------
    path : Path
        Path for error messages.
    uri : str
    rows : iterable of (where, frame, person, box)
        `where` is a position such as "line 3". Boxes are x1, y1, x2, y2. Empty boxes are skipped.
    frame_rate : float
        Frame k has time k / frame_rate seconds.
    frame_size : (int, int)
        Width and height of the video in pixels.

    Raises
    ------
    ValueError
        If a box is not finite, a frame is out of range, or a face is listed twice in a frame. The
        message names file and position.
    """
    import numpy as np

    from pyannote_av.core.tracks import FaceTracks

    rows_of: dict[tuple[int, str], str] = {}
    numbers: dict[str, int] = {}
    time, track, boxes, empty = [], [], [], 0
    for where, frame, person, box in rows:
        if not 0 <= frame <= LONGEST * frame_rate or not all(map(math.isfinite, box)):
            raise ValueError(f"{path}, {where}: frame {frame}, box {list(box)}")
        if (frame, person) in rows_of:
            before = rows_of[frame, person]
            raise ValueError(f"{path}, {where}: face {person!r} is already in {before}")
        rows_of[frame, person] = where
        if box[2] <= box[0] or box[3] <= box[1]:
            empty += 1
            continue
        time.append(frame / frame_rate)
        track.append(numbers.setdefault(person, len(numbers)))
        boxes.append(box)
    if empty:
        logger.warning("%s: %d empty boxes left out", path, empty)
    if not time:
        return FaceTracks.empty(uri=uri, frame_size=frame_size)
    speaker = {place: person for person, place in numbers.items()}
    box = np.array(boxes, float) / np.tile(frame_size, 2)
    try:
        return FaceTracks(
            np.array(time), np.array(track), box, speaker=speaker, uri=uri, frame_size=frame_size
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def whole(uri: str, turns: Iterable[Turn], *media: Path) -> tuple[Timeline, tuple[str, ...]]:
    """Timeline from 0 to the end of the first existing file in `media`, or to the last turn."""
    from pyannote_av.core.io import Video

    found = next((path for path in media if path.is_file()), None)
    last = max((turn.segment.end for turn in turns), default=0.0)
    if found is None:
        if not last:
            raise ValueError(f"file {uri!r} has neither media nor turns")
        note = f"file {uri!r}: there are no media, so it is scored up to its last turn"
        return Timeline([Segment(0, last)], uri=uri), (note,)
    return Timeline([Segment(0, round(Video().get_duration(found), 3))], uri=uri), ()


def place(
    uri: str, turns: Iterable[Turn], within: Timeline, offset: float = 0.0, cut: bool = False
) -> tuple[Annotation, tuple[str, ...]]:
    """Move turns to the clock of the media, and check that they are inside the scored region.

    Parameters
    ----------
    uri : str
    turns : iterable of Turn
    within : Timeline
        Scored region, on the clock of the media.
    offset : float, optional
        Start of the media on the clock of the turns, in seconds.
    cut : bool, optional
        Cut turns that extend beyond the scored region, and report them. By default, they raise an
        error.

    Raises
    ------
    ValueError
        If a turn extends beyond the scored region and `cut` is False. The message names file and
        line.
    """
    whole, annotation, problems = within.extent(), Annotation(uri=uri), []
    for track, turn in enumerate(turns):
        start, end = round(turn.segment.start - offset, 6), round(turn.segment.end - offset, 6)
        beyond = max(whole.start - start, end - whole.end)
        if beyond > TOLERANCE:
            what = (
                f"{turn.where}: {turn.speaker} speaks from {start + offset:.3f} to "
                f"{end + offset:.3f} s, the scored region of {uri!r} is from "
                f"{whole.start + offset:.3f} to {whole.end + offset:.3f} s"
            )
            if not cut:
                raise ValueError(f"{what}: the evaluation map does not cover the reference")
            problems.append(f"{what}: cut")
        if inside := Segment(start, end) & whole:
            annotation[inside, track] = turn.speaker
    return annotation, tuple(problems)


def shifted(timeline: Timeline, offset: float, within: Segment) -> Timeline:
    """Shift `timeline` to a clock that starts `offset` seconds later, and crop it to `within`."""
    moved = (Segment(round(s.start - offset, 6), round(s.end - offset, 6)) for s in timeline)
    return Timeline([s & within for s in moved if s & within], uri=timeline.uri)


def number(seconds: float) -> str:
    """Format seconds to the microsecond. The usual three decimals of RTTM would move turns."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def rttm(uri: str, annotation: Annotation) -> str:
    """Lines of an RTTM file."""
    for label in annotation.labels():
        if not str(label) or any(c.isspace() for c in str(label)):
            raise ValueError(f"file {uri!r}: speaker {label!r} does not fit into an RTTM file")
    return "".join(
        f"SPEAKER {uri} 1 {number(segment.start)} {number(segment.end - segment.start)} "
        f"<NA> <NA> {label} <NA> <NA>\n"
        for segment, _, label in annotation.itertracks(yield_label=True)
    )


def uem(uri: str, timeline: Timeline) -> str:
    """Lines of a UEM file."""
    return "".join(f"{uri} 1 {number(s.start)} {number(s.end)}\n" for s in timeline)


def lab(timeline: Timeline) -> str:
    """Lines of a LAB file."""
    return "".join(f"{number(s.start)} {number(s.end)} speech\n" for s in timeline)


def update(path: Path, text: str) -> None:
    """Write a text file unless it already has this content."""
    if not path.is_file() or path.stat().st_size > len(text.encode()) or read_text(path) != text:
        write_text(path, text)


def digest(*parts: object) -> str:
    """Short digest of the given values."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
