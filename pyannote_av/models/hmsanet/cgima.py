"""Consistency-gated inter-modal attention (CGIMA) of HMSA-Net.

Gates estimate, for each target speaker and frame, how well audio and video agree. They control how
much each modality attends to the other. See docs/hmsanet.md for what is published and what is our
own design.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.models.blocks.conformer import LockedDropout, feedforward
from pyannote_av.models.blocks.window_attention import MASKED, WindowAttention, key_bias

#: logarithm of the smallest weight that a gate can give to a key
LOG_FLOOR = -9.210340371976182  # log(1e-4)

# largest lag that is compared, and half-width of the averaging window, in frames: 0.2 and 0.5 s
LAGS = 5
_SMOOTH = 12
# scale of correlations, which seldom exceed 0.2 even when audio and video agree well
_SCALE = 10.0
# frames on either side of the running mean that is subtracted from features
_AROUND = 25
_HIDDEN = 64
# norm below which a difference from the mean is rounding error; real ones are of the order of 1
_LEAST = 1e-2


class Agreement(NamedTuple):
    """Output of the synchrony estimator.

    Attributes
    ----------
    gate_logits : (n, frames, 2, heads) tensor
        Logits of the gates: how much audio takes from video [0], and video from audio [1].
    acoustic_sync, visual_sync : (n, frames, dimension) tensor
        Unit vectors that are similar where audio and video are synchronous.
    confidence : (n, frames) tensor
        Similarity at the best lag minus similarity at the median lag.
    """

    gate_logits: torch.Tensor
    acoustic_sync: torch.Tensor
    visual_sync: torch.Tensor
    confidence: torch.Tensor


class Fused(NamedTuple):
    """Fused features (n, frames, width), and the agreement if fusion is gated."""

    features: torch.Tensor
    agreement: Agreement | None = None


def lag_correlation(
    acoustic: torch.Tensor,
    visual: torch.Tensor,
    audible: torch.Tensor,
    visible: torch.Tensor,
    lags: int = LAGS,
    smooth: int = _SMOOTH,
) -> torch.Tensor:
    """Similarity of audio and time-shifted video, averaged over time.

    Parameters
    ----------
    acoustic, visual : (n, frames, dimension) tensor
        Unit vectors.
    audible, visible : (n, frames) bool tensor
        Frames in which audio or video is available. Only frames with both contribute.
    lags : int, optional
        Largest lag, in frames.
    smooth : int, optional
        Half-width of the averaging window, in frames.

    Returns
    -------
    correlation : (n, frames, 2 x lags + 1) tensor
        In [-1, 1], by lag of the video from -lags (early) to lags (late); 0 where undefined.
    """
    num_frames = acoustic.shape[1]
    audible, visible = audible.to(acoustic.dtype), visible.to(acoustic.dtype)
    acoustic = acoustic * audible.unsqueeze(-1)
    visual = F.pad(visual * visible.unsqueeze(-1), (0, 0, lags, lags))
    visible = F.pad(visible, (lags, lags))
    shifts = [slice(i, i + num_frames) for i in range(2 * lags + 1)]
    likeness = torch.stack([(acoustic * visual[:, s]).sum(dim=-1) for s in shifts], dim=1)
    count = torch.stack([audible * visible[:, s] for s in shifts], dim=1)
    window = (2 * smooth + 1, 1, smooth)
    mean = F.avg_pool1d(likeness, *window) / F.avg_pool1d(count, *window).clamp_min(1e-3)
    return mean.transpose(1, 2)


class Moments(nn.Module):
    """Short-term changes of audio or video features, as unit vectors.

    A convolution covers 0.1 s on either side. The mean over a second on either side is subtracted,
    as in any correlation. Without this, continuous speech would make audio and video similar at
    every lag.

    Parameters
    ----------
    dimension, width : int
        Dimensions of the input and the output.
    """

    def __init__(self, dimension: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(dimension)
        self.convolution = nn.Conv1d(dimension, width, 5, padding=2)

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Only frames of `x` (n, frames, dimension) where `known` (n, frames) is true are used."""
        there = known.unsqueeze(1).float()
        x = self.norm(x).transpose(1, 2) * there
        x = self.convolution(x).float() * there
        window = (2 * _AROUND + 1, 1, _AROUND)
        mean = F.avg_pool1d(x, *window) / F.avg_pool1d(there, *window).clamp_min(1e-3)
        # a difference that is only rounding error becomes (nearly) zero, not a unit vector
        return F.normalize((x - mean) * there, dim=1, eps=_LEAST).transpose(1, 2)


