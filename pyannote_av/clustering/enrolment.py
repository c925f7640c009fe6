"""Enrolment of the voices of talking faces, and assignment of windows to the enrolled people: WST.

This is a baseline after Chung, Lee, Han, "Who said that?: audio-visual speaker diarisation of
real-world meetings", Interspeech 2019, arXiv 1906.10042: it "first enrolls speaker models using
audio-visual correspondence, then uses the enrolled models together with the visual information to
determine the active speaker". We implement this as two passes, with a weighted sum of voice and
face confidences. The paper has a third confidence, direction, which needs a microphone array and is
left out. There is no public code, so thresholds, weights and the scale of confidences are ours.

By design, all speakers are assumed to be visible while they talk at least once. Windows of an
off-screen speaker are assigned to the enrolled person with the most similar voice.
"""

from __future__ import annotations

import numpy as np

from pyannote_av.clustering.joint_clustering import unit
from pyannote_av.clustering.linkage import NOBODY


def enrol_visible(
    voices: np.ndarray, talking: np.ndarray, certain: float = 2.0, most: int = 10
) -> np.ndarray:
    """Compute a voice prototype of each person from windows in which no other visible person talks.

    Parameters
    ----------
    voices : (n, dimension) array
        Speaker embeddings of any norm. Embeddings that are 0 or not finite are ignored.
    talking : (n, num_people) array
        Log-odds that each person talks in each window. NaN if the person is not visible.
    certain : float
        Minimum log-odds of a talking person in an enrolment window. 2 is a probability of 88 %. In
        the same window, the log-odds of all other visible persons must be below 0.
    most : int
        Maximum number of enrolment windows per person. Those with the highest log-odds are used.

    Returns
    -------
    prototypes : (num_people, dimension) array
        Means of unit-length embeddings, normalised to unit length. 0 for persons without an
        enrolment window.

    Raises
    ------
    ValueError
        If `voices` and `talking` differ in length, `certain` is negative, or `most` is not
        positive.
    """
    voices, talking = unit(voices), _visual(talking, voices)
    if not certain >= 0 or most < 1:
        raise ValueError(
            f"persons are enrolled from log-odds of {certain}, in up to {most} windows: give "
            "log-odds that are not negative, and at least one window"
        )
    log_odds = np.where(np.isnan(talking), -np.inf, talking)
    active = (log_odds >= 0).sum(axis=1, keepdims=True)
    alone = (log_odds >= certain) & (active == 1) & voices.any(axis=1, keepdims=True)
    prototypes = np.zeros((talking.shape[1], voices.shape[1]))
    for column in np.flatnonzero(alone.any(axis=0)):
        certainty = np.where(alone[:, column], log_odds[:, column], -np.inf)
        best = np.argsort(-certainty, kind="stable")[: min(most, alone[:, column].sum())]
        prototypes[column] = voices[best].mean(axis=0)
    return unit(prototypes)


def assign(
    voices: np.ndarray,
    prototypes: np.ndarray,
    talking: np.ndarray | None = None,
    weight: float = 0.5,
) -> np.ndarray:
    """Assign every window to the enrolled person with the highest score.

    The score of a person is the cosine similarity of voice and prototype, in [-1, 1], plus `weight`
    times the visual confidence. The visual confidence is ``tanh(log-odds / 2)``, which is twice the
    probability minus one, and thus in [-1, 1] too. It is 0 for persons who are not visible.

    Parameters
    ----------
    voices : (n, dimension) array
        Speaker embeddings of any norm.
    prototypes : (num_people, dimension) array
        See :func:`enrol_visible`. Persons whose prototype is 0 are not enrolled, and get no window.
    talking : (n, num_people) array, optional
        See :func:`enrol_visible`. Without it, only voices are compared.
    weight : float
        Weight of visual confidence relative to voice similarity.

    Returns
    -------
    people : (n,) int array
        Row of `prototypes` per window. Windows without an embedding are assigned by visual
        confidence to an enrolled person who is visible, or else to ``NOBODY``. If nobody is
        enrolled, all windows are assigned to ``NOBODY``, and callers fall back to one speaker.

    Raises
    ------
    ValueError
        If the shapes of arrays do not match, or `weight` is negative or not finite.
    """
    voices, prototypes = unit(voices), unit(prototypes)
    if talking is None:
        talking = np.full((len(voices), len(prototypes)), np.nan)
    talking = _visual(talking, voices)
    if voices.shape[1] != prototypes.shape[1] or talking.shape[1] != len(prototypes):
        raise ValueError(
            f"prototypes {prototypes.shape} do not fit voices {voices.shape} and visual "
            f"confidences {talking.shape}"
        )
    if not 0 <= weight < np.inf:
        raise ValueError(
            f"the weight of visual confidence is {weight}: give a number of at least 0"
        )
    visible = ~np.isnan(talking)
    confidence = np.tanh(np.where(visible, talking, 0.0) / 2)
    possible = prototypes.any(axis=1) & (voices.any(axis=1, keepdims=True) | visible)
    score = np.where(possible, voices @ prototypes.T + weight * confidence, -np.inf)
    people = np.full(len(voices), NOBODY)
    some = possible.any(axis=1)
    if some.any():
        people[some] = score[some].argmax(axis=1)
    return people


def _visual(talking: np.ndarray, voices: np.ndarray) -> np.ndarray:
    """Convert and check visual log-odds, (n, num_people)."""
    talking = np.asarray(talking, dtype=np.float64)
    if talking.ndim != 2 or len(talking) != len(voices):
        raise ValueError(
            f"visual confidences {talking.shape} do not fit {len(voices)} windows: give one row "
            "per window, one column per person"
        )
    return talking
