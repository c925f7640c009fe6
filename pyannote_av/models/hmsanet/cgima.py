"""Consistency-gated inter-modal attention: CGIMA of HMSA-Net.

How well do sound and picture of a target speaker agree, here and now? That decides how much each
learns from the other. See docs/hmsanet.md for what is published and what is ours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.models.blocks.conformer import LockedDropout, feedforward
from pyannote_av.models.blocks.window_attention import MASKED, WindowAttention, key_bias

#: logarithm of the least a gate lets through when keys are weighed
LOG_FLOOR = -9.210340371976182  # log(1e-4)

# lags that are compared, and frames that they are averaged over, to either side: 0.2 and 0.5 s
_LAGS = 5
_SMOOTH = 12
# of correlations, which are seldom above 0.2 however well sound and picture agree
_SCALE = 10.0
# frames to either side that moments differ from
_AROUND = 25
_HIDDEN = 64
# length of a difference that is more than rounding: others are of the order of one
_LEAST = 1e-2


class Agreement(NamedTuple):
    """What the estimator of synchrony says; all (n, frames, ...).

    Attributes
    ----------
    logits : (n, frames, 2, heads) tensor
        Of gates: how much sound takes from the picture, and the picture from sound.
    acoustic, visual : (n, frames, dimension) tensor
        Unit vectors that are alike where sound and picture are in step.
    confidence : (n, frames) tensor
        How much more alike they are at the best lag than at the median one.
    """

    logits: torch.Tensor
    acoustic: torch.Tensor
    visual: torch.Tensor
    confidence: torch.Tensor


class Fused(NamedTuple):
    """What fusion gives: (n, frames, width), and the agreement if there is a gate."""

    features: torch.Tensor
    agreement: Agreement | None = None


def lag_correlation(
    acoustic: torch.Tensor,
    visual: torch.Tensor,
    heard: torch.Tensor,
    seen: torch.Tensor,
    lags: int = _LAGS,
    smooth: int = _SMOOTH,
) -> torch.Tensor:
    """Likeness of sound and later or earlier pictures, averaged over time.

    Parameters
    ----------
    acoustic, visual : (n, frames, dimension) tensor
        Unit vectors.
    heard, seen : (n, frames) bool tensor
        Where there are any. Only frames where both are take part.
    lags : int, optional
        Largest lag, in frames.
    smooth : int, optional
        Frames to either side that the average is over.

    Returns
    -------
    correlation : (n, frames, 2 x lags + 1) tensor
        In [-1, 1], by lag of the picture, from -lags (earlier) to lags; 0 where there is none.
    """
    num_frames = acoustic.shape[1]
    heard, seen = heard.to(acoustic.dtype), seen.to(acoustic.dtype)
    acoustic = acoustic * heard.unsqueeze(-1)
    visual = F.pad(visual * seen.unsqueeze(-1), (0, 0, lags, lags))
    seen = F.pad(seen, (lags, lags))
    shifts = [slice(i, i + num_frames) for i in range(2 * lags + 1)]
    likeness = torch.stack([(acoustic * visual[:, s]).sum(dim=-1) for s in shifts], dim=1)
    count = torch.stack([heard * seen[:, s] for s in shifts], dim=1)
    window = (2 * smooth + 1, 1, smooth)
    mean = F.avg_pool1d(likeness, *window) / F.avg_pool1d(count, *window).clamp_min(1e-3)
    return mean.transpose(1, 2)


class Moments(nn.Module):
    """How what is heard or seen within 0.1 s differs from what is around, as unit vectors.

    The mean over a second to either side is taken off, as in any correlation: that somebody speaks
    all the while makes sound and picture alike at every lag.

    Parameters
    ----------
    dimension, width : int
        Before and after.
    """

    def __init__(self, dimension: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(dimension)
        self.convolution = nn.Conv1d(dimension, width, 5, padding=2)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """`known` (n, frames) tells which frames of x (n, frames, dimension) may be read."""
        there = known.unsqueeze(1).float()
        x = self.norm(x).transpose(1, 2) * there
        x = self.convolution(x).float() * there
        window = (2 * _AROUND + 1, 1, _AROUND)
        mean = F.avg_pool1d(x, *window) / F.avg_pool1d(there, *window).clamp_min(1e-3)
        # what differs by rounding only has no direction
        return F.normalize((x - mean) * there, dim=1, eps=_LEAST).transpose(1, 2)


class SynchronyEstimator(nn.Module):
    """How well sound and picture of a target speaker agree, frame by frame.

    What is compared is what streams are made of: in streams themselves, which know the context,
    little is left of when exactly a mouth opens.

    Parameters
    ----------
    width : int
    sound_dimension : int
    num_heads : int
        Gates per direction.
    """

    def __init__(self, width: int, sound_dimension: int, num_heads: int):
        super().__init__()
        self.acoustic = Moments(sound_dimension, width // 2)
        self.visual = Moments(width, width // 2)
        self.context = nn.Linear(4 * width, _HIDDEN)
        self.gate = nn.Sequential(
            nn.Linear(2 * _LAGS + 2 + _HIDDEN, _HIDDEN),
            nn.GELU(),
            nn.Linear(_HIDDEN, 2 * num_heads),
        )

    def forward(
        self,
        a: torch.Tensor,
        v: torch.Tensor,
        sound: torch.Tensor,
        picture: torch.Tensor,
        present: torch.Tensor,
        mask: torch.Tensor,
    ) -> Agreement:
        """Streams, and what they are made of; see :meth:`CGIMA.forward`."""
        acoustic, visual = self.acoustic(sound, mask), self.visual(picture, present)
        lags = lag_correlation(acoustic, visual, mask, present)
        confidence = lags.amax(dim=-1) - lags.median(dim=-1).values
        context = F.gelu(self.context(torch.cat([a, v, a * v, (a - v).abs()], dim=-1)))
        agreement = _SCALE * torch.cat([lags, confidence.unsqueeze(-1)], dim=-1)
        logits = self.gate(torch.cat([agreement, context], dim=-1))
        return Agreement(logits.float().unflatten(-1, (2, -1)), acoustic, visual, confidence)


class CrossModalLayer(nn.Module):
    """One stream reads from the other, then a feedforward; both add to the stream that reads."""

    def __init__(self, width: int, num_heads: int, window: int, expansion: int, dropout: float):
        super().__init__()
        self.norm_query, self.norm_key = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, window)
        self.dropout = LockedDropout(dropout)
        self.feedforward = feedforward(width, expansion, dropout)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, gate: torch.Tensor | None
    ) -> torch.Tensor:
        """`x` reads from `y`, see :class:`WindowAttention`."""
        read = self.attention(self.norm_query(x), self.norm_key(y), bias, gate)
        x = x + self.dropout(read)
        return x + self.feedforward(x)


class CGIMA(nn.Module):
    """Sound and picture of a target speaker, each enriched by the other as far as they agree.

    A frame of either stream is read as much as its gate is open (added to the scores of keys in
    logarithms), and reads as much as its gate is open. Agreement is not usefulness: a face that is
    silent while another one talks agrees with nothing and says a lot. So what is left of the
    picture in the sum is weighed by a gate of its own, of reliability.

    Parameters
    ----------
    width, num_heads, window, expansion, dropout
        Of attention and feedforwards.
    sound_dimension : int
    num_layers : int
    gated : bool, optional
        False for attention without gates, otherwise the same.
    """

    def __init__(
        self,
        width: int,
        sound_dimension: int,
        num_layers: int,
        num_heads: int,
        window: int,
        expansion: int,
        dropout: float,
        gated: bool = True,
    ):
        super().__init__()
        layer = (width, num_heads, window, expansion, dropout)
        self.synchrony = SynchronyEstimator(width, sound_dimension, num_heads) if gated else None
        self.to_acoustic = nn.ModuleList(CrossModalLayer(*layer) for _ in range(num_layers))
        self.to_visual = nn.ModuleList(CrossModalLayer(*layer) for _ in range(num_layers))
        self.reliability = nn.Linear(2 * width, width)
        self.fuse = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(
        self,
        a: torch.Tensor,
        v: torch.Tensor,
        sound: torch.Tensor,
        picture: torch.Tensor,
        present: torch.Tensor,
        mask: torch.Tensor,
    ) -> Fused:
        """Fuse.

        Parameters
        ----------
        a, v : (n, frames, width) tensor
            Of sound and picture. Where no face is present, v must not depend on pixels.
        sound : (n, frames, sound_dimension) tensor
        picture : (n, frames, width) tensor
            What they are made of, each frame by itself.
        present, mask : (n, frames) bool tensor
            Where a face is present, and which frames are real.

        Returns
        -------
        fused : Fused
        """
        agreement = None
        gates: tuple = (None, None)
        biases = (key_bias(mask),) * 2
        if self.synchrony is not None:
            agreement = self.synchrony(a, v, sound, picture, present, mask)
            here = present[:, :, None, None]
            gates = (agreement.logits.sigmoid() * here).unbind(2)
            bias = F.logsigmoid(agreement.logits).clamp_min(LOG_FLOOR)
            bias = torch.where(here, bias, LOG_FLOOR)
            biases = torch.where(mask[:, :, None, None], bias, MASKED).unbind(2)
        for to_acoustic, to_visual in zip(self.to_acoustic, self.to_visual, strict=True):
            a, v = (
                to_acoustic(a, v, biases[0], gates[0]),
                to_visual(v, a, biases[1], gates[1]),
            )
        reliability = self.reliability(torch.cat([a, v], dim=-1)).sigmoid()
        v = v * reliability * present.unsqueeze(-1)
        return Fused(self.norm(self.fuse(torch.cat([a, v], dim=-1))), agreement)


class Concatenation(nn.Module):
    """Sound and picture side by side: fusion without attention, to compare with.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int, **_: Any):
        super().__init__()
        self.fuse = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)

    def forward(self, a: torch.Tensor, v: torch.Tensor, *_: torch.Tensor) -> Fused:
        """See :meth:`CGIMA.forward`."""
        return Fused(self.norm(self.fuse(torch.cat([a, v], dim=-1))))
