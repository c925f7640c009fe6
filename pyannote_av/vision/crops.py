"""Crops: square regions of the picture that are the inputs of networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pyannote_av.core.io import Video
from pyannote_av.core.pictures import shrink
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, TrackSegment

if TYPE_CHECKING:
    from pyannote_av.core.io import Frame

#: default side of crops, in pixels
SIDE = {"face": 112, "lips": 96}
#: grey level outside of the picture, as in the published active speaker demos
OUTSIDE = 110
#: larger pictures are shrunk to this length of the longer side before they are cropped, in pixels
LONG_SIDE = 1920
#: maximum number of frames of a segment (12 s)
MAX_FRAMES = 300


def grey(frame: Frame) -> np.ndarray:
    """Grey picture (H', W') uint8 of a frame, shrunk to LONG_SIDE."""
    return shrink(frame.grey, LONG_SIDE)


def face_square(box: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Square that active speaker networks expect around a detector's box.

    With s half the longer side of the box, the demos of TalkNet and LR-ASD
    (https://github.com/Junhua-Liao/LR-ASD, ``Columbia_test.py``) cut [cx - 1.4 s, cx + 1.4 s] x
    [cy - s, cy + 1.8 s] at 224 pixels and keep the central 112 pixels. This is a square of side
    1.4 s around (cx, cy + 0.4 s).

    Parameters
    ----------
    box : (4,) normalised
    shape : (height, width, ...) in pixels

    Returns
    -------
    left, top, side : float, in pixels
    """
    x1, y1, x2, y2 = box * np.array([shape[1], shape[0]] * 2)
    half = max(x2 - x1, y2 - y1) / 2
    side = 1.4 * half
    return (x1 + x2 - side) / 2, (y1 + y2 - side) / 2 + 0.4 * half, side


def lips_square(
    box: np.ndarray, landmarks: np.ndarray, shape: tuple[int, ...]
) -> tuple[float, float, float]:
    """Square around the mouth, with a side of 0.64 times the longer side of the box.

    Its centre is between the mouth corners if they are known, and otherwise 72 % down the box,
    where detectors have the mouth on average. The side depends on the box and not on the mouth,
    because mouths are narrow in profile.

    Returns
    -------
    left, top, side : float, in pixels
    """
    height, width = shape[:2]
    x1, y1, x2, y2 = box * np.array([width, height] * 2)
    side = 0.64 * max(x2 - x1, y2 - y1)
    x, y = landmarks[3:].mean(axis=0) * (width, height)
    if not np.isfinite([x, y]).all():
        x, y = (x1 + x2) / 2, y1 + 0.72 * (y2 - y1)
    return x - side / 2, y - side / 2, side


def cut(image: np.ndarray, square: tuple[float, float, float], size: int) -> np.ndarray:
    """Cut a square out of a picture with sub-pixel accuracy, and resize it to `size` x `size`.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) uint8
    square : left, top, side in pixels
        May extend beyond the picture. The outside is filled with grey.
    size : int
    """
    import cv2

    left, top, side = square
    scale = side / size
    # pixel centres are at integers in warpAffine, and at half-integers in our coordinates
    shift = scale / 2 - 0.5
    matrix = np.array([[scale, 0, left + shift], [0, scale, top + shift]], np.float64)
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(OUTSIDE,) * 3,
    )


def crop(
    picture: np.ndarray,
    box: np.ndarray,
    landmarks: np.ndarray,
    size: int | None = None,
    region: str = "face",
) -> np.ndarray:
    """Cut face or lips out of one grey picture: (size, size) uint8."""
    if region not in SIDE:
        raise ValueError(f'region must be "face" or "lips", not {region!r}')
    square = (
        face_square(box, picture.shape)
        if region == "face"
        else lips_square(box, landmarks, picture.shape)
    )
    return cut(picture, square, size or SIDE[region])


class Segmenter:
    """Collects crops into segments of at most MAX_FRAMES. Gaps of less than 1 s are bridged."""

    def __init__(self):
        self._open: dict[int, tuple[int, list[np.ndarray | None]]] = {}

    def add(self, track: int, index: int, picture: np.ndarray) -> Iterator[TrackSegment]:
        """Append the crop of `track` at grid `index`, and yield segments that are complete."""
        start, crops = self._open.setdefault(track, (index, []))
        absent = index - start - len(crops)
        if absent >= FRAME_RATE or index - start >= MAX_FRAMES:
            yield from self.close(track)
            start, crops = self._open.setdefault(track, (index, []))
            absent = 0
        crops += [None] * absent + [picture]

    def close(self, track: int) -> Iterator[TrackSegment]:
        """Yield the remaining segment of a track."""
        start, crops = self._open.pop(track, (0, []))
        if crops:
            blank = np.zeros_like(crops[-1])
            yield TrackSegment(
                track=track,
                start=start,
                crops=np.stack([blank if c is None else c for c in crops]),
                present=np.array([c is not None for c in crops]),
            )

    def close_all(self) -> Iterator[TrackSegment]:
        """Yield the remaining segments of all tracks."""
        for track in list(self._open):
            yield from self.close(track)


