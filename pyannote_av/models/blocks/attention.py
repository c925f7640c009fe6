"""Attention over time, between two streams or within one, as in TalkNet and LoCoNet."""

from __future__ import annotations

import torch
from torch import nn


class AttentionLayer(nn.Module):
    """Transformer layer whose shortcut follows the stream that is attended to.

    One stream gives the queries. The other one gives the keys and values, and the result is added
    to it. The published code does so; in other networks the shortcut follows the queries. If both
    are the same stream, this is an ordinary self-attention layer.

    Parameters
    ----------
    dimension : int
    num_heads : int, optional
    dropout : float, optional

    References
    ----------
    TalkNet, https://github.com/TaoRuijie/TalkNet-ASD (MIT)
    """

    def __init__(self, dimension: int, num_heads: int = 8, dropout: float = 0.1):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            dimension, num_heads, dropout=dropout, batch_first=True
        )
        self.norm1 = nn.LayerNorm(dimension)
        self.feedforward = nn.Sequential(
            nn.Linear(dimension, 4 * dimension),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dimension, dimension),
        )
        self.norm2 = nn.LayerNorm(dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, query: torch.Tensor | None = None) -> torch.Tensor:
        """Attend to `x`.

        Parameters
        ----------
        x : (batch, frames, dimension) tensor
        query : (batch, frames, dimension) tensor, optional
            Stream of the queries. Defaults to `x`.

        Returns
        -------
        x : (batch, frames, dimension) tensor
        """
        query = x if query is None else query
        x = self.norm1(x + self.dropout(self.attention(query, x, x, need_weights=False)[0]))
        return self.norm2(x + self.dropout(self.feedforward(x)))


class CrossAttention(nn.Module):
    """Cross-attention between audio and video, in both directions.

    Parameters
    ----------
    dimension : int
        Feature dimension of both streams.
    """

    def __init__(self, dimension: int):
        super().__init__()
        self.acoustic = AttentionLayer(dimension)
        self.visual = AttentionLayer(dimension)

    def forward(
        self, acoustic: torch.Tensor, visual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two (batch, frames, dimension) tensors to two of the same shape."""
        return self.acoustic(acoustic, query=visual), self.visual(visual, query=acoustic)
