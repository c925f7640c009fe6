"""What HMSA-Net says."""

from __future__ import annotations

from typing import NamedTuple

import torch

#: names of what CGIMA says of sound and picture, in its order
AGREEMENT = ("gate_logits", "acoustic_sync", "visual_sync", "confidence")


class HMSAOutput(NamedTuple):
    """All that the network says, by target speaker ("slot").

    Padding slots have zeros; what frames that are padding have means nothing. What branches say
    that nobody asked is None.

    Attributes
    ----------
    logits : (batch, slots, 4 x frames) tensor or None
        Of speaking, at 100 Hz: the answer.
    fused_logits, acoustic_logits, visual_logits : (batch, slots, frames) tensor or None
        Of speaking, at 25 Hz: from both streams, sound alone and picture alone, before speakers
        know of each other. For training in stages.
    gate_logits : (batch, slots, frames, 2, heads) tensor or None
        Of how much sound takes from the picture [0], and the picture from sound [1]. None unless
        fusion is "cgima", like what follows.
    acoustic_sync, visual_sync : (batch, slots, frames, dimension) tensor or None
        Unit vectors that are alike where sound and picture are in step.
    confidence : (batch, slots, frames) tensor or None
        Synchrony: likeness at the best lag minus likeness at the median lag.
    attention : tuple of (batch, frames, heads, slots, keys) tensor
        Of each layer of DISA: whom speakers look at; keys are nobody, then all speakers at frame
        t - window, and so on to t + window.
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
