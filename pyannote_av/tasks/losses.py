"""Losses: sums over frames, and what they are divided by."""

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
        Logits are divided by it.
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
    """TalkNCE: of all moments a face speaks, which one does this picture belong to?

    Parameters
    ----------
    acoustic, visual : (n, frames, dimension) tensors
        Features of sound and picture.
    active : (n, frames) bool tensor
        When the face is heard speaking; nothing else is compared.
    temperature : float, optional

    Returns
    -------
    loss : tensor
        Sum of the cross entropies of all active frames; 0 where there are none.

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
    """Number of frames (bool tensor) of a batch, mean over processes; 1 at least.

    Gradients are averaged over processes: with sums divided by it, all frames count alike,
    wherever they are.
    """
    count = frames.sum().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count /= torch.distributed.get_world_size()
    return count.clamp(min=1)
