"""Residual network for faces: the visual branch of AVR-Net.

References
----------
Duta, Liu, Zhu, Shao. Improved residual networks for image and video recognition. ICPR 2020.

Deng, Guo, Xue, Zafeiriou. ArcFace: additive angular margin loss for deep face recognition.
CVPR 2019. https://github.com/deepinsight/insightface (MIT)
"""

from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Module):
    """Residual block of two convolutions with batch normalisation, and no final activation."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x) + self.shortcut(x)


class FaceMap(nn.Module):
    """IResNet50 up to the feature map before its embedding layer."""

    dimension = 512

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.stages = nn.Sequential(
            self._stage(64, 64, 3),
            self._stage(64, 128, 4),
            self._stage(128, 256, 14),
            self._stage(256, self.dimension, 3),
        )
        self.norm = nn.BatchNorm2d(self.dimension)

    @staticmethod
    def _stage(in_channels: int, channels: int, num_blocks: int) -> nn.Sequential:
        first = _Block(in_channels, channels, stride=2)
        return nn.Sequential(first, *(_Block(channels, channels) for _ in range(num_blocks - 1)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 112, 112) in [-1, 1] to (batch, 512, 7, 7)."""
        return self.norm(self.stages(self.stem(pictures)))
