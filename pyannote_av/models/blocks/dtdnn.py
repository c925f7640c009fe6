"""Blocks of CAM++: a densely connected TDNN with context-aware masking.

Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware
Masking", Interspeech 2023 (https://arxiv.org/abs/2303.00332). Parameters have the same names as in
the public checkpoints of the 3D-Speaker project. All sequences are (batch, channels, time).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


def activation(channels: int) -> nn.Sequential:
    """Batch normalisation, then ReLU."""
    return nn.Sequential(
        OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU(inplace=True))
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; `stride` acts on frequency only."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, (stride, 1), bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(residual)) + self.shortcut(x), inplace=True)


class FrontEnd(nn.Module):
    """Front-end convolution module, which divides the number of frequencies by 8.

    (batch, frequency, time) -> (batch, channels * frequency / 8, time)
    """

    def __init__(self, channels: int = 32):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x.unsqueeze(1))), inplace=True)
        x = self.layer2(self.layer1(x))
        return F.relu(self.bn2(self.conv2(x)), inplace=True).flatten(1, 2)


class TDNN(nn.Module):
    """Convolution over time that halves the frame rate."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.linear = nn.Conv1d(in_channels, out_channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = activation(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlinear(self.linear(x))


class ContextAwareMasking(nn.Module):
    """Dilated convolution whose output is gated by global and segment-level context."""

    #: number of frames over which segment-level context is averaged (2 s)
    SEGMENT = 100

    def __init__(self, in_channels: int, out_channels: int, dilation: int):
        super().__init__()
        self.linear_local = nn.Conv1d(
            in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(in_channels, in_channels // 2, 1)
        self.linear2 = nn.Conv1d(in_channels // 2, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        segments = F.avg_pool1d(x, self.SEGMENT, self.SEGMENT, ceil_mode=True)
        context = x.mean(dim=-1, keepdim=True) + segments
        mask = torch.sigmoid(self.linear2(F.relu(self.linear1(context), inplace=True)))
        mask = mask.repeat_interleave(self.SEGMENT, dim=-1)[..., : x.shape[-1]]
        return self.linear_local(x) * mask


class DenseLayer(nn.Module):
    """Bottleneck followed by a masked convolution."""

    def __init__(self, in_channels: int, growth: int, bottleneck: int, dilation: int):
        super().__init__()
        self.nonlinear1 = activation(in_channels)
        self.linear1 = nn.Conv1d(in_channels, bottleneck, 1, bias=False)
        self.nonlinear2 = activation(bottleneck)
        self.cam_layer = ContextAwareMasking(bottleneck, growth, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class DenseBlock(nn.Module):
    """Layers that each receive the input of the block and the output of all previous layers."""

    def __init__(self, num_layers: int, in_channels: int, growth: int, dilation: int):
        super().__init__()
        for i in range(num_layers):
            layer = DenseLayer(in_channels + i * growth, growth, 4 * growth, dilation)
            self.add_module(f"tdnnd{i + 1}", layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Transition(nn.Module):
    """Activation, then a projection to `out_channels`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.nonlinear = activation(in_channels)
        self.linear = nn.Conv1d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.nonlinear(x))


class Projection(nn.Module):
    """Linear layer and normalisation that turn statistics into an embedding."""

    def __init__(self, in_channels: int, dimension: int):
        super().__init__()
        self.linear = nn.Conv1d(in_channels, dimension, 1, bias=False)
        self.nonlinear = nn.Sequential(
            OrderedDict(batchnorm=nn.BatchNorm1d(dimension, affine=False))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlinear(self.linear(x.unsqueeze(-1)).squeeze(-1))
