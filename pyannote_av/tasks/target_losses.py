"""Losses for target speakers. Padding and frames with unknown labels never count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from pyannote_av.tasks.losses import mean_count, talk_nce
from pyannote_av.tasks.target_chunks import UNKNOWN

#: weights of losses: streams as in TalkNet, contrast as in TalkNCE; the others are guesses
WEIGHTS = {
    "diarization": 1.0,
    "fused": 0.4,
    "acoustic": 0.4,
    "visual": 0.4,
    "nce": 0.3,
    "gate": 0.2,
}

#: branch of the network that each loss requires
BRANCHES = {
    "diarization": "decoder",
    "fused": "fusion",
    "acoustic": "acoustic",
    "visual": "visual",
    "nce": "fusion",
    "gate": "fusion",
}


class SlotOutput(Protocol):
    """Output of a network for B chunks of T frames with S slots; None for branches not requested.

    Attributes
    ----------
    logits : (B, S, 4 T) tensor or None
        Speech, in steps of 10 ms.
    fused_logits, acoustic_logits, visual_logits : (B, S, T) tensors or None
        Speech by frame. The first is computed before slots exchange information; the other two
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
    targets = labels[known].float()
    return Total(
        F.binary_cross_entropy_with_logits(logits[known].float(), targets, reduction="sum"), known
    )


def by_frame(y: torch.Tensor) -> torch.Tensor:
    """Labels (B, 4 T, S) as (B, S, T): speech in at least half of the steps of a frame."""
    steps = y.transpose(1, 2).unflatten(2, (-1, 4))
    known = (steps != UNKNOWN).all(dim=-1)
    speech = (steps > 0).sum(dim=-1) >= 2
    return torch.where(known, speech, UNKNOWN)


def slot_losses(
    output: SlotOutput, batch: Mapping[str, torch.Tensor], names: Collection[str]
) -> dict[str, Total]:
    """Unweighted losses by name.

    Parameters
    ----------
    output : SlotOutput
    batch : mapping
        With ``y``, ``acoustic``, ``visual`` and ``sync``; see
        :class:`~pyannote_av.tasks.target_batches.SlotBatches`.
    names : collection of str
        Losses to compute. Those that need gates are left out for a network without gates.

    Returns
    -------
    losses : dict of str to Total
        - ``diarization``: speech of each slot, every 10 ms.
        - ``fused``, ``acoustic``, ``visual``: auxiliary heads, used only in training, every 40 ms.
        - ``nce``: TalkNCE, over frames in which a slot is visible and audibly speaking.
        - ``gate``: whether sound and face belong together, where that is defined. Both directions,
          mean over heads.
    """
    losses = {
        "diarization": lambda: masked_bce(output.logits, batch["y"].transpose(1, 2)),
        "fused": lambda: masked_bce(output.fused_logits, by_frame(batch["y"])),
        "acoustic": lambda: masked_bce(output.acoustic_logits, batch["acoustic"]),
        "visual": lambda: masked_bce(output.visual_logits, batch["visual"]),
    }
    if output.gate_logits is not None:
        losses["nce"] = lambda: _contrast(output, batch["sync"] == 1)
        losses["gate"] = lambda: _gate(output.gate_logits.mean(dim=-1), batch["sync"])
    return {name: loss() for name, loss in losses.items() if name in names}


def _contrast(output: SlotOutput, active: torch.Tensor) -> Total:
    some = active.any(dim=-1)
    features = output.acoustic_sync[some], output.visual_sync[some]
    return Total(talk_nce(*features, active[some]), active)


def _gate(logits: torch.Tensor, sync: torch.Tensor) -> Total:
    return masked_bce(logits, sync[..., None].expand_as(logits))
