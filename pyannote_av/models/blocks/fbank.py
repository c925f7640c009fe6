"""Log mel filterbank energies as computed by Kaldi, with support for batches."""

from __future__ import annotations

import math

import torch
from torch import nn

_EPSILON = torch.finfo(torch.float32).eps


def _mel(frequency: float) -> float:
    """HTK mel scale, natural logarithm."""
    return 1127.0 * math.log1p(frequency / 700.0)


def mel_filters(
    num_filters: int,
    fft_size: int,
    sample_rate: int,
    low: float = 20.0,
    high: float | None = None,
) -> torch.Tensor:
    """Triangular filters, equally spaced and equally wide on the mel scale.

    Parameters
    ----------
    num_filters : int
        Number of filters.
    fft_size : int
        Number of points of the Fourier transform.
    sample_rate : int
        In Hz.
    low, high : float, optional
        Frequency range in Hz. `high` defaults to half the sample rate.

    Returns
    -------
    filters : (fft_size // 2 + 1, num_filters) tensor
        Weights of the power spectrum. As in Kaldi, the last bin (Nyquist) is not used.
    """
    # single precision on purpose: published models were trained with these filters
    high = sample_rate / 2 if high is None else high
    spacing = (_mel(high) - _mel(low)) / (num_filters + 1)
    index = torch.arange(num_filters)
    left, centre, right = (_mel(low) + (index + i) * spacing for i in (0.0, 1.0, 2.0))
    frequencies = sample_rate / fft_size * torch.arange(fft_size // 2)
    bins = (1127.0 * (1.0 + frequencies / 700.0).log())[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    return nn.functional.pad(filters, (0, 0, 0, 1))


class Fbank(nn.Module):
    """Kaldi-compatible log mel filterbank energies.

    Results are the same as those of
    ``torchaudio.compliance.kaldi.fbank(waveform, num_mel_bins=num_filters,
    sample_frequency=sample_rate, dither=0)``, which handles one signal at a time: 25 ms Povey
    windows every 10 ms that lie entirely within the signal, mean removed, pre-emphasis 0.97.

    Parameters
    ----------
    num_filters : int, optional
        Number of mel filters.
    sample_rate : int, optional
        In Hz.

    References
    ----------
    https://kaldi-asr.org/doc/feat.html
    """

    def __init__(self, num_filters: int = 80, sample_rate: int = 16000):
        super().__init__()
        self.window_size = round(0.025 * sample_rate)
        self.step = round(0.010 * sample_rate)
        self.fft_size = 1 << (self.window_size - 1).bit_length()
        window = torch.hann_window(self.window_size, periodic=False) ** 0.85
        # constants: they move to the device of the module but are not saved with its weights
        self.register_buffer("window", window, persistent=False)
        filters = mel_filters(num_filters, self.fft_size, sample_rate)
        self.register_buffer("filters", filters, persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Number of frames for a signal of `num_samples` samples (0 when shorter than 25 ms)."""
        return max(0, (num_samples - self.window_size) // self.step + 1)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute features.

        Parameters
        ----------
        waveforms : (..., num_samples) tensor
            Signals, at least 25 ms long.

        Returns
        -------
        features : (..., num_frames, num_filters) tensor

        Raises
        ------
        ValueError
            When the signals are shorter than one window.
        """
        if waveforms.shape[-1] < self.window_size:
            raise ValueError(
                f"{waveforms.shape[-1]} samples are too short for one window of "
                f"{self.window_size} samples"
            )
        frames = waveforms.unfold(-1, self.window_size, self.step)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        # pre-emphasis within each frame; the first sample is its own predecessor
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - 0.97 * previous) * self.window
        power = torch.fft.rfft(frames, n=self.fft_size).abs().square()
        return (power @ self.filters).clamp(min=_EPSILON).log()
