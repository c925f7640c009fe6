"""Speaker feature maps over time and frequency: the acoustic branch of AVR-Net.

References
----------
AVA-AVD, https://github.com/zcxu-eric/AVA-AVD (BSD-3-Clause)

Chung, Huh, Mun, Lee, Heo, Choe et al. In defence of metric learning for speaker recognition.
Interspeech 2020.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchaudio.transforms import MelSpectrogram

from pyannote_av.models.blocks.se_resnet import residual_stages

#: shorter waveforms are repeated to this duration, in seconds
WINDOW = 2.0

_LOUDNESS, _SILENCE = 0.1, 1e-4


class SpeakerSpectrum(nn.Module):
    """Log-mel spectrograms of waveforms with normalised loudness.

    Waveforms are scaled to a root mean square of 0.1 and pre-emphasised. Power spectra of 25 ms
    (Hamming) every 10 ms are reduced to 64 mel bands. Their logarithm is normalised to mean 0 and
    variance 1 over time in each band.

    Parameters
    ----------
    sample_rate : int, optional
        In Hz.
    """

    def __init__(self, sample_rate: int = 16000):
        super().__init__()
        self.num_samples = round(WINDOW * sample_rate)
        # constant, but saved with the weights, because published checkpoints have their own
        self.register_buffer("emphasis", torch.tensor([[[-0.97, 1.0]]]))
        self.mel = MelSpectrogram(
            sample_rate,
            n_fft=512,
            win_length=round(0.025 * sample_rate),
            hop_length=round(0.010 * sample_rate),
            window_fn=torch.hamming_window,
            n_mels=64,
        )

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute spectrograms.

        Parameters
        ----------
        waveforms : (batch, num_samples) tensor
            Waveforms of less than 2 s are repeated to fill 2 s.

        Returns
        -------
        spectra : (batch, 64, num_frames) tensor
            201 frames for 2 s.
        """
        num_samples = waveforms.shape[-1]
        if num_samples < self.num_samples:
            times = math.ceil(self.num_samples / num_samples)
            waveforms = waveforms.repeat(1, times)[:, : self.num_samples]
        loudness = waveforms.square().mean(dim=-1, keepdim=True).sqrt()
        x = waveforms * (_LOUDNESS / loudness.clamp_min(_SILENCE))
        x = F.conv1d(F.pad(x.unsqueeze(1), (1, 0), "reflect"), self.emphasis).squeeze(1)
        return F.instance_norm((self.mel(x) + 1e-6).log())


class SpeakerMap(nn.Module):
    """Residual network with 34 layers and squeeze-and-excitation, without pooling."""

    dimension = 256

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32))
        self.stages = residual_stages((32, 64, 128, self.dimension), strides=(1, 2, 2, 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, 1, bands, frames) to (batch, 256, bands / 8, frames / 8)."""
        return self.stages(self.stem(spectra))