class SynchronyEstimator(nn.Module):
    """Frame-level estimate of how well audio and video of a target speaker agree.

    It compares the frame-level features from before the Conformer blocks. The contextual features
    after these blocks retain little of when exactly a mouth opens.

    Parameters
    ----------
    width : int
        Dimension of the streams.
    sound_dimension : int
        Dimension of the frame-level audio features.
    num_heads : int
        Number of gates per direction.
    lags : int, optional
        Largest lag that is compared, in frames.
    """

    def __init__(self, width: int, sound_dimension: int, num_heads: int, lags: int = LAGS):
        super().__init__()
        self.lags = lags
        self.acoustic = Moments(sound_dimension, width // 2)
        self.visual = Moments(width, width // 2)
        self.context = nn.Linear(4 * width, _HIDDEN)
        self.gate = nn.Sequential(
            nn.Linear(2 * lags + 2 + _HIDDEN, _HIDDEN),
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
        """Estimate agreement; see :meth:`CGIMA.forward` for the inputs."""
        acoustic, visual = self.acoustic(sound, mask), self.visual(picture, present)
        lags = lag_correlation(acoustic, visual, mask, present, self.lags)
        confidence = lags.amax(dim=-1) - lags.median(dim=-1).values
        context = F.gelu(self.context(torch.cat([a, v, a * v, (a - v).abs()], dim=-1)))
        agreement = _SCALE * torch.cat([lags, confidence.unsqueeze(-1)], dim=-1)
        logits = self.gate(torch.cat([agreement, context], dim=-1))
        return Agreement(logits.float().unflatten(-1, (2, -1)), acoustic, visual, confidence)


class CrossModalLayer(nn.Module):
    """Attention from one stream to the other, then a feedforward module, both residual."""

    def __init__(self, width: int, num_heads: int, window: int, expansion: int, dropout: float):
        super().__init__()
        self.norm_query, self.norm_key = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, window)
        self.dropout = LockedDropout(dropout)
        self.feedforward = feedforward(width, expansion, dropout)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor, gate: torch.Tensor | None
    ) -> torch.Tensor:
        """Let `x` attend to `y`; see :class:`WindowAttention`."""
        read = self.attention(self.norm_query(x), self.norm_key(y), bias, gate)
        x = x + self.dropout(read)
        return x + self.feedforward(x)


class CGIMA(nn.Module):
    """Cross-modal attention between audio and video, gated by how well they agree.

    Gates act on both sides of attention. The logarithm of a gate is added to the scores of keys,
    and the output of each query is multiplied by its gate. Low agreement does not make video
    useless: the closed mouth of a person who is silent while another one talks does not agree with
    the audio, but is informative. Therefore a separate reliability gate weighs the video in the
    fused features.

    Parameters
    ----------
    width, num_heads, window, expansion, dropout
        Parameters of attention and feedforward modules.
    sound_dimension : int
        Dimension of the frame-level audio features.
    num_layers : int
    gated : bool, optional
        Whether to use gates. Without them, attention is otherwise the same.
    lags : int, optional
        Largest lag that the gates compare, in frames.
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
        lags: int = LAGS,
    ):
        super().__init__()
        layer = (width, num_heads, window, expansion, dropout)
        self.synchrony = (
            SynchronyEstimator(width, sound_dimension, num_heads, lags) if gated else None
        )
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
        """Fuse audio and video.

        Parameters
        ----------
        a, v : (n, frames, width) tensor
            Audio and video streams. Where the face is absent, `v` must not depend on pixels.
        sound : (n, frames, sound_dimension) tensor
        picture : (n, frames, width) tensor
            Frame-level features that `a` and `v` were computed from.
        present, mask : (n, frames) bool tensor
            Frames in which the face is present, and frames that are not padding.

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
            gates = (agreement.gate_logits.sigmoid() * here).unbind(2)
            bias = F.logsigmoid(agreement.gate_logits).clamp_min(LOG_FLOOR)
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
    """Fusion by concatenation of audio and video, a baseline without attention.

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
