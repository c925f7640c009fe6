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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.active_speaker.face import Face
from pyannote_av.models.active_speaker.motion import speech_envelope

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


def _regularised(covariance: np.ndarray) -> np.ndarray:
    """Add a ridge to covariance matrices (..., n, n)."""
    size = covariance.shape[-1]
    ridge = _REGULARISATION * np.trace(covariance, axis1=-2, axis2=-1) / size + 1e-9
    return covariance + ridge[..., None, None] * np.eye(size)


def _first_projections(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which `x` correlates most with each of several `y` (regularised CCA).

    Parameters
    ----------
    x : (n, p) float
    y : (k, n, q) float
        All columns have zero mean.

    Returns
    -------
    x_directions : (p, k) float
    y_directions : (k, q) float
    """
    covariance_x = _regularised(x.T @ x / len(x))
    covariance_y = _regularised(y.transpose(0, 2, 1) @ y / len(x))
    cross = x.T @ y / len(x)  # (k, p, q)
    explained = np.linalg.solve(covariance_x, cross)
    # directions of y solve a generalised eigenvalue problem, which whitening makes an ordinary one
    whiten = np.linalg.inv(np.linalg.cholesky(covariance_y))
    _, vectors = np.linalg.eigh(
        whiten @ (cross.transpose(0, 2, 1) @ explained) @ whiten.transpose(0, 2, 1)
    )
    y_directions = (vectors[:, None, :, -1] @ whiten)[:, 0]
    x_directions = (explained @ y_directions[:, :, None])[:, :, 0].T
    scale = np.sqrt((x_directions * (covariance_x @ x_directions)).sum(axis=0))
    return x_directions / np.where(scale > 0, scale, np.inf), y_directions


def _projections(visual: np.ndarray, acoustic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Held-out projections (k, n) of one visual view (n, p) and several acoustic ones (k, n, q)."""
    x, y = np.empty(acoustic.shape[:2]), np.empty(acoustic.shape[:2])
    for test in np.array_split(np.arange(len(visual)), _FOLDS):
        train = np.delete(np.arange(len(visual)), test)
        mean_v, mean_a = visual[train].mean(axis=0), acoustic[:, train].mean(axis=1, keepdims=True)
        centred_v, centred_a = visual[train] - mean_v, acoustic[:, train] - mean_a
        p, q = _first_projections(centred_v, centred_a)
        p /= np.std(centred_v @ p, axis=0) + 1e-6
        q /= np.std(centred_a @ q[:, :, None], axis=1) + 1e-6
        x[:, test] = ((visual[test] - mean_v) @ p).T
        y[:, test] = ((acoustic[:, test] - mean_a) @ q[:, :, None])[:, :, 0]
    return x, y


def held_out_projections(
    visual: np.ndarray, acoustic: np.ndarray, lags: Sequence[int] = (0,)
) -> tuple[np.ndarray, np.ndarray]:
    """Most correlated projections of two views, cross-validated over parts of the recording.

    Parameters
    ----------
    visual : (T, p) float
        NaN where the face is absent.
    acoustic : (T', q) float
    lags : sequence of k int, optional
        Frames by which audio lags behind video.

    Returns
    -------
    x, y : (k, T) float
        Projections for each lag, with a variance of about 1; NaN where either view is unknown.
        All NaN for a lag at which less than a second of data is available.
    """
    lags = np.asarray(lags)
    visible = np.isfinite(visual).all(axis=1)
    aligned = np.arange(len(visual)) + lags[:, None]
    valid = visible & (aligned >= 0) & (aligned < len(acoustic))
    x, y = np.full(valid.shape, np.nan), np.full(valid.shape, np.nan)
    # lags at which the same frames are known share the statistics of the visual view
    patterns, pattern_of_lag = np.unique(valid, axis=0, return_inverse=True)
    for pattern, known in enumerate(patterns):
        rows, same = np.flatnonzero(known), np.flatnonzero(pattern_of_lag.reshape(-1) == pattern)
        if len(rows) >= _MIN_FRAMES:
            v = visual[rows].astype(np.float64)
            a = acoustic[aligned[np.ix_(same, rows)]].astype(np.float64)
            x[np.ix_(same, rows)], y[np.ix_(same, rows)] = _projections(v, a)
    return x, y


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation (k,) of each row of projections over the frames that are known; 0 without any."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    power = (x * x).sum(axis=1) * (y * y).sum(axis=1)
    return (x * y).sum(axis=1) / (np.sqrt(power) + 1e-6)


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
    return _correlations(*held_out_projections(visual, acoustic, range(-max_lag, max_lag + 1)))


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
    projections = held_out_projections(visual, acoustic, range(-max_lag, max_lag + 1, 2))
    overall = _correlations(*projections)
    x, y = (each[np.argmax(overall)] for each in projections)
    window = round(2 * FRAME_RATE)
    local = _mean_filter(x * y, window) / np.sqrt(
        _mean_filter(x * x, window) * _mean_filter(y * y, window) + 1e-6
    )
    features = np.stack(
        [_mean_filter(motion[:, 0], round(FRAME_RATE)), local, np.full(len(motion), overall.max())],
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
        return self.many([Face(waveform, crops, present)])[0]

    def many(self, faces: Sequence[tuple]) -> list[np.ndarray]:
        """See :func:`~pyannote_av.models.active_speaker.scorers.score_many`."""
        return [self._score(face if isinstance(face, Face) else Face(*face)) for face in faces]

    def _score(self, face: Face) -> np.ndarray:
        """Scores (T,) of one face."""
        count = len(face.crops)
        signal = np.asarray(face.waveform, np.float32).reshape(-1)
        scores = self._log_odds(face.motion, speech_envelope(signal, count))

        samples = count * 640
        power = np.pad(signal[:samples], (0, max(0, samples - len(signal)))) ** 2
        power = _mean_filter(power.reshape(count, 640).mean(axis=1), 11)
        scores = np.where(power < self._silence, np.minimum(scores, -3.0), scores)
        return np.where(np.asarray(face.present, bool), scores, np.nan).astype(np.float32)

    def _log_odds(self, motion: np.ndarray, envelope: np.ndarray) -> np.ndarray:
        features = synchrony_features(motion, envelope)
        known = np.isfinite(features).all(axis=1)
        if not known.any():  # a track of single frames has no motion to score
            return np.zeros(len(features))
        # motion is undefined in the first frame of a face, which takes the score of its neighbour
        frames = np.arange(len(features))
        scores = features[known] @ np.array(self.weights) + self.bias
        return np.interp(frames, frames[known], scores)
