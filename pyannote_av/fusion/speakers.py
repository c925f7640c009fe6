"""Fusion of the voices of an audio pipeline and the persons in a video into speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pyannote.core import Annotation, Segment

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.fusion import turns
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
    min_change: float
    min_split: float
    merge_share: float
    merge_similarity: float


@dataclass(frozen=True)
class Speakers:
    """Result of the fusion.

    Parameters
    ----------
    annotation, exclusive : Annotation
        Turns, with and without overlap.
    faces : dict of label to list of FaceIdentity
        Faces of each speaker who has at least one.
    moves : list of (label, Segment)
        Parts of turns that were moved to another speaker, because the face of that speaker was
        speaking. The label is that of the new speaker.
    changes : list of str
        Description of all changes.
    """

    annotation: Annotation
    exclusive: Annotation
    faces: dict[str, list[FaceIdentity]] = field(default_factory=dict)
    moves: list[tuple[str, Segment]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def output(self, audio: AVDiarizeOutput, tracks: FaceTracks, report: Report) -> AVDiarizeOutput:
        """Build the output, with confidence and modality of every turn.

        Parameters
        ----------
        audio : AVDiarizeOutput
            Output of the audio branch, before fusion.
        tracks : FaceTracks
        report : Report
        """
        voiceprints = audio.speaker_embeddings
        if voiceprints is not None:
            known = dict(zip(audio.speaker_diarization.labels(), voiceprints, strict=True))
            missing = np.full(voiceprints.shape[1], np.nan)
            rows = [known.get(label, missing) for label in self.annotation.labels()]
            voiceprints = np.stack(rows) if rows else voiceprints[:0]
        owner = {
            track: label
            for label, identities in self.faces.items()
            for identity in identities
            for track in identity.tracks
        }
        return AVDiarizeOutput(
            speaker_diarization=self.annotation,
            exclusive_speaker_diarization=self.exclusive,
            speaker_embeddings=voiceprints,
            face_tracks=tracks.with_speakers(owner),
            report=report,
            audio_only=audio.speaker_diarization,
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[tuple, dict[str, Any]]:
        """Confidence and deciding modality of every turn; see ``AVDiarizeOutput``."""
        found = {}
        for segment, track, label in self.annotation.itertracks(yield_label=True):
            evidence = _evidence(segment, self.faces.get(label, ()))
            if any(to == label and moved & segment for to, moved in self.moves):
                evidence["modality"] = "video"
            found[segment, track] = evidence
        return found


def decide(
    audio: AVDiarizeOutput,
    face_identities: FaceIdentities,
    rules: Rules,
    *,
    duration: float,
    fewest: int = 1,
    most: float = np.inf,
) -> Speakers:
    """Associate voices with faces, and correct the turns of voices by the faces.

    Parameters
    ----------
    audio : AVDiarizeOutput
        Turns and, if available, voiceprints.
    face_identities : FaceIdentities
        Persons in the video.
    rules : Rules
    duration : float
        Duration of the file, in seconds.
    fewest, most : int, optional
        Bounds on the number of speakers. Voices are merged and split only within these bounds.
    """
    voices, identities = audio.speaker_diarization, face_identities.identities
    labels = list(voices.labels())
    activity = turns.activity_of(voices, labels, int(np.ceil(duration * FRAME_RATE)) + 1)
    evidence, specificity = voice_evidence(identities, activity, _CLIP, rules.rise)
    evidence[specificity < rules.specificity] = 0.0
    voice_of = associate(evidence, face_identities.conflict, rules.minimum_evidence)

    into = {}
    if len(labels) > fewest:
        into = turns.merges(
            identities,
            voice_of,
            activity,
            audio.speaker_embeddings,
            share=rules.merge_share,
            similarity=rules.merge_similarity,
            seconds=rules.min_split,
        )
        into = dict(list(into.items())[: len(labels) - fewest])
    changes = [f"{labels[voice]} merged into {labels[to]}: one face" for voice, to in into.items()]

    options = {"margin": rules.margin, "seconds": rules.min_split}
    for identity, voice in turns.splits(
        identities, voice_of, face_identities.distinct, activity, **options
    ).items():
        if len(labels) - len(into) < most:
            voice_of[identity] = len(labels)
            labels.append(next_label(labels))
            changes.append(f"{labels[-1]} split off {labels[voice]}")
    activity = np.pad(activity, ((0, 0), (0, len(labels) - activity.shape[1])))

    options = {"margin": rules.margin, "seconds": rules.min_change}
    moves = turns.moves(voices, labels, identities, voice_of, activity, **options)
    if moves:
        seconds = sum(move.segment.duration for move in moves)
        changes.append(f"{seconds:.2f} s of turns moved to the speaker whose face was speaking")
    faces: dict[str, list[FaceIdentity]] = {}
    for identity, voice in voice_of.items():
        faces.setdefault(labels[into.get(voice, voice)], []).append(identities[identity])
    exclusive = audio.exclusive_speaker_diarization
    if moves or into:
        voices = turns.rewrite(voices, labels, moves, into)
        exclusive = turns.rewrite(exclusive, labels, moves, into)
    return Speakers(
        annotation=voices,
        exclusive=exclusive,
        faces=faces,
        moves=[(labels[into.get(m.target, m.target)], m.segment) for m in moves],
        changes=changes,
    )


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
