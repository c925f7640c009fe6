"""Losses of CYS-MSD: speaker activity, similarity of windows, and number of speakers.

Labels ``y`` are (batch, windows, speakers) int tensors: 1 where a speaker is active, 0 where not.
Windows that are padding, or have no annotation, are -1 for all speakers, and are excluded from all
losses. The order of speakers is arbitrary. If a recording has fewer speakers than the tensor, the
additional ones are never active. Equation numbers are those of
:mod:`pyannote_av.clustering.cysmsd`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pyannote.audio.utils.permutation import permutate

from pyannote_av.clustering.cysmsd import CYSOutput
from pyannote_av.tasks.losses import Total, masked_bce
from pyannote_av.tasks.recordings import UNKNOWN


def assign_speakers(
    logits: torch.Tensor, y: torch.Tensor, assignment: Literal["best", "arrival"] = "best"
) -> torch.Tensor:
    """Assign speakers to outputs.

    Parameters
    ----------
    logits : (batch, windows, outputs) tensor
    y : (batch, windows, speakers) int tensor
        If there are more speakers than outputs, those active in most windows are used, or those who
        come first.
    assignment : {"best", "arrival"}, optional
        "best": in each recording such that (6) is minimal, because the order of speakers is
        arbitrary. "arrival": in the order in which they first speak. The network does not know the
        order of windows, so it cannot learn this.

    Returns
    -------
    labels : (batch, windows, outputs) int tensor
        Unassigned outputs are never active.
    """
    outputs, known = logits.shape[2], (y != UNKNOWN).all(dim=2, keepdim=True)
    active = (y > 0).float()
    if assignment == "arrival":
        never = active.sum(dim=1) == 0
        arrival = active.argmax(dim=1).masked_fill(never, active.shape[1])
        order = arrival.argsort(dim=1, stable=True)[:, None, :outputs]
        labels = active.gather(2, order.expand(-1, active.shape[1], -1))
        labels = F.pad(labels, (0, outputs - labels.shape[2]))
        return torch.where(known, labels.to(y.dtype), UNKNOWN)
    busiest = active.sum(dim=1).argsort(dim=1, descending=True, stable=True)[:, None, :outputs]
    active = active.gather(2, busiest.expand(-1, active.shape[1], -1))
    active = F.pad(active, (0, outputs - active.shape[2]))
    # cross entropy is softplus(logit) - label x logit; the first term does not depend on labels
    scores = torch.where(known, logits.detach().float(), 0.0)
    labels, _ = permutate(scores, active, cost_func=lambda y, x: -(y * x).sum(dim=0))
    return torch.where(known, labels.to(y.dtype), UNKNOWN)


def activity_loss(
    logits: torch.Tensor, y: torch.Tensor, assignment: Literal["best", "arrival"] = "best"
) -> Total:
    """Binary cross entropy, equation (6), with the assignment of :func:`assign_speakers`.

    Parameters
    ----------
    logits : (batch, windows, outputs) tensor
    y : (batch, windows, speakers) int tensor
    assignment : {"best", "arrival"}, optional
    """
    return masked_bce(logits, assign_speakers(logits, y, assignment))


def nt_xent(
    embeddings: torch.Tensor,
    y: torch.Tensor,
    temperature: float = 0.3,
    reach: int = 8,
    kind: Literal["supcon", "published"] = "supcon",
    margin: float | None = 1.0,
) -> Total:
    """Contrastive loss between nearby windows, equation (7). Positives share a speaker.

    With ``s`` the cosine similarities of a window to others, divided by the temperature:

    * "supcon": the mean over positives ``p`` of ``log(sum of exp(s) over all others) - s_p``;
    * "published": ``log(sum of exp(s) over negatives) - log(sum of exp(s) over positives)``, which
      has no minimum. With a margin, it is 0 as soon as the second logarithm is that much larger.

    Parameters
    ----------
    embeddings : (batch, windows, dimension) tensor
    y : (batch, windows, speakers) int tensor
    temperature : float, optional
    reach : int, optional
        Number of windows on each side that a window is compared with.
    kind : {"supcon", "published"}, optional
    margin : float, optional
        For "published". The paper has a margin of 1.0, but its equation does not show where; this
        is our interpretation. None for the equation as written.

    Returns
    -------
    loss : Total
        Sum over windows with at least one positive and, if "published", one negative. All of these
        windows have the same weight.

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
    if kind == "published":
        anchors &= (compared & ~positive).any(dim=2)

    z = torch.where(known.unsqueeze(2), embeddings.float(), 0.0)
    z = F.normalize(z, dim=2)
    similarity = (z @ z.mT / temperature).masked_fill(~compared, -torch.inf)[anchors]
    positive = positive[anchors]
    if kind == "published":
        towards, away = (
            similarity.masked_fill(~some, -torch.inf).logsumexp(dim=1)
            for some in (positive, ~positive)
        )
        loss = away - towards
        return Total((loss if margin is None else (loss + margin).relu()).sum(), anchors)
    entropy = -similarity.log_softmax(dim=1).masked_fill(~positive, 0.0).sum(dim=1)
    return Total((entropy / positive.sum(dim=1)).sum(), anchors)


