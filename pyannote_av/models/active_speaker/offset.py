"""Estimate the audio-visual offset of a recording.

Synchrony as a function of lag, computed on one segment of one face, rarely shows the offset: the
curve is flat for a listener and ragged for a talker. The mean of many curves peaks at the offset.
Only curves are kept in memory, so recordings may be of any duration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.active_speaker.synchrony import synchrony_curve

#: least duration, in seconds, of a segment that a curve is computed from
MIN_SECONDS = 2.0

# half-width of the peak, in frames
_PEAK_WIDTH = 4
# largest shift of the peak, in frames, when one of the curves is left out
_TOLERANCE = 3


def offset_from_curves(
    curves: Sequence[np.ndarray], durations: Sequence[float]
) -> tuple[float, float]:
    """Estimate the offset as the common peak of synchrony curves.

    Parameters
    ----------
    curves : sequence of (2 max_lag + 1,) arrays
        From :func:`~pyannote_av.models.active_speaker.synchrony.synchrony_curve`.
    durations : sequence of float
        Seconds that each curve was computed from, used as its weight.

    Returns
    -------
    offset : float
        Seconds by which audio lags behind video. Moving the audio earlier by this amount
        synchronises them. 0 without curves.
    confidence : float
        Prominence of the peak over the other lags, in [0, 1]. 0 when the peak depends on a single
        curve or lies at the border.
    """
    if not len(curves):
        return 0.0, 0.0
    curves = np.asarray(curves, np.float64)
    weights = np.asarray(durations, np.float64)
    offset, prominence = _peak(curves, weights)
    others = [np.arange(len(curves)) != i for i in range(len(curves))]
    stable = len(curves) > 1 and all(
        abs(_peak(curves[rest], weights[rest])[0] - offset) <= _TOLERANCE for rest in others
    )
    border = abs(offset) > curves.shape[1] // 2 - _PEAK_WIDTH
    # with the audio of another talker, prominence exceeds 4 for 4 % of talkers in 10 s, 1 % in 20 s
    confidence = 1.0 / (1.0 + np.exp(-2.0 * (prominence - 4.0)))
    return float(offset / FRAME_RATE), float(confidence) if stable and not border else 0.0


def _peak(curves: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Position of the peak of the mean curve, in frames, and its prominence in deviations."""
    mean = np.average(curves, axis=0, weights=weights)
    mean = np.convolve(np.pad(mean, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    top = int(np.argmax(mean))
    rest = mean[np.abs(np.arange(len(mean)) - top) > _PEAK_WIDTH]
    prominence = (mean[top] - rest.mean()) / (rest.std() + 0.01) if len(rest) else 0.0
    position = float(top)
    if 0 < top < len(mean) - 1:  # vertex of the parabola through the peak and its neighbours
        left, right = mean[top - 1] - mean[top], mean[top + 1] - mean[top]
        position += (left - right) / (2 * (left + right)) if left + right < 0 else 0.0
    return position - len(mean) // 2, prominence


def curve_of(motion: np.ndarray, surroundings: np.ndarray, max_lag: int) -> np.ndarray:
    """Synchrony curve of a segment of motion, with audio that extends beyond both ends.

    Parameters
    ----------
    motion : (T, 17) float
    surroundings : (T + 2 max_lag, 5) float
        Speech envelope from `max_lag` frames before the segment to `max_lag` frames after it, so
        that every lag uses the same number of frames.
    max_lag : int
        In frames.

    Returns
    -------
    curve : (2 max_lag + 1,) array
    """
    motion = np.pad(motion, ((max_lag, max_lag), (0, 0)), constant_values=np.nan)
    return synchrony_curve(motion, surroundings, max_lag)


def estimate_offset(
    motion: np.ndarray,
    envelope: np.ndarray,
    max_lag: float = 1.0,
    window: float = 5.0,
) -> tuple[float, float]:
    """Estimate the audio-visual offset from one talking face.

    Parameters
    ----------
    motion : (T, 17) float
        See :func:`~pyannote_av.models.active_speaker.motion.mouth_motion`. For several segments
        of one recording, use :func:`offset_from_curves` instead.
    envelope : (T', 5) float
        See :func:`~pyannote_av.models.active_speaker.motion.speech_envelope`.
    max_lag : float, optional
        Largest offset that is searched, in seconds.
    window : float, optional
        Duration of the segment for each curve, in seconds.

    Returns
    -------
    offset, confidence : float
        As from :func:`offset_from_curves`.
    """
    lag = round(max_lag * FRAME_RATE)
    count = max(1, round(len(motion) / (window * FRAME_RATE)))
    curves, durations = [], []
    for rows in np.array_split(np.arange(len(motion)), count):
        if len(rows) < MIN_SECONDS * FRAME_RATE:
            continue
        # beyond the ends of the audio, repeat the first and last value of the envelope
        around = np.arange(rows[0] - lag, rows[-1] + lag + 1).clip(0, len(envelope) - 1)
        curves.append(curve_of(motion[rows], envelope[around], lag))
        durations.append(len(rows) / FRAME_RATE)
    return offset_from_curves(curves, durations)
