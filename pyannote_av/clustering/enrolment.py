"""Faces that are seen talking enrol their voices, and every window goes to one of them: WST.

A baseline that other systems are compared with, after Chung, Lee, Han, "Who said that?:
audio-visual speaker diarisation of real-world meetings", Interspeech 2019, arXiv 1906.10042: it
"first enrolls speaker models using audio-visual correspondence, then uses the enrolled models
together with the visual information to determine the active speaker". We take this as two passes,
and a weighted sum of the confidences of voice and face. Direction, the third confidence of the
paper, is left out: there is no microphone array. There is no public code: thresholds, weights and
the scale of confidences are ours.

By design everybody who speaks is taken to be somebody who was seen talking: an off-screen speaker's
windows go to whoever sounds most alike.
"""

from __future__ import annotations

import numpy as np

from pyannote_av.clustering.joint_clustering import unit
from pyannote_av.clustering.linkage import NOBODY


def enrol_visible(
    voices: np.ndarray, talking: np.ndarray, certain: float = 2.0, most: int = 10
) -> np.ndarray:
    """Learn the voice of every person from windows in which nobody else can be talking.

    Parameters
    ----------
    voices : (n, dimension) array
        Embeddings of any length. Those that are 0, or not finite, are not used.
    talking : (n, num_persons) array
        Log-odds that a person talks, in each window; NaN where not visible.
    certain : float
        Log-odds from which a person certainly talks; 2 is a probability of 88 %. In such a window
        all others who are visible have to be more likely silent than not (below 0).
    most : int
        Windows per person, the most certain ones.

    Returns
    -------
    prototypes : (num_persons, dimension) array
        Means of unit-length voices, of unit length themselves; 0 for persons who were never seen
        talking alone with that certainty.

    Raises
    ------
    ValueError
        When `voices` and `talking` differ in length, `certain` is negative, or `most` is not
        positive.
    """
    voices, talking = unit(voices), _visual(talking, voices)
    if not certain >= 0 or most < 1:
        raise ValueError(
            f"persons enrol from log-odds of {certain}, in up to {most} windows: give log-odds "
            "that are not negative, and at least one window"
        )
    seen = np.where(np.isnan(talking), -np.inf, talking)
    active = (seen >= 0).sum(axis=1, keepdims=True)
    alone = (seen >= certain) & (active == 1) & voices.any(axis=1, keepdims=True)
    prototypes = np.zeros((talking.shape[1], voices.shape[1]))
    for person in np.flatnonzero(alone.any(axis=0)):
        certainty = np.where(alone[:, person], seen[:, person], -np.inf)
        best = np.argsort(-certainty, kind="stable")[: min(most, alone[:, person].sum())]
        prototypes[person] = voices[best].mean(axis=0)
    return unit(prototypes)


def assign(
    voices: np.ndarray,
    prototypes: np.ndarray,
    talking: np.ndarray | None = None,
    weight: float = 0.5,
) -> np.ndarray:
    """Assign every window to the enrolled person who most likely speaks.

    The score of a person is the cosine similarity of voice and prototype, in [-1, 1], plus `weight`
    times the visual confidence, ``tanh(log-odds / 2)``: twice the probability, minus one, and so in
    [-1, 1] too. It is 0 for persons who are not visible: no evidence for or against.

    Parameters
    ----------
    voices : (n, dimension) array
        Embeddings of any length.
    prototypes : (num_persons, dimension) array
        See :func:`enrol_visible`; those that are 0 are not enrolled, and get no window.
    talking : (n, num_persons) array, optional
        See :func:`enrol_visible`. Without, voices alone decide.
    weight : float
        Of visual confidence, relative to that of voices.

    Returns
    -------
    persons : (n,) int array
        Row of `prototypes` per window. Windows without a voice go by visual confidence, to an
        enrolled person who is visible; to ``NOBODY`` if nobody is. If nobody is enrolled at all,
        every window is ``NOBODY``'s, and callers fall back to one speaker.

    Raises
    ------
    ValueError
        When arrays do not fit each other, or `weight` is not a number from 0 up.
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
        raise ValueError(f"the weight of visual confidence is {weight}: give a number from 0 up")
    visible = ~np.isnan(talking)
    confidence = np.tanh(np.where(visible, talking, 0.0) / 2)
    possible = prototypes.any(axis=1) & (voices.any(axis=1, keepdims=True) | visible)
    score = np.where(possible, voices @ prototypes.T + weight * confidence, -np.inf)
    persons = np.full(len(voices), NOBODY)
    some = possible.any(axis=1)
    if some.any():
        persons[some] = score[some].argmax(axis=1)
    return persons


def _visual(talking: np.ndarray, voices: np.ndarray) -> np.ndarray:
    """Visual log-odds, (n, num_persons), checked."""
    talking = np.asarray(talking, dtype=np.float64)
    if talking.ndim != 2 or len(talking) != len(voices):
        raise ValueError(
            f"visual confidences {talking.shape} do not fit {len(voices)} windows: give one row "
            "per window, one column per person"
        )
    return talking
