"""Target speakers: everybody of whom a network is asked when they speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.fusion.association import cosine
from pyannote_av.fusion.persons import SIMULTANEOUS_FRAMES
from pyannote_av.fusion.speakers import next_label

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.fusion.persons import People


@dataclass(frozen=True, eq=False)
class FaceStretch:
    """Some frames of one face, as a visual encoder sees them.

    Attributes
    ----------
    start : int
        Index on the 25 Hz grid, of the clock of the sound.
    features : (n, dimension) float array
    present : (n,) bool array
    """

    start: int
    features: np.ndarray
    present: np.ndarray


@dataclass(frozen=True, eq=False)
class TargetSpeaker:
    """Somebody whose activity is asked for, by voice, by face or by both.

    Attributes
    ----------
    label : str
    voiceprint : (dimension,) float array or None
    faces : list of FaceStretch
        Of all tracks that show this person.
    tracks : tuple of int
        Their identifiers.
    """

    label: str
    voiceprint: np.ndarray | None = None
    faces: Sequence[FaceStretch] = ()
    tracks: tuple[int, ...] = ()

    def face(self, start: int, end: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (end - start, dimension) and presence (end - start,) in grid frames."""
        features = np.zeros((end - start, dimension), np.float32)
        for one in self.faces:
            low, high = max(start, one.start), min(end, one.start + len(one.features))
            if low < high:
                seen = one.present[low - one.start : high - one.start]
                features[low - start : high - start][seen] = one.features[
                    low - one.start : high - one.start
                ][seen]
        return features, self.seen(start, end)

    def seen(self, start: int, end: int) -> np.ndarray:
        """Whether a face is in the picture: (end - start,) bool, in grid frames."""
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
    people: People,
    seen: Mapping[int, Sequence[FaceStretch]],
    offset: float = 0.0,
) -> list[TargetSpeaker]:
    """Voices with their faces if they have any, then the faces that no voice goes with.

    Parameters
    ----------
    labels : sequence of str
        Of the voices.
    voiceprints : (num_labels, dimension) array
        Zero where there is none.
    tracks : FaceTracks or None
        Labelled with speakers.
    people : People
        Everybody in the picture.
    seen : dict of track to list of FaceStretch
    offset : float, optional
        Seconds by which the sound is late relative to the picture.
    """
    shift = round(offset * FRAME_RATE)

    def stretches(ids: Sequence[int]) -> list[FaceStretch]:
        return [
            FaceStretch(one.start + shift, one.features, one.present)
            for track in ids
            for one in seen.get(track, ())
        ]

    owner = {} if tracks is None else tracks.speaker
    targets = []
    for label, voiceprint in zip(labels, voiceprints, strict=True):
        own = tuple(track for track, speaker in owner.items() if speaker == label)
        voice = voiceprint if voiceprint.any() else None
        targets.append(TargetSpeaker(label, voice, stretches(own), own))
    names = list(labels)
    for person in people.persons:
        if not any(track in owner for track in person.tracks):
            names.append(next_label(names))
            targets.append(TargetSpeaker(names[-1], None, stretches(person.tracks), person.tracks))
    return targets


def join_faces(
    targets: Sequence[TargetSpeaker],
    num_voices: int,
    voiceprints: np.ndarray,
    similarity: float,
) -> list[TargetSpeaker]:
    """Faces that no voice goes with go to the voice that is heard while they seem to speak.

    Parameters
    ----------
    targets : sequence of TargetSpeaker
        See :func:`find_targets`.
    num_voices : int
        How many of them, the first ones, are voices.
    voiceprints : (num_targets, dimension) array
        Of what is heard while each of them seems to speak; zero where there is none.
    similarity : float
        Cosine similarity to the voiceprint of a voice from which a face goes with it, unless that
        voice has a face that is in the picture at the same time.

    Returns
    -------
    targets : list of TargetSpeaker
        The voices, some with more faces, then the faces that remain.
    """
    voices, faces = list(targets[:num_voices]), list(targets[num_voices:])
    alike = np.full((len(faces), num_voices), -np.inf)
    for v, voice in enumerate(voices):
        if voice.voiceprint is not None:
            alike[:, v] = [cosine(own, voice.voiceprint) for own in voiceprints[num_voices:]]
    alike[~(alike >= similarity)] = -np.inf
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


def _together(one: TargetSpeaker, other: TargetSpeaker) -> bool:
    """Whether two are in the picture at the same time."""
    end = max((face.start + len(face.present) for face in (*one.faces, *other.faces)), default=0)
    return int((one.seen(0, end) & other.seen(0, end)).sum()) >= SIMULTANEOUS_FRAMES
