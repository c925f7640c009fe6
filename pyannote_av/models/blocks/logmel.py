"""Log-mel spectra that VGGish and LoCoNet were trained on."""

from __future__ import annotations

import torch
from torch import nn


def _mel(frequency: torch.Tensor) -> torch.Tensor:
    return 1127.0 * torch.log(1.0 + frequency / 700.0)


def mel_filters(
    num_filters: int, fft_size: int, sample_rate: int, lowest: float, highest: float
) -> torch.Tensor:
    """Triangular filters on the mel scale.

    Parameters
    ----------
    num_filters, fft_size, sample_rate : int
    lowest, highest : float
        Start of the first filter and end of the last one, in Hz.

    Returns
    -------
    filters : (fft_size // 2 + 1, num_filters) double tensor
        Weights of the magnitude spectrum, from 0 Hz (with weight 0) to half the sample rate.
    """
    bins = torch.linspace(0.0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)
    first, last = _mel(torch.tensor([lowest, highest], dtype=torch.float64)).tolist()
    corners = torch.linspace(first, last, num_filters + 2, dtype=torch.float64)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    mels = _mel(bins)[:, None]
    rising = (mels - left) / (centre - left)
    falling = (right - mels) / (right - centre)
    filters = torch.minimum(rising, falling).clamp_min(0.0)
    filters[0] = 0.0
    return filters


class LogMel(nn.Module):
    """Log-mel spectra as computed by VGGish, but from 16-bit integers as in LoCoNet.

    Windows of 25 ms (periodic Hann) every 10 ms, magnitude spectrum, 64 bands from 125 to 7500 Hz,
    logarithm of the magnitude in each band plus 0.01. VGGish itself scales the signal to [-1, 1]
    first. LoCoNet was trained on the integers in the audio file, so samples are multiplied by 32768
    here.

    Parameters
    ----------
    sample_rate : int, optional
        In Hz.

    References
    ----------
    https://github.com/harritaylor/torchvggish (Apache-2.0)
    """

    def __init__(self, sample_rate: int = 16000):
        super().__init__()
        self.window = round(0.025 * sample_rate)
        self.step = round(0.010 * sample_rate)
        self.fft_size = 512
        filters = mel_filters(64, self.fft_size, sample_rate, lowest=125.0, highest=7500.0)
        # constants: they move to the device of the module but are not saved with its weights
        self.register_buffer("filters", filters.float(), persistent=False)
        hann = torch.hann_window(self.window, periodic=True, dtype=torch.float64)
        self.register_buffer("hann", hann.float(), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Number of complete windows in `num_samples` samples."""
        return max(0, 1 + (num_samples - self.window) // self.step)

    def forward(self, waveforms: torch.Tensor, num_frames: int | None = None) -> torch.Tensor:
        """Compute spectra.

        Parameters
        ----------
        waveforms : (..., num_samples) tensor
            Signals in [-1, 1].
        num_frames : int, optional
            Cut the signal, or pad it with digital silence, to this number of frames. Defaults to
            the number of complete windows, as in the reference implementation.

        Returns
        -------
        spectra : (..., num_frames, 64) tensor
        """
        num_samples = waveforms.shape[-1]
        count = self.num_frames(num_samples) if num_frames is None else num_frames
        needed = (count - 1) * self.step + self.window
        # the models were trained on 16-bit integers
        signal = nn.functional.pad(waveforms * 32768.0, (0, needed - num_samples))
        frames = signal.unfold(-1, self.window, self.step)
        magnitude = torch.fft.rfft(frames * self.hann, n=self.fft_size).abs()
        return (magnitude @ self.filters + 0.01).log()
