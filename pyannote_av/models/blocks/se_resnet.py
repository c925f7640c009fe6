"""Residual network with squeeze and excitation, for spectra: the acoustic branch of TalkNet.

References
----------
TalkNet, https://github.com/TaoRuijie/TalkNet-ASD (MIT)

Chung, Huh, Mun, Lee, Heo, Choe et al. In defence of metric learning for speaker recognition.
Interspeech 2020.
"""

from __future__ import annotations

import torch
from torch import nn


class _Excitation(nn.Module):
    """Weigh channels by a gate computed from their means over the whole map."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


class SEBlock(nn.Module):
    """Two convolutions and a shortcut; the first is followed by ReLU, then normalisation."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.excitation = _Excitation(channels)
        self.shortcut = nn.Sequential()
        if in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x).relu())
        y = self.excitation(self.norm2(self.conv2(y)))
        return (y + self.shortcut(x)).relu()


class SEResNet(nn.Module):
    """Spectra at 100 Hz to one 128-d feature per video frame; sees the whole of time."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 7, stride=(2, 1), padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.stages = nn.Sequential(
            self._stage(16, 16, 3),
            self._stage(16, 32, 4, stride=2),
            self._stage(32, 64, 6, stride=2),
            self._stage(64, 128, 3),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, channels: int, num_blocks: int, stride: int = 1) -> nn.Sequential:
        first = SEBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(SEBlock(channels, channels) for _ in range(num_blocks - 1)))

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, coefficients) to (batch, frames, 128)."""
        x = spectra.transpose(1, 2).unsqueeze(1)
        return self.stages(self.stem(x)).mean(dim=2).transpose(1, 2)
