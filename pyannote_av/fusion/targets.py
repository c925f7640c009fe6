"""Target speakers: everybody of whom a network is asked when they speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyannote_av.core.inference import FaceStretch, TargetSpeaker
from pyannote_av.core.io import FRAME_RATE
from pyannote_av.fusion.association import cosine
from pyannote_av.fusion.persons import SIMULTANEOUS_FRAMES
from pyannote_av.fusion.speakers import next_label

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks, TrackSegment
    from pyannote_av.fusion.persons import People


class VisualFeaturePass:
    """Keeps what a network sees of faces while they are being tracked.

    A consumer of ``FaceTracking``: pictures are not kept, their features are, as float16 (6 MB per
    face and quarter of an hour, at 128 features).

    Parameters
    ----------
    model : AVModel
        With a method ``visual_features``, such as ``HMSANet``.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        #: by track
        self.seen: dict[int, list[FaceStretch]] = {}
        #: time spent, which is also part of the tracking that this hangs on
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Take one stretch of a face."""
        begin = perf_counter()
        faces, present = (
            torch.from_numpy(x)[None, None].to(self.model.device)
            for x in (segment.crops, segment.present)
        )
        with torch.inference_mode():
            features = self.model.visual_features(faces, present)[0, 0].half().cpu().numpy()
        stretch = FaceStretch(segment.start, features, segment.present)
        self.seen.setdefault(segment.track, []).append(stretch)
        self.seconds += perf_counter() - begin


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
