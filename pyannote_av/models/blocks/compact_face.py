"""Compact visual encoder that can be trained, and run, on a CPU."""

from __future__ import annotations

import torch
from torch import nn

#: rows and columns of the lower face in a crop, as fractions, with a margin around the mouth
_ROWS, _COLUMNS = (0.25, 1.0), (0.125, 0.875)
#: lower bound on the standard deviation by which crops are divided, in grey levels
_FLAT = 4.0


def _picture_layer(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution that halves width and height, with normalisation within each image."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=2, padding=kernel // 2, bias=False),
        nn.GroupNorm(4, out_channels),
        nn.ReLU(inplace=True),
    )


class _Temporal(nn.Module):
    """Residual block: depthwise convolution over time, then a layer across features."""

    def __init__(self, dimension: int):
        super().__init__()
        self.along = nn.Conv1d(dimension, dimension, 5, padding=2, groups=dimension)
        self.across = nn.Sequential(
            nn.LayerNorm(dimension), nn.ReLU(), nn.Linear(dimension, dimension)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to the same shape."""
        return x + self.across(self.along(x.transpose(1, 2)).transpose(1, 2))


def _lower_face(faces: torch.Tensor) -> torch.Tensor:
    """Cut out mouth, nose and jaw, and normalise each image to zero mean and unit variance."""
    height, width = faces.shape[-2:]
    rows, columns = (
        slice(round(low * size), round(high * size))
        for (low, high), size in ((_ROWS, height), (_COLUMNS, width))
    )
    x = faces[..., rows, columns]
    x = x - x.mean(dim=(-2, -1), keepdim=True)
    variance = x.square().sum(dim=(-2, -1), keepdim=True) / (x.shape[-1] * x.shape[-2] - 1)
    return x / variance.sqrt().clamp(min=_FLAT)


class CompactEncoder(nn.Module):
    """Strided convolutions over the lower face and its change, then convolutions over time.

    On crops of 56 x 56 pixels, training takes less than a hundredth of the time of LR-ASD's encoder
    on crops of 112 x 112. The difference between consecutive crops is an input, because mouth
    motion is the main visual cue, so the network does not have to learn it. There is no batch
    normalisation, because the number of faces varies.
    """

    dimension = 128

    def __init__(self):
        super().__init__()
        self.pictures = nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 16, 5, stride=2, padding=2), nn.ReLU(inplace=True)),
            _picture_layer(16, 32, 3),
            _picture_layer(32, 64, 3),
            _picture_layer(64, self.dimension, 3),
        )
        self.gather = nn.Linear(2 * self.dimension, self.dimension)
        self.temporal = nn.Sequential(*(_Temporal(self.dimension) for _ in range(3)))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """(batch, frames, height, width) in [0, 255] to (batch, frames, 128)."""
        x = _lower_face(faces)
        change = torch.diff(x, dim=1, prepend=x[:, :1])
        x = torch.stack([x, 2 * change], dim=2).flatten(0, 1)
        x = self.pictures(x.contiguous(memory_format=torch.channels_last))
        x = torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)
        return self.temporal(self.gather(x).unflatten(0, faces.shape[:2]))
