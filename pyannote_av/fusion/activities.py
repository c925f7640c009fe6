"""Conversion between speaking probabilities at 100 Hz, binary activities and turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.grid import STEP_RATE
from pyannote_av.core.runs import true_runs


class Durations(NamedTuple):
    """Minimum durations, in seconds.

    Attributes
    ----------
    on, off : float
        Of turns, and of gaps between turns of one speaker.
    """

    on: float = 0.0
    off: float = 0.0


def enforce(active: np.ndarray, durations: Durations) -> np.ndarray:
    """Fill short gaps, then remove short turns.

    Parameters
    ----------
    active : (steps, speakers) bool array
    durations : Durations

    Returns
    -------
    active : (steps, speakers) bool array
    """
    active = active.copy()
    on, off = (round(seconds * STEP_RATE) for seconds in durations)
    for column in active.T:
        ends = true_runs(column)
        for end, start in zip(ends[:-1, 1].tolist(), ends[1:, 0].tolist(), strict=True):
            column[end:start] |= start - end < off
        for first, end in true_runs(column).tolist():
            column[first:end] &= end - first >= on
    return active


def likeliest(probability: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Select the speakers with the highest probabilities in each step.

    Parameters
    ----------
    probability : (steps, speakers) array
    count : (steps,) int array
        Number of active speakers per step.

    Returns
    -------
    active : (steps, speakers) bool array
    """
    ranks = (-probability).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return ranks < count[:, None]


def confine(active: np.ndarray, probability: np.ndarray, speech: Timeline) -> np.ndarray:
    """Restrict activity to speech regions, and activate the likeliest speaker where all are silent.

    Parameters
    ----------
    active : (steps, speakers) bool array
    probability : (steps, speakers) array
    speech : Timeline
    """
    inside = np.zeros(len(active), bool)
    for segment in speech.support():
        inside[
            max(0, round(segment.start * STEP_RATE)) : max(0, round(segment.end * STEP_RATE))
        ] = True
    active = active & inside[:, None]
    missing = inside & ~active.any(axis=1)
    if active.shape[1]:
        active[missing, probability[missing].argmax(axis=1)] = True
    return active


def exclusive(active: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Keep only the likeliest active speaker of each step: (steps, speakers) bool."""
    if not active.shape[1]:
        return active
    likeliest = np.where(active, probability, -1.0).argmax(axis=1)
    return active & (np.arange(active.shape[1]) == likeliest[:, None])


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Diarization error rate of the second activity with the first one as reference, as a fraction.

    Columns are matched by position. Additional columns of the second are additional speakers.
    """
    first = np.pad(first, ((0, 0), (0, second.shape[1] - first.shape[1])))
    expected, found = first.sum(axis=1), second.sum(axis=1)
    wrong = np.maximum(expected, found) - (first & second).sum(axis=1)
    return float(wrong.sum() / max(1, expected.sum()))


def changes(before: np.ndarray, after: np.ndarray) -> str:
    """Describe how one activity differs from another, in a sentence.

    Parameters
    ----------
    before, after : (steps, speakers) bool array
    """
    expected, found = before.sum(axis=1), after.sum(axis=1)
    moved = np.minimum(expected, found) - (before & after).sum(axis=1)
    parts = {
        "given to another speaker": moved,
        "added": np.maximum(found - expected, 0),
        "removed": np.maximum(expected - found, 0),
    }
    share = 100 * difference(before, after)
    listed = ", ".join(f"{part.sum() / STEP_RATE:.1f} s {name}" for name, part in parts.items())
    return f"{share:.1f} % of the speech: {listed}"


def to_annotation(active: np.ndarray, labels: Sequence[str], uri: str | None = None) -> Annotation:
    """Convert (steps, speakers) bool to turns, ordered by start and label."""
    annotation = Annotation(uri=uri)
    turns = [
        (first, end, label)
        for k, label in enumerate(labels)
        for first, end in true_runs(active[:, k]).tolist()
    ]
    for number, (first, end, label) in enumerate(sorted(turns)):
        annotation[Segment(first / STEP_RATE, end / STEP_RATE), number] = label
    return annotation


def from_annotation(annotation: Annotation, labels: Sequence[str], num_steps: int) -> np.ndarray:
    """Convert turns to the activity at the middle of each step: (num_steps, num_labels) bool."""
    active = np.zeros((num_steps, len(labels)), bool)
    column = {label: k for k, label in enumerate(labels)}
    for segment, _, label in annotation.itertracks(yield_label=True):
        first, last = (max(0, round(time * STEP_RATE)) for time in segment)
        active[first:last, column[label]] = True
    return active


def confidences(
    annotation: Annotation, labels: Sequence[str], probability: np.ndarray
) -> dict[tuple, float]:
    """Mean probability of each turn, by (segment, track)."""
    column = {label: k for k, label in enumerate(labels)}
    found = {}
    for segment, track, label in annotation.itertracks(yield_label=True):
        first, last = round(segment.start * STEP_RATE), round(segment.end * STEP_RATE)
        found[segment, track] = round(float(probability[first:last, column[label]].mean()), 3)
    return found
