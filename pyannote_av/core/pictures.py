"""Pictures with their times, and their conversion to a regular grid"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Literal, Protocol

import numpy as np

from pyannote_av.core.decoding import Damage

TOLERANCE = 1e-3
"""Resolution of the clocks of containers (s)"""


Pixels = Literal["rgb24", "gray"]
"""Formats of converted pictures: (height, width, 3) RGB and (height, width) grey, both uint8"""

Filtering = Literal["BILINEAR", "AREA", "POINT"]
"""How pictures are scaled. "BILINEAR" is for pictures of their own size. Smaller ones are averages
of pixels ("AREA") or single pixels ("POINT")."""


class Convert(Protocol):
    """Conversion of one picture of a source to what players show"""

    def __call__(self, pixels: Pixels, size: tuple[int, int], filtering: Filtering) -> np.ndarray:
        """Convert the picture to a format, and to a (width, height) of at most its own"""
        ...


class Picture:
    """One picture of a source, which is converted when it is first asked for

    Each conversion takes place once, even if several threads ask for it. The decoded picture is
    kept as long as this object.

    Parameters
    ----------
    time, duration : float
        In seconds.
    size : (width, height)
        Of the picture as players show it.
    convert : Convert
    """

    __slots__ = ("_convert", "_converted", "_lock", "duration", "size", "time")

    def __init__(self, time: float, duration: float, size: tuple[int, int], convert: Convert):
        self.time = time
        self.duration = duration
        self.size = size
        self._convert = convert
        self._converted: dict[Pixels, np.ndarray] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, image: np.ndarray, time: float = 0.0, duration: float = 0.0) -> Picture:
        """Picture of an array, (height, width, 3) uint8 RGB"""
        return cls(time, duration, image.shape[1::-1], partial(_convert_array, image))

    def converted(self, pixels: Pixels) -> np.ndarray:
        """The whole picture in one of the formats"""
        with self._lock:
            if pixels not in self._converted:
                self._converted[pixels] = self._convert(pixels, self.size, "BILINEAR")
            return self._converted[pixels]

    def __reduce__(self):
        # decoded pictures cannot be pickled
        images = {pixels: self.converted(pixels) for pixels in ("rgb24", "gray")}
        return _restore, (self.time, self.duration, images)

    def sampled(self, width: int, height: int) -> np.ndarray:
        """See :meth:`Frame.sampled`."""
        step = max(1, min(self.size[0] // width, self.size[1] // height))
        if step == 1:
            return self.converted("rgb24")
        size = tuple(math.ceil(side / step) for side in self.size)
        return self._convert("rgb24", size, "POINT")

    def within(self, long_side: int) -> np.ndarray:
        """See :meth:`Frame.within`."""
        # up to twice the size, it is faster to convert the whole picture
        if max(self.size) <= 2 * long_side:
            return shrink(self.converted("rgb24"), long_side)
        return self._convert("rgb24", shrunk(self.size, long_side), "AREA")


def _convert_array(
    image: np.ndarray, pixels: Pixels, size: tuple[int, int], filtering: Filtering
) -> np.ndarray:
    """Convert an RGB picture; see :class:`Convert`."""
    import cv2

    if size != image.shape[1::-1]:
        way = cv2.INTER_NEAREST if filtering == "POINT" else cv2.INTER_AREA
        image = cv2.resize(image, size, interpolation=way)
    return image if pixels == "rgb24" else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _restore(time: float, duration: float, images: dict[Pixels, np.ndarray]) -> Picture:
    """Picture that was pickled"""
    picture = Picture.of(images["rgb24"], time, duration)
    picture._converted.update(images)
    return picture


class FrameSource(Protocol):
    """Reader of the pictures of a file

    `damage` describes the latest pass, and `notes` are sentences about what changed in it.
    """

    damage: Damage
    notes: list[str]

    def __call__(self, start: float) -> Iterator[Picture]:
        """Iterate over pictures in order of time, to the end of the file

        The first one is at or before `start` (seconds), if the file has such a picture.
        """
        ...


def shrunk(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Width and height of a picture that is shrunk to `long_side`

    >>> shrunk((1280, 720), 640), shrunk((300, 400), 640)
    ((640, 360), (300, 400))
    """
    scale = min(1.0, long_side / max(size))
    return tuple(max(1, round(side * scale)) for side in size)


