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

# in Hz; lip motion mostly affects the formant region
_BANDS = ((100, 500), (500, 1000), (1000, 2000), (2000, 4000), (4000, 7500))


def _halve(crops: np.ndarray) -> np.ndarray:
    """Downsample to 56 x 56 by averaging, for less noise and a quarter of the computation."""
    count, height, width = crops.shape
    rows, columns = height // _WORKING_SIZE, width // _WORKING_SIZE
    if not rows or not columns or height % _WORKING_SIZE or width % _WORKING_SIZE:
        raise ValueError(f"crops must be a multiple of {_WORKING_SIZE} px wide, not {crops.shape}")
    blocks = crops.reshape(count, _WORKING_SIZE, rows, _WORKING_SIZE, columns)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def _mouth(size: int) -> tuple[slice, slice]:
    (top, bottom), (left, right) = _MOUTH
    return slice(round(top * size), round(bottom * size)), slice(
        round(left * size), round(right * size)
    )


def _residual(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change between consecutive crops that motion of the whole head does not explain.

    An affine motion and a change of brightness and contrast are fitted by least squares to all
    pixels outside the mouth (one step of Lucas and Kanade's registration) and subtracted. The
    residual in and around the mouth is motion of lips and jaw.

    Parameters
    ----------
    before, after : (n, h, w) float32

    Returns
    -------
    residual : (n, h, w) float32
        In grey levels; 0 on the border.
    """
    count, height, width = before.shape
    mean = (before + after) / 2
    inner = (slice(None), slice(1, -1), slice(1, -1))
    gy = (mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1]) / 2
    gx = (mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2]) / 2
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32)[1:-1],
        np.linspace(-1, 1, width, dtype=np.float32)[1:-1],
        indexing="ij",
    )
    ones = np.ones_like(gx)
    basis = np.stack([gx, gy, gx * x, gx * y, gy * x, gy * y, mean[inner], ones], axis=-1)
    basis = basis.reshape(count, -1, 8)
    change = (after - before)[inner].reshape(count, -1, 1)

    outside = np.ones((height, width), bool)
    outside[_mouth(height)] = False
    outside = outside[1:-1, 1:-1].reshape(-1)
    known = basis[:, outside]
    gram = known.transpose(0, 2, 1) @ known + 1e-3 * basis.shape[1] * np.eye(8, dtype=np.float32)
    motion = np.linalg.solve(gram, known.transpose(0, 2, 1) @ change[:, outside])

    residual = np.zeros_like(before)
    residual[inner] = (change - basis @ motion).reshape(count, height - 2, width - 2)
    return residual


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
    pairs = np.flatnonzero(present[1:] & present[:-1])
    rows, columns = _mouth(_WORKING_SIZE)
    for chunk in np.array_split(pairs, max(1, -(-len(pairs) // 50))):  # bounds memory
        if not len(chunk):
            continue
        before, after = _halve(crops[chunk]), _halve(crops[chunk + 1])
        contrast = after[:, 4:52, 8:48].std(axis=(1, 2)) + 2.0
        mouth = _residual(before, after)[:, rows, columns]
        height, width = mouth.shape[1] // _GRID[0], mouth.shape[2] // _GRID[1]
        cells = mouth.reshape(len(chunk), _GRID[0], height, _GRID[1], width).mean(axis=(2, 4))
        energy = np.sqrt(np.square(mouth).mean(axis=(1, 2))) / contrast
        features[chunk + 1, 0] = np.log(energy + 0.005)
        features[chunk + 1, 1:] = cells.reshape(len(chunk), -1) / contrast[:, None]
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
