"""Windows of speech: talking faces in each window, and conversion of windows to turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.clustering.linkage import NOBODY
from pyannote_av.core.tracks import FRAME_RATE, FaceSamples, FaceTracks

#: track of entries without a face
NO_FACE = -1
#: maximum time between a window without a face sample and the sample that is used for it, seconds
FACE_REACH = 1.0
# minimum share of a window's own time in which a face is scored, for a valid score
_MIN_SCORED = 0.5
# faces are simultaneous if they share at least this many frames: tracks may overlap at cuts
_TOGETHER = 5
# tolerance for rounding errors, seconds
_TOLERANCE = 1e-6


class Windows(NamedTuple):
    """Overlapping windows of speech, in order of time.

    Attributes
    ----------
    span : (n, 2) float array
        Start and end of the audio that is embedded, in seconds.
    own : (n, 2) float array
        Part of the time that belongs to this window alone. It ends half-way between the centre of
        the window and the centres of its neighbours. Together, these parts cover all speech.
    """

    span: np.ndarray
    own: np.ndarray

    def __len__(self) -> int:
        return len(self.span)


class Entries(NamedTuple):
    """Speakers in windows: one entry per window and talking face.

    Attributes
    ----------
    window : (m,) int array
        Window of each entry, in increasing order. Every window has at least one entry. Entries of
        the same window are sorted by decreasing score.
    track : (m,) int array
        Track of the talking face, or :data:`NO_FACE` if no face is speaking.
    """

    window: np.ndarray
    track: np.ndarray

    def __len__(self) -> int:
        return len(self.window)

    @property
    def visible(self) -> np.ndarray:
        """Entries with a face: (m,) bool."""
        return self.track != NO_FACE


def cut_windows(speech: Timeline, duration: float, step: float) -> Windows:
    """Cut speech into windows.

    Parameters
    ----------
    speech : Timeline
    duration, step : float
        Duration of windows, and step between them, in seconds. A speech region that is shorter
        than `duration` becomes one window. In longer regions, the last window ends with the region.

    Returns
    -------
    windows : Windows

    Raises
    ------
    ValueError
        If duration or step are not positive, or if there would be gaps between windows.
    """
    if not 0 < step <= duration:
        raise ValueError(f"windows of {duration} s every {step} s leave gaps between them")
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
    """Mean speaking score of each face in the own time of each window.

    Parameters
    ----------
    windows : Windows
    tracks : FaceTracks
        Tracks on the 25 Hz grid, with speaking scores.

    Returns
    -------
    scores : (n, num_tracks) array
        Log-odds, with one column per track of ``tracks.tracks``. NaN where a face is scored for
        less than half of that time.
    """
    first = np.ceil(windows.own[:, 0] * FRAME_RATE - _TOLERANCE).astype(int)
    # at least one frame
    last = np.maximum(np.ceil(windows.own[:, 1] * FRAME_RATE - _TOLERANCE).astype(int), first + 1)
    scores = np.full((len(windows), len(tracks.tracks)), np.nan)
    for column, track in zip(scores.T, tracks.tracks, strict=True):
        one = tracks.of(track)
        known = np.isfinite(one.speaking)
        index = np.round(one.time[known] * FRAME_RATE).astype(int)
        # off the grid, several rows may have the same frame: the last one counts
        latest = np.diff(index, append=index[-1:] + 1) > 0
        index = index[latest]
        total = np.concatenate([[0.0], np.cumsum(one.speaking[known][latest], dtype=float)])
        begin, end = np.searchsorted(index, first), np.searchsorted(index, last)
        scored = end - begin
        enough = scored >= _MIN_SCORED * (last - first)
        column[enough] = (total[end] - total[begin])[enough] / scored[enough]
    return scores


def who_talks(windows: Windows, tracks: FaceTracks, threshold: float = 0.0) -> Entries:
    """Create one entry per window and talking face, or one without a face if no face is speaking.

    Parameters
    ----------
    windows, tracks
        See :func:`talking_scores`.
    threshold : float, optional
        A face talks if its score is above this, in log-odds.
    """
    scores = talking_scores(windows, tracks)
    window, column = np.nonzero(scores > threshold)
    faceless = np.setdiff1d(np.arange(len(windows)), window)
    score = np.r_[scores[window, column], np.zeros(len(faceless))]
    track = np.r_[np.array(tracks.tracks, np.int64)[column], np.full(len(faceless), NO_FACE)]
    window = np.r_[window, faceless]
    order = np.lexsort([-score, window])
    return Entries(window[order], track[order])


def hide_faces(entries: Entries, rate: float, seed: int = 0) -> Entries:
    """Remove the faces of random entries.

    Entries of the same window that have no face any more are merged into one.

    Parameters
    ----------
    entries : Entries
    rate : float
        Probability that an entry loses its face, in [0, 1].
    seed : int, optional

    References
    ----------
    AVA-AVD (ACM MM 2022), figure 6; ``missing_rate`` of the authors' data set.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of missing faces must be in [0, 1], not {rate}")
    hidden = np.random.default_rng(seed).random(len(entries)) < rate
    track = np.where(hidden, NO_FACE, entries.track)
    # keep one entry without a face per window
    again = np.zeros(len(entries), bool)
    faceless = np.flatnonzero(track == NO_FACE)
    again[faceless[1:]] = entries.window[faceless[1:]] == entries.window[faceless[:-1]]
    return Entries(entries.window[~again], track[~again])