def count_loss(count: torch.Tensor, y: torch.Tensor) -> Total:
    """Squared error of the number of speakers, equation (9).

    Parameters
    ----------
    count : (batch,) tensor
    y : (batch, windows, speakers) int tensor
        Recordings without annotated windows are excluded.
    """
    known = (y != UNKNOWN).all(dim=2).any(dim=1)
    error = count.float() - num_speakers(y)
    return Total(torch.where(known, error, 0.0).square().sum(), known)


def count_entropy(logits: torch.Tensor, y: torch.Tensor) -> Total:
    """Cross entropy of the number of speakers, in place of equation (9).

    Parameters
    ----------
    logits : (batch, most) tensor
        Logits of 1, 2, ... speakers. Larger numbers of speakers are clipped to `most`.
    y : (batch, windows, speakers) int tensor
        Recordings without annotated windows are excluded.
    """
    known = (y != UNKNOWN).all(dim=2).any(dim=1)
    which = (num_speakers(y) - 1).clamp(0, logits.shape[1] - 1)
    entropy = F.cross_entropy(logits.float(), which, reduction="none")
    return Total(torch.where(known, entropy, 0.0).sum(), known)


def num_speakers(y: torch.Tensor) -> torch.Tensor:
    """Number of speakers who are active at least once, a (batch,) tensor."""
    return (y > 0).any(dim=1).sum(dim=1)


def counting_losses(
    output: CYSOutput,
    y: torch.Tensor,
    temperature: float = 0.3,
    reach: int = 8,
    contrastive: Literal["supcon", "published"] = "supcon",
    margin: float | None = 1.0,
    assignment: Literal["best", "arrival"] = "best",
) -> dict[str, Total]:
    """Unweighted losses by name.

    Parameters
    ----------
    output : CYSOutput
    y : (batch, windows, speakers) int tensor
    temperature, reach, contrastive, margin : optional
        See :func:`nt_xent`.
    assignment : optional
        See :func:`assign_speakers`.

    Returns
    -------
    losses : dict of str to Total
        "activity", "contrast" and "count".
    """
    return {
        "activity": activity_loss(output.activity_logits, y, assignment),
        "contrast": nt_xent(output.embeddings, y, temperature, reach, contrastive, margin),
        "count": count_loss(output.count, y)
        if output.count_logits is None
        else count_entropy(output.count_logits, y),
    }


def total_loss(means: Mapping[str, torch.Tensor], beta: float = 0.5) -> torch.Tensor:
    """Weighted sum of losses, equation (10).

    Parameters
    ----------
    means : mapping of str to tensor
        Means of the losses of :func:`counting_losses`.
    beta : float, optional
        Weight of activity and contrastive losses. The weight of the count is ``1 - beta``.
    """
    return beta * (means["activity"] + means["contrast"]) + (1 - beta) * means["count"]
