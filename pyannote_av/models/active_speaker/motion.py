"""Low-dimensional features of mouth motion and of the speech envelope, at 25 Hz.

The functions work on numpy arrays and need no trained weights. The only visual input is the
112 x 112 crops that active speaker detectors use (see :mod:`pyannote_av.vision.crops`).
"""

from __future__ import annotations

import numpy as np

from pyannote_av.core.grid import SAMPLE_RATE, SAMPLES_PER_FRAME

# rows and columns of the mouth in a face crop, as fractions of its side
_MOUTH = ((0.50, 0.86), (0.25, 0.75))
_GRID = (4, 4)
_WORKING_SIZE = 56
# pairs of crops that are compared at once: few enough for the cache of a processor
_CHUNK = 16

# in Hz; lip motion mostly affects the formant region
_BANDS = ((100, 500), (500, 1000), (1000, 2000), (2000, 4000), (4000, 7500))


def _shrink(crops: np.ndarray) -> np.ndarray:
    """Downsample to 56 x 56 by averaging, for less noise and a quarter of the computation."""
    _, height, width = crops.shape
    rows, columns = height // _WORKING_SIZE, width // _WORKING_SIZE
    if not rows or not columns or height % _WORKING_SIZE or width % _WORKING_SIZE:
        raise ValueError(f"crops must be a multiple of {_WORKING_SIZE} px wide, not {crops.shape}")
    lines = sum(crops[:, i::rows].astype(np.uint16) for i in range(rows))
    total = sum(lines[:, :, i::columns].astype(np.float32) for i in range(columns))
    return total / (rows * columns)


def _mouth(size: int) -> tuple[slice, slice]:
    (top, bottom), (left, right) = _MOUTH
    return slice(round(top * size), round(bottom * size)), slice(
        round(left * size), round(right * size)
    )


def _mouth_residual(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change of the mouth between consecutive crops that motion of the head does not explain.

    An affine motion and a change of brightness and contrast are fitted by least squares to all
    pixels outside the mouth (one step of Lucas and Kanade's registration) and subtracted. The
    residual in and around the mouth is motion of lips and jaw.

    Parameters
    ----------
    before, after : (n, h, w) float32

    Returns
    -------
    residual : (n, rows, columns) float32
        In grey levels, of the mouth region.
    """
    count, height, width = before.shape
    mean = (before + after) / 2
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32)[1:-1],
        np.linspace(-1, 1, width, dtype=np.float32)[1:-1],
        indexing="ij",
    )
    # the last row is what the others explain: one product of matrices gives all sums
    terms = np.empty((count, 9, height - 2, width - 2), np.float32)
    gx, gy = terms[:, 0], terms[:, 1]
    np.subtract(mean[:, 1:-1, 2:], mean[:, 1:-1, :-2], out=gx)
    np.subtract(mean[:, 2:, 1:-1], mean[:, :-2, 1:-1], out=gy)
    terms[:, :2] /= 2
    for i, (gradient, position) in enumerate(((gx, x), (gx, y), (gy, x), (gy, y)), start=2):
        np.multiply(gradient, position, out=terms[:, i])
    terms[:, 6], terms[:, 7] = mean[:, 1:-1, 1:-1], 1.0
    np.subtract(after[:, 1:-1, 1:-1], before[:, 1:-1, 1:-1], out=terms[:, 8])

    rows, columns = (slice(s.start - 1, s.stop - 1) for s in _mouth(height))
    mouth = terms[:, :, rows, columns].copy()
    terms[:, :, rows, columns] = 0.0
    known = terms.reshape(count, 9, -1)
    sums = known @ known.transpose(0, 2, 1)
    gram = sums[:, :8, :8] + 1e-3 * known.shape[2] * np.eye(8, dtype=np.float32)
    motion = np.linalg.solve(gram, sums[:, :8, 8:])
    explained = motion.transpose(0, 2, 1) @ mouth[:, :8].reshape(count, 8, -1)
    return mouth[:, 8] - explained.reshape(mouth[:, 8].shape)


def mouth_motion(crops: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Motion of lips and jaw, without head motion.

    Parameters
    ----------
    crops : (T, 112, 112) uint8
        Grey face crops at 25 Hz.
    present : (T,) bool, optional
        Frames in which the face is present. Pixels of other frames are ignored.

    Returns
    -------
    motion : (T, 17) float32
        Logarithm of the motion energy in the mouth region relative to the contrast of the face,
        then the signed change in each of 4 x 4 cells of that region. NaN where the face is absent
        from the frame or from the previous one.
    """
    count = len(crops)
    present = np.ones(count, bool) if present is None else np.asarray(present, bool)
    features = np.full((count, 1 + _GRID[0] * _GRID[1]), np.nan, np.float32)
    for first in range(0, count - 1, _CHUNK):
        last = min(first + _CHUNK, count - 1)
        pairs = np.flatnonzero(present[first:last] & present[first + 1 : last + 1])
        if not len(pairs):
            continue
        small = _shrink(crops[first : last + 1])
        before, after = small[pairs], small[pairs + 1]
        contrast = after[:, 4:52, 8:48].std(axis=(1, 2)) + 2.0
        mouth = _mouth_residual(before, after)
        height, width = mouth.shape[1] // _GRID[0], mouth.shape[2] // _GRID[1]
        cells = mouth.reshape(len(pairs), _GRID[0], height, _GRID[1], width).mean(axis=(2, 4))
        energy = np.sqrt(np.square(mouth).mean(axis=(1, 2))) / contrast
        features[first + pairs + 1, 0] = np.log(energy + 0.005)
        features[first + pairs + 1, 1:] = cells.reshape(len(pairs), -1) / contrast[:, None]
    return features


def speech_envelope(waveform: np.ndarray, num_frames: int) -> np.ndarray:
    """Log power in five frequency bands.

    Parameters
    ----------
    waveform : (num_samples,) float
        16 kHz, in [-1, 1]. Cut or padded with silence to `num_frames`.
    num_frames : int

    Returns
    -------
    envelope : (num_frames, 5) float32
        Logarithm of the power in each 40 ms, per band.
    """
    hop, window, fft_size = SAMPLE_RATE // 100, SAMPLE_RATE // 40, 512
    needed = num_frames * SAMPLES_PER_FRAME + window - hop
    before = (window - hop) // 2
    signal = np.pad(np.asarray(waveform, np.float32)[: needed - before], (before, 0))
    signal = np.pad(signal, (0, needed - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, window)[::hop]
    spectrum = np.fft.rfft(frames * np.hanning(window).astype(np.float32), fft_size)
    power = np.abs(spectrum[: 4 * num_frames]) ** 2
    frequency = np.arange(power.shape[1]) * SAMPLE_RATE / fft_size
    bands = np.stack(
        [power[:, (frequency >= low) & (frequency < high)].sum(axis=1) for low, high in _BANDS],
        axis=1,
    )
    bands = bands.reshape(num_frames, 4, len(_BANDS)).mean(axis=1)
    # adding the background level makes the envelope flat, instead of noisy, in pauses
    background = np.percentile(bands, 10, axis=0) if num_frames else 0.0
    return np.log(bands + background / 2 + 1e-6).astype(np.float32)
