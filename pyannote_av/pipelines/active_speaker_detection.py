"""Active speaker detection: which faces in a video speak, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pyannote.core import Annotation, Timeline
from pyannote.pipeline.parameter import Integer, Uniform

from pyannote_av.core.pipeline import DiarizationPipeline
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, get_scorer
from pyannote_av.pipelines.active_speaker_pass import ActiveSpeakerPass, SpeakingScores
from pyannote_av.pipelines.caching import cached


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

    def listen(
        self, waveform: torch.Tensor, speech: Timeline | None = None, offset: float = 0.0
    ) -> ActiveSpeakerPass:
        """Create a consumer of ``FaceTracking`` that scores faces while they are tracked.

        Parameters
        ----------
        waveform : (1, num_samples) tensor
            Audio of the whole file at 16 kHz, on the container clock.
        speech : Timeline, optional
            Speech regions: faces are scored there only. Defaults to the whole file.
        offset : float, optional
            Delay of the audio relative to the video, in seconds.

        Returns
        -------
        listener : ActiveSpeakerPass
            Pass it to ``FaceTracking`` as a consumer, then call its ``scores``.
        """
        if not self.instantiated:
            self.instantiate(self.default_parameters())
        return ActiveSpeakerPass(
            self._scorer, waveform, speech, offset, self.threshold, self.smoothing
        )

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
        listener = self.listen(file["waveform"], speech)

        def look() -> tuple[FaceTracks, list[SpeakingScores]]:
            problems = file["problems"]
            tracks = self._faces.apply(file, consumers=[listener], hook=hook, problems=problems)
            return tracks, listener.heard

        if not self.training:
            tracks, _ = look()
            return listener.scores(tracks)
        key = self._faces.detector_name, None if speech is None else tuple(speech.support())
        tracks, listener.heard = cached(file, "look", key, look)
        turns = listener.scores(tracks).speaking_annotation()
        turns.uri = file["uri"]
        return turns
