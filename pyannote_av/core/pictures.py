"""Pictures with their times, and their conversion to a regular grid"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from pyannote_av.core.decoding import Damage

TOLERANCE = 1e-3
"""Resolution of the clocks of containers (s)"""


class Picture(NamedTuple):
    """One picture of a source: its time and duration (s), and a function that converts it

    `image()` returns (height, width, 3) uint8 RGB as players show it. Conversion takes place only
    when it is called.
    """

    time: float
    duration: float
    image: Callable[[], np.ndarray]


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


@dataclass(frozen=True)
class Frame:
    """Picture on the grid

    Parameters
    ----------
    index : int
        Index of the grid step.
    time : float
        Time of the grid step, `index / frame_rate`, in seconds on the container clock.
    pts : float
        Time of the picture itself.
    image : (height, width, 3) uint8
        RGB as players show it, of one size in the whole file. Repeated frames share one array:
        copy it before writing to it.
    repeated : bool
        Whether the previous grid step shows the same picture.
    """

    index: int
    time: float
    pts: float
    image: np.ndarray
    repeated: bool


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
        From the first picture to the end of the last one. Only the pictures of yielded frames are
        converted.
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
    indices = range(max(begin, first), end if last is None else min(end, last))
    image = picture.image() if indices else None
    for index in indices:
        yield Frame(index, index / frame_rate, picture.time, image, index > begin)
