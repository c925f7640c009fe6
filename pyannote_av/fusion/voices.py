"""Corrections of the voices of the audio branch by faces: splits and merges.

Every correction needs decisive evidence from visible faces over a minimum duration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pyannote.core import Annotation

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.smoothing import moving_average
from pyannote_av.fusion.association import cosine, holders
from pyannote_av.fusion.identities import FaceIdentity


def activity_of(annotation: Annotation, labels: Sequence, num_frames: int) -> np.ndarray:
    """Active voices at the centre of each grid frame.

    Returns
    -------
    activity : (num_frames, num_labels) bool array
    """
    activity = np.zeros((num_frames, len(labels)), dtype=bool)
    column = {label: i for i, label in enumerate(labels)}
    for segment, _, label in annotation.itertracks(yield_label=True):
        # frame k covers [k, k + 1) / 25 s, and is inside a turn if its centre is
        first, last = np.round(np.array([segment.start, segment.end]) * FRAME_RATE).astype(int)
        activity[max(first, 0) : last, column[label]] = True
    return activity


def merges(
    identities: Sequence[FaceIdentity],
    voice_of: Mapping[int, int],
    activity: np.ndarray,
    voiceprints: np.ndarray | None,
    *,
    share: float,
    similarity: float,
    seconds: float,
) -> dict[int, int]:
    """Find voices to merge because the face of another voice speaks during them.

    A voice without a face is merged into the voice of the face that visibly speaks for most of its
    time, unless the voiceprints of the two voices differ.

    Parameters
    ----------
    activity : (num_frames, num_voices) bool array
    voiceprints : (num_voices, dimension) array or None
    share : float
        Minimum share of the time of the voice in which the face is visible, and minimum share of
        this visible time in which the face speaks.
    similarity : float
        Minimum cosine similarity of the two voiceprints.
    seconds : float
        Minimum time in which the face visibly speaks during the voice.

    Returns
    -------
    into : dict of voice to voice
        For each merged voice, the voice it is merged into.
    """
    into: dict[int, int] = {}
    owned = holders(voice_of)
    alone = activity.sum(axis=1) == 1
    for voice in range(activity.shape[1]):
        if voice in owned:
            continue
        frames = np.flatnonzero(activity[:, voice] & alone)
        best: tuple[float, int] | None = None
        for identity, other in voice_of.items():
            score = identities[identity].at(frames)
            visible = np.isfinite(score)
            speaking = int((score[visible] > 0).sum())
            if (
                speaking < seconds * FRAME_RATE
                or visible.sum() < share * len(frames)
                or speaking < share * visible.sum()
            ):
                continue
            if voiceprints is not None:
                alike = cosine(voiceprints[voice], voiceprints[other])
                if np.isfinite(alike) and alike < similarity:
                    continue
            if best is None or speaking > best[0]:
                best = (speaking, other)
        if best:
            into[voice] = best[1]
    return into


def splits(
    identities: Sequence[FaceIdentity],
    voice_of: Mapping[int, int],
    distinct: np.ndarray,
    activity: np.ndarray,
    *,
    margin: float,
    seconds: float,
) -> dict[int, int]:
    """Find voices to split because another face speaks while their own face is silent.

    Parameters
    ----------
    distinct : (num_identities, num_identities) bool array
        Pairs of persons who are known to be different people.
    margin : float
        A face decisively speaks above this score, and is silent below its negative.
    seconds : float
        Minimum duration of such speech.

    Returns
    -------
    source : dict of person to voice
        For each person who gets a new voice, the voice it is split from.
    """
    owned = holders(voice_of)
    source: dict[int, int] = {}
    alone = activity.sum(axis=1) == 1
    for identity in range(len(identities)):
        if identity in voice_of:
            continue
        best = (seconds * FRAME_RATE, None)
        for voice, faces in owned.items():
            if not any(distinct[identity, face] for face in faces):
                continue
            frames = np.flatnonzero(activity[:, voice] & alone)
            decisive = smooth(identities[identity].at(frames)) > margin
            decisive &= _silent(identities, faces, frames, margin)
            if decisive.sum() >= best[0]:
                best = (decisive.sum(), voice)
        if best[1] is not None:
            source[identity] = best[1]
    return source


def _silent(
    identities: Sequence[FaceIdentity], faces: Sequence[int], frames: np.ndarray, margin: float
) -> np.ndarray:
    """Frames in which one of `faces` is visible and none of them speaks."""
    scores = np.stack([smooth(identities[face].at(frames)) for face in faces])
    visible = np.isfinite(scores)
    highest = np.where(visible, scores, -np.inf).max(axis=0)
    return visible.any(axis=0) & (highest < -margin)


def smooth(score: np.ndarray, width: int = 15) -> np.ndarray:
    """Moving average over `width` frames, or over the length of a shorter score."""
    return moving_average(score, min(width, len(score)))
