"""What goes with face tracks: picture cut out along them, and figures about the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyannote_av.core.io import FRAME_RATE


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
