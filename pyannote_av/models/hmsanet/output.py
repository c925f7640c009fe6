"""Outputs of HMSA-Net."""

from __future__ import annotations

from typing import NamedTuple

import torch

#: names of the fields of ``cgima.Agreement`` in :class:`HMSAOutput`, in the same order
AGREEMENT = ("gate_logits", "acoustic_sync", "visual_sync", "confidence")


class HMSAOutput(NamedTuple):
    """Outputs of all branches, per target speaker ("slot").

    Padding slots are zero. Values in padding frames are undefined. Outputs of branches that were
    not requested are None.

    Attributes
    ----------
    logits : (batch, slots, 4 x frames) tensor or None
        Logits of speech at 100 Hz: the final output.
    fused_logits, acoustic_logits, visual_logits : (batch, slots, frames) tensor or None
        Logits of speech at 25 Hz from both modalities, from audio alone and from video alone.
        They are computed before speakers attend to each other, and serve training in stages.
    gate_logits : (batch, slots, frames, 2, heads) tensor or None
        Logits of the gates: how much the audio stream takes from video [0], and the video stream
        from audio [1]. Like the next three outputs, None unless fusion is "cgima".
    acoustic_sync, visual_sync : (batch, slots, frames, dimension) tensor or None
        Unit vectors that are similar where audio and video are synchronous.
    confidence : (batch, slots, frames) tensor or None
        Synchrony: similarity at the best lag minus similarity at the median lag.
    attention : tuple of (batch, frames, heads, slots, keys) tensor
        Attention weights of each DISA layer, from each speaker to the others. The first key is
        the learned "nobody". All speakers at frames t - window, ..., t + window follow.
    """

    logits: torch.Tensor | None = None
    fused_logits: torch.Tensor | None = None
    acoustic_logits: torch.Tensor | None = None
    visual_logits: torch.Tensor | None = None
    gate_logits: torch.Tensor | None = None
    acoustic_sync: torch.Tensor | None = None
    visual_sync: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    attention: tuple[torch.Tensor, ...] = ()
