"""Reference and hypothesis as matrices of active speakers.

Time is cut at every beginning and end of a turn. Nothing changes within such a cell, so every
metric is a sum over cells, weighted by their durations. There are no frames and no rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pyannote.core import Annotation, Timeline


@dataclass(frozen=True)
class Turns:
    """Turns of one annotation, sorted by speaker, then start. A speaker's turns are disjoint.

    Attributes
    ----------
    start, end : (N,) float
    speaker : (N,) int
        Index into `labels`.
    labels : tuple
    """

    start: np.ndarray
    end: np.ndarray
    speaker: np.ndarray
    labels: tuple

    @classmethod
    def of(cls, annotation: Annotation) -> Turns:
        """Turns of `annotation`. Overlapping turns of one speaker are merged.

        Adjacent turns are not merged and keep their collars, as in dscore.
        """
        labels = tuple(annotation.labels())
        index = {label: i for i, label in enumerate(labels)}
        rows = [(index[label], *segment) for segment, _, label in annotation.itertracks(True)]
        speaker, start, end = np.array(rows, float).reshape(-1, 3).T
        order = np.lexsort((end, start, speaker))
        speaker, start, end = speaker[order].astype(int), start[order], end[order]
        # latest end so far per speaker; an offset larger than any time separates the speakers
        shift = speaker * (1 + np.ptp(np.r_[0.0, start, end]))
        reach = np.maximum.accumulate(end + shift) - shift
        first = np.ones(len(start), bool)
        first[1:] = (np.diff(speaker) > 0) | (start[1:] >= reach[:-1] - 1e-9)
        groups = np.flatnonzero(first)
        if len(groups):
            end = np.maximum.reduceat(end, groups)
        return cls(start[groups], end, speaker[groups], labels)

    def __len__(self) -> int:
        return len(self.start)


def edges_of(timeline: Timeline) -> np.ndarray:
    """Starts and ends of all segments."""
    return np.array([time for segment in timeline for time in segment], float)


def active(
    start: np.ndarray, end: np.ndarray, column: np.ndarray, width: int, edges: np.ndarray
) -> np.ndarray:
    """(len(edges) - 1, width) bool: whether each column is active between two edges.

    Every start and end must be in `edges`.
    """
    change = np.zeros((max(len(edges), 1), width), np.int32)
    np.add.at(change, (np.searchsorted(edges, start), column), 1)
    np.add.at(change, (np.searchsorted(edges, end), column), -1)
    return np.cumsum(change, axis=0)[:-1] > 0


@dataclass(frozen=True)
class Cells:
    """One file, cut into cells.

    Attributes
    ----------
    edges : (C + 1,) float
    spoken, guessed : Turns
        Turns of the reference and of the hypothesis.
    reference : (C, R) bool
        Active speakers of the reference in each cell.
    hypothesis : (C, H) bool
        Active speakers of the hypothesis in each cell.
    """

    edges: np.ndarray
    spoken: Turns
    guessed: Turns
    reference: np.ndarray
    hypothesis: np.ndarray

    @classmethod
    def of(
        cls,
        reference: Annotation,
        hypothesis: Annotation,
        timelines: Iterable[Timeline] = (),
        collar: float = 0.0,
    ) -> Cells:
        """Cut a file at the boundaries of turns, of their collars, and of `timelines`."""
        spoken, guessed = Turns.of(reference), Turns.of(hypothesis)
        around = np.r_[spoken.start, spoken.end]
        edges = np.unique(
            np.concatenate(
                [guessed.start, guessed.end, around, around - collar, around + collar]
                + [edges_of(timeline) for timeline in timelines]
            )
        )
        matrices = (
            active(turns.start, turns.end, turns.speaker, len(turns.labels), edges)
            for turns in (spoken, guessed)
        )
        return cls(edges, spoken, guessed, *matrices)

    @cached_property
    def duration(self) -> np.ndarray:
        """(C,) durations of the cells in seconds."""
        return np.diff(self.edges)

    def inside(self, timeline: Timeline) -> np.ndarray:
        """(C,) bool: whether a cell lies in `timeline`, which must be one of `timelines`."""
        start, end = edges_of(timeline).reshape(-1, 2).T
        return active(start, end, np.zeros(len(start), int), 1, self.edges)[:, 0]

    def in_collar(self, collar: float) -> np.ndarray:
        """(C,) bool: whether a cell is within `collar` s of the boundary of a reference turn.

        `collar` must be the value with which the file was cut.
        """
        around = np.r_[self.spoken.start, self.spoken.end]
        column = np.zeros(len(around), int)
        return active(around - collar, around + collar, column, 1, self.edges)[:, 0]
