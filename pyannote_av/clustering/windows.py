"""Windows of speech: who is seen talking in them, and the turns that they make up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.clustering.linkage import NOBODY
from pyannote_av.core.tracks import FRAME_RATE, FaceSamples, FaceTracks

#: track of entries nobody is seen of
UNSEEN = -1
# share of its own time in which a face is scored, for it to be seen talking in a window
_SEEN = 0.5
# frames for which faces are in the picture together by mistake: trackers overlap at cuts
_TOGETHER = 5
# seconds that floating point numbers may be wrong by
_TOLERANCE = 1e-6


class Windows(NamedTuple):
    """Overlapping windows of speech, in order of time.

    Attributes
    ----------
    span : (n, 2) float array
        Start and end in seconds: what is listened to.
    own : (n, 2) float array
        The time that belongs to a window alone: up to half-way to the middles of its neighbours.
        Together, these are the speech.
    """

    span: np.ndarray
    own: np.ndarray

    def __len__(self) -> int:
        return len(self.span)


class Entries(NamedTuple):
    """Somebody who talks in a window.

    Attributes
    ----------
    window : (m,) int array
        In increasing order; every window has one entry at least, the likeliest one first.
    track : (m,) int array
        Of the face that is seen talking; :data:`UNSEEN` where none is.
    """

    window: np.ndarray
    track: np.ndarray

    def __len__(self) -> int:
        return len(self.window)

    @property
    def visible(self) -> np.ndarray:
        """Which of them have a face: (m,) bool."""
        return self.track != UNSEEN


def cut_windows(speech: Timeline, duration: float, step: float) -> Windows:
    """Cut speech into windows.

    Parameters
    ----------
    speech : Timeline
    duration, step : float
        Of windows and between them, in seconds. Regions of speech that are shorter are windows as
        they are; the last window of others ends where the region does.

    Returns
    -------
    windows : Windows

    Raises
    ------
    ValueError
        When duration or step are not positive, or there would be gaps between windows.
    """
    if not 0 < step <= duration:
        raise ValueError(f"windows of {duration} s every {step} s do not cover what is between")
    spans, own = [], []
    for region in speech.support():
        last = max(region.start, region.end - duration)
        starts = np.arange(region.start, last - _TOLERANCE, step)
        starts = np.append(starts, last)
        ends = np.minimum(starts + duration, region.end)
        middle = (starts + ends) / 2
        borders = np.r_[region.start, (middle[1:] + middle[:-1]) / 2, region.end]
        spans.append(np.stack([starts, ends], axis=1))
        own.append(np.stack([borders[:-1], borders[1:]], axis=1))
    if not spans:
        return Windows(np.zeros((0, 2)), np.zeros((0, 2)))
    return Windows(np.concatenate(spans), np.concatenate(own))


def talking_scores(windows: Windows, tracks: FaceTracks) -> np.ndarray:
    """How likely faces are to talk in windows: the mean score in a window's own time.

    Parameters
    ----------
    windows : Windows
    tracks : FaceTracks
        On the 25 Hz grid, with speaking scores.

    Returns
    -------
    scores : (n, num_tracks) array
        Log-odds, for ``tracks.tracks``; NaN where a face is not scored for half of that time.
    """
    first = np.ceil(windows.own[:, 0] * FRAME_RATE - _TOLERANCE).astype(int)
    # one frame at least, however short the time
    last = np.maximum(np.ceil(windows.own[:, 1] * FRAME_RATE - _TOLERANCE).astype(int), first + 1)
    scores = np.full((len(windows), len(tracks.tracks)), np.nan)
    for column, track in zip(scores.T, tracks.tracks, strict=True):
        one = tracks.of(track)
        index, known = np.round(one.time * FRAME_RATE).astype(int), np.isfinite(one.speaking)
        score, count = np.zeros((2, index[-1] - index[0] + 1))
        score[index[known] - index[0]] = one.speaking[known]
        count[index[known] - index[0]] = 1
        total, seen = (_between(x, first - index[0], last - index[0]) for x in (score, count))
        enough = seen >= _SEEN * (last - first)
        column[enough] = total[enough] / seen[enough]
    return scores


def who_talks(windows: Windows, tracks: FaceTracks, threshold: float = 0.0) -> Entries:
    """One entry for every face that is seen talking in a window, or one without.

    Parameters
    ----------
    windows, tracks
        See :func:`talking_scores`.
    threshold : float, optional
        Score above which a face talks, in log-odds.
    """
    scores = talking_scores(windows, tracks)
    window, column = np.nonzero(scores > threshold)
    unseen = np.setdiff1d(np.arange(len(windows)), window)
    score = np.r_[scores[window, column], np.zeros(len(unseen))]
    track = np.r_[np.array(tracks.tracks, np.int64)[column], np.full(len(unseen), UNSEEN)]
    window = np.r_[window, unseen]
    order = np.lexsort([-score, window])
    return Entries(window[order], track[order])


def _between(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of values[first:last], of what there is"""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[last.clip(0, len(values))] - total[first.clip(0, len(values))]


