"""Which of the faces in a video are heard speaking, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pyannote.audio import Pipeline
from pyannote.core import Annotation, Timeline
from pyannote.pipeline.parameter import Integer, Uniform

from pyannote_av.core.pipeline import MediaMixin
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, TrackSegment
from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope
from pyannote_av.models.active_speaker.offset import MIN_SECONDS, curve_of, offset_from_curves
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, get_scorer

__all__ = ["ActiveSpeakerDetection", "ActiveSpeakerPass", "ActiveSpeakerScorer"]

_SAMPLE_RATE = 16000
_SAMPLES_PER_FRAME = round(_SAMPLE_RATE / FRAME_RATE)

# lips may move this long before and after what a speech detector calls speech
_MARGIN = 0.5
# largest audio-visual offset looked for, and length of the pieces that are asked for it, seconds
_MAX_OFFSET = 1.0
_OFFSET_WINDOW = 5.0


class ActiveSpeakerPass:
    """Scores faces while they are being tracked: a consumer of ``FaceTracking``.

    Keeps one number per face and frame, and 51 per face and five seconds.

    Parameters
    ----------
    scorer : ActiveSpeakerScorer
    waveform : (1, num_samples) tensor
        16 kHz; sample 0 is time 0 of the container.
    speech : Timeline, optional
        When there is speech: faces are scored there only. Defaults to everywhere.
    offset : float, optional
        Seconds by which the sound is late relative to the picture.
    threshold : float, optional
        Subtracted from the scores.
    smoothing : int, optional
        Frames over which scores are averaged.
    """

    def __init__(
        self,
        scorer: ActiveSpeakerScorer,
        waveform: torch.Tensor,
        speech: Timeline | None = None,
        offset: float = 0.0,
        threshold: float = 0.0,
        smoothing: int = 5,
    ):
        self._scorer = scorer
        self._waveform = waveform
        self._first_sample = round(offset * _SAMPLE_RATE)
        self._threshold = threshold
        self._smoothing = smoothing
        self._speech = None
        if speech is not None:
            # what is heard at time t was said, in the picture, `offset` earlier
            self._speech = np.array(
                [(s.start - offset - _MARGIN, s.end - offset + _MARGIN) for s in speech.support()]
            ).reshape(-1, 2)
        self._scores: dict[int, list[tuple[int, np.ndarray]]] = {}
        self._curves: list[np.ndarray] = []
        self._weights: list[float] = []
        #: time spent, which is also part of the tracking that this hangs on
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Score one stretch of a face, where there is speech."""
        start = perf_counter()
        self._score(segment)
        self.seconds += perf_counter() - start

    def _score(self, segment: TrackSegment) -> None:
        wanted = self._is_speech(segment.times) & segment.present
        if not wanted.any():
            return
        scores = np.full(len(segment), np.nan, np.float32)
        context = round(self._scorer.context * FRAME_RATE)
        for rows in _runs(wanted, max_gap=2 * context):
            seen = slice(max(0, rows.start - context), min(len(segment), rows.stop + context))
            crops, present = segment.crops[seen], segment.present[seen]
            sound = self._sound(segment.start + seen.start, segment.start + seen.stop)
            found = _smooth(self._scorer(sound, crops, present), self._smoothing)
            scores[seen] = np.where(wanted[seen], found - self._threshold, np.nan)
            self._compare(segment.start + seen.start, crops, present, found)
        self._scores.setdefault(segment.track, []).append((segment.start, scores))

    def _is_speech(self, times: np.ndarray) -> np.ndarray:
        if self._speech is None:
            return np.ones(len(times), bool)
        begun = np.searchsorted(self._speech[:, 0], times, side="right")
        inside = np.zeros(len(times), bool)
        # margins overlap: the stretch that began last ends last
        inside[begun > 0] = times[begun > 0] < self._speech[begun[begun > 0] - 1, 1]
        return inside

    def _sound(self, start: int, end: int) -> torch.Tensor:
        """Sound of grid frames [start, end), with silence where there is none."""
        first = start * _SAMPLES_PER_FRAME + self._first_sample
        last = end * _SAMPLES_PER_FRAME + self._first_sample
        inside = self._waveform[:, max(0, first) : max(0, last)]
        before = min(max(0, -first), last - first)
        return torch.nn.functional.pad(inside, (before, last - first - before - inside.shape[1]))

    def _compare(self, start: int, crops: np.ndarray, present: np.ndarray, scores: np.ndarray):
        """Keep how synchronous lips and sound are at each lag, where the face seems to speak."""
        lag = round(_MAX_OFFSET * FRAME_RATE)
        pieces = max(1, round(len(crops) / (_OFFSET_WINDOW * FRAME_RATE)))
        for rows in np.array_split(np.arange(len(crops)), pieces):
            rows = slice(rows[0], rows[-1] + 1)
            seconds = (scores[rows] > 0).sum() / FRAME_RATE
            if present[rows].sum() < MIN_SECONDS * FRAME_RATE or not seconds:
                continue
            sound = self._sound(start + rows.start - lag, start + rows.stop + lag)
            envelope = speech_envelope(sound[0].numpy(), rows.stop - rows.start + 2 * lag)
            self._curves.append(curve_of(mouth_motion(crops[rows], present[rows]), envelope, lag))
            self._weights.append(float(seconds))

    def scores(self, tracks: FaceTracks) -> FaceTracks:
        """Tracks with their speaking scores, NaN where a face was not scored.

        Parameters
        ----------
        tracks : FaceTracks
            As tracked in the pass; rows get the score of the nearest grid frame.
        """
        speaking = np.full(len(tracks), np.nan, np.float32)
        index = np.round(tracks.time * FRAME_RATE).astype(int)
        for track in tracks.tracks:
            rows = tracks.track_slice(track)
            for start, scores in self._scores.get(track, ()):
                position = index[rows] - start
                inside = (position >= 0) & (position < len(scores))
                speaking[rows][inside] = scores[position[inside]]
        return replace(tracks, speaking=speaking)

    def offset(self) -> tuple[float, float]:
        """Audio-visual offset, estimated from the faces that speak.

        Returns
        -------
        offset : float
            Seconds by which the sound is late relative to the picture, on top of the offset
            already taken into account.
        confidence : float
            In [0, 1]; below 0.5 the offset is a guess.
        """
        return offset_from_curves(self._curves, self._weights)


