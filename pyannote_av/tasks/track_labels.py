"""Speaking labels of the face tracks of a protocol's files, on the 25 Hz grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyannote.core import Annotation, Timeline

from pyannote_av.core.reading import LONGEST, ReadError, check_array, read_npz
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, Label
from pyannote_av.tasks.recordings import SILENT, SPEAKING, UNKNOWN, face_tracks
from pyannote_av.vision.crops import on_grid

logger = logging.getLogger(__name__)

#: number of absent frames that split a track in two (1 s, as for crops)
_ABSENCE = 25

RUN = np.dtype(
    [("file", "i4"), ("track", "i8"), ("start", "i8"), ("length", "i8"), ("offset", "i8")]
)


class Runs(NamedTuple):
    """Tracks of several files, split where a face is absent for a second or more.

    Attributes
    ----------
    uris : list of str
    table : (R,) array of RUN
        Index of the file, track, first frame on the grid, number of frames, and index of its first
        label in `labels`. Sorted by file.
    labels : (n,) int8 array
        1 speaking, 0 not, -1 unknown.
    """

    uris: list[str]
    table: np.ndarray
    labels: np.ndarray

    def of(self, row: np.void, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Labels of a run, or of some of its frames."""
        stop = int(row["length"]) if stop is None else stop
        return self.labels[row["offset"] + start : row["offset"] + stop]

    def in_file(self, file: int) -> np.ndarray:
        """Rows of the table that belong to one file."""
        first, last = np.searchsorted(self.table["file"], [file, file + 1])
        return self.table[first:last]


def save_runs(path: Path, protocol: str, subsets: Mapping[str, Runs]) -> None:
    """Write the runs of each subset of a protocol. The file is written atomically."""
    content = {"protocol": np.array(protocol)}
    for subset, (uris, table, labels) in subsets.items():
        content[f"{subset}-uris"] = np.array(uris, np.str_)
        content[f"{subset}-table"], content[f"{subset}-labels"] = table, labels
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_runs(path: Path) -> tuple[str, dict[str, Runs]]:
    """Name of the protocol, and runs by subset.

    Raises
    ------
    ValueError
        If the file does not hold runs.
    """
    try:
        content = read_npz(path)
        subsets = {
            name.removesuffix("-uris"): _load_subset(content, name.removesuffix("-uris"))
            for name in content
            if name.endswith("-uris")
        }
        return str(content["protocol"]), subsets
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ReadError(f"{path} holds no labels of tracks ({error}): delete it") from error


def _load_subset(content: Mapping[str, np.ndarray], subset: str) -> Runs:
    """Runs of a subset; raises ValueError for inconsistent content"""
    uris = check_array(content[f"{subset}-uris"], "U", (None,), f"{subset}-uris")
    labels = check_array(content[f"{subset}-labels"], "i", (None,), f"{subset}-labels")
    table = check_array(content[f"{subset}-table"], "V", (None,), f"{subset}-table").astype(RUN)
    latest = int(LONGEST * FRAME_RATE)
    wrong = (table["file"] < 0) | (table["file"] >= len(uris))
    wrong |= (np.abs(table["start"]) > latest) | (table["length"] < 1)
    wrong |= (table["offset"] < 0) | (table["length"] > len(labels) - table["offset"])
    if wrong.any():
        raise ValueError(f"{subset}-table: row {int(wrong.argmax())} has no labels")
    return Runs(uris.tolist(), table, labels)


