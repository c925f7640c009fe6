"""Active speaker scoring during face tracking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from pyannote.core import Timeline

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, TrackSegment
from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope
from pyannote_av.models.active_speaker.offset import MIN_SECONDS, curve_of, offset_from_curves
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, score_many

# If at least this share of all scored frames is above 0, the offset is estimated from these frames.
# Otherwise it is estimated from this share of frames, those with the highest scores.
_SPEAKS, _LIKELY = 0.15, 0.4
_SAMPLES_PER_FRAME = round(SAMPLE_RATE / FRAME_RATE)

# lips may move this long before and after detected speech, seconds
_MARGIN = 0.5
# largest audio-visual offset, and duration of the pieces it is estimated from, in seconds
_MAX_OFFSET = 1.0
_OFFSET_WINDOW = 5.0
# number of crops that are collected before they are scored together
_BATCH = 1500


class _Job(NamedTuple):
    """Part of a face track to be scored. Scores are kept for the frames in `wanted` only."""

    track: int
    start: int
    crops: np.ndarray
    present: np.ndarray
    wanted: np.ndarray


class SpeakingScores(NamedTuple):
    """Raw speaking scores of a part of a face track.

    Attributes
    ----------
    track, start : int
        Track identifier, and grid index of the first frame.
    wanted : (n,) bool array
        Frames in speech regions.
    score : (n,) float array
        Scores of all frames, before smoothing.
    rows : (k, 2) int array
        Pieces that were compared with the audio: first frame, and last frame plus one.
    curves : (k, 2 max_lag + 1) float array
        Lip-audio synchrony of each piece at each lag.
    """

    track: int
    start: int
    wanted: np.ndarray
    score: np.ndarray
    rows: np.ndarray
    curves: np.ndarray


class ActiveSpeakerPass:
    """Consumer of ``FaceTracking`` that scores faces while they are tracked.

    It keeps one number per face and frame, 51 numbers per face and five seconds, and the crops of
    about one minute of faces, which are scored together. Threshold and smoothing are applied
    last. Raw scores in :attr:`heard` can therefore be passed to another instance with another
    threshold or smoothing, which does not run the scorer again.

    Parameters
    ----------
    scorer : ActiveSpeakerScorer
    waveform : (1, num_samples) tensor
        Audio at 16 kHz. Sample 0 is time 0 of the container.
    speech : Timeline, optional
        Speech regions: faces are scored there only. Defaults to the whole file.
    offset : float, optional
        Delay of the audio relative to the video, in seconds.
    threshold : float, optional
        Value subtracted from the scores.
    smoothing : int, optional
        Width of the moving average of scores, in frames.
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
        self._first_sample = round(offset * SAMPLE_RATE)
        self._threshold = threshold
        self._smoothing = smoothing
        self._speech = None
        if speech is not None:
            # speech at time t of the audio is at time t - offset of the video
            self._speech = np.array(
                [(s.start - offset - _MARGIN, s.end - offset + _MARGIN) for s in speech.support()]
            ).reshape(-1, 2)
        self._heard: list[SpeakingScores] = []
        self._waiting: list[_Job] = []
        #: seconds spent scoring; they are included in the time of the face tracking pass
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Queue the frames of one track segment that are in speech regions."""
        wanted = self._is_speech(segment.times) & segment.present
        context = round(self._scorer.context * FRAME_RATE)
        for rows in _runs(wanted, max_gap=2 * context):
            seen = slice(max(0, rows.start - context), min(len(segment), rows.stop + context))
            self._waiting.append(
                _Job(
                    segment.track,
                    segment.start + seen.start,
                    segment.crops[seen],
                    segment.present[seen],
                    wanted[seen],
                )
            )
        if sum(len(job.crops) for job in self._waiting) >= _BATCH:
            self._score()

    def _score(self) -> None:
        """Score all queued frames of all faces together."""
        begin = perf_counter()
        jobs, self._waiting = self._waiting, []
        sounds = [self._sound(job.start, job.start + len(job.crops)) for job in jobs]
        faces = [(sound, job.crops, job.present) for sound, job in zip(sounds, jobs, strict=True)]
        for job, found in zip(jobs, score_many(self._scorer, faces), strict=True):
            rows, curves = self._compare(job.start, job.crops, job.present, found)
            self._heard.append(
                SpeakingScores(job.track, job.start, job.wanted, found, rows, curves)
            )
        self.seconds += perf_counter() - begin

    def _is_speech(self, times: np.ndarray) -> np.ndarray:
        if self._speech is None:
            return np.ones(len(times), bool)
        begun = np.searchsorted(self._speech[:, 0], times, side="right")
        inside = np.zeros(len(times), bool)
        # regions may overlap because of margins: the one that starts last ends last
        inside[begun > 0] = times[begun > 0] < self._speech[begun[begun > 0] - 1, 1]
        return inside

    def _sound(self, start: int, end: int) -> torch.Tensor:
        """Audio of grid frames [start, end), padded with silence outside of the file."""
        first = start * _SAMPLES_PER_FRAME + self._first_sample
        last = end * _SAMPLES_PER_FRAME + self._first_sample
        inside = self._waveform[:, max(0, first) : max(0, last)]
        before = min(max(0, -first), last - first)
        return torch.nn.functional.pad(inside, (before, last - first - before - inside.shape[1]))

    def _compare(
        self, start: int, crops: np.ndarray, present: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lip-audio synchrony at each lag, for pieces in which the face may speak."""
        lag = round(_MAX_OFFSET * FRAME_RATE)
        pieces = max(1, round(len(crops) / (_OFFSET_WINDOW * FRAME_RATE)))
        found, curves = [], []
        # if no raw score is above 0, no smoothed score is
        if (scores > 0).any():
            found = [
                (part[0], part[-1] + 1) for part in np.array_split(np.arange(len(crops)), pieces)
            ]
            found = [(a, b) for a, b in found if present[a:b].sum() >= MIN_SECONDS * FRAME_RATE]
        for first, last in found:
            sound = self._sound(start + first - lag, start + last + lag)
            envelope = speech_envelope(sound[0].numpy(), last - first + 2 * lag)
            motion = mouth_motion(crops[first:last], present[first:last])
            curves.append(curve_of(motion, envelope, lag))
        return (
            np.array(found, int).reshape(-1, 2),
            np.array(curves, float).reshape(len(curves), 2 * lag + 1),
        )

    @property
    def heard(self) -> list[SpeakingScores]:
        """Raw scores before smoothing, which can be set. Reading it scores queued frames."""
        self._score()
        return self._heard

    @heard.setter
    def heard(self, heard: list[SpeakingScores]) -> None:
        self._heard = heard

    def scores(self, tracks: FaceTracks) -> FaceTracks:
        """Add speaking scores to tracks; NaN where a face was not scored.

        Parameters
        ----------
        tracks : FaceTracks
            Tracks of this pass. Each row gets the score of the nearest grid frame.
        """
        stretches: dict[int, list[tuple[int, np.ndarray]]] = {}
        for one in self.heard:
            smooth = _smooth(one.score, self._smoothing)
            scores = np.where(one.wanted, smooth - self._threshold, np.nan)
            stretches.setdefault(one.track, []).append((one.start, scores))
        speaking = np.full(len(tracks), np.nan, np.float32)
        index = np.round(tracks.time * FRAME_RATE).astype(int)
        for track in tracks.tracks:
            rows = tracks.track_slice(track)
            for start, scores in stretches.get(track, ()):
                position = index[rows] - start
                inside = (position >= 0) & (position < len(scores))
                speaking[rows][inside] = scores[position[inside]]
        return replace(tracks, speaking=speaking)

    def offset(self) -> tuple[float, float]:
        """Estimate the audio-visual offset from speaking faces.

        Returns
        -------
        offset : float
            Delay of the audio relative to the video, in seconds, in addition to the `offset` of
            the constructor.
        confidence : float
            In [0, 1]. Below 0.5 the offset is not reliable.
        """
        curves, weights = [], []
        smoothed = [_smooth(one.score, self._smoothing) for one in self.heard]
        # Scorers that measure synchrony give low scores to speaking faces that are out of sync.
        # In this case the frames with the highest scores are used.
        known = np.concatenate([np.zeros(0), *(s[np.isfinite(s)] for s in smoothed)])
        scarce = len(known) > 0 and (known > 0).mean() < _SPEAKS
        level = float(np.quantile(known, 1 - _LIKELY)) if scarce else 0.0
        for one, score in zip(self.heard, smoothed, strict=True):
            speaks = score > level
            for (first, last), curve in zip(one.rows, one.curves, strict=True):
                if seconds := float(speaks[first:last].sum() / FRAME_RATE):
                    curves.append(curve)
                    weights.append(seconds)
        return offset_from_curves(curves, weights)


def _runs(wanted: np.ndarray, max_gap: int) -> Iterator[slice]:
    """Runs of True, joined over gaps of up to `max_gap`."""
    index = np.flatnonzero(wanted)
    if not len(index):
        return
    for run in np.split(index, np.flatnonzero(np.diff(index) > max_gap) + 1):
        yield slice(int(run[0]), int(run[-1]) + 1)


def _smooth(scores: np.ndarray, width: int) -> np.ndarray:
    """Moving average over `width` frames that ignores NaN; NaN stays NaN."""
    known = np.isfinite(scores)
    kernel = np.ones(width)
    # mode "same" would return the length of the kernel for shorter inputs: "full", then cut
    cut = slice((width - 1) // 2, (width - 1) // 2 + len(scores))
    total = np.convolve(np.where(known, scores, 0.0), kernel)[cut]
    count = np.convolve(known.astype(float), kernel)[cut]
    return np.where(known, total / np.maximum(count, 1.0), np.nan).astype(np.float32)