def _runs(wanted: np.ndarray, max_gap: int) -> Iterator[slice]:
    """Stretches of True, joined over gaps of up to `max_gap`."""
    index = np.flatnonzero(wanted)
    for run in np.split(index, np.flatnonzero(np.diff(index) > max_gap) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


def _smooth(scores: np.ndarray, width: int) -> np.ndarray:
    """Mean of `width` neighbours, of what is known; NaN stays NaN."""
    known = np.isfinite(scores)
    kernel = np.ones(width)
    # "full" and a cut instead of "same", which is of the kernel's length for shorter inputs
    cut = slice((width - 1) // 2, (width - 1) // 2 + len(scores))
    total = np.convolve(np.where(known, scores, 0.0), kernel)[cut]
    count = np.convolve(known.astype(float), kernel)[cut]
    return np.where(known, total / np.maximum(count, 1.0), np.nan).astype(np.float32)


class ActiveSpeakerDetection(MediaMixin, Pipeline):
    """Active speaker detection pipeline.

    Parameters
    ----------
    scorer : str, Path, ActiveSpeakerModel or ActiveSpeakerScorer, optional
        See :func:`~pyannote_av.models.active_speaker.scorers.get_scorer`. "auto" is the mean of
        LR-ASD and synchrony of lips and sound where the weights of LR-ASD are on this machine, and
        synchrony alone, which needs none, otherwise.
    precision : {"fp32", "bf16"}, optional
    engine : {"torch", "onnxruntime"}, optional
        How networks run, see
        :class:`~pyannote_av.models.active_speaker.network_scorer.NetworkScorer`.
    token, cache_dir : optional
        As in other pipelines; unused.

    Hyper-parameters
    ----------------
    threshold : float
        Log-odds above which a face is taken to speak. It is subtracted from the scores, so that
        0 is the threshold whatever it is.
    smoothing : int
        Frames (40 ms) over which scores are averaged.

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
        """Name of the scorer at work."""
        return self._scorer.name

    def to(self, device: torch.device) -> ActiveSpeakerDetection:
        """Move the scorer, where it can be moved."""
        super().to(device)
        if hasattr(self._scorer, "to"):
            self._scorer.to(device)
        return self

    @cached_property
    def _faces(self):
        """Finds faces when the pipeline is used alone; its hyper-parameters are not tuned here."""
        from pyannote_av.pipelines.face_tracking import FaceTracking

        faces = FaceTracking(embedder=None)
        faces.instantiate(faces.default_parameters())
        return faces.to(getattr(self, "device", torch.device("cpu")))

    def listen(
        self, waveform: torch.Tensor, speech: Timeline | None = None, offset: float = 0.0
    ) -> ActiveSpeakerPass:
        """Get ready to score faces as they are tracked.

        Parameters
        ----------
        waveform : (1, num_samples) tensor
            16 kHz sound of the whole file, on the container clock.
        speech : Timeline, optional
            When there is speech; nothing else is scored. Defaults to everywhere.
        offset : float, optional
            Seconds by which the sound is late relative to the picture.

        Returns
        -------
        listener : ActiveSpeakerPass
            To be handed to ``FaceTracking`` as a consumer, and asked for scores afterwards.
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
            A video, as prepared by ``__call__``. It may hold ``face_tracks``, then nothing is
            detected, and ``speech`` (a Timeline), then nothing else is scored.
        hook : callable, optional
            See ``FaceTracking``.

        Returns
        -------
        tracks : FaceTracks
            With ``speaking``, which is NaN throughout when the file has no sound; while training,
            the turns of each track instead.
        """
        speech = file.get("speech") if file.get("has_audio", True) else Timeline()
        listener = self.listen(file["waveform"], speech)
        tracks = self._faces.apply(file, consumers=[listener], hook=hook, problems=file["problems"])
        tracks = listener.scores(tracks)
        return tracks.speaking_annotation() if self.training else tracks
