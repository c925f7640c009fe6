"""A visual encoder that learns, and runs, on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from pyannote_av.models.blocks.separable import conv_norm_relu
from pyannote_av.models.blocks.visual_frontend import normalise


class _Temporal(nn.Module):
    """What changes in a few frames: depthwise over time, then across features, residual."""

    def __init__(self, dimension: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(dimension, dimension, 5, padding=2, groups=dimension, bias=False),
            nn.BatchNorm1d(dimension),
            nn.ReLU(),
            nn.Conv1d(dimension, dimension, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, dimension, frames) to the same."""
        return x + self.layers(x)


class CompactEncoder(nn.Module):
    """Strided convolutions over each picture and what it changed, then convolutions over time.

    About a thirtieth of the operations of LR-ASD's encoder on pictures of 56 x 56 pixels, and a
    hundredth of what that one takes on pictures of 112 x 112. The change from picture to picture is
    given, not learnt: mouths that move are most of what there is to see.
    """

    dimension = 128

    def __init__(self):
        super().__init__()
        channels = (2, 16, 32, 64, self.dimension)
        self.pictures = nn.Sequential(
            *(
                conv_norm_relu(a, b, (size, size), stride=2)
                for a, b, size in zip(channels, channels[1:], (5, 3, 3, 3), strict=False)
            )
        )
        self.gather = nn.Linear(2 * self.dimension, self.dimension)
        self.temporal = nn.Sequential(*(_Temporal(self.dimension) for _ in range(3)))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """(batch, frames, height, width) in [0, 255] to (batch, frames, 128)."""
        x = normalise(faces)
        change = torch.diff(x, dim=1, prepend=x[:, :1])
        x = torch.stack([x, 2 * change], dim=2).flatten(0, 1)
        x = self.pictures(x.contiguous(memory_format=torch.channels_last))
        x = torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)
        x = self.gather(x).unflatten(0, faces.shape[:2])
        return self.temporal(x.transpose(1, 2)).transpose(1, 2)
