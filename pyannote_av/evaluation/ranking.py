"""Ranking metrics for scores and binary labels, as pure functions of arrays."""

from __future__ import annotations

import numpy as np


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"{scores.shape} scores for {labels.shape} labels; both must be (N,)")
    if scores.dtype.kind != "i":  # keep integers, whose ties numpy sorts differently
        scores = scores.astype(np.float64)
        if (missing := np.isnan(scores)).any():
            raise ValueError(f"score of row {int(missing.argmax())} is NaN")
    return scores, labels.astype(bool)


def _interpolated(positive: np.ndarray) -> float:
    """Area under the interpolated precision-recall curve of labels (N,), highest score first"""
    if not positive.any():
        return float("nan")
    precision = np.cumsum(positive) / np.arange(1, len(positive) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # recall grows by the same amount at each positive, and is constant elsewhere
    return float(envelope[positive].mean())


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision, computed as in the evaluation script of AVA-ActiveSpeaker.

    Precision at a recall is the highest precision at that recall or above, as in PASCAL VOC since
    2010. Every row is a separate step of the curve, even if scores are equal. With equal scores,
    the result of the official script depends on the order in which numpy's unstable quicksort
    leaves them, and therefore on the processor. Its results on one machine with and without AVX-512
    differ by up to 4 points if all scores are equal. This function sorts in the same way, so it
    agrees with the script on the same machine. :func:`average_precision_range` gives the range of
    possible results.

    Parameters
    ----------
    scores : (N,) array
        Higher means more likely positive. Only the order matters.
    labels : (N,) array of bool

    Returns
    -------
    average_precision : float
        In [0, 1]. NaN without positives; in this case the official script fails.

    References
    ----------
    https://github.com/activitynet/ActivityNet, Evaluation/get_ava_active_speaker_performance.py
    """
    scores, labels = _checked(scores, labels)
    # pandas sorts in descending order by sorting the reversed column and reversing the result
    return _interpolated(labels[::-1][np.argsort(scores[::-1], kind="quicksort")][::-1])


def average_precision_range(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Lowest and highest average precision over all orders of rows with equal scores.

    Both are equal to the average precision if no positive ties with a negative. Parameters are
    those of :func:`average_precision`.
    """
    scores, labels = _checked(scores, labels)
    low, high = (labels[np.lexsort((order, scores))[::-1]] for order in (~labels, labels))
    return _interpolated(low), _interpolated(high)


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (positive, negative) pairs that are ranked correctly. Ties count half.

    Parameters are those of :func:`average_precision`. NaN without positives or negatives.
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
    """Harmonic mean of precision and recall. NaN without positive labels and decisions.

    Parameters
    ----------
    decisions, labels : (N,) arrays of bool
    """
    decisions, labels = np.asarray(decisions, bool), np.asarray(labels, bool)
    count = int(decisions.sum()) + int(labels.sum())
    return 2 * int((decisions & labels).sum()) / count if count else float("nan")
