"""Joint decision who speaks, from everything that is known about each step of 10 ms.

Each speaker has log-odds, which are a weighted sum over independent sources: the posteriors of the
sound, the turns of the sound, and the speaking scores of faces. The sound also provides posteriors
P of the number of simultaneous speakers. The most likely set S of speakers maximises

    sum of the log-odds of the speakers in S  +  weight x log P(size of S).

Faces thus decide mostly who speaks, and the sound decides mostly whether anybody does. A mouth that
moves in silence, or is not visible while its owner speaks, has to overrule the sound to do harm.

Networks of sound hear too little overlap rather than too much, and lips of people who are seen from
the side seem to rest. A silent face therefore counts against its owner only as far as the sound
hears fewer than two speakers. In an overlap, it decides only who speaks.

Only the sound knows anything about a speaker whose face is not visible. The turns of this speaker
stay as the sound has them, apart from minimum durations, unless the speaker takes the place of one
whose face is visible, or gives way to one. To take a place, the speaker needs some seconds of
speech in the sound: with less, the sound does not know the voice.

A network that was trained on simulated conversations knows speakers well, and the boundaries of
real speech less well. Its log-odds therefore decide mostly who is in S, and only in part its size.

All changes together also have a likelihood: the gain is the difference between the sum of the
decision and that of the turns of the sound. If it is low, the turns of the sound should be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pyannote.core import Annotation

from pyannote_av.core.grid import STEP_RATE, STEPS
from pyannote_av.core.posteriors import SpeakerPosteriors
from pyannote_av.fusion.activities import Durations, enforce, from_annotation, likeliest
from pyannote_av.fusion.identities import FaceIdentity

#: bounds of probabilities, of speakers and of numbers of speakers
_CERTAIN = 0.01
#: probability that somebody speaks who has a face, but no voice that the sound knows
_UNHEARD = 0.05
#: probability of three speakers or more relative to that of two or more
_THREE = 0.1
#: steps over which evidence is averaged to decide who speaks: nobody takes turns faster
_WIDTH = 21
#: bound on the absolute speaking score of a face, in log-odds
_CLIP = 4.0
#: minimum speech in the sound of a speaker who is not visible and replaces another one, in seconds
_MIN_SPEECH = 3.0
#: steps that are decided together (ten minutes), so that long files take little more memory
_BLOCK = 60_000


class Weights(NamedTuple):
    """Weight of each source of evidence.

    Attributes
    ----------
    sound, turns, scores, counts : float
        Of the posteriors of the sound, its turns, speaking scores, and the number of speakers.
    """

    sound: float
    turns: float
    scores: float
    counts: float


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, which are bounded to [0.01, 0.99]."""
    bounded = np.clip(probability, _CERTAIN, 1 - _CERTAIN)
    return np.log(bounded) - np.log1p(-bounded)


