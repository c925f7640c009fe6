"""Active speaker scores from audio-visual synchrony, without trained weights.

The mouth of an active speaker moves, and moves in synchrony with the audio. Two measurements are
combined: the energy of lip motion after the motion of the head is removed, and the canonical
correlation between lip motion and the speech envelope. The projections are estimated on the
recording itself, and evaluated on parts of it that are held out. Only the five numbers of the
calibration come from training data.

References
----------
Hershey, Movellan. Audio-vision: using audio-visual synchrony to locate sounds. NIPS 1999.
Slaney, Covell. FaceSync: a linear operator for measuring synchronization of video facial images
and audio tracks. NIPS 2000.
Bredin, Chollet. Audiovisual speech synchrony measure: application to biometrics. EURASIP Journal
on Advances in Signal Processing 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope

# number of cross-validation folds: projections for each part are estimated on the others
_FOLDS = 4
# ridge as a multiple of the mean variance: there are 17 motion features and only seconds of data
_REGULARISATION = 1.0
_MIN_FRAMES = 25


def _standardise(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance per column, ignoring NaN; constant columns become 0."""
    if not np.isfinite(x).any():
        return np.zeros_like(x)
    centred = x - np.nanmean(x, axis=0)
    scale = np.nanstd(centred, axis=0)
    return centred / np.where(scale > 1e-6, scale, np.inf)


def _mean_filter(x: np.ndarray, width: int) -> np.ndarray:
    """Moving average over `width` frames along the first axis, ignoring NaN (0 if all are NaN)."""
    from scipy.ndimage import uniform_filter1d

    known = np.isfinite(x)
    total = uniform_filter1d(np.where(known, x, 0.0), width, axis=0, mode="constant")
    share = uniform_filter1d(known.astype(np.float64), width, axis=0, mode="constant")
    return total / np.maximum(share, 0.5 / width)


def visual_view(motion: np.ndarray) -> np.ndarray:
    """Motion features for the correlation: (T, 17), standardised, with NaN kept."""
    energy = np.where(np.isfinite(motion[:, :1]), _mean_filter(motion[:, :1], 3), np.nan)
    return np.concatenate([_standardise(energy), 0.5 * _standardise(motion[:, 1:])], axis=1)


def acoustic_view(envelope: np.ndarray) -> np.ndarray:
    """Envelope features for the correlation: (T, 10), without slow drift, and their slope."""
    from scipy.ndimage import gaussian_filter1d

    envelope = np.asarray(envelope, np.float64)
    slow = gaussian_filter1d(envelope, FRAME_RATE / 2, axis=0, mode="nearest")
    slope = np.gradient(envelope, axis=0) if len(envelope) > 1 else np.zeros_like(envelope)
    return np.concatenate([_standardise(envelope - slow), _standardise(slope)], axis=1)


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    size = len(covariance)
    ridge = _REGULARISATION * np.trace(covariance) / size + 1e-9
    values, vectors = np.linalg.eigh(covariance + ridge * np.eye(size))
    return vectors / np.sqrt(values) @ vectors.T


