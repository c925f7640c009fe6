"""Labels of a protocol's files: who speaks when, and which face track belongs to whom.

Times are on two grids. Frames, sound and chunks are counted in frames of 40 ms: frame `k` lasts
from k / 25 s to (k + 1) / 25 s. Speech is counted in steps of 10 ms, four per frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyannote.core import Annotation, Timeline

from pyannote_av.core.atomic import replacing
from pyannote_av.core.grid import FRAME_RATE, SAMPLES_PER_FRAME, STEP_RATE, STEPS
from pyannote_av.core.reading import LONGEST, ReadError, check_array, read_npz, whole
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore

logger = logging.getLogger(__name__)

#: labels of frames and steps
SPEAKING, SILENT, UNKNOWN = 1, 0, -1

#: tolerance for floating point errors, in steps and frames
_TOLERANCE = 1e-4


class LabelledFile(NamedTuple):
    """Labels of one file of a protocol.

    Attributes
    ----------
    uri : str
    persons : list of str
        Names. Speakers come first.
    num_speakers : int
        Number of persons who speak.
    turns : (n, 3) int array
        Index of the person who speaks, first step, and one past the last step.
    regions : (r, 2) int array
        Annotated regions: first frame, and one past the last frame.
    faces : (m, 4) int array
        Index of the person whose face it is, track, first frame, and one past the last frame.
    """

    uri: str
    persons: list[str]
    num_speakers: int
    turns: np.ndarray
    regions: np.ndarray
    faces: np.ndarray

    def activity(self, start: int, stop: int) -> np.ndarray:
        """Who speaks in frames `start` to `stop` (exclusive): (4 (stop - start), speakers) bool."""
        return activity_of(self.turns, self.num_speakers, start, stop)

    def annotated(self, start: int, stop: int) -> np.ndarray:
        """Which frames from `start` to `stop` (exclusive) are annotated: (stop - start,) bool."""
        inside = np.zeros(stop - start, bool)
        for first, last in self.regions.tolist():
            inside[max(0, first - start) : max(0, last - start)] = True
        return inside


def steps_of(annotation: Annotation, labels: list[str]) -> np.ndarray:
    """Turns in steps of 10 ms: a step belongs to a turn if its middle does.

    This rounds onsets and offsets to the nearest 10 ms.

    Parameters
    ----------
    annotation : Annotation
    labels : list of str

    Returns
    -------
    turns : (n, 3) int array
        Index of the label, first step, and one past the last step. Sorted by label and time. The
        turns of one label do not overlap.
    """
    rows = []
    for number, label in enumerate(labels):
        for turn in annotation.label_timeline(label).support():
            first, last = (
                int(np.ceil(time * STEP_RATE - 0.5 - _TOLERANCE)) for time in (turn.start, turn.end)
            )
            if last > max(first, 0):
                rows.append((number, max(first, 0), last))
    return np.array(rows, np.int64).reshape(-1, 3)


def activity_of(turns: np.ndarray, num_speakers: int, start: int, stop: int) -> np.ndarray:
    """Who speaks in frames `start` to `stop` (exclusive).

    Parameters
    ----------
    turns : (n, 3) int array
        See :func:`steps_of`.
    num_speakers, start, stop : int

    Returns
    -------
    activity : (4 (stop - start), num_speakers) bool array
    """
    activity = np.zeros((STEPS * (stop - start), num_speakers), bool)
    origin, end = STEPS * start, STEPS * stop
    near = turns[(turns[:, 1] < end) & (turns[:, 2] > origin)]
    for speaker, first, last in near.tolist():
        activity[max(0, first - origin) : last - origin, speaker] = True
    return activity


def _regions(annotated: Timeline | None, num_frames: int) -> np.ndarray:
    """Annotated regions in whole frames, within the length of the sound"""
    if annotated is None:
        return np.array([[0, num_frames]], np.int64)
    rows = []
    for segment in annotated.support():
        first = int(np.ceil(max(segment.start, 0.0) * FRAME_RATE - _TOLERANCE))
        last = int(min(segment.end * FRAME_RATE + _TOLERANCE, num_frames))
        if last > first:
            rows.append((first, last))
    return np.array(rows, np.int64).reshape(-1, 2)


def face_tracks(file: Mapping[str, Any]) -> FaceTracks:
    """Face tracks of a protocol's file, whose ``face_tracks`` are FaceTracks or a path.

    Raises
    ------
    ValueError
        If it has no face tracks.
    """
    tracks = file.get("face_tracks")
    if isinstance(tracks, (str, Path)):
        tracks = FaceTracks.read(tracks, uri=file["uri"])
    if not isinstance(tracks, FaceTracks):
        raise ValueError(
            f"file {file['uri']!r} has no face_tracks: give the protocol a column or a "
            "preprocessor of that name (FaceTracks, or the path of a file of them)"
        )
    return tracks


def recording(file: Mapping[str, Any], store: CropStore) -> LabelledFile:
    """Labels of one file, read from the protocol.

    Tracks without a speaker name are ignored: it is unknown who they show, and so whether that
    person speaks. Persons whose name is not in the annotation never speak.

    Parameters
    ----------
    file : mapping
        With ``annotation``, and optionally ``annotated`` and ``face_tracks``.
    store : CropStore
        Provides the length of the file and the position of its tracks.

    Raises
    ------
    ValueError
        If the file has no annotation.
    """
    uri = str(file["uri"])
    annotation = file.get("annotation")
    if annotation is None:
        raise ValueError(f"file {uri!r} has no annotation")
    shard = store[uri]
    speakers = sorted(map(str, annotation.labels()))
    named = {str(label): label for label in annotation.labels()}
    turns = steps_of(annotation, [named[name] for name in speakers])
    names: dict[int, str] = {}
    if file.get("face_tracks") is not None:
        names = face_tracks(file).speaker
        if names and not set(names.values()) & set(speakers):
            logger.warning(
                "file %r: no face track has the name of a speaker of its annotation", uri
            )
    tracks = shard.tracks
    silent = sorted({name for track, name in names.items() if track in tracks} - set(speakers))
    persons = {name: number for number, name in enumerate([*speakers, *silent])}
    faces = sorted(
        (persons[name], track, *tracks[track]) for track, name in names.items() if track in tracks
    )
    return LabelledFile(
        uri=uri,
        persons=list(persons),
        num_speakers=len(speakers),
        turns=turns,
        regions=_regions(file.get("annotated"), shard.index["samples"] // SAMPLES_PER_FRAME),
        faces=np.array(faces, np.int64).reshape(-1, 4),
    )


# number of columns of each table
_TABLES = {"turns": 3, "regions": 2, "faces": 4}


def save_recordings(
    path: Path, protocol: str, subsets: Mapping[str, Iterable[LabelledFile]]
) -> None:
    """Write the recordings of each subset of a protocol. The file is written atomically."""
    content = {"protocol": np.array(protocol)}
    for subset, recordings in subsets.items():
        recordings = list(recordings)
        content[f"{subset}/uris"] = np.array([r.uri for r in recordings], np.str_)
        content[f"{subset}/speakers"] = np.array([r.num_speakers for r in recordings], np.int64)
        content[f"{subset}/persons"] = np.array([n for r in recordings for n in r.persons], np.str_)
        counts = [[len(r.persons), *(len(getattr(r, t)) for t in _TABLES)] for r in recordings]
        content[f"{subset}/counts"] = np.array(counts, np.int64).reshape(-1, 1 + len(_TABLES))
        for table in _TABLES:
            rows = [getattr(r, table) for r in recordings]
            content[f"{subset}/{table}"] = np.concatenate(rows)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **content)


def load_recordings(path: Path) -> tuple[str, dict[str, list[LabelledFile]]]:
    """Name of the protocol, and its recordings by subset.

    Raises
    ------
    ValueError
        If the file does not hold recordings.
    """
    try:
        content = read_npz(path)
        subsets = {
            name.removesuffix("/uris"): _load_subset(content, name.removesuffix("/uris"))
            for name in content
            if name.endswith("/uris")
        }
        return str(content["protocol"]), subsets
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ReadError(f"{path} holds no recordings ({error}): delete it") from error


def _load_subset(content: Mapping[str, np.ndarray], subset: str) -> list[LabelledFile]:
    """Recordings of a subset; raises ValueError for inconsistent content"""

    def column(name: str, kind: str, *shape: int | None) -> np.ndarray:
        return check_array(content[f"{subset}/{name}"], kind, shape, f"{subset}/{name}")

    uris, persons = column("uris", "U", None), column("persons", "U", None)
    speakers = column("speakers", "i", len(uris))
    tables = [column(name, "i", None, width) for name, width in _TABLES.items()]
    counts = column("counts", "i", len(uris), 1 + len(tables))
    parts = [persons, *tables]
    if (counts < 0).any() or counts.sum(axis=0).tolist() != [len(part) for part in parts]:
        raise ValueError(f"{subset}/counts differ from its tables")
    ends = np.cumsum(counts, axis=0)[:-1]
    names, *split = (np.split(part, ends[:, i]) for i, part in enumerate(parts))
    names = [some.tolist() for some in names]
    columns = zip(uris.tolist(), names, speakers.tolist(), *split, strict=True)
    found = [LabelledFile(*values) for values in columns]
    latest = int(LONGEST * STEP_RATE)
    for one in found:
        whole(one.num_speakers, 0, len(one.persons), f"number of speakers of {one.uri!r}")
        for table, number in ((one.turns, one.num_speakers), (one.faces, len(one.persons))):
            if len(table) and not 0 <= table[:, 0].min() <= table[:, 0].max() < number:
                raise ValueError(f"{one.uri!r} names persons that do not exist")
        for times in (one.turns[:, 1:], one.regions, one.faces[:, 2:]):
            if (np.abs(times) > latest).any():
                raise ValueError(f"{one.uri!r} has times beyond {LONGEST:,.0f} s")
    return found
