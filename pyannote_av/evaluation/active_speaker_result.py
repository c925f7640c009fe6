"""Metrics of active speaker detection, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.evaluation.ranking import (
    average_precision,
    average_precision_range,
    f1_score,
    roc_auc,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ActiveSpeakerScore:
    """Metrics of one group of faces. Shares are in [0, 1], and NaN where undefined.

    Attributes
    ----------
    group : str
    faces : int
        Number of annotated faces, one per frame and track.
    speaking : int
        Number of faces that are speaking audibly.
    average_precision : float
        See :func:`~pyannote_av.evaluation.ranking.average_precision`.
    lowest, highest : float
        Range of average precision over all orders of equal scores.
    roc_auc : float
    f1, accuracy : float
        For the decision that scores above the threshold mean speaking.
    """

    group: str
    faces: int
    speaking: int
    average_precision: float
    lowest: float
    highest: float
    roc_auc: float
    f1: float
    accuracy: float

    @classmethod
    def of(
        cls, group: str, scores: np.ndarray, labels: np.ndarray, threshold: float
    ) -> ActiveSpeakerScore:
        """Metrics of (N,) scores and (N,) bool labels."""
        decisions = scores > threshold
        return cls(
            group,
            len(scores),
            int(labels.sum()),
            average_precision(scores, labels),
            *average_precision_range(scores, labels),
            roc_auc(scores, labels),
            f1_score(decisions, labels),
            float((decisions == labels).mean()) if len(labels) else float("nan"),
        )


@dataclass(frozen=True, repr=False)
class ActiveSpeakerResult:
    """Table of :class:`ActiveSpeakerScore`: the overall one first, then the groups.

    ``result.overall.average_precision`` is one metric, ``result["small"]`` has all metrics of a
    group, and printing the result shows the whole table.
    """

    scores: tuple[ActiveSpeakerScore, ...]
    threshold: float

    def __getitem__(self, group: str) -> ActiveSpeakerScore:
        for score in self.scores:
            if score.group == group:
                return score
        raise KeyError(f"no group {group!r}, but {[score.group for score in self.scores]}")

    @property
    def overall(self) -> ActiveSpeakerScore:
        """Metrics of all faces, or the mean over speakers."""
        return self.scores[0]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per group, indexed by its name."""
        import pandas as pd

        return pd.DataFrame([vars(score) for score in self.scores]).set_index("group")

    def __repr__(self) -> str:
        """Table in percent. The range of AP is shown if ties make it at least 0.01 points wide."""
        width = max(len(score.group) for score in self.scores)
        lines = [f"{'':{width}}    faces speaking     AP    AUC     F1    acc"]
        for s in self.scores:
            shares = (s.average_precision, s.roc_auc, s.f1, s.accuracy)
            line = f"{s.group:{width}} {s.faces:8d} {s.speaking:8d} "
            line += " ".join(f"{100 * share:6.2f}" for share in shares)
            if s.highest - s.lowest >= 1e-4:
                line += f"  (AP {100 * s.lowest:.2f} to {100 * s.highest:.2f}: equal scores)"
            lines.append(line)
        return "\n".join(lines)
