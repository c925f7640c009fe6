"""Face tracks in the form of the page: few knots between which boxes move linearly."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: maximum distance between a box of the page and the box of the tracks, as part of the picture
TOLERANCE = 0.001
#: units of the coordinates of a box, per width or height of the picture
UNITS = 10_000
#: scores of faces that the page keeps for its exports
SCORES = ("confidence", "speaking")
_UNKNOWN = -32768  # of a score
# longest step between the rows of a run, in steps of the grid
_GAP = 1.5


def first_rows(tracks: FaceTracks) -> np.ndarray:
    """Index of the first row of each run: an uninterrupted part of a track."""
    if not tracks:
        return np.zeros(0, np.int64)
    broken = np.diff(tracks.track) != 0
    broken |= np.diff(tracks.time) > _GAP / tracks.frame_rate
    return np.r_[0, np.flatnonzero(broken) + 1]


def knots(
    time: np.ndarray, box: np.ndarray, first: np.ndarray, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Rows between which linear interpolation gives all other rows, up to a tolerance.

    Ramer, "An iterative procedure for the polygonal approximation of plane curves", Computer
    Graphics and Image Processing 1(3), 1972; here for all runs at once.

    Parameters
    ----------
    time : (N,) array
    box : (N, 4) array
    first : (R,) int array
        First row of each run.
    tolerance : float, optional

    Returns
    -------
    rows : (K,) int array
        Sorted. They include the first and the last row of each run.
    """
    kept = np.zeros(len(time), bool)
    if not len(time):
        return np.flatnonzero(kept)
    kept[first] = kept[np.r_[first[1:], len(time)] - 1] = True
    rows = np.flatnonzero(~kept)  # rows that may still become knots
    while len(rows):
        knot = np.flatnonzero(kept)
        after = np.searchsorted(knot, rows)
        left, right = knot[after - 1], knot[after]
        part = ((time[rows] - time[left]) / (time[right] - time[left]))[:, None]
        error = np.abs(box[rows] - ((1 - part) * box[left] + part * box[right])).max(axis=1)
        begins = np.flatnonzero(np.r_[True, np.diff(after) != 0])
        worst = np.repeat(np.maximum.reduceat(error, begins), np.diff(np.r_[begins, len(rows)]))
        # one new knot in each segment that is not straight enough; the others are finished
        new = (error == worst) & (worst > tolerance)
        position = np.flatnonzero(new)
        position = position[np.r_[True, np.diff(after[position]) != 0][: len(position)]]
        kept[rows[position]] = True
        rows = rows[(worst > tolerance) & ~kept[rows]]
    return np.flatnonzero(kept)


def page_tracks(tracks: FaceTracks, speakers: Mapping[str, int]) -> dict[str, Any]:
    """Face tracks for the page.

    Parameters
    ----------
    tracks : FaceTracks
    speakers : dict of str to int
        Number of each speaker on the page.

    Returns
    -------
    content : dict
        ``ids`` (of the tracks), ``owner`` (speaker of each track, -1 where unknown),
        ``frameRate``, ``frameSize``, and base64 of little-endian arrays: ``track`` (uint32: index
        of the track of each run), ``first`` (uint32: first knot of each run, and the number of
        knots), ``times`` (int32, in ms) and ``boxes`` (int16, in 1e-4 of the picture).
        ``confidence`` and ``speaking``, where there are any, have one value for each row of the
        tracks (int16, in thousandths; -32768 where unknown).
    """
    ids = tracks.tracks
    first = first_rows(tracks)
    rows = knots(tracks.time, tracks.box, first)
    scores = {name: getattr(tracks, name) for name in SCORES}
    return {
        "ids": ids,
        "owner": [speakers.get(tracks.speaker.get(track, ""), -1) for track in ids],
        "frameRate": tracks.frame_rate,
        "frameSize": tracks.frame_size,
        "track": _packed(np.searchsorted(ids, tracks.track[first]), "<u4"),
        "first": _packed(np.r_[np.searchsorted(rows, first), len(rows)], "<u4"),
        "times": _packed(np.round(1000 * tracks.time[rows]), "<i4"),
        "boxes": _packed(np.round(UNITS * tracks.box[rows]), "<i2"),
        **{
            name: _packed(_thousandths(values), "<i2")
            for name, values in scores.items()
            if np.isfinite(values).any()
        },
    }


def _thousandths(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), _UNKNOWN, np.round(1000 * scores.clip(-32, 32)))


def _packed(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode("ascii")