def speaking_labels(
    tracks: FaceTracks,
    annotation: Annotation | None = None,
    annotated: Timeline | None = None,
) -> np.ndarray:
    """Label whether each face is audibly speaking.

    If `tracks` are labelled (AVA-ActiveSpeaker), these labels are used; SPEAKING_NOT_AUDIBLE counts
    as not speaking, as published. Otherwise, a face speaks when the speaker of its track speaks in
    `annotation`.

    Parameters
    ----------
    tracks : FaceTracks
    annotation : Annotation, optional
        Who speaks when, with the labels of ``tracks.speaker``.
    annotated : Timeline, optional
        Where `annotation` is complete. Defaults to the whole file.

    Returns
    -------
    labels : (N,) int8 array
        For each row of `tracks`: 1 speaking, 0 not, -1 unknown.
    """
    labels = np.full(len(tracks), UNKNOWN, np.int8)
    known = tracks.label != Label.UNKNOWN
    if known.any() or annotation is None:
        labels[known] = np.where(tracks.label[known] == Label.SPEAKING_AUDIBLE, SPEAKING, SILENT)
        return labels
    names = set(annotation.labels())
    if tracks.speaker and not names & set(tracks.speaker.values()):
        logger.warning(
            "file %r: no face track has the name of a speaker of its annotation (%s against %s)",
            tracks.uri,
            sorted(set(tracks.speaker.values()))[:3],
            sorted(names)[:3],
        )
    # a frame is displayed from its time until the next one
    middle = tracks.time + 0.5 / FRAME_RATE
    for track, name in tracks.speaker.items():
        rows = tracks.track_slice(track)
        speech = annotation.label_timeline(name) if name in names else ()
        labels[rows] = np.where(_inside(middle[rows], speech), SPEAKING, SILENT)
    if annotated is not None:
        labels[~_inside(middle, annotated)] = UNKNOWN
    return labels


def _inside(times: np.ndarray, segments: Iterable) -> np.ndarray:
    inside = np.zeros(len(times), bool)
    for segment in segments:
        inside |= (times >= segment.start) & (times < segment.end)
    return inside


def labelled_runs(files: Iterable[Mapping[str, Any]]) -> Runs:
    """Tracks and labels of files; see :class:`Runs`. Runs without any label are left out."""
    uris: list[str] = []
    rows: list[tuple[int, ...]] = []
    parts: list[np.ndarray] = []
    offset = 0
    for number, file in enumerate(files):
        uris.append(str(file["uri"]))
        tracks = face_tracks(file)
        annotation = annotated = None
        if (tracks.label == Label.UNKNOWN).all():
            # read these keys only here: accessing a lazy key of a protocol evaluates it
            annotation = file.get("annotation")
            annotated = file.get("annotated")
            if annotation is None and tracks:
                raise ValueError(
                    f"file {uris[-1]!r}: its face_tracks are not labelled, and it has no annotation"
                )
        tracks = on_grid(tracks)
        labels = speaking_labels(tracks, annotation, annotated)
        index = np.round(tracks.time * FRAME_RATE).astype(np.int64)
        ends = (np.diff(tracks.track) != 0) | (np.diff(index) > _ABSENCE)
        for run in np.split(np.arange(len(tracks)), np.flatnonzero(ends) + 1):
            if not len(run) or (labels[run] == UNKNOWN).all():
                continue
            start, length = int(index[run[0]]), int(index[run[-1]] - index[run[0]]) + 1
            whole = np.full(length, UNKNOWN, np.int8)
            whole[index[run] - start] = labels[run]
            rows.append((number, int(tracks.track[run[0]]), start, length, offset))
            parts.append(whole)
            offset += length
    return Runs(uris, np.array(rows, RUN), np.concatenate([np.zeros(0, np.int8), *parts]))


def cut(runs: Runs, longest: int, shortest: int = 1) -> np.ndarray:
    """Cut runs into as few pieces of nearly equal length as `longest` allows.

    Parameters
    ----------
    runs : Runs
    longest, shortest : int
        In frames. Runs shorter than `shortest` are left out.

    Returns
    -------
    pieces : (P,) array of RUN
    """
    pieces = []
    for row in runs.table[runs.table["length"] >= shortest]:
        count = -(-int(row["length"]) // longest)
        edges = np.linspace(0, row["length"], count + 1).round().astype(int)
        for first, last in pairwise(edges):
            piece = row.copy()
            piece["start"] += first
            piece["offset"] += first
            piece["length"] = last - first
            if (runs.of(piece) != UNKNOWN).any():
                pieces.append(piece)
    return np.array(pieces, RUN)
