"""Base class of pipelines that cut speech into windows and assign a speaker to each window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pyannote.audio.pipelines import VoiceActivityDetection
from pyannote.core import Annotation, Segment, Timeline
from pyannote.pipeline.parameter import Uniform

from pyannote_av.clustering.windowed_file import ScoredFaces, WindowedFile
from pyannote_av.clustering.windows import (
    Entries,
    cut_windows,
    hide_faces,
    settle,
    turns_of,
    who_talks,
)
from pyannote_av.core.caching import cached, for_pipeline
from pyannote_av.core.counts import speaker_bounds
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.pipeline import DiarizationPipeline
from pyannote_av.core.tracks import FaceSamples, FaceTracks
from pyannote_av.data.crop_shard import FACE_INTERVAL
from pyannote_av.models.embedding.voiceprints import (
    segment_embeddings,
    speaker_features,
    voiceprint,
)
from pyannote_av.models.loading import ModelReference, load_model
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.pipelines.speaking_scores import SpeakingScores
from pyannote_av.vision.identity import FaceEmbedder, FaceSampler, get_embedder


class WindowDiarization(DiarizationPipeline):
    """Base class of pipelines that cluster windows of speech.

    It cuts speech into windows, finds the faces that talk in each window, and computes speaker
    embeddings. Subclasses implement :meth:`cluster`, and may add hyper-parameters.

    Parameters
    ----------
    embedding : str, Path, mapping or Model, optional
        Speaker embedding model; see :func:`~pyannote_av.models.loading.load_model`.
    segmentation : str, Path, mapping or Model, optional
        Segmentation model for voice activity detection; see
        :func:`~pyannote_av.models.loading.load_model`.
    detector : optional
        See :class:`~pyannote_av.pipelines.face_tracking.FaceTracking`.
    embedder : str, FaceEmbedder or None, optional
        See :func:`~pyannote_av.vision.identity.get_embedder`. Without one, faces are not compared.
    scorer : optional
        See :class:`~pyannote_av.pipelines.active_speaker_detection.ActiveSpeakerDetection`.
    duration, step : float, optional
        Duration of windows, and step between them, in seconds.
    oracle_vad : bool, optional
        Take speech regions from the ``lab`` of each file, as papers do.
    missing_rate : float, optional
        Probability that an entry loses its face, to test robustness.
    seed : int, optional
        Random seed of `missing_rate`.
    token, cache_dir : optional
        Token and cache folder for models of the Hugging Face hub.

    Hyper-parameters
    ----------------
    speech : dict
        ``min_duration_on`` and ``min_duration_off`` of pyannote's voice activity detection.
    faces, active_speaker : dict
        Hyper-parameters of :class:`~pyannote_av.pipelines.face_tracking.FaceTracking` and
        :class:`~pyannote_av.pipelines.active_speaker_detection.ActiveSpeakerDetection`.
    talking : float
        Mean score in a window, in log-odds, above which a face talks. If several faces talk, the
        window has overlapping speech, so false detections are false alarms.
    """

    def __init__(
        self,
        embedding: ModelReference = "campplus",
        segmentation: ModelReference = "segmentation-3.0",
        detector: Any = "auto",
        embedder: str | FaceEmbedder | None = "auto",
        scorer: Any = "auto",
        duration: float = 2.0,
        step: float = 0.5,
        oracle_vad: bool = False,
        missing_rate: float = 0.0,
        seed: int = 0,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__()
        self.embedding = load_model(embedding, token, cache_dir)
        self.speech = VoiceActivityDetection(load_model(segmentation, token, cache_dir))
        self.faces = FaceTracking(detector=detector, embedder=None)
        self.active_speaker = ActiveSpeakerDetection(scorer=scorer)
        self._embedder = get_embedder(embedder)
        self.duration, self.step = duration, step
        self.oracle_vad, self.missing_rate, self.seed = oracle_vad, missing_rate, seed
        self.talking = Uniform(-2.0, 6.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        return {
            "speech": {"min_duration_on": 0.0, "min_duration_off": 0.0},
            "faces": self.faces.default_parameters(),
            "active_speaker": self.active_speaker.default_parameters(),
            "talking": 0.0,
        }

    def to(self, device) -> WindowDiarization:
        """Move all models."""
        self.embedding.to(device)
        return super().to(device)

    def classes(self):
        """Labels are ``SPEAKER_00`` and so on."""
        k = 0
        while True:
            yield f"SPEAKER_{k:02d}"
            k += 1

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """Assign a speaker to each entry.

        Parameters
        ----------
        windowed : WindowedFile
            Has at least one window.
        bounds : tuple
            ``num_speakers``, ``min_speakers`` and ``max_speakers``.
        hook : callable

        Returns
        -------
        clusters : (num_entries,) int array
            :data:`~pyannote_av.clustering.linkage.NOBODY` for entries that cannot be clustered.
        """
        raise NotImplementedError

    def apply(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
        scored_faces: ScoredFaces | None = None,
    ) -> AVDiarizeOutput | Annotation:
        """Diarize one file.

        Parameters
        ----------
        file : str, Path or mapping
            A video or audio file. A mapping may also have ``face_tracks`` (FaceTracks or a path,
            used instead of face detection), and ``lab`` (a Timeline of speech) for `oracle_vad`.
        num_speakers, min_speakers, max_speakers : int, optional
            Number of speakers, or bounds on it, if known. It never exceeds the number of windows.
        hook : callable, optional
            ``hook(step, artifact, file=..., total=..., completed=...)``.
        scored_faces : ScoredFaces, optional
            Known face tracks with scores and embeddings. The video is then not decoded.

        Returns
        -------
        output : AVDiarizeOutput
            An ``Annotation`` while ``self.training``.

        Raises
        ------
        ValueError
            If bounds are not numbers of speakers or contradict each other, or if `oracle_vad` is
            set and the file has no ``lab``.
        """
        bounds = tuple(speaker_bounds(num_speakers, min_speakers, max_speakers).values())
        hook = self.setup_hook(file, hook)
        report = Report.of_file(file)
        with report.stage("speech"):
            # detected or annotated speech may end slightly after the audio
            speech = self._speech(file, hook).crop(Segment(0.0, report.duration))
        windows = cut_windows(speech, self.duration, self.step)
        if scored_faces is None:
            scored_faces = self._score_faces(file, speech, hook, report)
        entries = who_talks(windows, scored_faces.tracks, self.talking)
        entries = hide_faces(entries, self.missing_rate, self.seed)
        report.numbers |= {
            "windows": len(windows),
            "entries with a face": int(entries.visible.sum()),
        }
        report.video_used = bool(entries.visible.any())
        report.reasons.append(
            "some faces are speaking" if report.video_used else "no face is speaking"
        )
        with report.stage("voices"):
            embeddings = self.embed_windows(file, windows.span)
            windowed = WindowedFile(file, windows, entries, scored_faces, embeddings)
        with report.stage("clustering"):
            clusters = self.cluster(windowed, bounds, hook) if len(windows) else np.zeros(0, int)
            speakers = settle(windows, entries, clusters)
            names = [f"SPEAKER_{speaker:02d}" for speaker in speakers]
            turns = turns_of(windows, entries, names, file["uri"])
        hook("clustering", turns)
        return turns if self.training else self._output(windowed, turns, names, report)

    def _speech(self, file: Mapping, hook: Callable) -> Timeline:
        """Speech regions, from annotation or from voice activity detection"""
        if self.oracle_vad:
            if file.get("lab") is None:
                raise ValueError(f"file {file['uri']!r} has no `lab`, which oracle VAD needs")
            return file["lab"].support()
        if not file.get("has_audio", True):
            return Timeline()
        speech = self.speech.apply(for_pipeline(file, self.speech), hook=hook)
        return speech.get_timeline().support()

    def _score_faces(
        self, file: Mapping, speech: Timeline, hook: Callable, report: Report
    ) -> ScoredFaces:
        """Track, score and embed faces in one decoding pass"""
        embedder = self.face_embedder

        def compute() -> tuple[FaceTracks, list[SpeakingScores], FaceSamples]:
            scores = self.active_speaker.collector(file["waveform"], speech, curves=False)
            sampler = embedder and FaceSampler(embedder, FACE_INTERVAL)
            tracks = self.faces.apply(
                file,
                tracks=file.get("face_tracks"),
                collectors=[scores],
                hook=hook,
                problems=report.problems,
                sampler=sampler,
            )
            samples = sampler.compute() if sampler else FaceSamples.none()
            return tracks, scores.compute(), samples

        with report.stage("faces"):
            depends_on = (
                self.faces.dependencies(file),
                self.active_speaker.dependencies(speech),
                embedder,
            )
            tracks, scores, samples = cached(file, "scored and embedded faces", depends_on, compute)
            return ScoredFaces(self.active_speaker.add_scores(tracks, scores), samples)

    @property
    def face_embedder(self) -> FaceEmbedder | None:
        """Face embedder used to compare faces."""
        return self._embedder

    def embed_windows(self, file: Mapping, spans: np.ndarray) -> np.ndarray:
        """Speaker embeddings of windows.

        Parameters
        ----------
        file : mapping
        spans : (n, 2) float array
            Start and end in seconds.

        Returns
        -------
        embeddings : (n, E) float32 array
            Unit-length embeddings, 0 for silent windows.
        """
        features = cached(
            file,
            "speaker embeddings",
            self.embedding,
            lambda: speaker_features(file["waveform"], self.embedding),
        )
        return segment_embeddings(features, spans)

    def _output(
        self, windowed: WindowedFile, turns: Annotation, names: list[str], report: Report
    ) -> AVDiarizeOutput:
        """Build the output, with voiceprints and with the speaker of each face track"""
        windows, entries, names = windowed.windows, windowed.entries, np.array(names, str)
        tracks = np.unique(entries.track[entries.visible]).tolist()
        owner = {track: _most_often(names[entries.track == track]) for track in tracks}
        _, likeliest = np.unique(entries.window, return_index=True)
        first = Entries(entries.window[likeliest], entries.track[likeliest])
        embeddings = windowed.speaker_embeddings[entries.window]
        labels = turns.labels()
        prints = [voiceprint(embeddings[names == label]) for label in labels]
        voiceprints = np.array(prints, float).reshape(len(labels), embeddings.shape[1])
        voiceprints[~voiceprints.any(axis=1)] = np.nan
        report.components |= {
            "detector": self.faces.detector_name,
            "scorer": self.active_speaker.scorer_name,
            "identity": getattr(self.face_embedder, "name", "none"),
        }
        return AVDiarizeOutput(
            speaker_diarization=turns,
            exclusive_speaker_diarization=turns_of(
                windows, first, names[likeliest], windowed.file["uri"]
            ),
            speaker_embeddings=voiceprints,
            face_tracks=windowed.faces.tracks.with_speakers(owner),
            report=report,
        )


def _most_often(names: np.ndarray) -> str:
    found, count = np.unique(names, return_counts=True)
    return str(found[count.argmax()])
