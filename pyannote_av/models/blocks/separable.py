"""Factorised convolutions over images, spectra and time: the blocks of light ASD networks.

Three-dimensional convolutions whose kernels extend in space *or* in time are computed as
two-dimensional ones on ``channels_last`` tensors. Switching between space and time is then only a
change of view. Results are the same, in a quarter of the time on a CPU.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_Module = TypeVar("_Module", bound=nn.Module)


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int = 1
) -> nn.Sequential:
    """Convolution with `same` padding, batch normalisation and ReLU."""
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
    """Two spatial convolutions per image, then two temporal ones per pixel.

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
        return _along_time(self.temporal, self.spatial(pictures), num_frames)


class TwoPathVideoBlock(nn.Module):
    """Two paths with kernels of different sizes, in space and then in time, added and mixed.

    Parameters
    ----------
    in_channels, out_channels : int
    kernels : (int, int), optional
        Kernel size of each path.
    stride : int, optional
        Spatial stride.

    References
    ----------
    Light-ASD, https://github.com/Junhua-Liao/Light-ASD (MIT)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernels: tuple[int, int] = (3, 5),
        stride: int = 1,
    ):
        super().__init__()
        self.spatial = nn.ModuleList(
            conv_norm_relu(in_channels, out_channels, (k, k), stride) for k in kernels
        )
        self.temporal = nn.ModuleList(
            conv_norm_relu(out_channels, out_channels, (k, 1)) for k in kernels
        )
        self.mix = conv_norm_relu(out_channels, out_channels, (1, 1))

    def forward(self, pictures: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(batch x num_frames, in_channels, h, w) to (batch x num_frames, out_channels, h', w')."""
        first, second = (
            _along_time(temporal, spatial(pictures), num_frames)
            for spatial, temporal in zip(self.spatial, self.temporal, strict=True)
        )
        return self.mix(first + second)


def _along_time(layers: nn.Module, pictures: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Run layers over (time, pixels) instead of over the (height, width) of each image."""
    _, channels, height, width = pictures.shape
    x = pictures.permute(0, 2, 3, 1).reshape(-1, num_frames, height * width, channels)
    x = layers(x.permute(0, 3, 1, 2))
    x = x.permute(0, 2, 3, 1).reshape(-1, height, width, x.shape[1])
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


class TwoPathSpectrumBlock(nn.Module):
    """Two paths with kernels of different sizes, along frequency and then time, added and mixed.

    Parameters
    ----------
    in_channels, out_channels : int
    kernels : (int, int), optional
        Kernel size of each path.
    """

    def __init__(self, in_channels: int, out_channels: int, kernels: tuple[int, int] = (3, 5)):
        super().__init__()
        self.spectral = nn.ModuleList(
            conv_norm_relu(in_channels, out_channels, (k, 1)) for k in kernels
        )
        self.temporal = nn.ModuleList(
            conv_norm_relu(out_channels, out_channels, (1, k)) for k in kernels
        )
        self.mix = conv_norm_relu(out_channels, out_channels, (1, 1))

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, frequencies, frames) to (batch, out_channels, same, same)."""
        first, second = (
            temporal(spectral(spectra))
            for spectral, temporal in zip(self.spectral, self.temporal, strict=True)
        )
        return self.mix(first + second)


class ChannelAttention(nn.Module):
    """Weight each channel of each frame by a gate computed from all channels of that frame."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv1d(num_channels, num_channels, kernel_size=1, bias=False),
            nn.BatchNorm1d(num_channels, momentum=0.01, eps=0.001),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, channels) to the same shape."""
        return x * self.gate(x.transpose(1, 2)).transpose(1, 2)


def initialise(module: nn.Module) -> None:
    """Initialise weights for training from scratch, like the authors of these networks.

    Kernels of convolutions and weights of recurrent layers are drawn from the normal distribution
    of He et al. (2015). Biases of recurrent layers are zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.GRU):
            for name, parameter in layer.named_parameters():
                if name.startswith("weight"):
                    nn.init.kaiming_normal_(parameter)
                else:
                    nn.init.zeros_(parameter)


def fold(model: _Module) -> _Module:
    """Copy a network for inference, with batch normalisation folded into convolutions.

    Outputs are the same (to 1e-5), in a third of the time on a CPU.
    """
    model = deepcopy(model).eval()
    for layers in model.modules():
        if not isinstance(layers, nn.Sequential) or len(layers) < 2:
            continue
        if isinstance(layers[0], nn.Conv2d) and isinstance(layers[1], nn.BatchNorm2d):
            layers[0] = fuse_conv_bn_eval(layers[0], layers[1])
            layers[0].to(memory_format=torch.channels_last)
            layers[1] = nn.Identity()
    return model
