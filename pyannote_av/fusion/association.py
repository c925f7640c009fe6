"""Association of faces with voices.

The evidence that a face and a voice belong to one person is the speaking score of the face, summed
over the time in which the voice is active. Scores are calibrated log-odds, so the sum is a
log-likelihood ratio. If the scores of a face are low during silence, its speaking threshold is
lowered. A face that is silent while the voice is active counts against the pair as much as a
speaking face counts for it. Voices are assigned with the Hungarian algorithm (Kuhn, 1955), under
the constraint that faces visible at the same time are different persons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.fusion.identities import FaceIdentity


def voice_evidence(
    identities: Sequence[FaceIdentity], activity: np.ndarray, clip: float, rise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence that each voice belongs to each person.

    Parameters
    ----------
    identities : sequence of FaceIdentity
    activity : (num_frames, num_voices) bool array
        Active voices in each grid frame.
    clip : float
        Bound on the absolute score of a single frame, in log-odds.
    rise : float
        See :meth:`~pyannote_av.fusion.identities.FaceIdentity.threshold`.

    Returns
    -------
    evidence : (num_identities, num_voices) array
        Log-odds times seconds. Where several voices overlap, a speaking face counts for each of
        them in equal parts, and a silent face counts against none of them.
    specificity : (num_identities, num_voices) array
        Mean speaking probability while the voice is active minus that while only other voices are,
        in [-1, 1]. NaN if the person is never visible in one of these two cases.
    """
    num_voices = activity.shape[1]
    evidence = np.zeros((len(identities), num_voices))
    specificity = np.full((len(identities), num_voices), np.nan)
    share = activity / np.maximum(activity.sum(axis=1, keepdims=True), 1)
    for p, identity in enumerate(identities):
        inside = identity.index < len(activity)
        index, score = identity.index[inside], identity.score[inside]
        clipped = np.clip(score - identity.threshold(rise), -clip, clip)
        # a silent face is no evidence against voices that overlap
        weight = np.where(clipped[:, None] > 0, share[index], share[index] == 1.0)
        evidence[p] = np.einsum("t,tv->v", clipped, weight) / FRAME_RATE
        probability = 1.0 / (1.0 + np.exp(-clipped))
        active = activity[index]
        others = active.any(axis=1, keepdims=True) & ~active
        with np.errstate(invalid="ignore"):
            specificity[p] = (probability @ active) / active.sum(axis=0) - (
                probability @ others
            ) / others.sum(axis=0)
    return evidence, specificity


def associate(evidence: np.ndarray, conflict: np.ndarray, minimum: float) -> dict[int, int]:
    """Assign voices to persons.

    The Hungarian algorithm runs in rounds. Each round assigns every voice to at most one more
    person, so a voice can get several faces (the same person in several shots), unless they are
    visible at the same time. A person is never assigned to a voice with less than half of the
    evidence of the best voice of this person.

    Parameters
    ----------
    evidence : (num_identities, num_voices) array
    conflict : (num_identities, num_identities) bool array
    minimum : float
        Minimum evidence of a pair, in log-odds times seconds.

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
        for identity, voice in zip(*linear_sum_assignment(-gain), strict=True):
            if gain[identity, voice] > 0:
                voice_of[int(identity)] = int(voice)
                progress = True
        for identity, voice in voice_of.items():
            gain[identity] = 0.0
            gain[conflict[identity], voice] = 0.0
        if not progress:
            break
    return voice_of


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine similarity of two vectors; NaN if either is missing (NaN) or zero."""
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm) if norm > 0 else float("nan")


def holders(voice_of: Mapping[int, int]) -> dict[int, list[int]]:
    """Persons of each voice: the inverse of a person-to-voice mapping."""
    owned: dict[int, list[int]] = {}
    for identity, voice in voice_of.items():
        owned.setdefault(voice, []).append(identity)
    return owned
