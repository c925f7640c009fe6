"""Which face belongs to which voice.

The evidence that a face and a voice are one person is the speaking score of the face, summed
over the time the voice is heard: a log-likelihood ratio, as the scores are calibrated log-odds.
A face that stays silent while the voice is heard counts against the pair as much as a moving
mouth counts for it. The assignment is the Hungarian one (Kuhn, 1955), under the constraint that
faces seen at the same time are never the same person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

FRAME_RATE = 25.0

# faces that share fewer grid frames than this are not simultaneous: trackers overlap at cuts
_SIMULTANEOUS_FRAMES = 5


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
    first, second = np.nonzero(shared + 1 >= _SIMULTANEOUS_FRAMES)
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


def voice_evidence(
    persons: Sequence[Person], activity: np.ndarray, clip: float
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence that each person owns each voice.

    Parameters
    ----------
    persons : sequence of Person
    activity : (num_frames, num_voices) bool array
        Which voices are heard in each grid frame.
    clip : float
        Bound on the score of one frame, log-odds: no instant decides alone.

    Returns
    -------
    evidence : (num_persons, num_voices) array
        Log-odds times seconds; where several voices are heard, a speaking face counts for each
        by equal parts and a silent face against none.
    specificity : (num_persons, num_voices) array
        Mean speaking probability while the voice is heard minus that while only others are, in
        [-1, 1]; NaN where either never happens in sight.
    """
    num_voices = activity.shape[1]
    evidence = np.zeros((len(persons), num_voices))
    specificity = np.full((len(persons), num_voices), np.nan)
    share = activity / np.maximum(activity.sum(axis=1, keepdims=True), 1)
    for p, person in enumerate(persons):
        inside = person.index < len(activity)
        index, score = person.index[inside], person.score[inside]
        clipped = np.clip(score, -clip, clip)
        # a silent face says nothing against a voice that only joins another one
        weight = np.where(clipped[:, None] > 0, share[index], share[index] == 1.0)
        evidence[p] = np.einsum("t,tv->v", clipped, weight) / FRAME_RATE
        probability = 1.0 / (1.0 + np.exp(-clipped))
        heard = activity[index]
        others = heard.any(axis=1, keepdims=True) & ~heard
        with np.errstate(invalid="ignore"):
            specificity[p] = (probability @ heard) / heard.sum(axis=0) - (
                probability @ others
            ) / others.sum(axis=0)
    return evidence, specificity


def associate(evidence: np.ndarray, conflict: np.ndarray, minimum: float) -> dict[int, int]:
    """Assign voices to persons.

    Hungarian assignment in rounds: in each, every voice goes to at most one more person; a voice
    may have several faces (the same person in several shots) unless they are simultaneous. A
    person never takes a voice for which the evidence is less than half of his best.

    Parameters
    ----------
    evidence : (num_persons, num_voices) array
    conflict : (num_persons, num_persons) bool array
    minimum : float
        Least evidence of a pair, log-odds times seconds.

    Returns
    -------
    voice_of : dict of person to voice
    """
    from scipy.optimize import linear_sum_assignment

    voice_of: dict[int, int] = {}
    if not evidence.size:
        return voice_of
    best = evidence.max(axis=1, keepdims=True)
    gain = np.where((evidence >= minimum) & (evidence >= 0.5 * best), evidence, 0.0)
    while gain.any():
        progress = False
        for person, voice in zip(*linear_sum_assignment(-gain), strict=True):
            if gain[person, voice] > 0:
                voice_of[int(person)] = int(voice)
                progress = True
        for person, voice in voice_of.items():
            gain[person] = 0.0
            gain[conflict[person], voice] = 0.0
        if not progress:
            break
    return voice_of


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine similarity of two vectors; NaN when either is missing (NaN) or zero."""
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm) if norm > 0 else float("nan")


def holders(voice_of: Mapping[int, int]) -> dict[int, list[int]]:
    """Invert a person-to-voice mapping."""
    owned: dict[int, list[int]] = {}
    for person, voice in voice_of.items():
        owned.setdefault(voice, []).append(person)
    return owned
