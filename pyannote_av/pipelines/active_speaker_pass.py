"""Scores of faces while they are being tracked."""

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

# least share of faces x frames that speak for an offset to be estimated from them alone, and share
# of those that are likeliest to
_SPEAKS, _LIKELY = 0.15, 0.4
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


class SpeakingScores(NamedTuple):
    """Scores of a stretch of a face, as the scorer gave them.

    Attributes
    ----------
    track, start : int
        Track, and index of the first frame on the grid.
    wanted : (n,) bool array
        Where there is speech.
    score : (n,) float array
        Neither smoothed, nor cut to what is wanted.
    rows : (k, 2) int array
        Pieces, first and last frame plus one, that were compared with the sound.
    curves : (k, 2 max_lag + 1) float array
        How synchronous lips and sound are at each lag.
    """

    track: int
    start: int
    wanted: np.ndarray
    score: np.ndarray
    rows: np.ndarray
    curves: np.ndarray


class ActiveSpeakerPass:
    """Scores faces while they are being tracked: a consumer of ``FaceTracking``.

    Keeps one number per face and frame, 51 per face and five seconds, and crops of a minute of
    faces, which are scored together. Threshold and smoothing come last: they may be changed, and
    what was :attr:`heard` be given to another one that then answers without listening.

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
        self._heard: list[SpeakingScores] = []
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

    def _compare(
        self, start: int, crops: np.ndarray, present: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How synchronous lips and sound are at each lag, in pieces where the face may speak."""
        lag = round(_MAX_OFFSET * FRAME_RATE)
        pieces = max(1, round(len(crops) / (_OFFSET_WINDOW * FRAME_RATE)))
        found, curves = [], []
        # however scores are smoothed, they are not above 0 if none of them is
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
        """Everything that was scored, before smoothing; may be set."""
        self._score()
        return self._heard

    @heard.setter
    def heard(self, heard: list[SpeakingScores]) -> None:
        self._heard = heard

    def scores(self, tracks: FaceTracks) -> FaceTracks:
        """Tracks with their speaking scores, NaN where a face was not scored.

        Parameters
        ----------
        tracks : FaceTracks
            As tracked in the pass; rows get the score of the nearest grid frame.
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
        """Audio-visual offset, estimated from the faces that speak.

        Returns
        -------
        offset : float
            Seconds by which the sound is late relative to the picture, on top of the offset
            already taken into account.
        confidence : float
            In [0, 1]; below 0.5 the offset is a guess.
        """
        curves, weights = [], []
        smoothed = [_smooth(one.score, self._smoothing) for one in self.heard]
        # a scorer that knows synchrony says of faces out of sync that they do not speak: then those
        # count that look more like it than others
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
