"""Voices: which one is heard around here, and what a speaker sounds like."""

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

if TYPE_CHECKING:
    import torch
    from pyannote.audio import Model

#: seconds of sound that are embedded together
WINDOW = 1.2
#: pictures from one window to the next
HOP = FRAMES_PER_WINDOW

_HOP_SAMPLES = HOP * SAMPLES_PER_FRAME
#: windows that are encoded together (24 s), and how many more on either side are their context
_BLOCK, _CONTEXT = 150, 6
#: share of a window that is somebody's speech, for it to count as somebody's: preferably, at least
_SHARES = (0.75, 0.25)


def num_windows(num_frames: int) -> int:
    """Windows of so many frames."""
    return -(-num_frames // HOP)


def speaker_features(waveform: torch.Tensor, embedder: Model) -> np.ndarray:
    """Embeddings of windows of 1.2 s, every 0.16 s.

    Window `i` lies around the middle of frames 4 i to 4 i + 3, which is at (4 i + 2) / 25 s. At
    its ends the recording is continued by reflection.

    Parameters
    ----------
    waveform : (1, samples) tensor
        16 kHz.
    embedder : Model
        With ``frame_features`` and ``pool``, such as
        :class:`~pyannote_av.models.embedding.campplus.CAMPPlus`.

    Returns
    -------
    features : (L, E) float32 array
        Unit length, L = ceil(samples // 640 / 4). Zero where there is digital silence.

    Raises
    ------
    ValueError
        When the frames of the embedder do not fit the windows.
    """
    import torch

    centre = embedder.receptive_field_center
    step = centre(1) - centre(0)
    size, hop = round(WINDOW * SAMPLE_RATE / step), _HOP_SAMPLES // step
    if hop * step != _HOP_SAMPLES:
        raise ValueError(f"{_HOP_SAMPLES} samples are no multiple of {step}, a step of {embedder}")
    count = num_windows(waveform.shape[1] * round(FRAME_RATE) // SAMPLE_RATE)
    features = np.zeros((count, embedder.dimension), np.float32)
    if not count:
        return features
    # sample of the padded waveform that the middle of window 0 is to be at
    middle = (centre(size // 2 - 1) + centre(size // 2)) / 2
    left = round(middle) - _HOP_SAMPLES // 2
    reach = centre(size - 1) + embedder.receptive_field_size()
    right = max(0, (count - 1) * _HOP_SAMPLES + reach - left - waveform.shape[1])
    padded = torch.from_numpy(np.pad(waveform[0].numpy(), (left, right), "reflect"))
    for first in range(0, count, _BLOCK):
        last = min(count, first + _BLOCK)
        low, high = max(0, first - _CONTEXT), min(count, last + _CONTEXT)
        block = padded[low * _HOP_SAMPLES : (high - 1) * _HOP_SAMPLES + reach]
        with torch.inference_mode():
            frames = embedder.frame_features(block[None, None].to(embedder.device))[0]
            windows = frames.unfold(1, size, hop).transpose(0, 1)
            embedded = embedder.pool(windows[first - low : last - low]).cpu()
        features[first:last] = torch.nn.functional.normalize(embedded, dim=1).numpy()
    features[~np.isfinite(features).all(axis=1)] = 0
    features[_silent(padded.numpy(), count, left)] = 0
    return features


def _silent(padded: np.ndarray, count: int, left: int) -> np.ndarray:
    """Which windows hold nothing but zeros"""
    sounding = np.concatenate([[0], np.cumsum(padded != 0)])
    first = left + _HOP_SAMPLES // 2 - round(WINDOW * SAMPLE_RATE / 2)
    first = np.maximum(first + _HOP_SAMPLES * np.arange(count), 0)
    last = np.minimum(first + round(WINDOW * SAMPLE_RATE), len(padded))
    return sounding[last] == sounding[first]


def voiceprint(features: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """What a speaker sounds like: the mean of windows, of unit length.

    Parameters
    ----------
    features : (L, E) array
        Windows of the speaker.
    weights : (L,) array, optional
        How much each counts; all alike unless given.

    Returns
    -------
    voiceprint : (E,) float32 array
        Zero, which stands for an unknown voice, where nothing counts.
    """
    features = np.asarray(features, np.float32)
    total = features.sum(axis=0) if weights is None else np.float32(weights) @ features
    return total / max(float(np.linalg.norm(total)), 1e-6)


def stretch_voices(features: np.ndarray, stretches: np.ndarray) -> np.ndarray:
    """What is heard in stretches of a recording: the mean of the windows that lie in each.

    Parameters
    ----------
    features : (L, E) array
        Of the recording; see :func:`speaker_features`.
    stretches : (n, 2) float array
        Start and end in seconds. Those that are too short for a window have the nearest one.

    Returns
    -------
    voices : (n, E) float32 array
        Unit length, zero where there is digital silence.
    """
    if not len(stretches) or not len(features):
        return np.zeros((len(stretches), features.shape[1]), np.float32)
    # middle of window i: (HOP i + HOP / 2) / FRAME_RATE
    start, end = (np.asarray(stretches, float).T * FRAME_RATE - HOP / 2) / HOP
    half = WINDOW * FRAME_RATE / HOP / 2
    first, last = np.ceil(start + half - 1e-6), np.floor(end - half + 1e-6) + 1
    nearest = np.floor((start + end) / 2 + 0.5)
    first, last = (np.where(last > first, x, nearest + k) for k, x in enumerate((first, last)))
    first = first.clip(0, len(features) - 1).astype(int)
    last = np.maximum(last.clip(0, len(features)).astype(int), first + 1)
    spans = zip(first.tolist(), last.tolist(), strict=True)
    voices = np.stack([features[a:b].sum(axis=0, dtype=np.float32) for a, b in spans])
    length = np.linalg.norm(voices, axis=1, keepdims=True)
    return (voices / np.maximum(length, 1e-6)).astype(np.float32)


def windows_of_speakers(activity: np.ndarray) -> list[np.ndarray]:
    """Windows that lie in the turns of each speaker.

    Of those that are his speech to three quarters, the ones he has alone, if there are any; or
    else those with overlap; of a speaker with only shorter turns, those that hold a quarter.

    Parameters
    ----------
    activity : (4 T, speakers) bool array
        Who speaks in steps of 10 ms.

    Returns
    -------
    windows : list of (n,) int arrays
        Empty for who hardly speaks at all.
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
        Of the recording; see :func:`speaker_features`.
    activity : (4 T, speakers) bool array
        Who speaks in steps of 10 ms, L = ceil(T / 4).

    Returns
    -------
    voiceprints : (speakers, E) float32 array
        Zero for who hardly speaks at all.
    """
    prints = [voiceprint(features[windows]) for windows in windows_of_speakers(activity)]
    return np.stack(prints) if prints else np.zeros((0, features.shape[1]), np.float32)
