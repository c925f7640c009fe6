"""Target speakers: the people whose speech activity a network predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, STEPS
from pyannote_av.fusion.association import cosine
from pyannote_av.fusion.identities import SIMULTANEOUS_FRAMES
from pyannote_av.fusion.speakers import next_label

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.fusion.identities import FaceIdentities


#: minimum share of the speech of a voice in which its face speaks, where it is visible
_AGREEMENT = 1 / 3
#: steps of such speech without which agreement is unknown
_ENOUGH = 25


@dataclass(frozen=True, eq=False)
class FaceFeatures:
    """Visual features of consecutive frames of one face.

    Attributes
    ----------
    start : int
        Index of the first frame on the 25 Hz grid.
    features : (n, dimension) float array
        Output of the visual encoder.
    present : (n,) bool array
        Frames in which the face is visible.
    """

    start: int
    features: np.ndarray
    present: np.ndarray


@dataclass(frozen=True, eq=False)
class TargetSpeaker:
    """Target speaker, given by a voiceprint, by faces or by both.

    Attributes
    ----------
    label : str
    voiceprint : (dimension,) float array or None
        Speaker embedding.
    faces : list of FaceFeatures
        Visual features of all tracks that show this person, on the clock of the audio.
    tracks : tuple of int
        Identifiers of these tracks.
    """

    label: str
    voiceprint: np.ndarray | None = None
    faces: Sequence[FaceFeatures] = ()
    tracks: tuple[int, ...] = ()

    def face(self, start: int, end: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (end - start, dimension) and presence (end - start,) in grid frames."""
        features = np.zeros((end - start, dimension), np.float32)
        for one in self.faces:
            low, high = max(start, one.start), min(end, one.start + len(one.features))
            if low < high:
                visible = one.present[low - one.start : high - one.start]
                features[low - start : high - start][visible] = one.features[
                    low - one.start : high - one.start
                ][visible]
        return features, self.visible(start, end)

    def visible(self, start: int, end: int) -> np.ndarray:
        """Whether a face is visible: (end - start,) bool, in grid frames."""
        present = np.zeros(end - start, bool)
        for one in self.faces:
            low, high = max(start, one.start), min(end, one.start + len(one.present))
            if low < high:
                present[low - start : high - start] |= one.present[
                    low - one.start : high - one.start
                ]
        return present


def find_targets(
    labels: Sequence[str],
    voiceprints: np.ndarray,
    tracks: FaceTracks | None,
    face_identities: FaceIdentities,
    face_features: Mapping[int, Sequence[FaceFeatures]],
    offset: float = 0.0,
) -> list[TargetSpeaker]:
    """Create target speakers: all voices with their faces, then all faces without a voice.

    Parameters
    ----------
    labels : sequence of str
        Labels of the voices.
    voiceprints : (num_labels, dimension) array
        Speaker embedding of each voice, zero if there is none.
    tracks : FaceTracks or None
        Tracks labelled with speakers.
    face_identities : FaceIdentities
        All persons in the video.
    face_features : dict of track to list of FaceFeatures
        Visual features of each track, on the clock of the video.
    offset : float, optional
        Delay of the audio relative to the video, in seconds.
    """
    shift = round(offset * FRAME_RATE)

    def features_of(ids: Sequence[int]) -> list[FaceFeatures]:
        return [
            FaceFeatures(one.start + shift, one.features, one.present)
            for track in ids
            for one in face_features.get(track, ())
        ]

    owner = {} if tracks is None else tracks.speaker
    targets = []
    for label, voiceprint in zip(labels, voiceprints, strict=True):
        own = tuple(track for track, speaker in owner.items() if speaker == label)
        voice = voiceprint if voiceprint.any() else None
        targets.append(TargetSpeaker(label, voice, features_of(own), own))
    names = list(labels)
    for identity in face_identities.identities:
        if not any(track in owner for track in identity.tracks):
            names.append(next_label(names))
            targets.append(
                TargetSpeaker(names[-1], None, features_of(identity.tracks), identity.tracks)
            )
    return targets


def join_faces(
    targets: Sequence[TargetSpeaker],
    num_voices: int,
    voiceprints: np.ndarray,
    similarity: float,
    agrees: np.ndarray | None = None,
) -> list[TargetSpeaker]:
    """Join faces without a voice to the voices that are active while these faces speak.

    Parameters
    ----------
    targets : sequence of TargetSpeaker
        See :func:`find_targets`.
    num_voices : int
        Number of voices. They are the first targets.
    voiceprints : (num_targets, dimension) array
        Speaker embedding of the audio during which each target speaks, zero if there is none.
    similarity : float
        Minimum cosine similarity between this embedding and the voiceprint of a voice to join a
        face to it. A face is never joined to a voice with another face that is visible at the same
        time.
    agrees : (num_targets - num_voices, num_voices) bool array, optional
        Pairs of a face and a voice that may belong together; see :func:`agreement`.

    Returns
    -------
    targets : list of TargetSpeaker
        The voices, some with additional faces, then the remaining faces.
    """
    voices, faces = list(targets[:num_voices]), list(targets[num_voices:])
    alike = np.full((len(faces), num_voices), -np.inf)
    for v, voice in enumerate(voices):
        if voice.voiceprint is not None:
            alike[:, v] = [cosine(own, voice.voiceprint) for own in voiceprints[num_voices:]]
    alike[~(alike >= similarity)] = -np.inf
    if agrees is not None:
        alike[~agrees] = -np.inf
    while np.isfinite(alike).any():
        face, v = np.unravel_index(alike.argmax(), alike.shape)
        if _together(voices[v], faces[face]):
            alike[face, v] = -np.inf
            continue
        voices[v] = replace(
            voices[v],
            faces=[*voices[v].faces, *faces[face].faces],
            tracks=(*voices[v].tracks, *faces[face].tracks),
        )
        alike[face] = -np.inf
        faces[face] = None
    return [*voices, *(face for face in faces if face is not None)]


def agreement(
    targets: Sequence[TargetSpeaker], turns: np.ndarray, posteriors: np.ndarray
) -> np.ndarray:
    """Faces that speak often enough while a voice speaks alone, where they are visible.

    Parameters
    ----------
    targets : sequence of TargetSpeaker
        See :func:`find_targets`.
    turns : (steps, num_voices) bool array
        Turns of the voices, which are the first targets.
    posteriors : (steps, num_targets) array
        Probability that each target speaks.

    Returns
    -------
    agrees : (num_targets - num_voices, num_voices) bool array
        True also where a face is visible for less than 0.25 s of the speech of a voice.
    """
    alone = turns & (turns.sum(axis=1, keepdims=True) == 1)
    frames, agrees = -(-len(turns) // STEPS), []
    for k in range(turns.shape[1], len(targets)):
        visible = alone & targets[k].visible(0, frames).repeat(STEPS)[: len(turns), None]
        both = visible & (posteriors[:, [k]] >= 0.5)
        shown = visible.sum(axis=0)
        agrees.append((shown < _ENOUGH) | (both.sum(axis=0) >= _AGREEMENT * shown))
    return np.array(agrees, bool).reshape(-1, turns.shape[1])


def _together(one: TargetSpeaker, other: TargetSpeaker) -> bool:
    """Whether two target speakers are visible at the same time."""
    end = max((face.start + len(face.present) for face in (*one.faces, *other.faces)), default=0)
    return int((one.visible(0, end) & other.visible(0, end)).sum()) >= SIMULTANEOUS_FRAMES
