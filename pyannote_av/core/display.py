"""Pictures as players show them: upright, with square pixels, in one size, without combing

A file stores pictures as they suit the camera or the channel. Its metadata say how to show them.
This module applies the metadata. Faces therefore have the shape that they have on a screen, and
boxes are fractions of the shown picture.
"""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

    from pyannote_av.core.pictures import Filtering, Pixels

MAX_ASPECT = 5
"""If pixels are more than this many times as wide as high, or as high as wide, the header is
damaged. The widest pixels in use are those of fields of 352 samples (2.9)."""

COMB = 10
"""A line belongs to another moment if it differs from both neighbours by more than this, in the
same direction, in levels of 255"""

PQ = 16
"""Transfer characteristic of HDR10 and Dolby Vision (SMPTE ST 2084) in H.273"""

FULL = 2
"""`color_range` of pictures whose levels go from 0 to 255, instead of from 16 to 235"""

_WHITE = 203.0  # cd/m2 of white paper in PQ, ITU-R BT.2408
_PEAK = 1000.0  # cd/m2 that become the white of the output


class Orientation(NamedTuple):
    """How a stored picture is shown: mirrored left to right, then turned counter-clockwise"""

    mirrored: bool = False
    rotation: int = 0

    @property
    def sideways(self) -> bool:
        """Whether width and height are swapped"""
        return self.rotation in (90, 270)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture (H, W, 3) or (H, W)"""
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.rotation // 90)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Nearest of the eight orientations to that of a decoded picture

    The display matrix maps (x, y) of the stored picture to (a x + c y, b x + d y) of the shown
    one, with y downwards. ffmpeg's conversion of the matrix to an angle ignores mirroring.
    """
    from av.sidedata.sidedata import SideDataContainer

    # frame.side_data would keep the frame in memory until the next garbage collection: its
    # container refers to the frame
    data = SideDataContainer(frame).get("DISPLAYMATRIX")
    if data is None or len(bytes(data)) < 36:
        return Orientation()
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), "=i4")[:5])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    rotation = round(math.degrees(math.atan2(-b, a)) / 90) * 90 % 360
    return Orientation(mirrored, rotation)


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels of a picture whose pixels are `aspect` times as wide as high

    The height is kept, as players do.

    >>> square_size(720, 576, Fraction(64, 45)), square_size(640, 360, Fraction(1))
    ((1024, 576), (640, 360))
    """
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT or abs(aspect - 1) < 0.005:
        return width, height
    return max(1, round(width * aspect)), height


def fit(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Largest size of the same shape that fits into `canvas`, without borders of a single pixel

    >>> fit((1280, 720), (640, 360)), fit((360, 640), (640, 360)), fit((641, 360), (640, 360))
    ((640, 360), (202, 360), (640, 360))
    """
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    inner = [max(1, round(side * scale)) for side in size]
    # a border of a pixel is rounding
    return tuple(
        whole if whole - side <= max(1, 0.005 * whole) else side
        for side, whole in zip(inner, canvas, strict=True)
    )


class Scaler:
    """Conversion of decoded pictures to other sizes and formats with swscale

    PyAV allocates the tables of swscale, and threads, for each picture. Here they are allocated
    once per kind of conversion. Threads take turns.
    """

    def __init__(self):
        from av.video.reformatter import VideoReformatter

        self._reformatters = defaultdict(VideoReformatter)
        # older versions of PyAV have no such option, and one thread
        single = "threads" in VideoReformatter.reformat.__doc__
        self._options = {"threads": 1} if single else {}
        self._lock = Lock()

    def __call__(
        self, frame: av.VideoFrame, pixels: Pixels, size: tuple[int, int], filtering: Filtering
    ) -> np.ndarray:
        """Picture of a format and of a size (width, height)"""
        whole = size == (frame.width, frame.height)
        if pixels == "gray" and whole and _has_luma_plane(frame):
            return _luma(frame)
        with self._lock:
            scale = self._reformatters[pixels, filtering].reformat
            scaled = scale(frame, *size, pixels, interpolation=filtering, **self._options)
            return scaled.to_ndarray()


def _has_luma_plane(frame: av.VideoFrame) -> bool:
    """Whether the first plane holds luma of 8 bits, and nothing else, from top to bottom"""
    first = [part for part in frame.format.components if part.plane == 0]
    if len(first) > 1 or not first[0].is_luma or first[0].bits != 8:
        return False
    # an index of a palette counts as luma in PyAV; pictures stored upside down have negative sizes
    return not frame.format.has_palette and frame.planes[0].line_size > 0


