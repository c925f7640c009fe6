"""Significance of differences between systems: paired tests over files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.evaluation.diarization_result import DiarizationResult
from pyannote_av.evaluation.tables import aligned

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SEED = 20240229
SAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """Comparison of two systems under one condition.

    Attributes
    ----------
    first, second : str
    vad, rule : str
    files : int
    difference : float
        DER of `first` minus DER of `second`, in points. Negative if the first is better.
    lowest, highest : float
        Bootstrap confidence interval (95 %) of the difference.
    p_bootstrap, p_permutation : float
        Two-sided p-values.
    p_holm : float
        `p_permutation`, corrected for the number of comparisons.
    """

    first: str
    second: str
    vad: str
    rule: str
    files: int
    difference: float
    lowest: float
    highest: float
    p_bootstrap: float
    p_permutation: float
    p_holm: float = float("nan")


def bootstrap(
    difference: ArrayLike, total: ArrayLike, samples: int = SAMPLES, seed: int = SEED
) -> tuple[float, float, float]:
    """Bootstrap interval of the difference in DER. Files are drawn with replacement.

    Parameters
    ----------
    difference : (N,) float
        Seconds of error of one system minus those of the other, per file.
    total : (N,) float
        Seconds of reference speech per file.

    Returns
    -------
    lowest, highest, p : float
        Bounds of the 95 % percentile interval, as share of the reference, and two-sided p-value,
        which is twice the share of draws on the other side of zero.

    References
    ----------
    Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    ICASSP 2004.
    """
    from scipy import stats

    def der(errors: np.ndarray, speech: np.ndarray, axis: int = -1) -> np.ndarray:
        errors, speech = errors.sum(axis), speech.sum(axis)
        return np.divide(errors, speech, out=np.full_like(speech, np.nan), where=speech > 0)

    data = np.asarray(difference, float), np.asarray(total, float)
    values = np.full(samples, der(*data))
    if len(data[0]) > 1:
        # scipy refuses a single file, and warns about draws without speech, which are ignored here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            drawn = stats.bootstrap(
                data, der, paired=True, n_resamples=samples, method="percentile", rng=seed
            )
        values = drawn.bootstrap_distribution
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan"), 1.0
    tail = min((values <= 0).sum(), (values >= 0).sum())
    lowest, highest = np.percentile(values, [2.5, 97.5])
    return float(lowest), float(highest), float(min(1.0, 2 * (tail + 1) / (len(values) + 1)))


def permutation(difference: ArrayLike, samples: int = SAMPLES, seed: int = SEED) -> float:
    """Permutation test that swaps the two systems file by file.

    The test is exact if there are at most `samples` permutations.

    Parameters
    ----------
    difference : (N,) float
        Seconds of error of one system minus those of the other, per file.

    Returns
    -------
    p : float
        Two-sided p-value.
    """
    from scipy import stats

    difference = np.asarray(difference, float)
    if len(difference) < 2:
        return 1.0  # both permutations are as extreme

    def size(errors: np.ndarray, axis: int = -1) -> np.ndarray:
        # rounded, because the last digits depend on the order of summation
        return np.abs(errors.sum(axis)).round(9)

    return float(
        stats.permutation_test(
            (difference,),
            size,
            permutation_type="samples",
            n_resamples=samples,
            alternative="greater",
            vectorized=True,
            rng=seed,
        ).pvalue
    )


def holm(p: ArrayLike) -> np.ndarray:
    """Correct (N,) p-values for multiple comparisons (Holm, 1979). NaN values stay NaN.

    The smallest p-value is multiplied by N, the next by N - 1, and so on. The order of p-values is
    preserved.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    steps = p[order] * (len(p) - np.arange(len(p)))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def compare(
    results: Sequence[DiarizationResult],
    vad: str = "automatic",
    rule: str = "Full",
    samples: int = SAMPLES,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare all pairs of systems.

    Parameters
    ----------
    results : sequence of DiarizationResult
        Results on the same files.
    vad, rule : str, optional
        Condition to compare.

    Raises
    ------
    ValueError
        When systems were not scored on the same speech.
    """
    found = []
    for first, second in combinations(results, 2):
        a, b = first.per_file(vad, rule), second.per_file(vad, rule)
        if a.keys() != b.keys() or any(abs(a[u].total - b[u].total) > 1e-6 for u in a):
            raise ValueError(f"{first.system} and {second.system} were not scored on the same")
        total = np.array([score.total for score in a.values()])
        difference = np.array([a[uri].errors - b[uri].errors for uri in a])
        lowest, highest, p_bootstrap = bootstrap(difference, total, samples, seed)
        found.append(
            Comparison(
                *(first.system, second.system, vad, rule, len(a)),
                100 * (first[vad, rule].der - second[vad, rule].der),
                *(100 * lowest, 100 * highest, p_bootstrap),
                permutation(difference, samples, seed),
            )
        )
    corrected = holm([one.p_permutation for one in found])
    return [
        Comparison(**{**vars(one), "p_holm": float(p)})
        for one, p in zip(found, corrected, strict=True)
    ]


def describe(comparisons: Sequence[Comparison]) -> str:
    """Comparisons as a text table."""
    rows = [("system", "against", "DER difference", "95 %", "p bootstrap", "p permutation", "Holm")]
    for one in comparisons:
        span = f"{one.lowest:+.2f} to {one.highest:+.2f}"
        values = (f"{p:.4f}" for p in (one.p_bootstrap, one.p_permutation, one.p_holm))
        rows.append((one.first, one.second, f"{one.difference:+.2f}", span, *values))
    head = f"{comparisons[0].vad} VAD, {comparisons[0].rule}, {comparisons[0].files} files, paired"
    return f"{head}:\n{aligned(rows, left=2)}"
