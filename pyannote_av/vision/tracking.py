"""Face tracking: turns detections on some pictures into one box per face and picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pyannote_av.core.tracks import FRAME_RATE
from pyannote_av.vision.detection import Detections

#: maximum distance of a detection from the expected position, in face sizes
REACH = 0.8
#: maximum factor by which a face grows or shrinks between two detections
GROWTH = 1.8
#: a face is steady if it moves and grows by no more than this in a second, relative to its size
STEADY = 0.25
#: while all faces are steady, the time between detections is this many times as long
PATIENCE = 2
#: frames of the centred median filter, as in the active speaker demos of TalkNet and LR-ASD
WINDOW = 13


@dataclass(frozen=True, eq=False)
class TrackPart:
    """Finished rows of one track that are contiguous on the grid.

    Attributes
    ----------
    track : int
    start : int
        Grid index of the first row.
    box : (T, 4) float32
    landmarks : (T, 5, 2) float32
    confidence : (T,) float32
    ended : bool
        Whether these are the last rows of the track.
    """

    track: int
    start: int
    box: np.ndarray
    landmarks: np.ndarray
    confidence: np.ndarray
    ended: bool


@dataclass(eq=False)
class _Track:
    """Track in progress. `rows` are box (4), landmarks (10), confidence, one per grid frame."""

    start: int  # grid index of rows[0]
    rows: list[np.ndarray]
    last: int  # grid index of the last detection
    seen: int = 0  # grid index up to which it may have been visible
    confidences: list[float] = field(default_factory=list)  # until the track is confirmed
    missed: bool = False
    steady: bool = False
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    done: int = 0  # rows returned so far
    id: int | None = None

    def predict(self, index: int, limit: int) -> np.ndarray:
        """Box expected at `index`; motion is extrapolated for at most `limit` frames"""
        shift = self.velocity * min(index - self.last, limit)
        return self.rows[-1][:4] + np.tile(shift, 2)

    def extend(self, index: int, row: np.ndarray) -> None:
        """Add a detection, and interpolate linearly since the last one"""
        before, steps = self.rows[-1], index - self.last
        for step in range(1, steps + 1):
            self.rows.append(before + (row - before) * (step / steps))
        moved = (_centre(row[None, :4]) - _centre(before[None, :4]))[0] / steps
        size, now = (one[2:4] - one[:2] for one in (before, row))
        change = np.abs(np.concatenate([moved, (now - size) / steps])) / np.tile(size, 2)
        self.steady = bool((change * FRAME_RATE <= STEADY).all())
        self.velocity = (self.velocity + moved) / 2 if self.velocity.any() else moved
        self.last = self.seen = index
        self.missed = False
        if self.id is None:
            self.confidences.append(row[-1])

    def hold(self, index: int) -> None:
        """Repeat the last box up to `index`, unless the last detection missed the face"""
        if not self.missed:
            self.rows += [self.rows[-1]] * (index - self.last)
            self.last = max(index, self.last)


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:, :2] + box[:, 2:]) / 2


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union, (n, m), of all pairs of (n, 4) and (m, 4) boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    area = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (one, other)]
    return inter / np.maximum(area[0][:, None] + area[1][None] - inter, 1e-12)


def match(expected: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """Pair expected boxes (n, 4) with detected ones (m, 4) at the lowest total cost.

    The cost of a pair is the distance of the centres in face sizes, plus one minus the overlap,
    plus the log ratio of the sizes. Boxes that are too far apart or too different in size are never
    paired. Both axes must have the same unit, so boxes must not be normalised by width and height.

    Returns
    -------
    pairs : list of (int, int)
    """
    from scipy.optimize import linear_sum_assignment

    if not len(expected) or not len(found):
        return []
    size = [np.sqrt((box[:, 2:] - box[:, :2]).prod(axis=1)) for box in (expected, found)]
    ratio = np.abs(np.log(size[0][:, None] / size[1][None]))
    distance = np.linalg.norm(_centre(expected)[:, None] - _centre(found)[None], axis=2)
    distance /= (size[0][:, None] + size[1][None]) / 2
    cost = distance + 1 - overlap(expected, found) + ratio
    possible = (distance <= REACH) & (ratio <= np.log(GROWTH))
    # impossible pairs cost more than any set of possible ones, so that as many faces as possible
    # are paired
    pairs = zip(*linear_sum_assignment(np.where(possible, cost, 1e3)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if possible[i, j]]


def smooth(rows: np.ndarray, first: int, last: int) -> np.ndarray:
    """Centred median of `rows[first:last]` over WINDOW rows; the window shrinks at the ends."""
    half, count = WINDOW // 2, len(rows)
    reach = [min(i, count - 1 - i, half) for i in range(first, last)]
    return np.array(
        [np.median(rows[first + k - r : first + k + r + 1], axis=0) for k, r in enumerate(reach)]
    )


class Tracker:
    """Tracks faces through a stream of pictures, but never across a cut.

    Boxes are interpolated between detections, also across short absences, and then smoothed. Both
    steps need later pictures, so rows are returned up to `lag` frames late. A track is returned
    only when it has two detections, the minimum duration, and a sufficient mean confidence. This
    removes false detections, for example of hands.

    Parameters
    ----------
    min_confidence : float
        Minimum confidence of the first detection of a track, and minimum mean confidence of its
        first detections.
    max_gap : float
        Longest time without detection within a track, in seconds.
    min_duration : float
        Minimum duration of a track in seconds.
    stride : int
        Number of frames from one detection to the next. It doubles while all faces are steady.

    Attributes
    ----------
    aspect : float
        Width over height of the picture. Set it before the first update.
    """

    def __init__(
        self,
        min_confidence: float = 0.7,
        max_gap: float = 0.6,
        min_duration: float = 0.4,
        stride: int = 5,
    ):
        self.min_confidence = min_confidence
        self.gap = max(stride, round(max_gap * FRAME_RATE))
        self.min_frames = max(1, round(min_duration * FRAME_RATE))
        self.stride = stride
        self.aspect = 16 / 9
        self._tracks: list[_Track] = []
        self._count = 0

    @property
    def lag(self) -> int:
        """Number of frames after which all rows of a picture have been returned."""
        return self.gap + PATIENCE * self.stride + max(self.min_frames, WINDOW // 2 + 1)

    @property
    def due(self) -> int:
        """Number of frames from the last detection to the next one."""
        steady = all(t.steady and not t.missed and t.id is not None for t in self._tracks)
        return PATIENCE * self.stride if steady and self._tracks else self.stride

    @property
    def current(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (track, row) for each face matched at the last detection.

        A row consists of box, landmarks and confidence.
        """
        return ((t.id, t.rows[-1]) for t in self._tracks if t.id is not None and not t.missed)

    def update(
        self, index: int, detections: Detections | None, cut: bool = False
    ) -> list[TrackPart]:
        """Advance to picture `index`.

        Parameters
        ----------
        index : int
            Grid index, one more than in the previous call.
        detections : Detections or None
            None if the detector was not run on this picture.
        cut : bool
            Whether a new shot begins with this picture.

        Returns
        -------
        finished : list of TrackPart
        """
        finished = self.finish(index) if cut else []
        if detections is None:
            return finished
        self._associate(index, detections)
        for track in list(self._tracks):
            lost = index - track.seen >= self.gap
            if lost:
                self._tracks.remove(track)
            finished += self._give(track, ended=lost)
        return finished

    def finish(self, end: int) -> list[TrackPart]:
        """End all tracks before picture `end`, at a cut or after the last picture."""
        finished = []
        for track in self._tracks:
            track.hold(end - 1)
            finished += self._give(track, ended=True)
        self._tracks = []
        return finished

    def _associate(self, index: int, detections: Detections) -> None:
        unit = np.array([self.aspect, 1.0] * 2)
        found = detections.box * unit
        expected = [t.predict(index, 2 * self.stride) for t in self._tracks]
        pairs = match(np.array(expected).reshape(-1, 4) * unit, found)
        rows = np.concatenate(
            [
                detections.box,
                detections.landmarks.reshape(-1, 10),
                detections.confidence[:, None],
            ],
            axis=1,
        ).astype(np.float64)
        for track in self._tracks:
            if not track.missed:
                track.missed, track.seen = True, max(track.last, index - self.stride)
        for i, j in pairs:
            self._tracks[i].extend(index, rows[j])
        matched = [j for _, j in pairs]
        new = [j for j in range(len(rows)) if j not in matched]
        # most confident first, then left to right, whatever the order of the detector
        for j in sorted(new, key=lambda j: (-rows[j, -1], *rows[j, :4])):
            # skip a second box on a face that already has a track
            if rows[j, -1] >= self.min_confidence and not (
                len(matched) and (overlap(found[[j]], found[matched]) > 0.4).any()
            ):
                self._tracks.append(_Track(index, [rows[j]], index, index, [rows[j, -1]]))
                matched.append(j)

    def _confirm(self, track: _Track) -> bool:
        """Whether a track is confirmed; a track of low mean confidence is restarted"""
        if track.id is None:
            if len(track.confidences) < 2 or len(track.rows) < self.min_frames:
                return False
            if np.mean(track.confidences) < self.min_confidence:
                track.start, track.rows = track.last, track.rows[-1:]
                track.confidences = track.confidences[-1:]
                return False
            track.id, self._count = self._count, self._count + 1
        return True

    def _give(self, track: _Track, ended: bool) -> list[TrackPart]:
        if not self._confirm(track):
            return []
        rows = np.array(track.rows)
        last = len(rows) if ended else len(rows) - WINDOW // 2
        if last <= track.done and not ended:
            return []
        first = track.start + track.done
        picked = np.zeros((0, rows.shape[1])) if last <= track.done else rows[track.done : last]
        if len(picked):
            picked = np.concatenate(
                [smooth(rows[:, :14], track.done, last), picked[:, 14:]], axis=1
            )
        track.done = max(track.done, last)
        # drop rows that no median window reaches any more
        surplus = max(0, track.done - WINDOW // 2)
        track.rows, track.start, track.done = (
            track.rows[surplus:],
            track.start + surplus,
            track.done - surplus,
        )
        picked = picked.astype(np.float32)
        return [
            TrackPart(
                track=track.id,
                start=first,
                box=picked[:, :4],
                landmarks=picked[:, 4:14].reshape(-1, 5, 2),
                confidence=picked[:, 14],
                ended=ended,
            )
        ]
