"""Speaker embeddings of windows of a recording, and voiceprints of its speakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.grid import (
    FRAME_RATE,
    FRAMES_PER_WINDOW,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    STEPS,
)
from pyannote_av.core.threads import on_all_cores

if TYPE_CHECKING:
    import torch
    from pyannote.audio import Model

#: duration of the windows that are embedded, in seconds
WINDOW = 1.2
#: video frames from one window to the next
HOP = FRAMES_PER_WINDOW

_HOP_SAMPLES = HOP * SAMPLES_PER_FRAME
#: number of windows that are encoded at once (24 s), and of context windows on either side
_BLOCK, _CONTEXT = 150, 6
#: share of a window that a speaker must fill for the window to count as theirs: preferred share,
#: least share
_SHARES = (0.75, 0.25)


def num_windows(num_frames: int) -> int:
    """Number of windows in `num_frames` video frames."""
    return -(-num_frames // HOP)


def speaker_features(waveform: torch.Tensor, embedder: Model) -> np.ndarray:
    """Embeddings of windows of 1.2 s, every 0.16 s.

    Window `i` is centred on the middle of frames 4 i to 4 i + 3, which is at (4 i + 2) / 25 s. The
    recording is padded by reflection at both ends.

    Parameters
    ----------
    waveform : (1, samples) tensor
        16 kHz.
    embedder : Model
        Embedding model with ``frame_features`` and ``pool``, such as
        :class:`~pyannote_av.models.embedding.campplus.CAMPPlus`.

    Returns
    -------
    features : (L, E) float32 array
        Embeddings of unit norm, L = ceil(samples // 640 / 4). Zero in digital silence.

    Raises
    ------
    ValueError
        When the step between windows is not a multiple of the frame step of the embedder.
    """
    import torch

    centre = embedder.receptive_field_center
    step = centre(1) - centre(0)
    size, hop = round(WINDOW * SAMPLE_RATE / step), _HOP_SAMPLES // step
    if hop * step != _HOP_SAMPLES:
        raise ValueError(
            f"{_HOP_SAMPLES} samples are not a multiple of {step}, a step of {embedder}"
        )
    count = num_windows(waveform.shape[1] * round(FRAME_RATE) // SAMPLE_RATE)
    features = np.zeros((count, embedder.dimension), np.float32)
    if not count:
        return features
    # sample of the padded waveform at which window 0 is centred
    middle = (centre(size // 2 - 1) + centre(size // 2)) / 2
    left = round(middle) - _HOP_SAMPLES // 2
    reach = centre(size - 1) + embedder.receptive_field_size()

    def embed(first: int) -> np.ndarray:
        last = min(count, first + _BLOCK)
        low, high = max(0, first - _CONTEXT), min(count, last + _CONTEXT)
        span = low * _HOP_SAMPLES - left, (high - 1) * _HOP_SAMPLES + reach - left
        block = _reflected(waveform[0], *span)
        with torch.inference_mode():
            frames = embedder.frame_features(block[None, None].to(embedder.device))[0]
            windows = frames.unfold(1, size, hop).transpose(0, 1)
            embedded = embedder.pool(windows[first - low : last - low]).cpu()
        found = torch.nn.functional.normalize(embedded, dim=1).numpy()
        found[~np.isfinite(found).all(axis=1)] = 0
        middles = left + _HOP_SAMPLES * (np.arange(first - low, last - low) + 0.5)
        found[_silent(block.numpy(), middles)] = 0
        return found

    firsts = range(0, count, _BLOCK)
    for first, found in zip(firsts, on_all_cores(embed, firsts, embedder.device), strict=True):
        features[first : first + len(found)] = found
    return features


def _reflected(samples: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Samples [first, last) of sound (n,) that is reflected at both ends, at full precision"""
    import torch

    if first >= 0 and last <= len(samples):
        return samples[first:last].float()
    period = max(1, 2 * (len(samples) - 1))
    index = torch.arange(first, last) % period
    return samples[torch.minimum(index, period - index)].float()


def _silent(block: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """True for windows, given by the samples in their middle, that contain zeros only"""
    sounding = np.concatenate([[0], np.cumsum(block != 0)])
    size = round(WINDOW * SAMPLE_RATE)
    first = np.maximum(middles.astype(int) - size // 2, 0)
    last = np.minimum(first + size, len(block))
    return sounding[last] == sounding[first]


def voiceprint(features: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Voiceprint of a speaker: the mean of speaker embeddings, of unit norm.

    Parameters
    ----------
    features : (L, E) array
        Speaker embeddings of windows in which the speaker speaks.
    weights : (L,) array, optional
        Weight of each window. Equal by default.

    Returns
    -------
    voiceprint : (E,) float32 array
        Zero, which means an unknown voice, without windows or with zero weights.
    """
    features = np.asarray(features, np.float32)
    total = features.sum(axis=0) if weights is None else np.float32(weights) @ features
    return total / max(float(np.linalg.norm(total)), 1e-6)


def segment_embeddings(features: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Speaker embeddings of segments: the mean over the windows inside each segment.

    Parameters
    ----------
    features : (L, E) array
        Speaker embeddings of the recording; see :func:`speaker_features`.
    segments : (n, 2) float array
        Start and end of each segment in seconds. A segment shorter than a window takes the
        nearest window.

    Returns
    -------
    embeddings : (n, E) float32 array
        Embeddings of unit norm; zero in digital silence.
    """
    if not len(segments) or not len(features):
        return np.zeros((len(segments), features.shape[1]), np.float32)
    # middle of window i: (HOP i + HOP / 2) / FRAME_RATE
    start, end = (np.asarray(segments, float).T * FRAME_RATE - HOP / 2) / HOP
    half = WINDOW * FRAME_RATE / HOP / 2
    first, last = np.ceil(start + half - 1e-6), np.floor(end - half + 1e-6) + 1
    nearest = np.floor((start + end) / 2 + 0.5)
    first, last = (np.where(last > first, x, nearest + k) for k, x in enumerate((first, last)))
    first = first.clip(0, len(features) - 1).astype(int)
    last = np.maximum(last.clip(0, len(features)).astype(int), first + 1)
    spans = zip(first.tolist(), last.tolist(), strict=True)
    embeddings = np.stack([features[a:b].sum(axis=0, dtype=np.float32) for a, b in spans])
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(length, 1e-6)).astype(np.float32)


def windows_of_speakers(activity: np.ndarray) -> list[np.ndarray]:
    """Choose windows to represent each speaker.

    The first of these sets that is not empty is returned:

    1. windows in which the speaker speaks alone for three quarters of the time,
    2. windows in which the speaker speaks, with or without overlap, for three quarters,
    3. windows in which the speaker speaks alone for a quarter,
    4. windows in which the speaker speaks, with or without overlap, for a quarter.

    Parameters
    ----------
    activity : (4 T, speakers) bool array
        Speech activity in steps of 10 ms.

    Returns
    -------
    windows : list of (n,) int arrays
        Indices of windows. Empty for speakers who speak too little.
    """
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    half = round(WINDOW * STEPS * FRAME_RATE / 2)
    middle = STEPS * HOP * np.arange(num_windows(len(activity) // STEPS)) + STEPS * HOP // 2
    first, last = np.maximum(middle - half, 0), np.minimum(middle + half, len(activity))
    shares = []
    for active in (alone, activity):
        total = np.concatenate([np.zeros((1, active.shape[1])), np.cumsum(active, axis=0)])
        shares.append((total[last] - total[first]) / (2 * half))
    found = []
    for speaker in range(activity.shape[1]):
        tries = (
            np.flatnonzero(share[:, speaker] >= least) for least in _SHARES for share in shares
        )
        found.append(next((windows for windows in tries if len(windows)), np.zeros(0, int)))
    return found


def enrol(features: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Voiceprints of the speakers of a recording.

    Parameters
    ----------
    features : (L, E) array
        Speaker embeddings of the recording; see :func:`speaker_features`.
    activity : (4 T, speakers) bool array
        Speech activity in steps of 10 ms, L = ceil(T / 4).

    Returns
    -------
    voiceprints : (speakers, E) float32 array
        Zero for speakers who speak too little.
    """
    prints = [voiceprint(features[windows]) for windows in windows_of_speakers(activity)]
    return np.stack(prints) if prints else np.zeros((0, features.shape[1]), np.float32)
