"""Shot boundaries, found on the way while pictures stream by."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

SIZE = (48, 27)  # width, height of the thumbnails compared

#: a cut changes the picture by this much (in one studio: 0.25; within real shots: 0.11) ...
FLOOR = 0.23
#: ... and by this many times more than the pictures just before it changed (fast motion)
RATIO = 3.0
#: pictures that a flash may last
FLASH = 4
#: pictures spanned when looking for dissolves
SPAN = 10


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small copy of a picture: `luma` (27, 48) float32 in [0, 255], `histogram` (512,)."""

    luma: np.ndarray
    histogram: np.ndarray

    @property
    def flat(self) -> bool:
        """Nothing to see: black, white, or a blank in between."""
        return float(self.luma.std()) < 4.0

    @property
    def bright(self) -> float:
        """Share of saturated pixels."""
        return float((self.luma > 230).mean())


def thumbnail(image: np.ndarray) -> Thumbnail:
    """Shrink (H, W, 3) uint8 RGB."""
    import cv2

    # skipping rows and columns of large pictures first costs no accuracy at this size
    step = max(1, min(image.shape[0] // (4 * SIZE[1]), image.shape[1] // (4 * SIZE[0])))
    small = cv2.resize(image[::step, ::step], SIZE, interpolation=cv2.INTER_AREA)
    bins = (small >> 5).astype(np.int64) @ (64, 8, 1)
    histogram = np.bincount(bins.ravel(), minlength=512) / bins.size
    return Thumbnail(small.astype(np.float32) @ np.float32((0.299, 0.587, 0.114)), histogram)


def structure_change(one: Thumbnail, other: Thumbnail) -> float:
    """0 (same) to 2: one minus the correlation of luma, blind to gain and offset."""
    a, b = one.luma - one.luma.mean(), other.luma - other.luma.mean()
    # the constant (one grey level per pixel) keeps noise in dark pictures from counting
    energy = np.sqrt((np.square(a).sum() + a.size) * (np.square(b).sum() + b.size))
    return 1 - float((a * b).sum() / energy)


def change(one: Thumbnail, other: Thumbnail) -> float:
    """0 (same) to 1.4: geometric mean of the changes of structure and of colour histogram.

    Motion changes the structure and little the colours, light the colours and little the
    structure; a cut changes both.
    """
    colour = float(np.abs(one.histogram - other.histogram).sum()) / 2
    return float(np.sqrt(max(0.0, structure_change(one, other)) * colour))


class ShotDetector:
    """Tells, picture by picture, where a new shot begins.

    Hard cuts are told on the first picture of the new shot, cuts to a much brighter shot up to
    four pictures late (they could be flashes), dissolves once, while they last.

    Examples
    --------
    >>> shots = ShotDetector()
    >>> cuts = [frame.index for frame in frames if shots.update(frame.image)]
    """

    def __init__(self):
        self._recent: deque[Thumbnail] = deque(maxlen=SPAN + 1)
        self._changes: deque[float] = deque(maxlen=SPAN)
        self._waiting = 0
        self._blending = 0

    def update(self, image: np.ndarray | Thumbnail) -> bool:
        """Look at the next picture, (H, W, 3) uint8 RGB or its thumbnail.

        Returns
        -------
        cut : bool
            Whether it is the first of a new shot. The very first picture is not.
        """
        now = image if isinstance(image, Thumbnail) else thumbnail(image)
        if now.flat:
            # a fade or a white flash: what comes after is compared with what was before
            return False
        if not self._recent:
            self._recent.append(now)
            return False
        # after a disturbance of a few pictures the old shot may be back
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
            # the rest of the same dissolve is no news
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
        """Whether the middle of the last pictures is the average of both ends, which differ"""
        if len(self._recent) <= SPAN:
            return False
        first, middle, last = (self._recent[i] for i in (0, SPAN // 2, SPAN))
        if structure_change(first, last) < 0.12:
            return False
        rest = np.abs(middle.luma - (first.luma + last.luma) / 2).mean()
        return bool(rest < 0.2 * np.abs(first.luma - last.luma).mean())
