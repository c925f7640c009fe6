"""Raw speaking scores of faces, and functions of them: scored tracks, audio-visual offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pyannote_av.core.smoothing import moving_average
from pyannote_av.core.tracks import FRAME_RATE, FaceTracks
from pyannote_av.models.active_speaker.offset import offset_from_curves

# If at least this share of all scored frames is above 0, the offset is estimated from these frames.
# Otherwise it is estimated from this share of frames, those with the highest scores.
_SPEAKS, _LIKELY = 0.15, 0.4


@dataclass(frozen=True, eq=False)
class SpeakingScores:
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
        Pieces that were compared with the audio: first frame, and last frame plus one. Empty
        if the collector did not compute curves.
    curves : (k, 2 max_lag + 1) float array
        Lip-audio synchrony of each piece at each lag.
    """

    track: int
    start: int
    wanted: np.ndarray
    score: np.ndarray
    rows: np.ndarray
    curves: np.ndarray


def add_speaking_scores(
    tracks: FaceTracks,
    scores: Sequence[SpeakingScores],
    threshold: float = 0.0,
    smoothing: int = 5,
) -> FaceTracks:
    """Add smoothed speaking scores to face tracks.

    Parameters
    ----------
    tracks : FaceTracks
    scores : sequence of SpeakingScores
        Raw scores of these tracks.
    threshold : float, optional
        Value subtracted from the scores.
    smoothing : int, optional
        Width of the moving average of scores, in frames.

    Returns
    -------
    tracks : FaceTracks
        With ``speaking``. Each row gets the score of the nearest grid frame. NaN where a face was
        not scored.
    """
    parts: dict[int, list[tuple[int, np.ndarray]]] = {}
    for one in scores:
        smoothed = moving_average(one.score, smoothing).astype(np.float32)
        values = np.where(one.wanted, smoothed - threshold, np.nan)
        parts.setdefault(one.track, []).append((one.start, values))
    speaking = np.full(len(tracks), np.nan, np.float32)
    index = np.round(tracks.time * FRAME_RATE).astype(int)
    for track in tracks.tracks:
        rows = tracks.track_slice(track)
        for start, values in parts.get(track, ()):
            position = index[rows] - start
            inside = (position >= 0) & (position < len(values))
            speaking[rows][inside] = values[position[inside]]
    return replace(tracks, speaking=speaking)


def estimate_offset(scores: Sequence[SpeakingScores], smoothing: int = 5) -> tuple[float, float]:
    """Estimate the audio-visual offset from speaking faces.

    Parameters
    ----------
    scores : sequence of SpeakingScores
    smoothing : int, optional
        Width of the moving average of scores, in frames.

    Returns
    -------
    offset : float
        Delay of the audio relative to the video, in seconds, in addition to the offset at which
        the faces were scored.
    confidence : float
        In [0, 1]. Below 0.5 the offset is not reliable.
    """
    curves, weights = [], []
    smoothed = [moving_average(one.score, smoothing).astype(np.float32) for one in scores]
    # Scorers that measure synchrony give low scores to speaking faces that are out of sync.
    # In this case the frames with the highest scores are used.
    known = np.concatenate([np.zeros(0), *(s[np.isfinite(s)] for s in smoothed)])
    scarce = len(known) > 0 and (known > 0).mean() < _SPEAKS
    level = float(np.quantile(known, 1 - _LIKELY)) if scarce else 0.0
    for one, values in zip(scores, smoothed, strict=True):
        speaks = values > level
        for (first, last), curve in zip(one.rows, one.curves, strict=True):
            if seconds := float(speaks[first:last].sum() / FRAME_RATE):
                curves.append(curve)
                weights.append(seconds)
    return offset_from_curves(curves, weights)
