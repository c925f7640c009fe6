"""Attention over a local window of time, at a cost linear in duration.

Frame t attends to frames t - window ... t + window, for sequences of any length. Rotary position
embeddings (RoPE) encode the distance between two frames, so attention depends on relative positions
only. A shift of the input shifts the output, and padding does not affect it.

References
----------
Su, Lu, Pan, Murtadha, Wen, Liu. RoFormer: enhanced transformer with rotary position embedding.
Neurocomputing 2024 (https://arxiv.org/abs/2104.09864).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

#: Added to the scores of masked keys. It is finite, so that frames for which all keys are masked
#: (padding) give finite numbers instead of NaN.
MASKED = -1e4


# in windows: up to this length it is faster not to cut sequences into blocks
_SHORT = 4


def rotations(num_frames: int, dimension: int, like: torch.Tensor) -> torch.Tensor:
    """Cosine and sine of position times frequency, in the layout of :func:`rotate`.

    Parameters
    ----------
    num_frames : int
    dimension : int
        Dimension of a head; must be even.
    like : tensor
        Tensor whose device and type the result takes.

    Returns
    -------
    rotations : (2, num_frames, 1, dimension) tensor
    """
    half = dimension // 2
    frequencies = 1e4 ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = torch.arange(num_frames, device=like.device)[:, None] * frequencies
    cosine, sine = angles.cos(), angles.sin()
    both = [torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)]
    return torch.stack(both).unsqueeze(2).to(like.dtype)


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate pairs of numbers of (batch, frames, heads, dimension) vectors by their position."""
    return torch.addcmul(x * rotation[0], x.roll(x.shape[-1] // 2, dims=-1), rotation[1])


def neighbourhoods(x: torch.Tensor, window: int, value: float = 0.0) -> torch.Tensor:
    """Blocks of `window` frames, each with the block before it and the one after it.

    Parameters
    ----------
    x : (batch, frames, heads, dimension) tensor
    window : int
    value : float, optional
        Padding value before the first frame and after the last one.

    Returns
    -------
    blocks : (batch, blocks, heads, 3 x window, dimension) tensor
    """
    after = -x.shape[1] % window + window  # complete the last block, and add another one
    x = F.pad(x, (0, 0, 0, 0, window, after), value=value).unflatten(1, (-1, window))
    return torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=2).transpose(2, 3)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, window: int
) -> torch.Tensor:
    """Attention of frames to those at most `window` frames away.

    Parameters
    ----------
    q, k, v : (batch, frames, heads, dimension) tensor
    bias : (batch, frames, heads or 1, 1) tensor
        Added to the scores of keys.
    window : int

    Returns
    -------
    read : (batch, frames, heads, dimension) tensor
    """
    num_frames = q.shape[1]
    position = torch.arange(num_frames, device=q.device)
    if num_frames <= _SHORT * window:
        q, k, v, bias = (x.unsqueeze(1).transpose(2, 3) for x in (q, k, v, bias))
        distance = position - position[:, None]
    else:
        k, v = neighbourhoods(k, window), neighbourhoods(v, window)
        bias = neighbourhoods(bias, window, MASKED)
        q = F.pad(q, (0, 0, 0, 0, 0, -num_frames % window))
        q = q.unflatten(1, (-1, window)).transpose(2, 3)  # (batch, blocks, heads, window, d)
        position = torch.arange(3 * window, device=q.device)
        distance = position - window - position[:window, None]
    band = torch.where(distance.abs() <= window, 0.0, MASKED)
    scores = q @ k.transpose(3, 4) + (bias.transpose(3, 4) + band)
    read = scores.softmax(dim=-1).to(v.dtype) @ v
    return read.transpose(2, 3).flatten(1, 2)[:, :num_frames]


class WindowAttention(nn.Module):
    """Multi-head attention of one stream to another, or to itself, within a window of time.

    Parameters
    ----------
    dimension : int
    num_heads : int
        The dimension of a head must be even.
    window : int
        Frames on either side that attention covers.
    """

    def __init__(self, dimension: int, num_heads: int, window: int):
        super().__init__()
        if dimension % (2 * num_heads):
            raise ValueError(f"width {dimension} is not a multiple of twice {num_heads} heads")
        self.num_heads, self.window = num_heads, window
        self.query = nn.Linear(dimension, dimension)
        self.key_value = nn.Linear(dimension, 2 * dimension)
        self.output = nn.Linear(dimension, dimension)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        key_bias: torch.Tensor,
        query_gate: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Let frames of `x` attend to frames of `y`.

        Parameters
        ----------
        x, y : (batch, frames, dimension) tensor
        key_bias : (batch, frames, heads or 1) tensor
            Added to the scores of frames of `y` before softmax: ``MASKED`` for masked frames,
            logarithms of gates.
        query_gate : (batch, frames, heads) tensor, optional
            Factor on the result of attention for each frame of `x`, before the output layer.

        Returns
        -------
        read : (batch, frames, dimension) tensor
            Update to be added to `x`.
        """
        q = self.query(x).unflatten(-1, (self.num_heads, -1))
        k, v = self.key_value(y).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        rotation = rotations(q.shape[1], q.shape[-1], q)
        q = rotate(q, rotation * q.shape[-1] ** -0.5)
        k = rotate(k, rotation)
        read = attend(q, k, v, key_bias.unsqueeze(-1), self.window)
        if query_gate is not None:
            read = read * query_gate.unsqueeze(-1)
        return self.output(read.flatten(2))


def key_bias(mask: torch.Tensor) -> torch.Tensor:
    """(batch, frames) bool to (batch, frames, 1): 0 where True, ``MASKED`` elsewhere."""
    return torch.where(mask, 0.0, MASKED).unsqueeze(-1)
