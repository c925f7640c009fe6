"""Collectors: networks that run on faces while ``FaceTracking`` decodes the video.

A collector has two methods: ``update(segment)`` receives each part of a face track as soon as it is
complete, and ``compute()`` returns the result at the end; see
:class:`~pyannote_av.vision.streaming.Collector`.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from pyannote.core import Timeline

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.runs import true_runs
from pyannote_av.core.tracks import FRAME_RATE, TrackSegment
from pyannote_av.fusion.targets import FaceFeatures
from pyannote_av.models.active_speaker.face import Face
from pyannote_av.models.active_speaker.motion import speech_envelope
from pyannote_av.models.active_speaker.offset import MIN_SECONDS, curve_of
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, score_many
from pyannote_av.pipelines.speaking_scores import SpeakingScores

_SAMPLES_PER_FRAME = round(SAMPLE_RATE / FRAME_RATE)
# lips may move this long before and after detected speech, seconds
_MARGIN = 0.5
# largest audio-visual offset, and duration of the pieces it is estimated from, in seconds
_MAX_OFFSET = 1.0
_OFFSET_WINDOW = 5.0
# number of crops that are collected before they are scored together
_BATCH = 500


class _Job(NamedTuple):
    """Part of a face track to be scored. Scores are kept for the frames in `wanted` only."""

    track: int
    start: int
    crops: np.ndarray
    present: np.ndarray
    wanted: np.ndarray


class SpeakingScoreCollector:
    """Collector of speaking scores.

    It keeps one number per face and frame, and with `curves` 51 numbers for every five seconds of a
    face. Crops of about 20 seconds are collected and scored together. Scores are raw;
    :func:`~pyannote_av.pipelines.speaking_scores.add_speaking_scores` applies the threshold and
    smoothing.

    Parameters
    ----------
    scorer : ActiveSpeakerScorer
    waveform : (1, num_samples) tensor
        Audio at 16 kHz. Sample 0 is time 0 of the container.
    speech : Timeline, optional
        Speech regions. Faces are scored only within them. Defaults to the whole file.
    offset : float, optional
        Delay of the audio relative to the video, in seconds.
    curves : bool, optional
        Compute the synchrony curves that
        :func:`~pyannote_av.pipelines.speaking_scores.estimate_offset` needs. Defaults to True.

    Attributes
    ----------
    seconds : float
        Time spent scoring.
    """

    def __init__(
        self,
        scorer: ActiveSpeakerScorer,
        waveform: torch.Tensor,
        speech: Timeline | None = None,
        offset: float = 0.0,
        curves: bool = True,
    ):
        self._scorer = scorer
        self._curves = curves
        self._waveform = waveform
        self._first_sample = round(offset * SAMPLE_RATE)
        self._speech = None
        if speech is not None:
            # speech at time t of the audio is at time t - offset of the video
            self._speech = np.array(
                [(s.start - offset - _MARGIN, s.end - offset + _MARGIN) for s in speech.support()]
            ).reshape(-1, 2)
        self._scores: list[SpeakingScores] = []
        self._waiting: list[_Job] = []
        self.seconds = 0.0

    def update(self, segment: TrackSegment) -> None:
        """Queue the frames of a part of a face track that are in speech regions."""
        wanted = self._is_speech(segment.times) & segment.present
        context = round(self._scorer.context * FRAME_RATE)
        # frames less than twice the context apart are scored in one job
        for first, end in true_runs(wanted, max_gap=2 * context - 1).tolist():
            rows = slice(max(0, first - context), min(len(segment), end + context))
            self._waiting.append(
                _Job(
                    segment.track,
                    segment.start + rows.start,
                    segment.crops[rows],
                    segment.present[rows],
                    wanted[rows],
                )
            )
        if sum(len(job.crops) for job in self._waiting) >= _BATCH:
            self._score()

    def compute(self) -> list[SpeakingScores]:
        """Score the queued frames, and return the scores of all parts of face tracks."""
        self._score()
        return list(self._scores)

    def _score(self) -> None:
        """Score all queued frames of all faces together."""
        begin = perf_counter()
        jobs, self._waiting = self._waiting, []
        faces = [
            Face(self._sound(job.start, job.start + len(job.crops)), job.crops, job.present)
            for job in jobs
        ]
        all_scores = score_many(self._scorer, faces)
        for job, face, scores in zip(jobs, faces, all_scores, strict=True):
            rows, curves = self._compare(job.start, face, scores)
            self._scores.append(
                SpeakingScores(job.track, job.start, job.wanted, scores, rows, curves)
            )
        self.seconds += perf_counter() - begin

    def _is_speech(self, times: np.ndarray) -> np.ndarray:
        if self._speech is None:
            return np.ones(len(times), bool)
        begun = np.searchsorted(self._speech[:, 0], times, side="right")
        inside = np.zeros(len(times), bool)
        # regions may overlap because of margins, but the one that starts last also ends last
        inside[begun > 0] = times[begun > 0] < self._speech[begun[begun > 0] - 1, 1]
        return inside

    def _sound(self, start: int, end: int) -> torch.Tensor:
        """Audio of grid frames [start, end), padded with silence outside of the file."""
        first = start * _SAMPLES_PER_FRAME + self._first_sample
        last = end * _SAMPLES_PER_FRAME + self._first_sample
        inside = self._waveform[:, max(0, first) : max(0, last)].float()
        before = min(max(0, -first), last - first)
        return torch.nn.functional.pad(inside, (before, last - first - before - inside.shape[1]))

    def _compare(self, start: int, face: Face, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lip-audio synchrony at each lag, for pieces in which the face may speak."""
        lag = round(_MAX_OFFSET * FRAME_RATE)
        count = len(face.present)
        pieces = max(1, round(count / (_OFFSET_WINDOW * FRAME_RATE)))
        found, curves = [], []
        # if no raw score is above 0, no smoothed score is
        if self._curves and (scores > 0).any():
            found = [(part[0], part[-1] + 1) for part in np.array_split(np.arange(count), pieces)]
            found = [
                (a, b) for a, b in found if face.present[a:b].sum() >= MIN_SECONDS * FRAME_RATE
            ]
        for first, last in found:
            sound = self._sound(start + first - lag, start + last + lag)
            envelope = speech_envelope(sound[0].numpy(), last - first + 2 * lag)
            motion = face.motion[first:last].copy()
            motion[0] = np.nan  # it involves a crop of the piece before
            curves.append(curve_of(motion, envelope, lag))
        return (
            np.array(found, int).reshape(-1, 2),
            np.array(curves, float).reshape(len(curves), 2 * lag + 1),
        )


class VisualFeatureCollector:
    """Collector of the visual features of a network.

    Crops are not kept. Features are kept as float16, which takes 6 MB for 15 minutes of one face
    with 128 features.

    Parameters
    ----------
    model : AVModel
        Model with a method ``visual_features``, such as ``HMSANet``.

    Attributes
    ----------
    seconds : float
        Time spent on features.
    """

    def __init__(self, model: torch.nn.Module):
        self._model = model
        self._features: dict[int, list[FaceFeatures]] = {}
        self.seconds = 0.0

    def update(self, segment: TrackSegment) -> None:
        """Compute the features of a part of a face track."""
        begin = perf_counter()
        faces, present = (
            torch.from_numpy(x)[None, None].to(self._model.device)
            for x in (segment.crops, segment.present)
        )
        with torch.inference_mode():
            features = self._model.visual_features(faces, present)[0, 0].half().cpu().numpy()
        part = FaceFeatures(segment.start, features, segment.present)
        self._features.setdefault(segment.track, []).append(part)
        self.seconds += perf_counter() - begin

    def compute(self) -> dict[int, list[FaceFeatures]]:
        """Features of all parts of each face track."""
        return {track: list(parts) for track, parts in self._features.items()}
