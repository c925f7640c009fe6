"""Conformer block that is invariant to padding, at a cost linear in duration.

References
----------
Gulati, Qin, Chiu, Parmar, Zhang, Yu et al. Conformer: convolution-augmented transformer for speech
recognition. Interspeech 2020 (https://arxiv.org/abs/2005.08100).

Differences from the paper: attention covers a limited window of time and uses rotary position
embeddings, instead of the whole sequence and relative embeddings. The convolution module uses layer
instead of batch normalisation. Dropout drops the same units in all frames, which costs nothing
on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.models.blocks.window_attention import WindowAttention, key_bias


class LockedDropout(nn.Module):
    """Dropout of the same units in all frames of a sequence.

    Gal, Ghahramani. A theoretically grounded application of dropout in recurrent neural networks.
    NeurIPS 2016 (https://arxiv.org/abs/1512.05287).
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to the same shape."""
        if not (self.training and self.probability):
            return x
        return x * F.dropout(torch.ones_like(x[:, :1]), self.probability)


def feedforward(dimension: int, expansion: int, dropout: float) -> nn.Sequential:
    """Layer normalisation, two linear layers with a SiLU in between, and dropout."""
    return nn.Sequential(
        nn.LayerNorm(dimension),
        nn.Linear(dimension, expansion * dimension),
        nn.SiLU(),
        nn.Linear(expansion * dimension, dimension),
        LockedDropout(dropout),
    )


class ConvolutionModule(nn.Module):
    """Gated depthwise convolution over time.

    Parameters
    ----------
    dimension : int
    kernel : int
        Kernel size in frames; odd.
    dropout : float
    """

    def __init__(self, dimension: int, kernel: int, dropout: float):
        super().__init__()
        self.gated = nn.Sequential(
            nn.LayerNorm(dimension), nn.Linear(dimension, 2 * dimension), nn.GLU()
        )
        # 2D convolution over one column: on a CPU, several times faster than Conv1d
        self.depthwise = nn.Conv2d(
            dimension, dimension, (kernel, 1), padding=(kernel // 2, 0), groups=dimension
        )
        self.mix = nn.Sequential(
            nn.LayerNorm(dimension),
            nn.SiLU(),
            nn.Linear(dimension, dimension),
            LockedDropout(dropout),
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to the same shape. `mask` (batch, frames) excludes padding."""
        x = self.gated(x) * mask.unsqueeze(-1)
        # permuting (batch, frames, channels) gives a channels_last tensor without a copy
        x = self.depthwise(x.unsqueeze(2).permute(0, 3, 1, 2))
        return self.mix(x.permute(0, 2, 3, 1).squeeze(2))


class Conformer(nn.Module):
    """Half-step feedforward, attention, convolution, half-step feedforward, normalisation.

    Parameters
    ----------
    dimension : int
    num_heads : int
    window : int
        Frames on either side that attention covers.
    expansion : int, optional
        Size of the hidden layer of a feedforward module, as a multiple of `dimension`.
    kernel : int, optional
        Kernel size of the convolution, in frames.
    dropout : float, optional
    """

    def __init__(
        self,
        dimension: int,
        num_heads: int,
        window: int,
        expansion: int = 4,
        kernel: int = 15,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.before = feedforward(dimension, expansion, dropout)
        self.norm = nn.LayerNorm(dimension)
        self.attention = WindowAttention(dimension, num_heads, window)
        self.dropout = LockedDropout(dropout)
        self.convolution = ConvolutionModule(dimension, kernel, dropout)
        self.after = feedforward(dimension, expansion, dropout)
        self.last_norm = nn.LayerNorm(dimension)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Exchange information between frames.

        Parameters
        ----------
        x : (batch, frames, dimension) tensor
        mask : (batch, frames) bool tensor
            True for frames that are not padding. Padding frames are not read, and their output is
            undefined.

        Returns
        -------
        x : (batch, frames, dimension) tensor
        """
        x = x + 0.5 * self.before(x)
        normed = self.norm(x)
        x = x + self.dropout(self.attention(normed, normed, key_bias(mask)))
        x = x + self.convolution(x, mask)
        return self.last_norm(x + 0.5 * self.after(x))
