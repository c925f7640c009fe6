"""Active speaker detection: which faces in a video speak, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pyannote.core import Annotation, Timeline
from pyannote.pipeline.parameter import Integer, Uniform

from pyannote_av.core.caching import cached
from pyannote_av.core.pipeline import DiarizationPipeline
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, get_scorer
from pyannote_av.pipelines.collectors import SpeakingScoreCollector
from pyannote_av.pipelines.speaking_scores import SpeakingScores, add_speaking_scores


class ActiveSpeakerDetection(DiarizationPipeline):
    """Active speaker detection pipeline.

    Parameters
    ----------
    scorer : str, Path, ActiveSpeakerModel or ActiveSpeakerScorer, optional
        See :func:`~pyannote_av.models.active_speaker.scorers.get_scorer`. "auto" averages LR-ASD
        and lip-audio synchrony if the weights of LR-ASD are on this machine. Otherwise it uses
        synchrony alone, which needs no weights.
    precision : {"fp32", "bf16"}, optional
    engine : {"torch", "onnxruntime"}, optional
        Precision and inference engine of the networks; see
        :class:`~pyannote_av.models.active_speaker.network_scorer.NetworkScorer`.
    token, cache_dir : optional
        Accepted as in other pipelines, but not used.

    Hyper-parameters
    ----------------
    threshold : float
        Log-odds above which a face speaks. It is subtracted from the scores, so the decision
        threshold of the returned scores is always 0.
    smoothing : int
        Width of the moving average of scores, in frames of 40 ms.

    Examples
    --------
    >>> tracks = ActiveSpeakerDetection()("interview.mp4")
    >>> tracks.speaking_annotation()
    """

    def __init__(
        self,
        scorer: str | Path | ActiveSpeakerModel | ActiveSpeakerScorer = "auto",
        precision: str = "fp32",
        engine: str = "torch",
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__()
        self._scorer = get_scorer(scorer, precision=precision, engine=engine)
        self.threshold = Uniform(-5.0, 5.0)
        self.smoothing = Integer(1, 25)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given; the published smoothing is 5 frames."""
        return {"threshold": 0.0, "smoothing": 5}

    @property
    def scorer_name(self) -> str:
        """Name of the scorer in use."""
        return self._scorer.name

    def to(self, device: torch.device) -> ActiveSpeakerDetection:
        """Move the scorer to a device, if it supports it."""
        super().to(device)
        if hasattr(self._scorer, "to"):
            self._scorer.to(device)
        return self

    @cached_property
    def _faces(self):
        """Face tracking for standalone use. Its hyper-parameters are not tuned here."""
        from pyannote_av.pipelines.face_tracking import FaceTracking

        faces = FaceTracking(embedder=None)
        faces.instantiate(faces.default_parameters())
        return faces.to(getattr(self, "device", torch.device("cpu")))

    def collector(
        self,
        waveform: torch.Tensor,
        speech: Timeline | None = None,
        offset: float = 0.0,
        curves: bool = True,
    ) -> SpeakingScoreCollector:
        """Create a collector that scores faces while ``FaceTracking`` tracks them.

        Parameters
        ----------
        waveform : (1, num_samples) tensor
            Audio of the whole file at 16 kHz, on the container clock.
        speech : Timeline, optional
            Speech regions: faces are scored there only. Defaults to the whole file.
        offset : float, optional
            Delay of the audio relative to the video, in seconds.
        curves : bool, optional
            Compute synchrony curves, to estimate the offset. Defaults to True.
        """
        return SpeakingScoreCollector(self._scorer, waveform, speech, offset, curves)

    def add_scores(self, tracks: FaceTracks, scores: Sequence[SpeakingScores]) -> FaceTracks:
        """Add raw scores to face tracks, with the threshold and smoothing of this pipeline.

        See :func:`~pyannote_av.pipelines.speaking_scores.add_speaking_scores`.
        """
        if not self.instantiated:
            self.instantiate(self.default_parameters())
        return add_speaking_scores(tracks, scores, self.threshold, self.smoothing)

    def dependencies(self, speech: Timeline | None, offset: float = 0.0) -> tuple:
        """Everything that raw scores depend on, besides media and face tracks, to cache them."""
        return self._scorer, speech, offset

    def apply(self, file: Mapping, hook: Callable | None = None) -> FaceTracks | Annotation:
        """Track faces and score them.

        Parameters
        ----------
        file : mapping
            A video, as prepared by ``__call__``. If it has ``face_tracks``, they replace face
            detection. If it has ``speech`` (a Timeline), faces are scored in these regions only.
        hook : callable, optional
            See ``FaceTracking``.

        Returns
        -------
        tracks : FaceTracks
            Tracks with their ``speaking`` scores. If the file has no audio, all scores are NaN.
            While training, an ``Annotation`` with the turns of each track is returned instead.
        """
        speech = file.get("speech") if file.get("has_audio", True) else Timeline()
        depends_on = self._faces.dependencies(file), self.dependencies(speech)
        tracks, scores = cached(
            file, "scored faces", depends_on, lambda: self._track_and_score(file, speech, hook)
        )
        tracks = self.add_scores(tracks, scores)
        if not self.training:
            return tracks
        turns = tracks.speaking_annotation()
        turns.uri = file["uri"]
        return turns

    def _track_and_score(
        self, file: Mapping, speech: Timeline | None, hook: Callable | None
    ) -> tuple[FaceTracks, list[SpeakingScores]]:
        """Face tracks and raw speaking scores, in one pass over the video"""
        scores = self.collector(file["waveform"], speech, curves=False)
        tracks = self._faces.apply(file, collectors=[scores], hook=hook, problems=file["problems"])
        return tracks, scores.compute()
