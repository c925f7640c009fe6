"""From face tracks to persons: select usable tracks, and group those that show the same face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.fusion import guard

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

# faces are simultaneous if they share at least this many grid frames: tracks may overlap at cuts
SIMULTANEOUS_FRAMES = 5
# quantile of the scores of a face that estimates its score during silence
_SILENCE = 0.1
# lower bound of thresholds: a probability of 12 %
_LOWEST = -2.0


@dataclass(frozen=True)
class FaceIdentity:
    """Face tracks that show the same person.

    Parameters
    ----------
    tracks : tuple of int
        Track identifiers.
    index : (num_frames,) int array
        Grid frames in which the person is visible and scored, in increasing order.
    score : (num_frames,) float array
        Speaking scores, in log-odds.
    spans : tuple of (int, int)
        First and last grid frame of each track.
    """

    tracks: tuple[int, ...]
    index: np.ndarray = field(repr=False)
    score: np.ndarray = field(repr=False)
    spans: tuple[tuple[int, int], ...] = ()

    def threshold(self, rise: float) -> float:
        """Score above which the person speaks, in log-odds: 0 or less.

        Scores are calibrated on people who talk most of the time. People who are visible for long
        and talk little get lower scores, and the offset differs from face to face. The threshold
        is therefore `rise` above the score of the face during silence, estimated by its 10 %
        quantile. For faces that talk most of the time this exceeds 0, and the threshold is 0. A
        lower bound on the threshold prevents very low scores from being taken as speech.
        """
        silence = np.quantile(self.score, _SILENCE) if len(self.score) else 0.0
        return min(0.0, max(float(silence) + rise, _LOWEST))

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Scores at grid `frames`, in any order; NaN where the person is not visible or scored."""
        out = np.full(len(frames), np.nan)
        if len(self.index):
            position = np.searchsorted(self.index, frames).clip(max=len(self.index) - 1)
            hit = self.index[position] == frames
            out[hit] = self.score[position[hit]]
        return out


def make_identity(
    tracks: Sequence[tuple[int, np.ndarray, np.ndarray]],
) -> FaceIdentity:
    """Create a person from tracks, each given as (identifier, (n,) grid frames, (n,) scores)."""
    frames = np.concatenate([index for _, index, _ in tracks])
    scores = np.concatenate([score for _, _, score in tracks]).astype(float)
    scored = np.isfinite(scores)
    index, inverse = np.unique(frames[scored], return_inverse=True)
    score = np.full(len(index), -np.inf)
    np.maximum.at(score, inverse, scores[scored])
    spans = tuple((int(i.min()), int(i.max())) for _, i, _ in tracks if len(i))
    return FaceIdentity(tuple(t for t, _, _ in tracks), index, score, spans)


def simultaneous(spans: Sequence[Iterable[tuple[int, int]]]) -> np.ndarray:
    """Pairs of faces that are visible at the same time.

    Parameters
    ----------
    spans : sequence of iterables of (first, last)
        Grid frames in which each face is visible.

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
    """Group tracks that show the same face, by face embeddings.

    The grouping is a complete-linkage clustering of cosine distances that never joins simultaneous
    tracks. Each track without an embedding forms its own group.

    Parameters
    ----------
    conflict : (num_tracks, num_tracks) bool array
    embeddings : sequence of (dimension,) unit-length arrays or None
    threshold : float
        Maximum cosine distance of two tracks that show the same face.

    Returns
    -------
    groups : list of lists of int
        Positions of tracks.
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
class FaceIdentities:
    """The persons of a file.

    Parameters
    ----------
    identities : list of FaceIdentity
    conflict : (num_identities, num_identities) bool array
        Pairs of persons who are visible at the same time.
    distinct : (num_identities, num_identities) bool array
        Pairs of persons who are known to be different people.
    refused : dict of track to reason
        Tracks that are not used.
    """

    identities: list[FaceIdentity]
    conflict: np.ndarray
    distinct: np.ndarray
    refused: dict[int, str]

    @classmethod
    def empty(cls) -> FaceIdentities:
        """Result for a video without usable faces."""
        return cls([], np.zeros((0, 0), bool), np.zeros((0, 0), bool), {})


def find_identities(
    tracks: FaceTracks, *, offset: float, min_face: float, identity_threshold: float
) -> FaceIdentities:
    """Group usable tracks into persons, with frames shifted to the clock of the audio.

    Parameters
    ----------
    tracks : FaceTracks
        Tracks on the 25 Hz grid, with speaking scores.
    offset : float
        Delay of the audio relative to the video, in seconds.
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
    identities = [make_identity([rows[i] for i in group]) for group in groups]

    conflict = simultaneous([identity.spans for identity in identities])
    # faces that both have embeddings, but were not grouped, are different people
    known = np.array([any(embeddings[i] is not None for i in group) for group in groups], bool)
    distinct = conflict | np.logical_and.outer(known, known)
    np.fill_diagonal(distinct, False)
    return FaceIdentities(identities, conflict, distinct, refused)
