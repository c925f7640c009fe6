"""Scores of faces while they are being tracked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from pyannote.core import Timeline

from pyannote_av.core.io import SAMPLE_RATE
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks, TrackSegment
from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope
from pyannote_av.models.active_speaker.offset import MIN_SECONDS, curve_of, offset_from_curves
from pyannote_av.models.active_speaker.scorers import ActiveSpeakerScorer, score_many

_SAMPLES_PER_FRAME = round(SAMPLE_RATE / FRAME_RATE)

# lips may move this long before and after what a speech detector calls speech
_MARGIN = 0.5
# largest audio-visual offset looked for, and length of the pieces that are asked for it, seconds
_MAX_OFFSET = 1.0
_OFFSET_WINDOW = 5.0
# crops that wait for being scored with those of other faces
_BATCH = 1500


class _Job(NamedTuple):
    """A stretch of a face to be scored: `wanted` are the frames whose score is kept."""

    track: int
    start: int
    crops: np.ndarray
    present: np.ndarray
    wanted: np.ndarray


class ActiveSpeakerPass:
    """Scores faces while they are being tracked: a consumer of ``FaceTracking``.

    Keeps one number per face and frame, 51 per face and five seconds, and crops of a minute of
    faces, which are scored together.

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
        self._first_sample = round(offset * SAMPLE_RATE)
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
        self._waiting: list[_Job] = []
        #: time spent, which is also part of the tracking that this hangs on
        self.seconds = 0.0

    def __call__(self, segment: TrackSegment) -> None:
        """Take one stretch of a face, to be scored where there is speech."""
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
        """Score what is waiting, of all faces at once."""
        begin = perf_counter()
        jobs, self._waiting = self._waiting, []
        sounds = [self._sound(job.start, job.start + len(job.crops)) for job in jobs]
        faces = [(sound, job.crops, job.present) for sound, job in zip(sounds, jobs, strict=True)]
        for job, found in zip(jobs, score_many(self._scorer, faces), strict=True):
            found = _smooth(found, self._smoothing)
            scores = np.where(job.wanted, found - self._threshold, np.nan)
            self._scores.setdefault(job.track, []).append((job.start, scores))
            self._compare(job.start, job.crops, job.present, found)
        self.seconds += perf_counter() - begin

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
        self._score()
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
        self._score()
        return offset_from_curves(self._curves, self._weights)


def _runs(wanted: np.ndarray, max_gap: int) -> Iterator[slice]:
    """Stretches of True, joined over gaps of up to `max_gap`."""
    index = np.flatnonzero(wanted)
    if not len(index):
        return
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
