"""Online detection of shot boundaries."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pyannote_av.core.io import Frame

SIZE = (48, 27)  # width, height of the thumbnails compared

#: a cut must change the picture by this much (cuts within one studio: 0.25; real shots: 0.11) ...
FLOOR = 0.23
#: ... and by this many times the change between the pictures just before it (fast motion)
RATIO = 3.0
#: longest flash, in pictures
FLASH = 4
#: number of pictures over which dissolves are detected
SPAN = 10


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small copy of a picture: `luma` (27, 48) float32 in [0, 255], `histogram` (512,)."""

    luma: np.ndarray
    histogram: np.ndarray

    @cached_property
    def structure(self) -> tuple[np.ndarray, float]:
        """Luma (1296,) minus its mean, and its energy with one grey level of noise per pixel."""
        # the noise suppresses the effect of real noise in dark pictures
        centred = (self.luma - self.luma.mean()).ravel()
        return centred, float(centred @ centred) + centred.size

    @property
    def flat(self) -> bool:
        """Whether the picture is uniform, such as black or white."""
        centred, energy = self.structure
        return energy - centred.size < 4.0**2 * centred.size

    @property
    def bright(self) -> float:
        """Share of saturated pixels."""
        return float((self.luma > 230).mean())


def thumbnail(image: np.ndarray | Frame) -> Thumbnail:
    """Thumbnail of a picture, (H, W, 3) uint8 RGB, or of a frame."""
    import cv2

    if not isinstance(image, np.ndarray):
        # four times the size in each direction is accurate enough
        image = image.sampled(4 * SIZE[0], 4 * SIZE[1])
    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    bins = (small >> 5).astype(np.int64) @ (64, 8, 1)
    histogram = np.bincount(bins.ravel(), minlength=512) / bins.size
    return Thumbnail(small.astype(np.float32) @ np.float32((0.299, 0.587, 0.114)), histogram)


def structure_change(one: Thumbnail, other: Thumbnail) -> float:
    """One minus the correlation of luma, 0 (same) to 2. Gain and offset have no effect."""
    (a, energy_a), (b, energy_b) = one.structure, other.structure
    return 1 - float(a @ b) / math.sqrt(energy_a * energy_b)


def change(one: Thumbnail, other: Thumbnail) -> float:
    """Geometric mean of the changes of structure and of colour histogram, 0 (same) to 1.4.

    Motion mainly changes the structure, and light mainly changes the colours. A cut changes both.
    """
    colour = float(np.abs(one.histogram - other.histogram).sum()) / 2
    return math.sqrt(max(0.0, structure_change(one, other)) * colour)


class ShotDetector:
    """Detects the beginnings of shots, picture by picture.

    A hard cut is reported on the first picture of the new shot. A cut to a much brighter shot is
    reported up to four pictures late, because it could be a flash. A dissolve is reported once,
    while it lasts.

    Examples
    --------
    >>> shots = ShotDetector()
    >>> cuts = [frame.index for frame in frames if shots.update(frame)]
    """

    def __init__(self):
        self._recent: deque[Thumbnail] = deque(maxlen=SPAN + 1)
        self._changes: deque[float] = deque(maxlen=SPAN)
        self._waiting = 0
        self._blending = 0

    def update(self, image: np.ndarray | Frame | Thumbnail) -> bool:
        """Process the next picture, (H, W, 3) uint8 RGB, or a frame, or its thumbnail.

        Returns
        -------
        cut : bool
            Whether a new shot is detected on this picture. False for the very first picture.
        """
        now = image if isinstance(image, Thumbnail) else thumbnail(image)
        if now.flat:
            # a fade or a white flash: the next pictures are compared with those before it
            return False
        if not self._recent:
            self._recent.append(now)
            return False
        # the old shot may continue after a disturbance of a few pictures
        amount = min(change(now, past) for past in list(self._recent)[-3:])
        usual = float(np.mean(self._changes)) if self._changes else 0.0
        if amount > max(FLOOR, RATIO * usual):
            if now.bright - self._recent[-1].bright > 0.25 and self._waiting < FLASH:
                self._waiting += 1
                return False
            return self._restart(now)
        self._waiting = 0
        self._recent.append(now)
        self._changes.append(amount)
        self._blending = self._blending + 1 if self._is_blend() else min(0, self._blending + 1)
        if self._blending == 3:
            # ignore the rest of the same dissolve
            self._blending = -3 * SPAN
            return True
        return False

    def _restart(self, now: Thumbnail) -> bool:
        self._recent.clear()
        self._changes.clear()
        self._recent.append(now)
        self._waiting = self._blending = 0
        return True

    def _is_blend(self) -> bool:
        """Whether the middle one of the last pictures is the average of two different ends"""
        if len(self._recent) <= SPAN:
            return False
        first, middle, last = (self._recent[i] for i in (0, SPAN // 2, SPAN))
        if structure_change(first, last) < 0.12:
            return False
        rest = np.abs(middle.luma - (first.luma + last.luma) / 2).mean()
        return bool(rest < 0.2 * np.abs(first.luma - last.luma).mean())
