"""Late fusion: voices of an audio pipeline and faces of a video become speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pyannote.audio import Pipeline as _Pipeline
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.pipeline.parameter import Uniform

from pyannote_av.core.io import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.pipeline import MediaMixin, Pipeline
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.fusion import association, guard, turns
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.face_tracking import FaceTracking

# bound on the speaking score of one frame, log-odds
_CLIP = 3.0
# offsets below two grid frames are within what networks and people tolerate
_MIN_OFFSET = 0.08


class LateFusion(MediaMixin, _Pipeline):
    """Who spoke when, and where they are in the picture.

    An audio pipeline finds voices; faces are tracked and scored for speaking where speech is
    heard; voices and faces that go together become speakers. Faces may split a voice, merge two,
    and move stretches of turns; where the picture cannot be trusted the audio-only turns stand.

    The association follows audio-visual diarization by late fusion as in 3D-Speaker
    (https://github.com/modelscope/3D-Speaker), with overlap and off-screen voices kept.

    Parameters
    ----------
    audio : str, dict or Pipeline, optional
        Audio diarization pipeline: the name of a shipped one, whatever
        :meth:`pyannote_av.Pipeline.from_pretrained` takes, or a pyannote.audio pipeline.
    detector, embedder : optional
        See :class:`pyannote_av.pipelines.FaceTracking`.
    scorer : optional
        See :class:`pyannote_av.pipelines.ActiveSpeakerDetection`.
    max_offset : float, optional
        Largest audio-visual offset that is corrected, in seconds.
    token, cache_dir : optional
        For models of the Hugging Face hub.

    Hyper-parameters
    ----------------
    minimum_evidence : float
        Least evidence that a face owns a voice, log-odds times seconds.
    specificity : float
        Least difference between the probabilities that the face speaks while the voice is heard
        and while others are.
    margin : float
        Score beyond which a face decisively speaks or is silent, log-odds.
    min_change : float
        Shortest stretch of a turn that faces may move to another speaker, in seconds.
    min_split : float
        Least speech of a face for which a voice is split, in seconds.
    merge_share, merge_similarity : float
        Two voices are merged when one face visibly speaks at least this share of either and the
        cosine similarity of their voiceprints is not below.
    identity_threshold : float
        Cosine distance up to which two tracks may show the same face.
    min_face : float
        Smallest usable face, in pixels of the displayed frame.
    """

    def __init__(
        self,
        audio: str | dict | _Pipeline = "audio",
        detector: Any = "auto",
        embedder: Any = "auto",
        scorer: Any = "auto",
        max_offset: float = 1.0,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__()
        if not isinstance(audio, _Pipeline):
            audio = Pipeline.from_pretrained(audio, token=token, cache_dir=cache_dir)
        self.audio = audio
        self.faces = FaceTracking(
            detector=detector, embedder=embedder, token=token, cache_dir=cache_dir
        )
        self.active_speaker = ActiveSpeakerDetection(
            scorer=scorer, token=token, cache_dir=cache_dir
        )
        self.max_offset = max_offset

        self.minimum_evidence = Uniform(0.0, 10.0)
        self.specificity = Uniform(0.0, 0.5)
        self.margin = Uniform(0.0, 3.0)
        self.min_change = Uniform(0.2, 2.0)
        self.min_split = Uniform(0.5, 5.0)
        self.merge_share = Uniform(0.5, 1.0)
        self.merge_similarity = Uniform(0.0, 1.0)
        self.identity_threshold = Uniform(0.2, 1.0)
        self.min_face = Uniform(8.0, 64.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        audio = self.audio
        return {
            "audio": audio.parameters(instantiated=True)
            if audio.instantiated
            else audio.default_parameters(),
            "faces": self.faces.default_parameters(),
            "active_speaker": self.active_speaker.default_parameters(),
            "minimum_evidence": 1.5,
            "specificity": 0.1,
            "margin": 1.0,
            "min_change": 0.6,
            "min_split": 1.5,
            "merge_share": 0.7,
            "merge_similarity": 0.3,
            "identity_threshold": 0.45,
            "min_face": 24.0,
        }

    def classes(self):
        """Labels are those of the audio pipeline, continued."""
        return self.audio.classes()

    def get_metric(self) -> DiarizationErrorRate:
        """What the optimizer minimises."""
        return DiarizationErrorRate(collar=0.0, skip_overlap=False)

    @staticmethod
    def get_direction() -> str:
        return "minimize"

    # ------------------------------------------------------------------ the way of one file

    def apply(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
    ) -> AVDiarizeOutput | Annotation:
        """Diarize one file.

        Parameters
        ----------
        file : str, Path or mapping
            A video or audio file. A mapping may also hold ``diarization`` (a finished
            ``Annotation``, used instead of the audio pipeline) and ``face_tracks``
            (:class:`FaceTracks` or a path, used instead of face detection).
        num_speakers, min_speakers, max_speakers : int, optional
            Number of speakers or bounds on it, when known.
        hook : callable, optional
            ``hook(step, artifact, file=..., total=..., completed=...)``.

        Returns
        -------
        output : AVDiarizeOutput
            Or an ``Annotation`` while ``self.training``.
        """
        hook = self.setup_hook(file, hook)
        waveform = file["waveform"]
        report = Report(duration=waveform.shape[-1] / SAMPLE_RATE)
        report.problems += file.get("problems", [])

        with report.stage("audio"):
            audio = self._listen(file, num_speakers, min_speakers, max_speakers, hook)
        voices = audio.speaker_diarization
        report.components["audio"] = (
            "given diarization" if "diarization" in file else type(self.audio).__name__
        )

        offset, tracks = self._look(file, voices, hook, report)
        output = self._fuse(audio, tracks, offset, report, num_speakers, min_speakers, max_speakers)
        hook("fusion", output.speaker_diarization)
        return output.speaker_diarization if self.training else output

    def _listen(self, file, num_speakers, min_speakers, max_speakers, hook) -> AVDiarizeOutput:
        """The audio branch, whatever it is, in the form of our output."""
        if "diarization" in file:
            given = file["diarization"]
            if not isinstance(given, Annotation):
                raise TypeError(
                    f"file {file['uri']!r}: `diarization` must be a pyannote.core.Annotation, "
                    f"not {type(given).__name__}"
                )
            return AVDiarizeOutput(given, given)
        if not file.get("has_audio", True):
            return AVDiarizeOutput(Annotation(uri=file["uri"]), Annotation(uri=file["uri"]))
        bounds = {
            "num_speakers": num_speakers,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
        }
        bounds = {name: value for name, value in bounds.items() if value is not None}
        diarize = getattr(self.audio, "diarize", self.audio.apply)
        result = diarize(file, **bounds, hook=hook)
        if isinstance(result, Annotation):
            return AVDiarizeOutput(result, result)
        return AVDiarizeOutput(
            result.speaker_diarization,
            result.exclusive_speaker_diarization,
            result.speaker_embeddings,
        )

    def _look(self, file, voices, hook, report) -> tuple[float, FaceTracks]:
        """Track faces and score them, in one decoding pass; again when sound and picture part."""
        speech = voices.get_timeline().support() if file.get("has_audio", True) else None
        waveform = file["waveform"]
        given = file.get("face_tracks")
        cached = file.get("training_cache/face_tracks") if self.training else None
        if cached is not None:
            return cached

        with report.stage("faces"):
            listener = self.active_speaker.listen(waveform, speech)
            tracks = self.faces.apply(
                file, tracks=given, consumers=[listener], hook=hook, problems=report.problems
            )
            tracks = listener.scores(tracks)
        offset, confident = self._offset(listener, report)
        if confident and _MIN_OFFSET <= abs(offset) <= self.max_offset:
            # picture and sound are shifted: score once more, with the sound moved
            with report.stage("faces, in sync"):
                listener = self.active_speaker.listen(waveform, speech, offset=offset)
                self.faces.apply(file, tracks=tracks, consumers=[listener], hook=hook)
                tracks = listener.scores(tracks)
            report.reasons.append(
                f"sound and picture were {abs(offset):.2f} s apart "
                f"(sound {'late' if offset > 0 else 'early'}) and have been aligned"
            )
        report.components.update(
            detector="given tracks" if given is not None else self.faces.detector_name,
            scorer=self.active_speaker.scorer_name,
            identity=self.faces.embedder_name,
        )
        if self.training:
            file["training_cache/face_tracks"] = (offset if confident else 0.0, tracks)
        return offset if confident else 0.0, tracks

    def _offset(self, listener, report) -> tuple[float, bool]:
        """Audio-visual offset in seconds, and whether it is to be believed."""
        offset, confidence = listener.offset()
        report.numbers["audio-visual offset (s)"] = offset
        report.numbers["confidence of the offset"] = confidence
        return offset, confidence > 0.5

    # ------------------------------------------------------------------ fusion

    def _persons(self, tracks: FaceTracks, offset: float, report: Report):
        """Usable tracks, joined to persons, on the clock of the sound."""
        height = tracks.frame_size[1] if tracks.frame_size else float("nan")
        sizes, durations = {}, {}
        for track in tracks.tracks:
            one = tracks.of(track)
            sizes[track] = float(np.median(one.box[:, 3] - one.box[:, 1])) * height
            durations[track] = len(one) / FRAME_RATE
        refused = guard.refuse_tracks(sizes, durations, self.min_face)
        for reason in sorted(set(refused.values())):
            ids = [str(t) for t, why in refused.items() if why == reason]
            report.reasons.append(f"face track {', '.join(ids)} not used: {reason}")

        shift = round(offset * FRAME_RATE)
        usable = [t for t in tracks.tracks if t not in refused]
        rows = []
        for track in usable:
            one = tracks.of(track)
            rows.append((track, np.round(one.time * FRAME_RATE).astype(int) + shift, one.speaking))
        conflict = association.simultaneous([[(i[0], i[-1])] for _, i, _ in rows])
        embeddings = [tracks.embeddings.get(track) for track in usable]
        groups = association.group_tracks(conflict, embeddings, self.identity_threshold)
        persons = [association.make_person([rows[i] for i in group]) for group in groups]
        conflict = association.simultaneous([person.spans for person in persons])
        # faces with an identity each are different people when they were not joined
        known = np.array([any(embeddings[i] is not None for i in group) for group in groups])
        distinct = conflict | np.logical_and.outer(known, known)
        np.fill_diagonal(distinct, False)
        return persons, conflict, distinct

    def _fuse(
        self, audio, tracks, offset, report, num_speakers, min_speakers, max_speakers
    ) -> AVDiarizeOutput:
        """Voices and faces become speakers."""
        voices = audio.speaker_diarization
        exclusive = audio.exclusive_speaker_diarization
        labels = list(voices.labels())
        stats = tracks.stats
        refusal = guard.refuse_file(
            frame_rate=stats.frame_rate if stats and stats.frames else float("nan"),
            brightness=stats.brightness if stats else float("nan"),
            num_tracks=len(tracks.tracks),
            offset=offset,
            max_offset=self.max_offset,
        )
        if stats is not None:
            report.numbers["share of frames with a face"] = stats.face_share
        if refusal or not labels:
            report.reasons.append(refusal or "no speech was heard: there is nothing to attribute")
            return self._output(audio, voices, exclusive, labels, {}, [], tracks, report)

        with report.stage("fusion"):
            persons, conflict, distinct = self._persons(tracks, offset, report)
            num_frames = int(np.ceil(report.duration * FRAME_RATE)) + 1
            activity = turns.activity_of(voices, labels, num_frames)
            evidence, specificity = association.voice_evidence(persons, activity, _CLIP)
            evidence[specificity < self.specificity] = 0.0
            voice_of = association.associate(evidence, conflict, self.minimum_evidence)

            voiceprints = audio.speaker_embeddings
            fewest = num_speakers or min_speakers or 1
            most = num_speakers or max_speakers or np.inf
            into = {}
            if len(labels) > fewest:
                into = turns.merges(
                    persons,
                    voice_of,
                    activity,
                    voiceprints,
                    share=self.merge_share,
                    similarity=self.merge_similarity,
                    seconds=self.min_split,
                )
                into = dict(list(into.items())[: len(labels) - fewest])
            source = turns.splits(
                persons,
                voice_of,
                distinct,
                activity,
                margin=self.margin,
                seconds=self.min_split,
            )
            for person in source:
                if len(labels) - len(into) < most:
                    voice_of[person] = len(labels)
                    labels.append(_next_label(labels))
            activity = np.pad(activity, ((0, 0), (0, len(labels) - activity.shape[1])))
            options = {"margin": self.margin, "seconds": self.min_change}
            changes = turns.moves(voices, labels, persons, voice_of, activity, **options)
            fused = turns.rewrite(voices, labels, changes, into)
            exclusive = turns.rewrite(exclusive, labels, changes, into)

        for voice, other in into.items():
            report.changes.append(f"{labels[voice]} merged into {labels[other]}: one face")
        for person, voice in source.items():
            if person in voice_of:
                report.changes.append(f"{labels[voice_of[person]]} split off {labels[voice]}")
        if changes:
            moved = sum(move.segment.duration for move in changes)
            report.changes.append(f"{moved:.2f} s of turns moved to the face seen speaking")
        faces = {p: labels[into.get(v, v)] for p, v in voice_of.items()}
        speaker = {t: label for p, label in faces.items() for t in persons[p].tracks}
        report.video_used = bool(faces)
        report.reasons.append(
            f"{len(set(faces.values()))} of {len(fused.labels())} speakers have a face"
            if faces
            else "no face goes with any voice"
        )
        speech = fused.get_timeline().support()
        shown = tracks.to_annotation()
        trusted = {t for person in persons for t in person.tracks}
        trusted_time = [s for s, _, t in shown.itertracks(yield_label=True) if t in trusted]
        report.ignored_regions = guard.without_faces(speech, trusted_time, shown.itersegments())
        owners: dict[str, list] = {}
        for person, label in faces.items():
            owners.setdefault(label, []).append(persons[person])
        return self._output(
            audio, fused, exclusive, labels, speaker, changes, tracks, report, owners
        )

    def _output(
        self, audio, fused, exclusive, labels, speaker, changes, tracks, report, owners=None
    ) -> AVDiarizeOutput:
        """The answer, with the evidence for every turn."""
        voices = audio.speaker_diarization
        voiceprints = audio.speaker_embeddings
        if voiceprints is not None:
            known = dict(zip(voices.labels(), voiceprints, strict=True))
            missing = np.full(voiceprints.shape[1], np.nan)
            rows = [known.get(label, missing) for label in fused.labels()]
            voiceprints = np.stack(rows) if rows else voiceprints[:0]
        provenance = {}
        for segment, track, label in fused.itertracks(yield_label=True):
            provenance[segment, track] = _evidence(segment, label, (owners or {}).get(label, ()))
            for move in changes:
                if labels[move.target] == label and (move.segment & segment):
                    provenance[segment, track]["modality"] = "video"
        return AVDiarizeOutput(
            speaker_diarization=fused,
            exclusive_speaker_diarization=exclusive,
            speaker_embeddings=voiceprints,
            face_tracks=tracks.with_speakers(speaker),
            report=report,
            audio_only=voices,
            provenance=provenance,
        )


def _evidence(segment: Segment, label: str, owners) -> dict[str, Any]:
    """Confidence and modality of one turn: the mean speaking probability of its speaker's face."""
    first, last = np.round(np.array([segment.start, segment.end]) * FRAME_RATE).astype(int)
    frames = np.arange(first, max(last, first + 1))
    scores = np.concatenate([owner.at(frames) for owner in owners]) if owners else np.empty(0)
    scores = scores[np.isfinite(scores)]
    if len(scores) < 0.3 * len(frames):
        return {"confidence": None, "modality": "audio"}
    probability = float(np.mean(1 / (1 + np.exp(-np.clip(scores, -_CLIP, _CLIP)))))
    return {"confidence": round(probability, 3), "modality": "audio+video"}


def _next_label(labels: list[str]) -> str:
    """First unused ``SPEAKER_NN``."""
    number = 0
    while f"SPEAKER_{number:02d}" in labels:
        number += 1
    return f"SPEAKER_{number:02d}"
