"""Columns of ``FaceTracks``: their names, shapes and types."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np


class Label(IntEnum):
    """Manual annotation of a face at one time, as in AVA-ActiveSpeaker.

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
    """One array of ``FaceTracks``: shape of a row, type, and value that means "unknown"."""

    shape: tuple[int, ...]
    dtype: Any = np.float32
    blank: float = np.nan

    def array(self, name: str, value: Any, count: int) -> np.ndarray:
        """Convert `value` to an array of `count` rows; None gives blank rows."""
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
    """Raise ValueError if a row has an invalid time, box or label."""
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
            f"row {i} (track {track[i]}, {time[i]:.3f} s): label {label[i]} must be one of "
            + ", ".join(f"{one.value} ({one.name})" for one in Label)
        )