def shrink(image: np.ndarray, long_side: int) -> np.ndarray:
    """Shrink a picture so that its longer side has at most `long_side` pixels

    Parameters
    ----------
    image : (H, W, 3) or (H, W) uint8
    long_side : int
    """
    size = shrunk(image.shape[1::-1], long_side)
    if size == image.shape[1::-1]:
        return image
    import cv2

    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Frame:
    """Picture on the grid

    The picture is converted when it is first asked for, and only to what is asked for. A frame that
    is stored keeps the decoded picture and what was made of it: to keep many, store their arrays.

    Parameters
    ----------
    index : int
        Index of the grid step.
    time : float
        Time of the grid step, `index / frame_rate`, in seconds on the container clock.
    pts : float
        Time of the picture itself.
    picture : Picture
        Shared by repeated frames.
    repeated : bool
        Whether the previous grid step shows the same picture.
    """

    index: int
    time: float
    pts: float
    picture: Picture
    repeated: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, the same in the whole file"""
        return self.picture.size

    @property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB as players show it

        Repeated frames share one array: copy it before writing to it.

        Raises
        ------
        MediaError
            If the picture cannot be converted.
        """
        return self.picture.converted("rgb24")

    @property
    def grey(self) -> np.ndarray:
        """(height, width) uint8 luma of the picture as players show it, from black 0 to white 255

        It is that of the file, without a detour through RGB. Pictures that are decoded to RGB, such
        as those in memory, have the luma of ITU-R BT.601. Repeated frames share one array.

        Raises
        ------
        MediaError
            If the picture cannot be converted.
        """
        return self.picture.converted("gray")

    def sampled(self, width: int, height: int) -> np.ndarray:
        """Every n-th pixel of every n-th row, with n as large as possible

        This is cheap, and good enough to compare whole pictures.

        Parameters
        ----------
        width, height : int
            Minimum size of the result, if the picture is as large.

        Returns
        -------
        image : (h, w, 3) uint8
            RGB. The whole picture if it is less than twice as large as requested.
        """
        return self.picture.sampled(width, height)

    def within(self, long_side: int) -> np.ndarray:
        """Picture shrunk so that its longer side has at most `long_side` pixels

        Of large pictures, it costs less than the whole picture.

        Parameters
        ----------
        long_side : int

        Returns
        -------
        image : (h, w, 3) uint8
            RGB. The whole picture if it is small enough.
        """
        return self.picture.within(long_side)


def grid_index(time: float, frame_rate: float) -> int:
    """First grid step that shows a picture of this time: the nearest one, ties rounded down

    Step k shows the last picture before `(k + 0.5) / frame_rate`, as ffmpeg's `fps` filter does.

    >>> [grid_index(t, 25.0) for t in (-0.5, 0.0, 0.02, 0.04, 0.061, 0.1)]
    [0, 0, 1, 1, 2, 3]
    """
    return max(0, math.ceil((time + TOLERANCE) * frame_rate - 0.5))


def on_grid(
    pictures: Iterable[Picture], frame_rate: float, first: int = 0, last: int | None = None
) -> Iterator[Frame]:
    """Put pictures on a regular grid, repeating or dropping them as needed

    Parameters
    ----------
    pictures : iterable of Picture
        In order of time.
    frame_rate : float
        Grid steps per second.
    first, last : int, optional
        Yield only grid steps with `first <= index < last`.

    Yields
    ------
    frame : Frame
        From the first picture to the end of the last one.
    """
    held: Picture | None = None
    begin = 0
    for picture in pictures:
        index = grid_index(picture.time, frame_rate)
        if held is not None:
            yield from _hold(held, begin, index, frame_rate, first, last)
        if last is not None and index >= last:
            return
        held, begin = picture, index
    if held is not None:
        end = grid_index(held.time + held.duration, frame_rate)
        yield from _hold(held, begin, end, frame_rate, first, last)


def _hold(
    picture: Picture, begin: int, end: int, frame_rate: float, first: int, last: int | None
) -> Iterator[Frame]:
    """Requested grid steps with `begin <= index < end`, all showing the same picture"""
    for index in range(max(begin, first), end if last is None else min(end, last)):
        yield Frame(index, index / frame_rate, picture.time, picture, index > begin)
