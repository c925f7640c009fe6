"""From face tracks to persons: which tracks are usable, and which show one and the same face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.fusion import guard

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

# faces that share fewer grid frames than this are not simultaneous: trackers overlap at cuts
SIMULTANEOUS_FRAMES = 5
# share of a face's scores that are taken to be of its silence
_SILENCE = 0.1
# bound on thresholds: a probability of 12 %
_LOWEST = -2.0


@dataclass(frozen=True)
class Person:
    """Face tracks believed to show one person.

    Parameters
    ----------
    tracks : tuple of int
        Track identifiers.
    index : (num_frames,) int array
        Grid frames in which the person is visible and scored, increasing.
    score : (num_frames,) float array
        Speaking score, log-odds.
    spans : tuple of (int, int)
        First and last grid frame of every track.
    """

    tracks: tuple[int, ...]
    index: np.ndarray = field(repr=False)
    score: np.ndarray = field(repr=False)
    spans: tuple[tuple[int, int], ...] = ()

    def threshold(self, rise: float) -> float:
        """Score above which the person is taken to speak, in log-odds: 0, or less.

        Scores are calibrated on people who talk all the time. Who is shown for long and says a
        word is scored lower, and faces differ by more than these words do: such a face speaks when
        its score is `rise` above what it is in silence, its lowest tenth. Faces that talk most of
        the time have no silence to be judged by, and are judged by 0; and a face that is hardly
        less silent than dead silent does not speak, which is what the bound is for.
        """
        silence = np.quantile(self.score, _SILENCE) if len(self.score) else 0.0
        return min(0.0, max(float(silence) + rise, _LOWEST))

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Scores at grid `frames` (any order), NaN where the person is not visible or scored."""
        out = np.full(len(frames), np.nan)
        if len(self.index):
            position = np.searchsorted(self.index, frames).clip(max=len(self.index) - 1)
            hit = self.index[position] == frames
            out[hit] = self.score[position[hit]]
        return out


def make_person(
    tracks: Sequence[tuple[int, np.ndarray, np.ndarray]],
) -> Person:
    """Join tracks, given as (identifier, (n,) grid frames, (n,) scores), into one person."""
    frames = np.concatenate([index for _, index, _ in tracks])
    scores = np.concatenate([score for _, _, score in tracks]).astype(float)
    scored = np.isfinite(scores)
    index, inverse = np.unique(frames[scored], return_inverse=True)
    score = np.full(len(index), -np.inf)
    np.maximum.at(score, inverse, scores[scored])
    spans = tuple((int(i.min()), int(i.max())) for _, i, _ in tracks if len(i))
    return Person(tuple(t for t, _, _ in tracks), index, score, spans)


def simultaneous(spans: Sequence[Iterable[tuple[int, int]]]) -> np.ndarray:
    """Which faces are on screen at the same time.

    Parameters
    ----------
    spans : sequence of iterables of (first, last) grid frames, one per face

    Returns
    -------
    conflict : (num_faces, num_faces) bool array, False on its diagonal
    """
    owner = np.array([i for i, own in enumerate(spans) for _ in own], dtype=int)
    limits = np.array([span for own in spans for span in own], dtype=int).reshape(-1, 2)
    shared = np.minimum.outer(limits[:, 1], limits[:, 1]) - np.maximum.outer(
        limits[:, 0], limits[:, 0]
    )
    conflict = np.zeros((len(spans), len(spans)), dtype=bool)
    first, second = np.nonzero(shared + 1 >= SIMULTANEOUS_FRAMES)
    conflict[owner[first], owner[second]] = True
    np.fill_diagonal(conflict, False)
    return conflict


def group_tracks(
    conflict: np.ndarray, embeddings: Sequence[np.ndarray | None], threshold: float
) -> list[list[int]]:
    """Group tracks that show one face, by identity embeddings.

    Complete-linkage clustering of cosine distances in which simultaneous tracks are never joined.
    Tracks without an embedding stay alone.

    Parameters
    ----------
    conflict : (num_tracks, num_tracks) bool array
    embeddings : sequence of (dimension,) unit-length arrays or None
    threshold : float
        Cosine distance up to which two tracks may show the same face.

    Returns
    -------
    groups : list of lists of positions
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    known = [i for i, e in enumerate(embeddings) if e is not None]
    alone = [[i] for i, e in enumerate(embeddings) if e is None]
    if len(known) < 2:
        return sorted(alone + [[i] for i in known])
    vectors = np.stack([embeddings[i] for i in known])
    distance = np.clip(1.0 - vectors @ vectors.T, 0.0, 2.0)
    distance[conflict[np.ix_(known, known)]] = 10.0  # never below any threshold
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0.0)
    labels = fcluster(
        linkage(squareform(distance, checks=False), "complete"), threshold, criterion="distance"
    )
    groups = [[known[j] for j in np.flatnonzero(labels == label)] for label in np.unique(labels)]
    return sorted(alone + groups)


@dataclass(frozen=True)
class People:
    """The persons of a file.

    Parameters
    ----------
    persons : list of Person
    conflict : (num_persons, num_persons) bool array
        Who is on screen at the same time.
    distinct : (num_persons, num_persons) bool array
        Who is known to be different people.
    refused : dict of track to reason
        Tracks that are not used.
    """

    persons: list[Person]
    conflict: np.ndarray
    distinct: np.ndarray
    refused: dict[int, str]

    @classmethod
    def nobody(cls) -> People:
        """An empty picture."""
        return cls([], np.zeros((0, 0), bool), np.zeros((0, 0), bool), {})


def find_persons(
    tracks: FaceTracks, *, offset: float, min_face: float, identity_threshold: float
) -> People:
    """Join the usable tracks to persons, on the clock of the sound.

    Parameters
    ----------
    tracks : FaceTracks
        On the 25 Hz grid, with speaking scores.
    offset : float
        Seconds by which the sound is late relative to the picture.
    min_face : float
        Smallest usable face, in pixels.
    identity_threshold : float
        See :func:`group_tracks`.
    """
    height = tracks.frame_size[1] if tracks.frame_size else float("nan")
    sizes, durations = {}, {}
    for track in tracks.tracks:
        one = tracks.of(track)
        sizes[track] = float(np.median(one.box[:, 3] - one.box[:, 1])) * height
        durations[track] = len(one) / FRAME_RATE
    refused = guard.refuse_tracks(sizes, durations, min_face)

    shift = round(offset * FRAME_RATE)
    usable = [track for track in tracks.tracks if track not in refused]
    rows = []
    for track in usable:
        one = tracks.of(track)
        rows.append((track, np.round(one.time * FRAME_RATE).astype(int) + shift, one.speaking))
    conflict = simultaneous([[(index[0], index[-1])] for _, index, _ in rows])
    embeddings = [tracks.embeddings.get(track) for track in usable]
    groups = group_tracks(conflict, embeddings, identity_threshold)
    persons = [make_person([rows[i] for i in group]) for group in groups]

    conflict = simultaneous([person.spans for person in persons])
    # faces with an identity each are different people when they were not joined
    known = np.array([any(embeddings[i] is not None for i in group) for group in groups], bool)
    distinct = conflict | np.logical_and.outer(known, known)
    np.fill_diagonal(distinct, False)
    return People(persons, conflict, distinct, refused)
