"""Diarization error rate of target speakers, who need not be matched to the reference."""

from __future__ import annotations

import torch
from torchmetrics import Metric

from pyannote_av.tasks.recordings import UNKNOWN

#: types of errors
COMPONENTS = ("false_alarm", "missed_detection", "confusion")
#: conditions under which errors can be counted
CONDITIONS = ("single", "overlap", "visible", "hidden")


def moments(target: torch.Tensor, visible: torch.Tensor) -> dict[str, torch.Tensor]:
    """Find the time steps of each condition.

    Parameters
    ----------
    target : (B, 4 T, S) int tensor
        1 speaking, 0 not, -1 not scored.
    visible : (B, T, S) bool tensor
        Where faces are visible.

    Returns
    -------
    moments : dict of str to (B, 4 T) bool tensor
        ``single`` and ``overlap``: one or several persons speak. ``visible``: the faces of all
        who speak are visible. ``hidden``: at least one of these faces is not.
    """
    active = target == 1
    speakers = active.sum(dim=2)
    hidden = (active & ~visible.repeat_interleave(4, dim=1)).any(dim=2)
    return {
        "single": speakers == 1,
        "overlap": speakers > 1,
        "visible": (speakers > 0) & ~hidden,
        "hidden": hidden,
    }


class TargetErrorRate(Metric):
    """Diarization error rate: false alarm, missed detection and confusion over speech.

    Parameters
    ----------
    components : sequence of str, optional
        Types of errors to count. Defaults to all of them.
    condition : str, optional
        Condition under which errors are counted; see :func:`moments`. Defaults to always.
    threshold : float, optional
        Activity above which a target speaker is considered to speak.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        components: tuple[str, ...] = COMPONENTS,
        condition: str | None = None,
        threshold: float = 0.5,
    ):
        super().__init__()
        self.components, self.condition, self.threshold = components, condition, threshold
        for name in (*COMPONENTS, "speech"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, activity: torch.Tensor, target: torch.Tensor, moments: dict[str, torch.Tensor]
    ) -> None:
        """Count the errors of a batch.

        Parameters
        ----------
        activity : (B, 4 T, S) tensor
            In [0, 1].
        target : (B, 4 T, S) int tensor
            1 speaking, 0 not, -1 not scored.
        moments : dict of str to (B, 4 T) bool tensor
        """
        scored = target != UNKNOWN
        if self.condition is not None:
            scored = scored & moments[self.condition][..., None]
        truth, found = (target == 1) & scored, (activity >= self.threshold) & scored
        excess = found.sum(dim=2) - truth.sum(dim=2)
        self.false_alarm += excess.clamp(min=0).sum()
        self.missed_detection += (-excess).clamp(min=0).sum()
        self.confusion += (found & ~truth).sum() - excess.clamp(min=0).sum()
        self.speech += truth.sum()

    def compute(self) -> torch.Tensor:
        """Errors divided by speech."""
        errors = sum(getattr(self, name) for name in self.components)
        return (errors / self.speech.clamp(min=1)).float()


def target_metrics() -> dict[str, Metric]:
    """Diarization error rate, its components, and the rate under each condition."""
    metrics: dict[str, Metric] = {"DiarizationErrorRate": TargetErrorRate()}
    names = {"false_alarm": "FalseAlarm", "missed_detection": "Miss", "confusion": "Confusion"}
    for component, name in names.items():
        metrics[f"DiarizationErrorRate/{name}"] = TargetErrorRate((component,))
    for condition in CONDITIONS:
        metrics[f"DiarizationErrorRate/{condition.title()}"] = TargetErrorRate(condition=condition)
    return metrics