def entry_faces(
    windows: Windows,
    entries: Entries,
    samples: FaceSamples,
    pick: Literal["mean", "random"] = "mean",
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Face features of entries, from the face samples of the track within the window.

    If there is no sample within the window, the nearest one is used, up to :data:`FACE_REACH` from
    the window.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    samples : FaceSamples
        Face samples, with vectors of any shape.
    pick : {"mean", "random"}, optional
        The mean of all samples within the window, or a random one of them.
    seed : int or Generator, optional
        Random numbers for ``pick="random"``.

    Returns
    -------
    faces : (m, ...) float32 array
        Zero for entries without a face.
    visible : (m,) bool array
        Entries whose face has a sample.
    """
    if pick not in ("mean", "random"):
        raise ValueError(f'pick must be "mean" or "random", not {pick!r}')
    rng = np.random.default_rng(seed)
    faces = np.zeros((len(entries), *samples.vector.shape[1:]), np.float32)
    visible = np.zeros(len(entries), bool)
    time = samples.frame / FRAME_RATE
    for track in np.unique(entries.track[entries.visible]):
        mine = np.flatnonzero(samples.track == track)
        if not len(mine):
            continue
        for i in np.flatnonzero(entries.track == track):
            start, end = windows.span[entries.window[i]]
            inside = mine[(time[mine] >= start) & (time[mine] < end)]
            if not len(inside):
                away = np.maximum(start - time[mine], time[mine] - end)
                if away.min() > FACE_REACH + _TOLERANCE:
                    continue
                inside = mine[[away.argmin()]]
            if pick == "random":
                inside = inside[[rng.integers(len(inside))]]
            faces[i], visible[i] = samples.vector[inside].mean(axis=0, dtype=np.float32), True
    return faces, visible


def all_faces(windows: Windows, samples: FaceSamples) -> tuple[np.ndarray, np.ndarray]:
    """Mean of all face samples in each window, whether the faces talk or not.

    Returns
    -------
    faces : (n, ...) float32 array
    visible : (n,) bool array
        Windows with at least one face sample.
    """
    time = samples.frame / FRAME_RATE
    faces = np.zeros((len(windows), *samples.vector.shape[1:]), np.float32)
    visible = np.zeros(len(windows), bool)
    for i, (start, end) in enumerate(windows.span):
        inside = (time >= start) & (time < end)
        if inside.any():
            faces[i], visible[i] = samples.vector[inside].mean(axis=0, dtype=np.float32), True
    return faces, visible


def at_once(entries: Entries, tracks: FaceTracks) -> np.ndarray:
    """Pairs of entries whose faces are visible simultaneously: (k, 2) int array, first < second.

    Such faces always belong to different people.
    """
    from scipy.sparse import csr_array

    ids = np.unique(entries.track[entries.visible])
    rows = np.isin(tracks.track, ids)
    frames, column = np.unique(np.round(tracks.time[rows] * FRAME_RATE), return_inverse=True)
    row = np.searchsorted(ids, tracks.track[rows])
    visible = csr_array((np.ones(len(row), int), (row, column)), (len(ids), len(frames)))
    visible.data[:] = 1  # off the grid, several rows may have the same frame
    apart = (visible @ visible.T).toarray() >= _TOGETHER
    np.fill_diagonal(apart, False)
    return _pairs(entries, ids, apart)


def same_track(entries: Entries) -> np.ndarray:
    """Pairs of entries of the same face track: (k, 2) int array, first < second."""
    ids = np.unique(entries.track[entries.visible])
    return _pairs(entries, ids, np.eye(len(ids), dtype=bool))


def _pairs(entries: Entries, ids: np.ndarray, related: np.ndarray) -> np.ndarray:
    visible = np.flatnonzero(entries.visible)
    place = np.searchsorted(ids, entries.track[visible])
    first, second = np.nonzero(np.triu(related[np.ix_(place, place)], 1))
    return np.stack([visible[first], visible[second]], axis=1)


def settle(windows: Windows, entries: Entries, clusters: np.ndarray) -> np.ndarray:
    """Assign a speaker to every entry.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    clusters : (m,) int array
        An entry of :data:`NOBODY` gets the speaker of the nearest other entry in time. If all
        entries are :data:`NOBODY`, all get the same speaker.

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
    """Convert entries with speakers to turns.

    Parameters
    ----------
    windows : Windows
    entries : Entries
    names : sequence of str
        Speaker of each entry. Windows with several speakers become overlapping turns.
    uri : str, optional
    """
    turns = Annotation(uri=uri)
    for i, (window, name) in enumerate(zip(entries.window.tolist(), names, strict=True)):
        turns[Segment(*windows.own[window]), i] = name
    return turns.support()
