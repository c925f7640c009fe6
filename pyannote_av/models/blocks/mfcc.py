"""Mel-frequency cepstral coefficients that TalkNet and its descendants were trained on."""

from __future__ import annotations

import math

import torch
from torch import nn

# exact zeros are replaced by this before the logarithm, as in python_speech_features
_FLOOR = torch.finfo(torch.float64).eps


def _mel(frequency: torch.Tensor) -> torch.Tensor:
    return 2595.0 * torch.log10(1.0 + frequency / 700.0)


def _hertz(mel: torch.Tensor) -> torch.Tensor:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_filters(num_filters: int, fft_size: int, sample_rate: int) -> torch.Tensor:
    """Triangular filters whose corners are rounded down to Fourier bins.

    Returns
    -------
    filters : (fft_size // 2 + 1, num_filters) tensor
        Weights of the power spectrum, from 0 Hz to half the sample rate.
    """
    highest = _mel(torch.tensor(sample_rate / 2, dtype=torch.float64))
    mels = torch.linspace(0.0, float(highest), num_filters + 2, dtype=torch.float64)
    corners = torch.floor((fft_size + 1) * _hertz(mels) / sample_rate)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    filters = torch.where(bins < centre, rising, falling)
    return torch.where((bins >= left) & (bins < right), filters, 0.0).float()


class MFCC(nn.Module):
    """MFCC as computed by the package ``python_speech_features`` (0.6).

    Results are the same as those of
    ``python_speech_features.mfcc(signal, 16000, numcep=13, winlen=0.025, winstep=0.010)`` where
    ``signal`` holds 16-bit integers: rectangular windows, pre-emphasis of the whole signal, 26
    filters, orthonormal DCT, lifter 22, log energy in place of the zeroth coefficient. This
    implementation is differentiable and supports batches.

    Parameters
    ----------
    sample_rate : int, optional
        In Hz.

    References
    ----------
    https://github.com/jameslyons/python_speech_features
    """

    def __init__(self, sample_rate: int = 16000):
        super().__init__()
        self.window = round(0.025 * sample_rate)
        self.step = round(0.010 * sample_rate)
        self.fft_size, self.num_coefficients, num_filters, lifter = 512, 13, 26, 22

        n = torch.arange(self.num_coefficients, dtype=torch.float64)
        k = torch.arange(num_filters, dtype=torch.float64)[:, None]
        dct = torch.cos(math.pi / num_filters * (k + 0.5) * n) * math.sqrt(2.0 / num_filters)
        dct[:, 0] /= math.sqrt(2.0)
        dct = dct * (1.0 + lifter / 2.0 * torch.sin(math.pi * n / lifter))
        # constants: they move to the device of the module but are not saved with its weights
        filters = mel_filters(num_filters, self.fft_size, sample_rate)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("dct", dct.float(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Number of frames for `num_samples` samples. The last may extend beyond the end."""
        return 1 + max(0, -((self.window - num_samples) // self.step))

    def forward(self, waveforms: torch.Tensor, num_frames: int | None = None) -> torch.Tensor:
        """Compute coefficients.

        Parameters
        ----------
        waveforms : (..., num_samples) tensor
            Signals in [-1, 1].
        num_frames : int, optional
            Cut the signal, or pad it with digital silence, to this number of frames. Defaults to
            the number of frames that cover the signal, as in the reference implementation.

        Returns
        -------
        coefficients : (..., num_frames, 13) tensor
        """
        num_samples = waveforms.shape[-1]
        count = self.num_frames(num_samples) if num_frames is None else num_frames
        padding = (0, (count - 1) * self.step + self.window - num_samples)
        # the models were trained on 16-bit integers
        signal = waveforms * 32768.0
        if num_frames is not None:
            signal = nn.functional.pad(signal, padding)
        signal = torch.cat([signal[..., :1], signal[..., 1:] - 0.97 * signal[..., :-1]], dim=-1)
        if num_frames is None:  # the reference pads after pre-emphasis
            signal = nn.functional.pad(signal, padding)

        frames = signal.unfold(-1, self.window, self.step)
        spectrum = torch.fft.rfft(frames, n=self.fft_size)
        power = (spectrum.real.square() + spectrum.imag.square()) / self.fft_size
        energy = power.sum(dim=-1, keepdim=True)
        bands = power @ self.filters
        cepstra = _log(bands) @ self.dct
        return torch.cat([_log(energy), cepstra[..., 1:]], dim=-1)


def _log(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0, _FLOOR, x).log()
