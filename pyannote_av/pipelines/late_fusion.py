"""Late fusion of audio diarization and face tracks into audio-visual speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from pyannote.audio import Pipeline as _Pipeline
from pyannote.core import Annotation, Timeline
from pyannote.pipeline.parameter import Uniform

from pyannote_av.core.caching import cached, for_pipeline
from pyannote_av.core.grid import STEP_RATE
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.pipeline import DiarizationPipeline, Pipeline
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.fusion import guard
from pyannote_av.fusion.activities import (
    Durations,
    changes,
    exclusive,
    from_annotation,
    to_annotation,
)
from pyannote_av.fusion.decoding import (
    Weights,
    add_faces,
    decode,
    face_evidence,
    sound_evidence,
)
from pyannote_av.fusion.identities import FaceIdentities, find_identities
from pyannote_av.fusion.speakers import Rules, Speakers, find_speakers, next_label, output_of
from pyannote_av.fusion.targets import FaceFeatures
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.collectors import VisualFeatureCollector
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.pipelines.speaking_scores import SpeakingScores, estimate_offset

if TYPE_CHECKING:
    import torch

# smaller offsets (two grid frames) are not corrected: networks and people tolerate them
_MIN_OFFSET = 0.08


class Fused(NamedTuple):
    """Result of late fusion.

    Attributes
    ----------
    output : AVDiarizeOutput
    gain : float
        How much likelier it is than the turns of the sound; see
        :func:`~pyannote_av.fusion.decoding.gain_of`.
    sound_only : AVDiarizeOutput
        The turns of the sound, with the same faces.
    speakers : Speakers
        Evidence of the sound about each speaker.
    identities : FaceIdentities
        All people in the video, with or without a voice. Empty if the video was refused.
    offset : float
        Corrected delay of the audio relative to the video, in seconds. 0 if none was corrected.
    features : dict of int to list of FaceFeatures
        Visual features of each face track. Empty if none were requested.
    refused : bool
        Whether the video is unreliable. The report says why.
    """

    output: AVDiarizeOutput
    gain: float
    sound_only: AVDiarizeOutput
    speakers: Speakers
    identities: FaceIdentities
    offset: float
    features: dict[int, list[FaceFeatures]]
    refused: bool

    @property
    def kept(self) -> AVDiarizeOutput:
        """The result of late fusion: `output`, or `sound_only` if there is little evidence."""
        return self.sound_only if guard.refuse_changes(self.gain) else self.output

    def conclude(self, output: AVDiarizeOutput, gain: float) -> AVDiarizeOutput:
        """Keep the turns of the sound if there is little evidence, and complete the report.

        The report then says what changed, how many speakers have a face, and where there is none.

        Parameters
        ----------
        output : AVDiarizeOutput
            `output`, or what a further pass made of it.
        gain : float
            How much likelier it is than the turns of the sound.

        Returns
        -------
        output : AVDiarizeOutput
            The same, or `sound_only`.
        """
        report = output.report
        if refusal := guard.refuse_changes(gain):
            if output.speaker_diarization != self.sound_only.speaker_diarization:
                report.reasons.append(refusal)
            report.changes.clear()
            output = self.sound_only
        else:
            self._describe_changes(output.speaker_diarization, report)
        if self.identities.identities and np.isfinite(gain):
            report.numbers["evidence for changes (log-odds)"] = gain
        turns, tracks = output.speaker_diarization, output.face_tracks
        labels = turns.labels()
        if self.refused or tracks is None:
            return output
        with_face = set(labels) & set(tracks.speaker.values())
        report.video_used = bool(with_face)
        report.reasons.append(
            f"{len(with_face)} of {len(labels)} speakers have a face"
            if with_face
            else "no face was associated with a voice"
        )
        report.ignored_regions = _regions_without_faces(turns, self.identities, tracks)
        return output

    def _describe_changes(self, turns: Annotation, report: Report) -> None:
        """Add to the report how `turns` differ from those of the sound, if they do"""
        known = self.speakers.labels
        names = [*known, *(label for label in turns.labels() if label not in known)]
        before, after = (
            from_annotation(one, names, round(report.duration * STEP_RATE))
            for one in (self.speakers.turns, turns)
        )
        if (before != after).any():
            report.changes.insert(0, changes(before, after))


@dataclass(frozen=True, eq=False)
class _Faces:
    """Face tracks of a file, with what was collected on the way"""

    tracks: FaceTracks
    scores: list[SpeakingScores]
    features: dict[int, list[FaceFeatures]]


class LateFusion(DiarizationPipeline):
    """Audio-visual speaker diarization by late fusion: who spoke when, and with which face.

    An audio pipeline finds speakers. Faces are tracked, and get speaking scores in speech regions.
    Each face is then associated with the speaker whose speech matches its speaking scores. Faces
    can split a speaker, and merge two speakers. Then, who speaks is decided anew for every 10 ms,
    from the posteriors of the sound and the speaking scores together; see
    :mod:`pyannote_av.fusion.decoding`. If the video is not reliable, shows no face, or gives little
    evidence for changes, the audio-only turns are returned.

    The association follows the late fusion of 3D-Speaker
    (https://github.com/modelscope/3D-Speaker), but keeps overlap and off-screen speakers.

    Parameters
    ----------
    audio : str, dict or Pipeline, optional
        Audio diarization pipeline: the name of a shipped one, any other argument of
        :meth:`pyannote_av.Pipeline.from_pretrained`, or a pyannote.audio pipeline.
    detector, embedder : optional
        See :class:`~pyannote_av.pipelines.face_tracking.FaceTracking`.
    scorer : optional
        See
        :class:`~pyannote_av.pipelines.active_speaker_detection.ActiveSpeakerDetection`.
    max_offset : float, optional
        Largest audio-visual offset that is corrected, in seconds.
    token, cache_dir : optional
        Token and cache folder for models of the Hugging Face hub.

    Hyper-parameters
    ----------------
    minimum_evidence : float
        Minimum evidence to associate a face with a voice, in log-odds times seconds.
    rise : float
        Used in the association only. A face speaks where its score is this much above its own
        silence, in log-odds, if that threshold is below 0.
    specificity : float
        Minimum difference between the mean speaking probability of a face while its voice is
        active and while only other voices are.
    margin : float
        A face decisively speaks above this score, and is decisively silent below its negative, in
        log-odds.
    min_split : float
        Minimum speech of a face to split a voice, in seconds.
    merge_share, merge_similarity : float
        A voice without a face is merged into the voice of a face that is visible for at least this
        share of it, and speaks for at least this share of the visible time. Their speaker
        embeddings must have at least this cosine similarity.
    identity_threshold : float
        Maximum cosine distance of two tracks that show the same face.
    min_face : float
        Smallest usable face, in pixels of the displayed frame.
    sound_weight, turn_weight, score_weight, count_weight : float
        Weight of the posteriors of the sound, of its turns, of the speaking scores of faces, and of
        the number of speakers in the sound. With a `score_weight` of 0, no face counts as visible.
    min_new : float
        Minimum speech of a face without a voice to become a speaker, in seconds.
    min_duration_on, min_duration_off : float
        Shortest turn and shortest gap, in seconds.
    """

    FORMER_PARAMETERS: ClassVar = frozenset({"min_change"})

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
        self.rise = Uniform(0.5, 5.0)
        self.specificity = Uniform(0.0, 0.5)
        self.margin = Uniform(0.0, 3.0)
        self.min_split = Uniform(0.5, 5.0)
        self.merge_share = Uniform(0.5, 1.0)
        self.merge_similarity = Uniform(0.0, 1.0)
        self.identity_threshold = Uniform(0.2, 1.0)
        self.min_face = Uniform(8.0, 64.0)
        self.sound_weight = Uniform(0.0, 1.0)
        self.turn_weight = Uniform(0.0, 2.0)
        self.score_weight = Uniform(0.0, 2.0)
        self.count_weight = Uniform(0.0, 5.0)
        self.min_new = Uniform(0.5, 10.0)
        self.min_duration_on = Uniform(0.0, 1.0)
        self.min_duration_off = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        audio = self.audio
        return {
            "audio": audio.parameters(instantiated=True)
            if audio.instantiated
            else audio.default_parameters(),
            "faces": self.faces.default_parameters(),
            "active_speaker": self.active_speaker.default_parameters(),
            "minimum_evidence": 0.5,
            "rise": 1.5,
            "specificity": 0.1,
            "margin": 1.0,
            "min_split": 1.5,
            "merge_share": 0.7,
            "merge_similarity": 0.3,
            "identity_threshold": 0.45,
            "min_face": 24.0,
            "sound_weight": 0.5,
            "turn_weight": 0.5,
            "score_weight": 1.0,
            "count_weight": 2.0,
            "min_new": 1.0,
            "min_duration_on": 0.1,
            "min_duration_off": 0.0,
        }

    def classes(self):
        """Labels of the audio pipeline; added speakers get the next ones."""
        return self.audio.classes()

    # ------------------------------------------------------------------ processing of one file

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
            Number of speakers, or bounds on it, if known.
        hook : callable, optional
            ``hook(step, artifact, file=..., total=..., completed=...)``.

        Returns
        -------
        output : AVDiarizeOutput
            An ``Annotation`` while ``self.training``.
        """
        fused = self.fuse(file, num_speakers, min_speakers, max_speakers, hook)
        output = fused.conclude(fused.output, fused.gain)
        return output.speaker_diarization if self.training else output

    def fuse(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
        visual_model: torch.nn.Module | None = None,
    ) -> Fused:
        """Fuse a prepared file, and return intermediate results too, for further pipelines.

        The report is not complete before :meth:`Fused.conclude`.

        Parameters
        ----------
        file : mapping
            As returned by ``prepare_one``.
        num_speakers, min_speakers, max_speakers, hook : optional
            See :meth:`apply`.
        visual_model : AVModel, optional
            Network whose visual features are computed during the decoding pass.
        """
        hook = self.setup_hook(file, hook)
        report = Report.of_file(file)
        bounds = {
            "num_speakers": num_speakers,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
        }
        with report.stage("audio"):
            audio = self._diarize_audio(file, bounds, hook)
        speech = audio.speaker_diarization.get_timeline().support()
        faces = self._track_and_score(file, speech, hook, report, visual_model)
        tracks = self.active_speaker.add_scores(faces.tracks, faces.scores)
        offset = self._estimate_offset(faces.scores, report)
        if 0 < abs(offset) <= self.max_offset:
            scores = self._score_again(file, tracks, speech, offset, hook, report)
            tracks = self.active_speaker.add_scores(tracks, scores)
        self._name_components(file, report)
        with report.stage("fusion"):
            identities = FaceIdentities.empty()
            refused = self._refuse_video(file, audio, tracks, offset, report)
            if not refused:
                identities = self._find_identities(tracks, offset, report)
            sound = speakers = Speakers.of_sound(audio, report.duration)
            output, gain = None, 0.0
            if identities.identities:
                speakers = self._find_speakers(audio, identities, bounds, report)
                output, gain = self._decide_turns(
                    file, audio, speakers, identities, bounds, tracks, report
                )
            turns = audio.speaker_diarization, audio.exclusive_speaker_diarization
            sound = replace(sound, faces=speakers.faces)
            sound_only = output_of(*turns, sound, audio, tracks, report)
            if output is None:
                output = sound_only
        fused = Fused(
            output, gain, sound_only, speakers, identities, offset, faces.features, refused
        )
        hook("fusion", fused.kept.speaker_diarization)
        return fused

    # ---------------------------------------------------------------------------------- steps

    def _diarize_audio(
        self, file: Mapping, bounds: Mapping[str, int | None], hook: Callable
    ) -> AVDiarizeOutput:
        """Output of the audio pipeline, or the given diarization"""
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
        bounds = {name: value for name, value in bounds.items() if value is not None}
        diarize = getattr(self.audio, "diarize", self.audio.apply)
        result = diarize(for_pipeline(file, self.audio), **bounds, hook=hook)
        if isinstance(result, Annotation):
            return AVDiarizeOutput(result, result)
        return AVDiarizeOutput(
            result.speaker_diarization,
            result.exclusive_speaker_diarization,
            result.speaker_embeddings,
            posteriors=getattr(result, "posteriors", None),
        )

    def _track_and_score(
        self,
        file: Mapping,
        speech: Timeline,
        hook: Callable,
        report: Report,
        visual_model: torch.nn.Module | None,
    ) -> _Faces:
        """Face tracks, raw speaking scores and visual features, in one decoding pass"""

        def compute() -> tuple:
            scores = self.active_speaker.collector(file["waveform"], speech)
            features = None if visual_model is None else VisualFeatureCollector(visual_model)
            with report.stage("faces"):
                tracks = self.faces.apply(
                    file,
                    tracks=file.get("face_tracks"),
                    collectors=[scores] if features is None else [scores, features],
                    hook=hook,
                    problems=report.problems,
                )
                found = tracks, scores.compute(), {} if features is None else features.compute()
            report.add_parallel("speaking scores", scores.seconds)
            if features is not None:
                report.add_parallel("visual features", features.seconds)
            return found

        depends_on = (
            self.faces.dependencies(file),
            self.active_speaker.dependencies(speech),
            visual_model,
        )
        return _Faces(*cached(file, "scored faces", depends_on, compute))

    def _score_again(
        self,
        file: Mapping,
        tracks: FaceTracks,
        speech: Timeline,
        offset: float,
        hook: Callable,
        report: Report,
    ) -> list[SpeakingScores]:
        """Raw speaking scores with the audio aligned to the video"""

        def compute() -> list[SpeakingScores]:
            scores = self.active_speaker.collector(file["waveform"], speech, offset, curves=False)
            with report.stage("faces"):
                # damage was reported in the first pass: `problems` of this one are ignored
                self.faces.apply(file, tracks=tracks, collectors=[scores], hook=hook, problems=[])
                found = scores.compute()
            report.add_parallel("speaking scores", scores.seconds)
            return found

        depends_on = (
            self.faces.dependencies(file),
            self.active_speaker.dependencies(speech, offset),
        )
        scores = cached(file, "scores of aligned faces", depends_on, compute)
        report.reasons.append(
            f"sound and picture were {abs(offset):.2f} s apart "
            f"(sound {'late' if offset > 0 else 'early'}) and have been aligned"
        )
        return scores

    def _estimate_offset(self, scores: Sequence[SpeakingScores], report: Report) -> float:
        """Audio-visual offset in seconds, 0 if it is small or uncertain"""
        offset, confidence = estimate_offset(scores, self.active_speaker.smoothing)
        if confidence > 0:  # without speaking faces there is no estimate
            report.numbers["audio-visual offset (s)"] = offset
        report.numbers["confidence of the offset"] = confidence
        return offset if confidence > 0.5 and abs(offset) >= _MIN_OFFSET else 0.0

    def _name_components(self, file: Mapping, report: Report) -> None:
        has_turns, has_tracks = "diarization" in file, file.get("face_tracks") is not None
        report.components.update(
            audio="given diarization" if has_turns else type(self.audio).__name__,
            detector="given tracks" if has_tracks else self.faces.detector_name,
            scorer=self.active_speaker.scorer_name,
            identity=self.faces.embedder_name,
        )

    def _refuse_video(
        self,
        file: Mapping,
        audio: AVDiarizeOutput,
        tracks: FaceTracks,
        offset: float,
        report: Report,
    ) -> bool:
        """Whether the video is not used, for a reason that is added to the report"""
        stats = tracks.stats
        refusal = guard.refuse_file(
            has_sound=file.get("has_audio", True),
            num_voices=len(audio.speaker_diarization.labels()),
            frame_rate=stats.frame_rate if stats and stats.frames else float("nan"),
            brightness=stats.brightness if stats else float("nan"),
            num_tracks=len(tracks.tracks),
            offset=offset,
            max_offset=self.max_offset,
        )
        if stats is not None:
            report.numbers["share of frames with a face"] = stats.face_share
        if refusal:
            report.reasons.append(refusal)
        return bool(refusal)

    def _find_identities(self, tracks: FaceTracks, offset: float, report: Report) -> FaceIdentities:
        """Persons in the video, on the clock of the audio"""
        identities = find_identities(
            tracks,
            offset=offset,
            min_face=self.min_face,
            identity_threshold=self.identity_threshold,
        )
        for reason in sorted(set(identities.refused.values())):
            ids = [str(track) for track, why in identities.refused.items() if why == reason]
            report.reasons.append(f"face track {', '.join(ids)} not used: {reason}")
        return identities

    def _find_speakers(
        self,
        audio: AVDiarizeOutput,
        identities: FaceIdentities,
        bounds: Mapping[str, int | None],
        report: Report,
    ) -> Speakers:
        """Speakers, from the voices of the audio pipeline and the persons in the video"""
        speakers = find_speakers(
            audio,
            identities,
            Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)}),
            duration=report.duration,
            fewest=bounds["num_speakers"] or bounds["min_speakers"] or 1,
            most=bounds["num_speakers"] or bounds["max_speakers"] or np.inf,
        )
        report.changes += speakers.changes
        return speakers

    def _decide_turns(
        self,
        file: Mapping,
        audio: AVDiarizeOutput,
        speakers: Speakers,
        identities: FaceIdentities,
        bounds: Mapping[str, int | None],
        tracks: FaceTracks,
        report: Report,
    ) -> tuple[AVDiarizeOutput, float]:
        """Decide who speaks when, from the sound and the speaking scores; also returns the gain"""
        labels = list(speakers.labels)
        owned = {track for own in speakers.faces.values() for face in own for track in face.tracks}
        faces = [speakers.faces.get(label, []) for label in labels]
        for identity in identities.identities:
            if owned.isdisjoint(identity.tracks):
                labels.append(next_label(labels))
                faces.append([identity])
        num_steps = round(report.duration * STEP_RATE)
        evidence, counts, sound = sound_evidence(
            speakers.posteriors, speakers.turns, labels, num_steps, self.weights
        )
        scores = face_evidence(faces, num_steps, self.weights)
        evidence, preference = add_faces(evidence, counts, scores)
        decision = decode(
            evidence,
            counts,
            self.count_weight,
            self.durations,
            num_voices=len(speakers.labels),
            min_new=self.min_new,
            most=bounds["num_speakers"] or bounds["max_speakers"] or np.inf,
            preference=preference,
            sound=sound,
            seen=scores != 0,
        )
        names = [labels[k] for k in decision.kept]
        speakers.faces.update({labels[k]: faces[k] for k in decision.kept if faces[k]})
        turns = to_annotation(decision.active, names, file["uri"])
        alone = exclusive(decision.active, decision.probability)
        alone = to_annotation(alone, names, file["uri"])
        return output_of(turns, alone, speakers, audio, tracks, report), decision.gain

    @property
    def weights(self) -> Weights:
        """Weights of the sources of evidence."""
        return Weights(self.sound_weight, self.turn_weight, self.score_weight, self.count_weight)

    @property
    def durations(self) -> Durations:
        """Minimum durations of turns and gaps."""
        return Durations(self.min_duration_on, self.min_duration_off)


def _regions_without_faces(
    turns: Annotation, identities: FaceIdentities, tracks: FaceTracks
) -> list[dict[str, Any]]:
    """Speech during which no face of a person in the video is visible, with the reason"""
    trusted = {track for identity in identities.identities for track in identity.tracks}
    visible = tracks.to_annotation()
    return guard.without_faces(
        turns.get_timeline().support(),
        [segment for segment, _, t in visible.itertracks(yield_label=True) if t in trusted],
        visible.itersegments(),
    )
