"""Late fusion of audio diarization and face tracks into audio-visual speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyannote.audio import Pipeline as _Pipeline
from pyannote.core import Annotation
from pyannote.pipeline.parameter import Uniform

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.pipeline import DiarizationPipeline, Pipeline
from pyannote_av.core.tracks import FaceTracks, TrackSegment
from pyannote_av.fusion import guard
from pyannote_av.fusion.persons import People, find_persons
from pyannote_av.fusion.speakers import Rules, Speakers, decide
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.caching import cached
from pyannote_av.pipelines.face_tracking import FaceTracking, how_looked

# smaller offsets (two grid frames) are not corrected: networks and people tolerate them
_MIN_OFFSET = 0.08


class Fused(NamedTuple):
    """Result of late fusion.

    Attributes
    ----------
    output : AVDiarizeOutput
    people : People
        All persons in the video, with or without a voice. Empty if the video was refused.
    offset : float
        Corrected delay of the audio relative to the video, in seconds. 0 if none was corrected.
    """

    output: AVDiarizeOutput
    people: People
    offset: float


class LateFusion(DiarizationPipeline):
    """Audio-visual speaker diarization by late fusion: who spoke when, and with which face.

    An audio pipeline finds speakers. Faces are tracked, and get speaking scores in speech regions.
    Each face is then associated with the speaker whose speech matches its speaking scores. Faces
    can split a speaker, merge two speakers, and move parts of turns to another speaker. If the
    video is not reliable, the audio-only turns are returned.

    The association follows the late fusion of 3D-Speaker
    (https://github.com/modelscope/3D-Speaker), but keeps overlap and off-screen speakers.

    Parameters
    ----------
    audio : str, dict or Pipeline, optional
        Audio diarization pipeline: the name of a shipped one, any other argument of
        :meth:`pyannote_av.Pipeline.from_pretrained`, or a pyannote.audio pipeline.
    detector, embedder : optional
        See :class:`pyannote_av.pipelines.FaceTracking`.
    scorer : optional
        See :class:`pyannote_av.pipelines.ActiveSpeakerDetection`.
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
        silence, in log-odds, if that threshold is below 0. Changes of turns use a threshold of 0.
    specificity : float
        Minimum difference between the mean speaking probability of a face while its voice is
        active and while only other voices are.
    margin : float
        A face decisively speaks above this score, and is decisively silent below its negative, in
        log-odds.
    min_change : float
        Minimum duration of a part of a turn that is moved to another speaker, in seconds.
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
        self.rise = Uniform(0.5, 5.0)
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
            "minimum_evidence": 0.5,
            "rise": 1.5,
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
        hook = self.setup_hook(file, hook)
        output = self.fuse(file, num_speakers, min_speakers, max_speakers, hook).output
        return output.speaker_diarization if self.training else output

    def fuse(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
        consumers: Sequence[Callable[[TrackSegment], None]] = (),
    ) -> Fused:
        """Fuse a prepared file, and return intermediate results too, for further pipelines.

        Parameters
        ----------
        file : mapping
            As returned by ``prepare_one``.
        num_speakers, min_speakers, max_speakers, hook : optional
            See :meth:`apply`.
        consumers : sequence of callables, optional
            Called with all segments of face tracks during the decoding pass. Each stores its
            result in its attribute ``seen``. While ``self.training``, cached results are written
            back to this attribute instead of decoding the video again.
        """
        hook = hook or self.setup_hook(file, None)
        report = Report(duration=file["waveform"].shape[-1] / SAMPLE_RATE)
        report.problems += file.get("problems", [])
        report.streams += file.get("streams", [])
        if "decoding_seconds" in file:
            report.seconds["decoding of the sound"] = file["decoding_seconds"]

        with report.stage("audio"):
            audio = self._listen(file, num_speakers, min_speakers, max_speakers, hook)
        report.components["audio"] = (
            "given diarization" if "diarization" in file else type(self.audio).__name__
        )
        offset, tracks = self._look(file, audio.speaker_diarization, hook, report, consumers)
        with report.stage("fusion"):
            output, people = self._fuse(
                audio,
                tracks,
                offset,
                report,
                has_sound=file.get("has_audio", True),
                fewest=num_speakers or min_speakers or 1,
                most=num_speakers or max_speakers or np.inf,
            )
        hook("fusion", output.speaker_diarization)
        return Fused(output, people, offset)

    def _listen(self, file, num_speakers, min_speakers, max_speakers, hook) -> AVDiarizeOutput:
        """Run the audio branch, and convert its result to an ``AVDiarizeOutput``."""
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

    def _look(self, file, voices, hook, report, consumers) -> tuple[float, FaceTracks]:
        """Track and score faces in one decoding pass; score again after correcting an offset."""
        speech = voices.get_timeline().support()
        waveform, given = file["waveform"], file.get("face_tracks")

        def look(listener, tracks, consumers=(), problems=None):
            """Face tracks, their speaking scores, and the results of other consumers"""
            with report.stage("faces"):
                found = self.faces.apply(
                    file,
                    tracks=tracks,
                    consumers=[listener, *consumers],
                    hook=hook,
                    problems=problems,
                )
                heard = listener.heard
            report.move_seconds("faces", "speaking scores", listener.seconds)
            return found, heard, [one.seen for one in consumers]

        listener = self.active_speaker.listen(waveform, speech)
        tracks, listener.heard, seen = self._once(
            file,
            "look",
            (tuple(speech), len(consumers)),
            lambda: look(listener, given, consumers, report.problems),
        )
        for one, what in zip(consumers, seen, strict=True):
            one.seen = what
        tracks = listener.scores(tracks)
        offset = self._offset(listener, report)
        if 0 < abs(offset) <= self.max_offset:
            # audio and video are not aligned: score once more, with the audio shifted
            listener = self.active_speaker.listen(waveform, speech, offset=offset)
            listener.heard = self._once(
                file, "look again", (tuple(speech), offset), lambda: look(listener, tracks)[1]
            )
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
        return offset, tracks

    def _once(self, file, name, key, compute):
        """Compute, or reuse the cached value while the hyper-parameters it depends on are fixed."""
        if not self.training:
            return compute()
        return cached(file, name, (how_looked(self.faces, file), key), compute)

    def _offset(self, listener, report) -> float:
        """Audio-visual offset in seconds, 0 when it is small or uncertain."""
        offset, confidence = listener.offset()
        report.numbers["audio-visual offset (s)"] = offset
        report.numbers["confidence of the offset"] = confidence
        return offset if confidence > 0.5 and abs(offset) >= _MIN_OFFSET else 0.0

    def _fuse(
        self, audio, tracks, offset, report, has_sound, fewest, most
    ) -> tuple[AVDiarizeOutput, People]:
        """Fuse voices and faces into speakers, unless the video is refused."""
        voices = audio.speaker_diarization
        stats = tracks.stats
        refusal = guard.refuse_file(
            has_sound=has_sound,
            num_voices=len(voices.labels()),
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
            speakers = Speakers(voices, audio.exclusive_speaker_diarization)
            return speakers.output(audio, tracks, report), People.nobody()

        people = find_persons(
            tracks,
            offset=offset,
            min_face=self.min_face,
            identity_threshold=self.identity_threshold,
        )
        for reason in sorted(set(people.refused.values())):
            ids = [str(track) for track, why in people.refused.items() if why == reason]
            report.reasons.append(f"face track {', '.join(ids)} not used: {reason}")
        rules = Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})
        speakers = decide(audio, people, rules, duration=report.duration, fewest=fewest, most=most)
        report.video_used = bool(speakers.faces)
        report.changes += speakers.changes
        report.reasons.append(
            f"{len(speakers.faces)} of {len(speakers.annotation.labels())} speakers have a face"
            if speakers.faces
            else "no face goes with any voice"
        )
        trusted = {track for person in people.persons for track in person.tracks}
        shown = tracks.to_annotation()
        report.ignored_regions = guard.without_faces(
            speakers.annotation.get_timeline().support(),
            [segment for segment, _, t in shown.itertracks(yield_label=True) if t in trusted],
            shown.itersegments(),
        )
        return speakers.output(audio, tracks, report), people