def _luma(frame: av.VideoFrame) -> np.ndarray:
    """Luma (H, W) of a picture that has a plane of it, from 0 to 255

    The result is that of swscale, in less time.
    """
    import cv2

    plane = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    luma = luma[: frame.height, : frame.width]
    name = frame.format.name
    if frame.color_range == FULL or name.startswith("yuvj") or name == "gray":
        # the decoder may still need its own
        return luma.copy()
    return cv2.convertScaleAbs(cv2.subtract(luma, 16), alpha=255 / 219)


def show(
    frame: av.VideoFrame,
    canvas: tuple[int, int],
    aspect: Fraction,
    way: Orientation,
    scaler: Scaler,
    pixels: Pixels = "rgb24",
    filtering: Filtering = "BILINEAR",
) -> np.ndarray:
    """Convert a decoded picture to the one that is shown

    Parameters
    ----------
    frame : av.VideoFrame
    canvas : (width, height)
        Size of the result in pixels. A picture of another shape is centred on black.
    aspect : Fraction
        Width of a stored pixel divided by its height.
    way : Orientation
    scaler : Scaler
    pixels : {"rgb24", "gray"}, optional
        Format of the result.
    filtering : {"BILINEAR", "AREA", "POINT"}, optional
        See :data:`~pyannote_av.core.pictures.Filtering`.

    Returns
    -------
    image : (height, width, 3) or (height, width) uint8
        RGB, or luma from 0 to 255.
    """
    width, height = square_size(frame.width, frame.height, aspect)
    inner = fit((height, width) if way.sideways else (width, height), canvas)
    width, height = inner[::-1] if way.sideways else inner
    if frame.interlaced_frame:
        image = scaler(frame, pixels, (width, frame.height), filtering)
        image = _scale_rows(deinterlace(image), height)
    else:
        image = scaler(frame, pixels, (width, height), filtering)
    if int(getattr(frame, "color_trc", 2)) == PQ:
        image = _tones()[image]
    return _centre(way.apply(image), canvas)


def deinterlace(image: np.ndarray) -> np.ndarray:
    """Replace the lines of the second field where they show another moment than the first

    Parts without motion, and pictures that are wrongly marked as interlaced, keep all their lines.
    Other pictures are not used, so a part of a file gives the same pictures as the whole file.

    Parameters
    ----------
    image : (H, W, 3) or (H, W) uint8

    Returns
    -------
    image : (H, W, 3) or (H, W) uint8
    """
    import cv2

    if len(image) < 4:
        return image
    luma = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    luma = luma.astype(np.int16)
    count = len(image) // 2
    below = np.minimum(np.arange(1, count + 1), (len(image) + 1) // 2 - 1)

    def neighbours(lines):
        first = lines[::2]
        return first[:count], first[below]

    above_luma, below_luma = neighbours(luma)
    second = luma[1::2]
    up, down = second - above_luma, second - below_luma
    combed = ((up > COMB) & (down > COMB)) | ((up < -COMB) & (down < -COMB))
    if not combed.any():
        return image
    # lines differ less at the edges of a moving part than in its middle
    mask = cv2.dilate(combed.astype(np.uint8), np.ones((3, 9), np.uint8))
    between = cv2.addWeighted(*_pair(neighbours(image)), 0)
    image = image.copy()
    mask = mask.reshape(*mask.shape, *[1] * (image.ndim - 2))
    image[1::2] = np.where(mask > 0, between, image[1::2])
    return image


def _pair(lines: tuple[np.ndarray, np.ndarray]) -> tuple:
    """Arguments of a mean of two pictures for OpenCV"""
    one, other = (np.ascontiguousarray(line) for line in lines)
    return one, 0.5, other, 0.5


def _scale_rows(image: np.ndarray, height: int) -> np.ndarray:
    if len(image) == height:
        return image
    import cv2

    return cv2.resize(image, (image.shape[1], height), interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=1)
def _tones() -> np.ndarray:
    """Table (256,) from PQ levels, which look grey and dark on an ordinary screen, to its levels"""
    code = (np.arange(256) / 255) ** (4096 / (2523 * 128))
    light = np.maximum(code - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * code)
    x = 10_000 * light ** (16384 / 2610) / _WHITE
    # extended Reinhard: keeps shadows and faces, and compresses highlights up to the peak
    y = np.clip(x * (1 + x / (_PEAK / _WHITE) ** 2) / (1 + x), 0, 1)
    return np.round(255 * y ** (1 / 2.2)).astype(np.uint8)


def _centre(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """The picture in the middle of a black canvas (width, height)"""
    width, height = canvas
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    whole = np.zeros((height, width, *image.shape[2:]), np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole
