"""Fusion of the voices of an audio pipeline and the persons in a video into speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pyannote.core import Annotation, Segment

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.posteriors import SpeakerPosteriors
from pyannote_av.fusion import voices
from pyannote_av.fusion.association import associate, voice_evidence
from pyannote_av.fusion.identities import FaceIdentities, FaceIdentity

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

# bound on the absolute speaking score of one frame, log-odds
_CLIP = 3.0
# minimum share of a turn in which the face of its speaker is scored, to compute a confidence
_MIN_VISIBLE = 0.3


@dataclass(frozen=True)
class Rules:
    """Thresholds of the fusion. See ``LateFusion`` for the meaning of each one."""

    minimum_evidence: float
    rise: float
    specificity: float
    margin: float
    min_split: float
    merge_share: float
    merge_similarity: float


@dataclass(frozen=True, eq=False)
class Speakers:
    """Voices of the sound, some of them merged or split, with the faces that belong to them.

    Parameters
    ----------
    labels : list of str
        Voices, then those that were split off, of which the sound knows nothing.
    turns : Annotation
        Turns of the sound.
    posteriors : SpeakerPosteriors
        Posteriors of the sound.
    faces : dict of label to list of FaceIdentity
        Faces of each speaker who has at least one.
    changes : list of str
        Description of all changes.
    """

    labels: list[str]
    turns: Annotation
    posteriors: SpeakerPosteriors
    faces: dict[str, list[FaceIdentity]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    @classmethod
    def of_sound(cls, audio: AVDiarizeOutput, duration: float) -> Speakers:
        """The voices of an audio pipeline, without faces.

        Parameters
        ----------
        audio : AVDiarizeOutput
            Turns and, if available, posteriors.
        duration : float
            Duration of the file, in seconds.
        """
        turns, posteriors = audio.speaker_diarization, audio.posteriors
        if posteriors is None:
            posteriors = SpeakerPosteriors.of_turns(turns, duration)
        return cls(list(turns.labels()), turns, posteriors)


def find_speakers(
    audio: AVDiarizeOutput,
    face_identities: FaceIdentities,
    rules: Rules,
    *,
    duration: float,
    fewest: int = 1,
    most: float = np.inf,
) -> Speakers:
    """Associate voices with faces, and correct the voices by the faces.

    Parameters
    ----------
    audio : AVDiarizeOutput
        Turns and, if available, voiceprints and posteriors.
    face_identities : FaceIdentities
        Persons in the video.
    rules : Rules
    duration : float
        Duration of the file, in seconds.
    fewest, most : int, optional
        Bounds on the number of speakers. Voices are merged and split only within these bounds.
    """
    sound = Speakers.of_sound(audio, duration)
    identities, labels = face_identities.identities, list(sound.labels)
    num_frames = int(np.ceil(duration * FRAME_RATE)) + 1
    activity = voices.activity_of(sound.turns, labels, num_frames)
    evidence, specificity = voice_evidence(identities, activity, _CLIP, rules.rise)
    evidence[specificity < rules.specificity] = 0.0
    voice_of = associate(evidence, face_identities.conflict, rules.minimum_evidence)

    merges = {}
    if len(labels) > fewest:
        merges = voices.merges(
            identities,
            voice_of,
            activity,
            audio.speaker_embeddings,
            share=rules.merge_share,
            similarity=rules.merge_similarity,
            seconds=rules.min_split,
        )
        merges = dict(list(merges.items())[: len(labels) - fewest])
    into = {labels[voice]: labels[to] for voice, to in merges.items()}
    changes = [f"{voice} merged into {to}: one face" for voice, to in into.items()]

    options = {"margin": rules.margin, "seconds": rules.min_split}
    for identity, voice in voices.splits(
        identities, voice_of, face_identities.distinct, activity, **options
    ).items():
        if len(labels) - len(merges) < most:
            voice_of[identity] = len(labels)
            labels.append(next_label(labels))
            changes.append(f"{labels[-1]} split off {labels[voice]}")
    faces: dict[str, list[FaceIdentity]] = {}
    for identity, voice in voice_of.items():
        label = into.get(labels[voice], labels[voice])
        faces.setdefault(label, []).append(identities[identity])
    return Speakers(
        labels=[label for label in labels if label not in into],
        turns=sound.turns.rename_labels(into) if into else sound.turns,
        posteriors=sound.posteriors.rename(into),
        faces=faces,
        changes=changes,
    )


def output_of(
    diarization: Annotation,
    exclusive: Annotation,
    speakers: Speakers,
    audio: AVDiarizeOutput,
    tracks: FaceTracks,
    report: Report,
) -> AVDiarizeOutput:
    """Build the output, with confidence and modality of every turn.

    Parameters
    ----------
    diarization, exclusive : Annotation
        Turns, with and without overlap.
    speakers : Speakers
    audio : AVDiarizeOutput
        Output of the audio branch, before fusion.
    tracks : FaceTracks
    report : Report
    """
    voiceprints = audio.speaker_embeddings
    if voiceprints is not None:
        known = dict(zip(audio.speaker_diarization.labels(), voiceprints, strict=True))
        missing = np.full(voiceprints.shape[1], np.nan)
        rows = [known.get(label, missing) for label in diarization.labels()]
        voiceprints = np.stack(rows) if rows else voiceprints[:0]
    owner = {
        track: label
        for label in diarization.labels()
        for identity in speakers.faces.get(label, ())
        for track in identity.tracks
    }
    return AVDiarizeOutput(
        speaker_diarization=diarization,
        exclusive_speaker_diarization=exclusive,
        speaker_embeddings=voiceprints,
        face_tracks=tracks.with_speakers(owner),
        report=report,
        audio_only=audio.speaker_diarization,
        provenance=_provenance(diarization, speakers),
    )


def _provenance(diarization: Annotation, speakers: Speakers) -> dict[tuple, dict[str, Any]]:
    """Confidence and deciding modality of every turn; see ``AVDiarizeOutput``."""
    found = {}
    for segment, track, label in diarization.itertracks(yield_label=True):
        evidence = _evidence(segment, speakers.faces.get(label, ()))
        in_sound = speakers.turns.label_timeline(label).crop(segment).support().duration()
        if in_sound < 0.5 * segment.duration:
            evidence["modality"] = "video"
        found[segment, track] = evidence
    return found


def _evidence(segment: Segment, faces: Sequence[FaceIdentity]) -> dict[str, Any]:
    """Confidence (mean speaking probability of the faces of the speaker) and modality of a turn."""
    first, last = np.round(np.array([segment.start, segment.end]) * FRAME_RATE).astype(int)
    frames = np.arange(first, max(last, first + 1))
    scores = np.concatenate([face.at(frames) for face in faces]) if faces else np.empty(0)
    scores = scores[np.isfinite(scores)]
    if len(scores) < _MIN_VISIBLE * len(frames):
        return {"confidence": None, "modality": "audio"}
    probability = float(np.mean(1 / (1 + np.exp(-np.clip(scores, -_CLIP, _CLIP)))))
    return {"confidence": round(probability, 3), "modality": "audio+video"}


def next_label(labels: list[str]) -> str:
    """First unused ``SPEAKER_NN``."""
    number = 0
    while f"SPEAKER_{number:02d}" in labels:
        number += 1
    return f"SPEAKER_{number:02d}"
