"""Losses as sums over frames, and the counts to divide them by."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed
import torch.nn.functional as F

from pyannote_av.models.active_speaker.base import Heads
from pyannote_av.tasks.track_labels import UNKNOWN


def head_loss(
    heads: Heads, y: torch.Tensor, weights: Mapping[str, float], temperature: float = 1.0
) -> torch.Tensor:
    """Weighted cross entropies of all heads, summed over labelled frames.

    Parameters
    ----------
    heads : Heads of (..., 2) tensors
    y : (...) int tensor
        1 speaking, 0 not, -1 unknown.
    weights : dict of name of a head to weight
    temperature : float, optional
        Divides the logits.
    """
    scored = y != UNKNOWN
    return sum(
        weight
        * F.cross_entropy(
            getattr(heads, name)[scored].float() / temperature, y[scored], reduction="sum"
        )
        for name, weight in weights.items()
    )


def talk_nce(
    acoustic: torch.Tensor, visual: torch.Tensor, active: torch.Tensor, temperature: float = 0.07
) -> torch.Tensor:
    """TalkNCE: match each frame's visual features to its sound, among all speaking frames.

    Parameters
    ----------
    acoustic, visual : (n, frames, dimension) tensors
        Audio and visual features.
    active : (n, frames) bool tensor
        Where the face is audibly speaking. Only these frames are compared.
    temperature : float, optional

    Returns
    -------
    loss : tensor
        Sum of the cross entropies of all active frames; 0 if there are none.

    References
    ----------
    Jung, Lee, Nam, Chung. TalkNCE: improving active speaker detection with talk-aware contrastive
    learning. ICASSP 2024. https://github.com/kaistmm/TalkNCE (MIT)
    """
    loss = acoustic.new_zeros((), dtype=torch.float32)
    for heard, seen, frames in zip(acoustic, visual, active, strict=True):
        heard, seen = (F.normalize(x[frames].float(), dim=1) for x in (heard, seen))
        same = torch.arange(len(seen), device=seen.device)
        loss = loss + F.cross_entropy(seen @ heard.T / temperature, same, reduction="sum")
    return loss


def mean_count(frames: torch.Tensor) -> torch.Tensor:
    """Number of frames (bool tensor) in a batch, averaged over processes and at least 1.

    Gradients are averaged over processes. Dividing sums by this number gives all frames the same
    weight, whichever process they are in.
    """
    count = frames.sum().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count /= torch.distributed.get_world_size()
    return count.clamp(min=1)
