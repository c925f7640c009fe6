"""Residual network with squeeze and excitation, for spectra: the acoustic branch of TalkNet.

References
----------
TalkNet, https://github.com/TaoRuijie/TalkNet-ASD (MIT)

Chung, Huh, Mun, Lee, Heo, Choe et al. In defence of metric learning for speaker recognition.
Interspeech 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class _Excitation(nn.Module):
    """Weight channels by a gate computed from their means over the whole feature map."""

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
    """Two convolutions and a shortcut. ReLU comes before normalisation in the first one."""

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


def residual_stages(channels: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """The four stages (3, 4, 6 and 3 blocks) of a residual network with 34 layers.

    Parameters
    ----------
    channels : sequence of 4 int
        Output channels of each stage. The first stage has as many input channels.
    strides : sequence of 4 int
        Stride of the first block of each stage.
    """
    stages, before = nn.Sequential(), channels[0]
    for width, stride, count in zip(channels, strides, (3, 4, 6, 3), strict=True):
        rest = (SEBlock(width, width) for _ in range(count - 1))
        stages.append(nn.Sequential(SEBlock(before, width, stride), *rest))
        before = width
    return stages


class SEResNet(nn.Module):
    """Spectra at 100 Hz to one 128-d feature per video frame, with context of the whole clip."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 7, stride=(2, 1), padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.stages = residual_stages((16, 32, 64, 128), strides=(1, 2, 2, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, coefficients) to (batch, frames, 128)."""
        x = spectra.transpose(1, 2).unsqueeze(1)
        return self.stages(self.stem(x)).mean(dim=2).transpose(1, 2)