def sound_evidence(
    posteriors: SpeakerPosteriors,
    turns: Annotation,
    labels: Sequence[str],
    num_steps: int,
    weights: Weights,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence of the sound about each speaker.

    Parameters
    ----------
    posteriors : SpeakerPosteriors
    turns : Annotation
        Turns of the same speakers.
    labels : sequence of str
        Speakers to return. Those that the sound does not know get a low constant.
    num_steps : int
    weights : Weights

    Returns
    -------
    evidence : (num_steps, num_labels) float32 array
        Weighted log-odds.
    counts : (num_steps, 3) float32 array
        Posteriors of the number of speakers; see :class:`SpeakerPosteriors`.
    active : (num_steps, num_labels) bool array
        The turns.
    """
    known = [k for k, label in enumerate(labels) if label in posteriors.labels]
    names = [labels[k] for k in known]
    speakers, counts = posteriors.at_steps(num_steps, names)
    active = from_annotation(turns.subset(labels), labels, num_steps)
    votes = np.where(active[:, known], 1.0, -1.0)
    evidence = np.full((num_steps, len(labels)), weights.sound * log_odds(np.float32(_UNHEARD)))
    evidence[:, known] = weights.sound * log_odds(speakers) + weights.turns * votes
    return evidence.astype(np.float32), counts, active


def face_evidence(
    faces: Sequence[Sequence[FaceIdentity]], num_steps: int, weights: Weights
) -> np.ndarray:
    """Evidence of speaking scores about each speaker.

    Parameters
    ----------
    faces : sequence of sequences of FaceIdentity
        Faces of each speaker. Where several are visible, the highest score counts.
    num_steps : int
    weights : Weights

    Returns
    -------
    evidence : (num_steps, num_speakers) float32 array
        Weighted log-odds; 0 where no face is scored.
    """
    frames = np.arange(-(-num_steps // STEPS))
    evidence = np.zeros((len(frames), len(faces)), np.float32)
    for k, own in enumerate(faces):
        scores = np.full(len(frames), -np.inf)
        for face in own:
            found = face.at(frames)
            scores = np.where(np.isfinite(found), np.maximum(scores, found), scores)
        visible = np.isfinite(scores)
        evidence[visible, k] = weights.scores * np.clip(scores[visible], -_CLIP, _CLIP)
    return evidence.repeat(STEPS, axis=0)[:num_steps]


def add_faces(
    evidence: np.ndarray, counts: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add the evidence of faces to that of the sound.

    Parameters
    ----------
    evidence, faces : (steps, speakers) arrays
        Log-odds, from :func:`sound_evidence` and :func:`face_evidence`.
    counts : (steps, 3) array
        Posteriors of the number of speakers.

    Returns
    -------
    evidence, preference : (steps, speakers) arrays
        See :func:`most_likely`. Evidence that a face is silent moves from the first to the second
        in proportion to the probability of overlap. Their sum does not depend on it.
    """
    silent = np.minimum(faces, 0.0) * counts[:, 2:]
    return evidence + faces - silent, silent


def most_likely(
    evidence: np.ndarray,
    counts: np.ndarray,
    weight: float,
    preference: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Most likely set of speakers of each step.

    Parameters
    ----------
    evidence : (steps, speakers) array
        Log-odds.
    counts : (steps, 3) array
        Probability that nobody, one speaker, and two or more speakers are active.
    weight : float
        Weight of these probabilities.
    preference : (steps, speakers) array, optional
        Further log-odds, which decide only who speaks, and not how many.

    Returns
    -------
    active : (steps, speakers) bool array
        At most three are active.
    """
    return likeliest(evidence + preference, _how_many(evidence, counts, weight))


def _how_many(evidence: np.ndarray, counts: np.ndarray, weight: float) -> np.ndarray:
    """Size of the most likely set of speakers of each step"""
    number = np.empty(len(evidence), int)
    largest = min(3, evidence.shape[1])
    for first in range(0, len(evidence), _BLOCK):
        steps = slice(first, first + _BLOCK)
        own, prior = evidence[steps], _prior(counts[steps], weight)
        best = -np.partition(-own, range(largest), axis=1)[:, :largest] if largest else own
        total = np.concatenate([np.zeros((len(own), 1)), best.cumsum(axis=1)], axis=1)
        number[steps] = (total + prior[:, : largest + 1]).argmax(axis=1)
    return number


def _prior(counts: np.ndarray, weight: float) -> np.ndarray:
    """Weighted log-probability of 0 to 3 speakers: (steps, 4)"""
    counts = np.clip(counts, _CERTAIN, 1.0)
    counts = counts / counts.sum(axis=1, keepdims=True)
    return weight * np.log(np.concatenate([counts, _THREE * counts[:, 2:]], axis=1))


def keep_unseen(chosen: np.ndarray, sound: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Undo changes to the turns of speakers whose face is not visible.

    Two changes remain: the speaker takes the place of one whose face is visible, or gives way to
    one.

    Parameters
    ----------
    chosen, sound : (steps, speakers) bool arrays
        Who speaks, according to all evidence and to the sound.
    seen : (steps, speakers) bool array
        Where the face of each speaker is visible.

    Returns
    -------
    active : (steps, speakers) bool array
    """
    added, removed = chosen & ~sound, sound & ~chosen
    visible = [(change & seen).any(axis=1, keepdims=True) for change in (added, removed)]
    undone = ~seen & ((added & ~visible[1]) | (removed & ~visible[0]))
    return np.where(undone, sound, chosen)


def averaged(evidence: np.ndarray, width: int) -> np.ndarray:
    """Moving average over `width` steps: (steps, speakers)."""
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(evidence, width, axis=0, mode="nearest") if width > 1 else evidence


def gain_of(
    active: np.ndarray,
    sound: np.ndarray,
    seen: np.ndarray,
    log_odds: np.ndarray,
    counts: np.ndarray,
    weight: float,
) -> float:
    """How much likelier a decision is than the turns of the sound.

    Parameters
    ----------
    active, sound, seen : (steps, speakers) bool arrays
        The decision, the turns of the sound, and where the face of each speaker is visible.
    log_odds : (steps, speakers) array
        All evidence about each speaker.
    counts, weight
        See :func:`most_likely`.

    Returns
    -------
    gain : float
        Difference of log-likelihoods (natural logarithms), divided by the number of steps in which
        the sound has speech and any face is visible.
    """
    rows = np.flatnonzero((active != sound).any(axis=1))
    prior, place = _prior(counts[rows], weight), np.arange(len(rows))

    def total(speaks: np.ndarray) -> float:
        size = speaks.sum(axis=1).clip(max=3)
        return float((log_odds[rows] * speaks).sum() + prior[place, size].sum())

    visible = sound.any(axis=1) & seen.any(axis=1)
    return (total(active[rows]) - total(sound[rows])) / max(1, int(visible.sum()))


class Decision(NamedTuple):
    """Who speaks when.

    Attributes
    ----------
    kept : list of int
        Speakers that are kept.
    active : (steps, kept speakers) bool array
    probability : (steps, kept speakers) float32 array
        Probability of each speaker according to all evidence.
    gain : float
        See :func:`gain_of`.
    """

    kept: list[int]
    active: np.ndarray
    probability: np.ndarray
    gain: float


def decode(
    evidence: np.ndarray,
    counts: np.ndarray,
    weight: float,
    durations: Durations,
    num_voices: int,
    min_new: float,
    most: float = np.inf,
    preference: np.ndarray | None = None,
    sound: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> Decision:
    """Decide who speaks when, and which faces without a voice are speakers.

    Parameters
    ----------
    evidence, counts, weight, preference
        See :func:`most_likely`.
    durations : Durations
        Minimum durations of turns and gaps. The time of a turn that is too short goes to the next
        likely speaker, unless somebody else speaks as well.
    num_voices : int
        The first speakers are voices, and always kept. The others are faces without a voice.
    min_new : float
        Minimum speech of a face without a voice to become a speaker, in seconds. The speech of
        others goes to the next likely speakers.
    most : int, optional
        Maximum number of speakers. Faces that speak most are preferred. Voices are never dropped.
    sound, seen : (steps, speakers) bool arrays, optional
        See :func:`keep_unseen`. Without them, all speakers count as visible.

    Returns
    -------
    decision : Decision
    """
    if preference is None:
        preference = np.zeros_like(evidence)
    if sound is None or seen is None:
        sound, seen = np.zeros(evidence.shape, bool), np.ones(evidence.shape, bool)
    known = sound.sum(axis=0) >= _MIN_SPEECH * STEP_RATE
    barred = ~(known | seen | sound)
    likely = averaged(evidence + preference, _WIDTH)

    def decide(columns: list[int] | slice) -> np.ndarray:
        own = np.where(barred[:, columns], -np.inf, likely[:, columns])
        chosen = likeliest(own, _how_many(evidence[:, columns], counts, weight))
        chosen = keep_unseen(chosen, sound[:, columns], seen[:, columns])
        return _lasting(chosen, own, durations)

    active = decide(slice(None))
    seconds = active.sum(axis=0) / STEP_RATE
    new = [k for k in range(num_voices, active.shape[1]) if seconds[k] >= min_new]
    new.sort(key=lambda k: -seconds[k])
    kept = [*range(num_voices), *sorted(new[: int(min(len(new), max(0, most - num_voices)))])]
    if len(kept) < active.shape[1]:
        active = decide(kept)
    gain = gain_of(active, sound[:, kept], seen, likely[:, kept], counts, weight)
    total = evidence[:, kept] + preference[:, kept]
    return Decision(kept, active, 1 / (1 + np.exp(-total)), gain)


def _lasting(chosen: np.ndarray, evidence: np.ndarray, durations: Durations) -> np.ndarray:
    """Remove short turns; where nobody else speaks, their time goes to the next likely speaker"""
    active = enforce(chosen, durations)
    lost = np.flatnonzero(chosen.any(axis=1) & ~active.any(axis=1))
    if len(lost) and chosen.shape[1] > 1:
        others = np.where(chosen[lost], -np.inf, evidence[lost])
        next_likely = others.argmax(axis=1)
        active[lost, next_likely] = others[np.arange(len(lost)), next_likely] > -np.inf
        active = enforce(active, durations)
    return active
