"""How well scores rank the positives before the negatives: pure functions of arrays."""

from __future__ import annotations

import numpy as np


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"{scores.shape} scores for {labels.shape} labels; both must be (N,)")
    if scores.dtype.kind != "i":  # integers stay integers: their ties are sorted differently
        scores = scores.astype(np.float64)
        if (missing := np.isnan(scores)).any():
            raise ValueError(f"score of row {int(missing.argmax())} is NaN")
    return scores, labels.astype(bool)


def _interpolated(positive: np.ndarray) -> float:
    """Area under the interpolated precision-recall curve; labels (N,), best score first"""
    if not positive.any():
        return float("nan")
    precision = np.cumsum(positive) / np.arange(1, len(positive) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # recall grows by the same amount at each positive, and nowhere else
    return float(envelope[positive].mean())


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision as the evaluation script of AVA-ActiveSpeaker computes it.

    Precision at a recall is the best one at that recall or a higher one, as in PASCAL VOC since
    2010. Every row is a step of the curve of its own, also where scores are equal: what the
    official script reports then depends on the order that numpy's (unstable) quicksort leaves
    them in, hence on the processor: runs of it on one machine with and without AVX-512 differ by
    up to 4 points where all scores are equal. This function sorts the same way, so that it agrees
    with a run of the script on the same machine; :func:`average_precision_range` tells how much is
    at stake.

    Parameters
    ----------
    scores : (N,) array
        The higher, the more likely positive. Only their order matters.
    labels : (N,) array of bool

    Returns
    -------
    average_precision : float
        In [0, 1]; NaN without positives, where the official script fails.

    References
    ----------
    https://github.com/activitynet/ActivityNet, Evaluation/get_ava_active_speaker_performance.py
    """
    scores, labels = _checked(scores, labels)
    # pandas sorts down by sorting the reversed column up, and reversing the outcome
    return _interpolated(labels[::-1][np.argsort(scores[::-1], kind="quicksort")][::-1])


def average_precision_range(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Lowest and highest average precision over all orders of rows with equal scores.

    Both are the average precision where no positive ties with a negative. Parameters are those of
    :func:`average_precision`.
    """
    scores, labels = _checked(scores, labels)
    low, high = (labels[np.lexsort((order, scores))[::-1]] for order in (~labels, labels))
    return _interpolated(low), _interpolated(high)


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of pairs of a positive and a negative that are ranked rightly; ties count half.

    Parameters are those of :func:`average_precision`; NaN unless there are both.
    """
    from scipy.stats import rankdata

    scores, labels = _checked(scores, labels)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    wins = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def f1_score(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall; NaN where there is neither a positive nor a claim.

    Parameters
    ----------
    decisions, labels : (N,) arrays of bool
    """
    decisions, labels = np.asarray(decisions, bool), np.asarray(labels, bool)
    count = int(decisions.sum()) + int(labels.sum())
    return 2 * int((decisions & labels).sum()) / count if count else float("nan")
