"""What goes with face tracks: picture cut out along them, and figures about the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from pyannote.core import Segment

from pyannote_av.core.io import FRAME_RATE


class Label(IntEnum):
    """What an annotator says of a face at one time, as in AVA-ActiveSpeaker.

    References
    ----------
    Roth et al., "AVA-ActiveSpeaker: an audio-visual dataset for active speaker detection",
    ICASSP 2020, https://research.google.com/ava
    """

    UNKNOWN = -1
    NOT_SPEAKING = 0
    SPEAKING_AUDIBLE = 1
    SPEAKING_NOT_AUDIBLE = 2


class Column(NamedTuple):
    """One array of ``FaceTracks``: shape of a row, type, and what stands for "not known"."""

    shape: tuple[int, ...]
    dtype: Any = np.float32
    blank: float = np.nan

    def array(self, name: str, value: Any, count: int) -> np.ndarray:
        """`value` as array of `count` rows, blank where it is None."""
        if value is None:
            value = np.full((count, *self.shape), self.blank, self.dtype)
        given, value = value, np.asarray(value, self.dtype)
        if value.dtype.kind == "i" and (value != np.asarray(given)).any():
            raise ValueError(f"{name} must be whole numbers, NaN and the like excluded")
        if count == 0 and value.size == 0:
            value = value.reshape(0, *self.shape)
        if value.shape != (count, *self.shape):
            raise ValueError(f"{name} must be {(count, *self.shape)}, not {value.shape}")
        return value


COLUMNS = {
    "time": Column((), np.float64),
    "track": Column((), np.int64),
    "box": Column((4,)),
    "landmarks": Column((5, 2)),
    "confidence": Column(()),
    "speaking": Column(()),
    "label": Column((), np.int8, Label.UNKNOWN),
}


def check_rows(time: np.ndarray, track: np.ndarray, box: np.ndarray, label: np.ndarray) -> None:
    """Raise ValueError where a row is not what the columns of ``FaceTracks`` promise."""
    wrong = ~np.isfinite(time) | ~np.isfinite(box).all(axis=1)
    wrong |= (box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])
    wrong |= (np.abs(box - 0.5) > 1.5).any(axis=1)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"row {i} (track {track[i]}, {time[i]:.3f} s): box {box[i].tolist()} must be "
            "x1 < x2, y1 < y2 as fractions of the frame (divide pixels by its width and height)"
        )
    if (wrong := ~np.isin(label, list(Label))).any():
        i = int(wrong.argmax())
        raise ValueError(
            f"row {i} (track {track[i]}, {time[i]:.3f} s): label {label[i]} is none of "
            + ", ".join(f"{one.value} ({one.name})" for one in Label)
        )


def runs(
    time: np.ndarray, track: np.ndarray, step: float, max_gap: float
) -> Iterator[tuple[int, Segment]]:
    """(track, segment) of the stretches where rows `step` apart follow each other.

    Parameters
    ----------
    time, track : (N,) arrays
        Sorted by track, then time.
    step : float
        Seconds a row stands for.
    max_gap : float
        Seconds of absence that do not end a stretch.
    """
    # rounded times of odd frame rates (AVA) jitter by some milliseconds
    broken = (np.diff(track) != 0) | (np.diff(time) > 1.5 * step + max_gap)
    for run in np.split(np.arange(len(time)), np.flatnonzero(broken) + 1) if len(time) else []:
        first, last = time[run[0]], time[run[-1]]
        # rounded: adjoining segments meet exactly
        yield int(track[run[0]]), Segment(round(float(first), 6), round(float(last + step), 6))


@dataclass(frozen=True, eq=False)
class TrackSegment:
    """A stretch of one face track, cut out of the picture.

    Attributes
    ----------
    track : int
    start : int
        Index on the 25 Hz grid of the first crop: crop `i` belongs to time ``(start + i) / 25`` s.
    crops : (T, size, size) uint8
        Grey pictures. They mean nothing where `present` is False.
    present : (T,) bool
        Whether the face is visible.
    """

    track: int
    start: int
    crops: np.ndarray
    present: np.ndarray

    def __post_init__(self):
        if self.crops.ndim != 3 or self.crops.dtype != np.uint8:
            raise ValueError(f"crops must be (T, H, W) uint8, not {self.crops.shape}")
        if self.present.shape != (len(self.crops),):
            raise ValueError(f"present must be ({len(self.crops)},), not {self.present.shape}")

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def end(self) -> int:
        """Grid index behind the last crop."""
        return self.start + len(self.crops)

    @property
    def times(self) -> np.ndarray:
        """(T,) seconds on the container clock."""
        return np.arange(self.start, self.end) / FRAME_RATE


@dataclass(frozen=True)
class PictureStats:
    """What the picture was like, measured on the way; tells whether it deserves trust.

    Attributes
    ----------
    frames : int
        Pictures looked at on the 25 Hz grid, repeated ones included.
    face_share : float
        Share of them with at least one tracked face.
    face_height : float
        Median height of the tracked faces in pixels of the displayed frame; NaN without faces.
    frame_rate : float
        Distinct pictures per second.
    brightness : float
        Mean luma, 0 (black) to 255 (white); NaN without frames.
    shots : int
        Stretches between cuts.
    """

    frames: int = 0
    face_share: float = 0.0
    face_height: float = float("nan")
    frame_rate: float = 0.0
    brightness: float = float("nan")
    shots: int = 0


class Looks(NamedTuple):
    """What faces look like, now and then.

    Attributes
    ----------
    track : (n,) int array
    frame : (n,) int array
        Of the 25 Hz grid.
    vector : (n, ...) array
        Whatever an embedder makes of a face, or its picture.
    """

    track: np.ndarray
    frame: np.ndarray
    vector: np.ndarray

    @classmethod
    def none(cls, vectors: np.ndarray | None = None) -> Looks:
        """At nobody; `vectors` is an array (0, ...), for those whose shape is known."""
        nobody = np.zeros(0, np.int64)
        return cls(nobody, nobody, np.zeros((0, 1), np.float32) if vectors is None else vectors)

    @property
    def means(self) -> dict[int, np.ndarray]:
        """Mean of vectors (n, E) of each track, of unit length."""
        sums = {int(t): self.vector[self.track == t].sum(axis=0) for t in np.unique(self.track)}
        return {t: (v / np.linalg.norm(v)).astype(np.float32) for t, v in sums.items()}