def _first_projections(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which centred `x` (n, p) and `y` (n, q) correlate most (regularised CCA)."""
    whiten_x, whiten_y = _inverse_root(x.T @ x / len(x)), _inverse_root(y.T @ y / len(y))
    left, _, right = np.linalg.svd(whiten_x @ (x.T @ y / len(x)) @ whiten_y)
    return whiten_x @ left[:, 0], whiten_y @ right[0]


def held_out_projections(
    visual: np.ndarray, acoustic: np.ndarray, lag: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Most correlated projections of two views, cross-validated over parts of the recording.

    Parameters
    ----------
    visual : (T, p) float
        NaN where the face is absent.
    acoustic : (T', q) float
    lag : int, optional
        Frames by which audio lags behind video.

    Returns
    -------
    x, y : (T,) float
        Projections with a variance of about 1; NaN where either view is unknown. All NaN when
        less than a second of data is available.
    """
    count = len(visual)
    rows = np.arange(count) + lag
    valid = (rows >= 0) & (rows < len(acoustic)) & np.isfinite(visual).all(axis=1)
    rows = np.flatnonzero(valid)
    x, y = np.full(count, np.nan), np.full(count, np.nan)
    if len(rows) < _MIN_FRAMES:
        return x, y
    v, a = visual[rows].astype(np.float64), acoustic[rows + lag].astype(np.float64)
    for test in np.array_split(np.arange(len(rows)), _FOLDS):
        train = np.ones(len(rows), bool)
        train[test] = False
        mean_v, mean_a = v[train].mean(axis=0), a[train].mean(axis=0)
        p, q = _first_projections(v[train] - mean_v, a[train] - mean_a)
        for target, values, mean, direction in ((x, v, mean_v, p), (y, a, mean_a, q)):
            scale = np.std((values[train] - mean) @ direction) + 1e-6
            target[rows[test]] = (values[test] - mean) @ direction / scale
    return x, y


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation over frames where both are known; 0 without such frames."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    return float((x * y).sum() / (np.sqrt((x * x).sum() * (y * y).sum()) + 1e-6))


def synchrony_curve(motion: np.ndarray, envelope: np.ndarray, max_lag: int) -> np.ndarray:
    """Held-out canonical correlation at each lag.

    Parameters
    ----------
    motion : (T, 17) float
        See :func:`~pyannote_av.models.active_speaker.motion.mouth_motion`.
    envelope : (T', 5) float
        See :func:`~pyannote_av.models.active_speaker.motion.speech_envelope`.
    max_lag : int
        In frames.

    Returns
    -------
    curve : (2 max_lag + 1,) float
        In [-1, 1], for lags ``-max_lag`` (audio early) to ``max_lag`` (audio late).
    """
    visual, acoustic = visual_view(motion), acoustic_view(envelope)
    return np.array(
        [
            _correlation(*held_out_projections(visual, acoustic, lag))
            for lag in range(-max_lag, max_lag + 1)
        ]
    )


def synchrony_features(motion: np.ndarray, envelope: np.ndarray, max_lag: int = 5) -> np.ndarray:
    """Features that the score is a linear function of.

    Parameters
    ----------
    motion : (T, 17) float
    envelope : (T', 5) float
    max_lag : int, optional
        Largest audio-visual offset that is tolerated, in frames.

    Returns
    -------
    features : (T, 3) float
        Energy of lip motion around each frame, correlation with the audio around each frame, and
        correlation over the whole track. NaN where the face is absent.
    """
    visual, acoustic = visual_view(motion), acoustic_view(envelope)
    lags = range(-max_lag, max_lag + 1, 2)
    views = [held_out_projections(visual, acoustic, lag) for lag in lags]
    overall = [_correlation(x, y) for x, y in views]
    x, y = views[int(np.argmax(overall))]
    window = round(2 * FRAME_RATE)
    local = _mean_filter(x * y, window) / np.sqrt(
        _mean_filter(x * x, window) * _mean_filter(y * y, window) + 1e-6
    )
    features = np.stack(
        [_mean_filter(motion[:, 0], round(FRAME_RATE)), local, np.full(len(motion), max(overall))],
        axis=1,
    )
    return np.where(np.isfinite(motion[:, :1]), features, np.nan)


@dataclass(frozen=True)
class SynchronyScorer:
    """Active speaker scores from lip motion and its synchrony with audio.

    A scorer (see ``ActiveSpeakerScorer``) that needs no weights. The calibration was fitted on
    single talkers (GRID and HDTF clips), with idle faces and the audio of other talkers as
    negatives. The data contain no meetings and no films.
    """

    name: str = "synchrony"
    context: float = 2.0

    # log-odds of speaking = weights . features + bias
    weights: tuple[float, float, float] = (3.7, 4.4, 0.9)
    bias: float = 6.3

    # power (-70 dB) below which audio is silence and no face is scored as speaking
    _silence: float = 1e-7

    def __call__(self, waveform, crops: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Score one face.

        Parameters
        ----------
        waveform : (1, n) tensor or array
            16 kHz audio over the same time as the crops.
        crops : (T, 112, 112) uint8
        present : (T,) bool

        Returns
        -------
        scores : (T,) float32
            Log-odds of speaking; NaN where the face is absent.
        """
        present = np.asarray(present, bool)
        count = len(crops)
        signal = np.asarray(waveform, np.float32).reshape(-1)
        scores = self._log_odds(mouth_motion(crops, present), speech_envelope(signal, count))

        samples = count * 640
        power = np.pad(signal[:samples], (0, max(0, samples - len(signal)))) ** 2
        power = _mean_filter(power.reshape(count, 640).mean(axis=1), 11)
        scores = np.where(power < self._silence, np.minimum(scores, -3.0), scores)
        return np.where(present, scores, np.nan).astype(np.float32)

    def _log_odds(self, motion: np.ndarray, envelope: np.ndarray) -> np.ndarray:
        features = synchrony_features(motion, envelope)
        known = np.isfinite(features).all(axis=1)
        if not known.any():  # a track of single frames has no motion to score
            return np.zeros(len(features))
        # motion is undefined in the first frame of a face, which takes the score of its neighbour
        frames = np.arange(len(features))
        scores = features[known] @ np.array(self.weights) + self.bias
        return np.interp(frames, frames[known], scores)