class Rows:
    """Finds the rows of tracks by grid index."""

    def __init__(self, tracks: FaceTracks):
        self._index = np.round(tracks.time * FRAME_RATE).astype(np.int64)
        self._order = np.argsort(self._index, kind="stable")
        self._sorted = self._index[self._order]

    def __getitem__(self, index: int) -> np.ndarray:
        first, last = np.searchsorted(self._sorted, [index, index + 1])
        return self._order[first:last]


def crop_video(
    tracks: FaceTracks,
    file: Any,
    size: int | None = None,
    region: str = "face",
    video: Video | None = None,
) -> Iterator[TrackSegment]:
    """Crop the faces of tracks out of a video.

    The video is decoded once, as a stream. Only the incomplete segments are kept in memory.

    Parameters
    ----------
    tracks : FaceTracks
    file : str, Path or mapping
        The video of the tracks.
    size : int, optional
        Side of the crops in pixels. Defaults to 112 for faces and 96 for lips.
    region : {"face", "lips"}
        See :func:`face_square` and :func:`lips_square`.
    video : Video, optional
        Reader.

    Yields
    ------
    segment : TrackSegment
        At most 300 frames (12 s). The segments of each track are in time order.
    """
    if not tracks:
        return
    reader = video or Video()
    step = 1 / FRAME_RATE
    start, end = max(0.0, float(tracks.time.min()) - step), float(tracks.time.max()) + 2 * step
    frames = reader.frames(file, start=start, end=end)
    yield from crop_tracks(frames, tracks, size=size, region=region)


def crop_tracks(
    frames: Iterable[Frame], tracks: FaceTracks, size: int | None = None, region: str = "face"
) -> Iterator[TrackSegment]:
    """Crop the faces of known tracks out of a stream of pictures; see :func:`crop_video`."""
    tracks = on_grid(tracks)
    rows, segmenter = Rows(tracks), Segmenter()
    for frame in frames:
        if not len(here := rows[frame.index]):
            continue
        picture = grey(frame)
        for i in here:
            one = crop(picture, tracks.box[i], tracks.landmarks[i], size, region)
            yield from segmenter.add(int(tracks.track[i]), frame.index, one)
    yield from segmenter.close_all()


def on_grid(tracks: FaceTracks, max_gap: float = 0.25) -> FaceTracks:
    """Resample tracks to the 25 Hz grid, by linear interpolation.

    Parameters
    ----------
    tracks : FaceTracks
        Tracks of any frame rate.
    max_gap : float
        Maximum time between two rows of a track to interpolate between them, in seconds.

    Returns
    -------
    tracks : FaceTracks
        The same object if all rows are on the grid already (to 1 ms) and there is no gap to fill.
    """
    position = tracks.time * FRAME_RATE
    steps = np.round(np.diff(position)[np.diff(tracks.track) == 0])
    on_it = (np.abs(position - np.round(position)) < 1e-3 * FRAME_RATE).all()
    if on_it and not ((steps > 1) & (steps <= max_gap * FRAME_RATE)).any():
        return tracks
    parts = [_resample(tracks.of(track), max_gap) for track in tracks.tracks]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    left = set(columns["track"].tolist())
    speaker = {track: label for track, label in tracks.speaker.items() if track in left}
    return replace(tracks, **columns, speaker=speaker)


def _grid_near(position: np.ndarray, widest: float) -> np.ndarray:
    """Grid times between rows that are at most `widest` apart, or within half a frame of a row.

    Gaps are skipped, since a grid over days of absence would take gigabytes.
    """
    apart = np.flatnonzero(np.diff(position) > widest)
    first = np.ceil(position[np.r_[0, apart + 1]] - 0.5)
    last = np.floor(position[np.r_[apart, len(position) - 1]] + 0.5)
    counts = (last - first + 1).astype(np.int64)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    # rows half-way between two grid times share them with their neighbours
    return np.unique(np.repeat(first, counts) + offset)


def _resample(one: FaceTracks, max_gap: float) -> dict[str, np.ndarray]:
    """Columns of one track at the grid times of :func:`_grid_near`."""
    position = one.time * FRAME_RATE
    grid = _grid_near(position, max_gap * FRAME_RATE + 1e-9)
    right = np.clip(np.searchsorted(position, grid), 0, len(position) - 1)
    left = np.maximum(right - 1, 0)
    gap = position[right] - position[left]
    weight = np.divide(grid - position[left], gap, out=np.ones(len(grid)), where=gap > 0)
    weight = np.clip(weight, 0, 1)
    wide = gap > max_gap * FRAME_RATE + 1e-9
    # next to a wide gap, a row is used for the nearest grid time only
    weight[wide] = weight[wide].round()
    nearest = np.minimum(np.abs(grid - position[left]), np.abs(grid - position[right]))
    keep = ~wide | (nearest <= 0.5)
    columns = {"time": grid / FRAME_RATE, "track": np.full(len(grid), one.track[0])}
    for name in ("box", "landmarks", "confidence", "speaking"):
        value = getattr(one, name)
        blend = weight.reshape(-1, *[1] * (value.ndim - 1)).astype(np.float32)
        mixed = (1 - blend) * value[left] + blend * value[right]
        known = np.where(blend < 0.5, value[left], value[right])
        columns[name] = np.where(np.isnan(mixed), known, mixed)
    columns["label"] = one.label[np.where(weight < 0.5, left, right)]
    return {name: value[keep] for name, value in columns.items()}