def hide_faces(entries: Entries, rate: float, seed: int = 0) -> Entries:
    """Entries of which some lose their faces, each with the same probability.

    Those of a window that have none any more become one.

    Parameters
    ----------
    entries : Entries
    rate : float
        In [0, 1].
    seed : int, optional

    References
    ----------
    AVA-AVD (ACM MM 2022), figure 6; ``missing_rate`` of the authors' data set.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of missing faces must be in [0, 1], not {rate}")
    hidden = np.random.default_rng(seed).random(len(entries)) < rate
    track = np.where(hidden, UNSEEN, entries.track)
    # two of a window who are both not seen are one voice
    again = np.zeros(len(entries), bool)
    unseen = np.flatnonzero(track == UNSEEN)
    again[unseen[1:]] = entries.window[unseen[1:]] == entries.window[unseen[:-1]]
    return Entries(entries.window[~again], track[~again])


def entry_faces(
    windows: Windows, entries: Entries, looks: FaceSamples
) -> tuple[np.ndarray, np.ndarray]:
    """What the faces of entries look like: the mean of all looks at them within the window.

    Where there was no look within the window, the one nearest in time to its middle counts.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    looks : FaceSamples
        With vectors of any shape.

    Returns
    -------
    faces : (m, ...) float32 array
        Zero for entries without a face.
    visible : (m,) bool array
        Which entries have a face that was looked at.
    """
    faces = np.zeros((len(entries), *looks.vector.shape[1:]), np.float32)
    visible = np.zeros(len(entries), bool)
    time = looks.frame / FRAME_RATE
    for track in np.unique(entries.track[entries.visible]):
        mine = np.flatnonzero(looks.track == track)
        if not len(mine):
            continue
        for i in np.flatnonzero(entries.track == track):
            start, end = windows.span[entries.window[i]]
            inside = mine[(time[mine] >= start) & (time[mine] < end)]
            if not len(inside):
                inside = mine[[np.abs(time[mine] - (start + end) / 2).argmin()]]
            faces[i], visible[i] = looks.vector[inside].mean(axis=0, dtype=np.float32), True
    return faces, visible


def all_faces(windows: Windows, looks: FaceSamples) -> tuple[np.ndarray, np.ndarray]:
    """The mean of everybody who is seen in a window, talking or not.

    Returns
    -------
    faces : (n, ...) float32 array
    visible : (n,) bool array
        Where anybody is.
    """
    time = looks.frame / FRAME_RATE
    faces = np.zeros((len(windows), *looks.vector.shape[1:]), np.float32)
    visible = np.zeros(len(windows), bool)
    for i, (start, end) in enumerate(windows.span):
        inside = (time >= start) & (time < end)
        if inside.any():
            faces[i], visible[i] = looks.vector[inside].mean(axis=0, dtype=np.float32), True
    return faces, visible


def at_once(entries: Entries, tracks: FaceTracks) -> np.ndarray:
    """Pairs of entries whose faces are in the picture together: (k, 2) int array, first < second.

    These are different people, whatever they look and sound like.
    """
    ids = np.unique(entries.track[entries.visible])
    frames = {t: np.round(tracks.of(t).time * FRAME_RATE).astype(int) for t in ids.tolist()}
    apart = np.zeros((len(ids), len(ids)), bool)
    for i, a in enumerate(ids.tolist()):
        for j, b in enumerate(ids.tolist()[:i]):
            apart[i, j] = apart[j, i] = len(np.intersect1d(frames[a], frames[b])) >= _TOGETHER
    return _pairs(entries, ids, apart)


def same_track(entries: Entries) -> np.ndarray:
    """Pairs of entries of one face track: (k, 2) int array, first < second."""
    ids = np.unique(entries.track[entries.visible])
    return _pairs(entries, ids, np.eye(len(ids), dtype=bool))


def _pairs(entries: Entries, ids: np.ndarray, related: np.ndarray) -> np.ndarray:
    seen = np.flatnonzero(entries.visible)
    place = np.searchsorted(ids, entries.track[seen])
    first, second = np.nonzero(np.triu(related[np.ix_(place, place)], 1))
    return np.stack([seen[first], seen[second]], axis=1)


def settle(windows: Windows, entries: Entries, clusters: np.ndarray) -> np.ndarray:
    """Give a speaker to every entry.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    clusters : (m,) int array
        Entries that are :data:`NOBODY` go with the nearest in time that is not; if none is, all
        are one speaker.

    Returns
    -------
    speakers : (m,) int array
        Numbered from 0 in order of appearance.
    """
    speakers = np.where((clusters == NOBODY).all(), 0, clusters)
    known = np.flatnonzero(speakers != NOBODY)
    middle = windows.own.mean(axis=1)[entries.window]
    for i in np.flatnonzero(speakers == NOBODY):
        speakers[i] = clusters[known[np.abs(middle[known] - middle[i]).argmin()]]
    _, first, inverse = np.unique(speakers, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]


def turns_of(
    windows: Windows, entries: Entries, names: Sequence[str], uri: str | None = None
) -> Annotation:
    """Turns of the speakers of entries.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    names : sequence of str
        One for each entry. Windows with entries of several speakers are overlap.
    uri : str, optional
    """
    turns = Annotation(uri=uri)
    for i, (window, name) in enumerate(zip(entries.window.tolist(), names, strict=True)):
        turns[Segment(*windows.own[window]), i] = name
    return turns.support()
