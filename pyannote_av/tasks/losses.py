"""Losses as sums over frames, and the counts to divide them by.

Frames with unknown labels never count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.distributed
import torch.nn.functional as F

from pyannote_av.core.grid import STEPS
from pyannote_av.models.active_speaker.base import Heads
from pyannote_av.tasks.recordings import UNKNOWN


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
    for a, v, frames in zip(acoustic, visual, active, strict=True):
        a, v = (F.normalize(x[frames].float(), dim=1) for x in (a, v))
        same = torch.arange(len(v), device=v.device)
        loss = loss + F.cross_entropy(v @ a.T / temperature, same, reduction="sum")
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


class TargetOutput(Protocol):
    """Output of a network for B chunks of T frames with S targets; None where not requested.

    Attributes
    ----------
    logits : (B, S, 4 T) tensor or None
        Speech, in steps of 10 ms.
    fused_logits, acoustic_logits, visual_logits : (B, S, T) tensors or None
        Speech by frame. The first is computed before targets exchange information; the other two
        also before the streams are fused.
    gate_logits : (B, S, T, 2, H) tensor or None
        Whether sound and face belong together, for both directions and all heads.
    acoustic_sync, visual_sync : (B, S, T, d) tensors or None
        Features that are similar where sound and face belong together.
    """

    logits: torch.Tensor | None
    fused_logits: torch.Tensor | None
    acoustic_logits: torch.Tensor | None
    visual_logits: torch.Tensor | None
    gate_logits: torch.Tensor | None
    acoustic_sync: torch.Tensor | None
    visual_sync: torch.Tensor | None


class Total(NamedTuple):
    """A summed loss, and the elements to average it over.

    Attributes
    ----------
    total : tensor
        Sum over the elements that count.
    counts : (...) bool tensor
        Which elements count.
    """

    total: torch.Tensor
    counts: torch.Tensor

    def mean(self) -> torch.Tensor:
        """Mean over the elements that count in all processes; 0 if there are none."""
        return self.total / mean_count(self.counts)


def masked_bce(logits: torch.Tensor, labels: torch.Tensor) -> Total:
    """Binary cross entropy.

    Parameters
    ----------
    logits : (...) tensor
    labels : (...) int tensor
        1, 0, or -1 for unknown, which does not count.
    """
    known = labels != UNKNOWN
    loss = F.binary_cross_entropy_with_logits(
        logits[known].float(), labels[known].float(), reduction="sum"
    )
    return Total(loss, known)


# losses of target speakers: each takes an output and a batch (see ``TargetBatches``)


def diarization_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total:
    """Cross entropy of the speech of each target, every 10 ms."""
    return masked_bce(output.logits, batch["y"].transpose(1, 2))


def fused_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total:
    """Cross entropy of the fused head, every 40 ms: speech in at least half of a frame."""
    steps = batch["y"].transpose(1, 2).unflatten(2, (-1, STEPS))
    known = (steps != UNKNOWN).all(dim=-1)
    speech = 2 * (steps > 0).sum(dim=-1) >= STEPS
    return masked_bce(output.fused_logits, torch.where(known, speech, UNKNOWN))


def acoustic_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total:
    """Cross entropy of the acoustic head, where the voice is known and audible."""
    return masked_bce(output.acoustic_logits, batch["acoustic"])


def visual_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total:
    """Cross entropy of the visual head, where the target's own face is visible."""
    return masked_bce(output.visual_logits, batch["visual"])


def contrast_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total | None:
    """TalkNCE, where a target is visible and audibly speaks; None for networks without gates."""
    if output.acoustic_sync is None:
        return None
    active = batch["sync"] == 1
    some = active.any(dim=-1)
    features = output.acoustic_sync[some], output.visual_sync[some]
    return Total(talk_nce(*features, active[some]), active)


def gate_loss(output: TargetOutput, batch: Mapping[str, torch.Tensor]) -> Total | None:
    """Cross entropy of the gates: whether sound and face belong together.

    Both directions, mean over heads; None for networks without gates.
    """
    if output.gate_logits is None:
        return None
    logits = output.gate_logits.mean(dim=-1)
    return masked_bce(logits, batch["sync"][..., None].expand_as(logits))
