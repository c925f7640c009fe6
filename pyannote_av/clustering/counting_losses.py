"""Losses of CYS-MSD: who is active, which windows are alike, how many speakers there are.

Labels ``y`` are (batch, windows, speakers) int tensors: 1 where a speaker is active, 0 where not;
windows that are padding, or of which nothing is known, have -1 for everybody, and are in none of
the losses. Speakers come in any order; those that a recording lacks are never active. Equations
are numbered as in :mod:`pyannote_av.clustering.cysmsd`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pyannote.audio.utils.permutation import permutate

from pyannote_av.clustering.cysmsd import CYSOutput
from pyannote_av.tasks.target_chunks import UNKNOWN
from pyannote_av.tasks.target_losses import Total, masked_bce


def assign_speakers(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Give every speaker an output, for each recording those that make (6) least.

    Who is "speaker 3" of a recording is arbitrary, and a network that does not know the order of
    windows cannot be asked for the order of arrival.

    Parameters
    ----------
    logits : (batch, windows, outputs) tensor
    y : (batch, windows, speakers) int tensor
        Where there are more speakers than outputs, those who are active in most windows count.

    Returns
    -------
    labels : (batch, windows, outputs) int tensor
        Outputs left over are never active.
    """
    outputs, known = logits.shape[2], (y != UNKNOWN).all(dim=2, keepdim=True)
    active = (y > 0).float()
    busiest = active.sum(dim=1).argsort(dim=1, descending=True, stable=True)[:, None, :outputs]
    active = active.gather(2, busiest.expand(-1, active.shape[1], -1))
    active = F.pad(active, (0, outputs - active.shape[2]))
    # cross entropies are softplus(logit) - label x logit, and the former does not depend on labels
    said = torch.where(known, logits.detach().float(), 0.0)
    labels, _ = permutate(said, active, cost_func=lambda y, x: -(y * x).sum(dim=0))
    return torch.where(known, labels.to(y.dtype), UNKNOWN)


def activity_loss(logits: torch.Tensor, y: torch.Tensor) -> Total:
    """Binary cross entropy, equation (6), of outputs as :func:`assign_speakers` has them.

    Parameters
    ----------
    logits : (batch, windows, outputs) tensor
    y : (batch, windows, speakers) int tensor
    """
    return masked_bce(logits, assign_speakers(logits, y))


def nt_xent(
    embeddings: torch.Tensor, y: torch.Tensor, temperature: float = 0.3, reach: int = 8
) -> Total:
    """Of all windows nearby, which share a speaker with this one? Equation (7).

    Parameters
    ----------
    embeddings : (batch, windows, dimension) tensor
    y : (batch, windows, speakers) int tensor
    temperature : float, optional
    reach : int, optional
        Windows that one is compared with, to either side.

    Returns
    -------
    loss : Total
        Over windows that share a speaker with one nearby; each counts alike, and so does each of
        those it shares a speaker with.

    References
    ----------
    Chen, Kornblith, Norouzi, Hinton. A simple framework for contrastive learning of visual
    representations. ICML 2020. With several positives: Khosla et al., Supervised contrastive
    learning, NeurIPS 2020, equation 2.
    """
    known, active = (y != UNKNOWN).all(dim=2), (y > 0).float()
    index = torch.arange(y.shape[1], device=y.device)
    distance = (index - index.unsqueeze(1)).abs()
    compared = (distance > 0) & (distance <= reach) & known.unsqueeze(1) & known.unsqueeze(2)
    positive = compared & (active @ active.mT > 0)
    anchors = positive.any(dim=2)

    z = torch.where(known.unsqueeze(2), embeddings.float(), 0.0)
    z = F.normalize(z, dim=2)
    similarity = (z @ z.mT / temperature).masked_fill(~compared, -torch.inf)[anchors]
    positive = positive[anchors]
    entropy = -similarity.log_softmax(dim=1).masked_fill(~positive, 0.0).sum(dim=1)
    return Total((entropy / positive.sum(dim=1)).sum(), anchors)


def count_loss(count: torch.Tensor, y: torch.Tensor) -> Total:
    """Squared error of the number of speakers, equation (9).

    Parameters
    ----------
    count : (batch,) tensor
    y : (batch, windows, speakers) int tensor
        Recordings of which no window is known do not count.
    """
    known = (y != UNKNOWN).all(dim=2).any(dim=1)
    error = count.float() - num_speakers(y)
    return Total(torch.where(known, error, 0.0).square().sum(), known)


def count_entropy(logits: torch.Tensor, y: torch.Tensor) -> Total:
    """Cross entropy of the number of speakers, in place of equation (9).

    Parameters
    ----------
    logits : (batch, most) tensor
        Of there being 1, 2, ... speakers; more than the most are taken to be the most.
    y : (batch, windows, speakers) int tensor
        Recordings of which no window is known do not count.
    """
    known = (y != UNKNOWN).all(dim=2).any(dim=1)
    which = (num_speakers(y) - 1).clamp(0, logits.shape[1] - 1)
    entropy = F.cross_entropy(logits.float(), which, reduction="none")
    return Total(torch.where(known, entropy, 0.0).sum(), known)


def num_speakers(y: torch.Tensor) -> torch.Tensor:
    """Speakers that are ever active, a (batch,) tensor."""
    return (y > 0).any(dim=1).sum(dim=1)


def counting_losses(
    output: CYSOutput, y: torch.Tensor, temperature: float = 0.3, reach: int = 8
) -> dict[str, Total]:
    """Losses by name, not yet weighted.

    Parameters
    ----------
    output : CYSOutput
    y : (batch, windows, speakers) int tensor
    temperature, reach : optional
        See :func:`nt_xent`.

    Returns
    -------
    losses : dict of str to Total
        "activity", "contrast" and "count".
    """
    return {
        "activity": activity_loss(output.activity_logits, y),
        "contrast": nt_xent(output.embeddings, y, temperature, reach),
        "count": count_loss(output.count, y)
        if output.count_logits is None
        else count_entropy(output.count_logits, y),
    }


def total_loss(means: Mapping[str, torch.Tensor], beta: float = 0.5) -> torch.Tensor:
    """Equation (10).

    Parameters
    ----------
    means : mapping of str to tensor
        Means of what :func:`counting_losses` gives.
    beta : float, optional
        Weight of telling speakers apart; counting them has the rest.
    """
    return beta * (means["activity"] + means["contrast"]) + (1 - beta) * means["count"]
