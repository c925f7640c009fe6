"""Smoothing of scores over time."""

from __future__ import annotations

import numpy as np


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Moving average that ignores NaN. NaN stays NaN.

    Parameters
    ----------
    values : (n,) array
    width : int
        Number of values that are averaged; fewer at both ends.

    Returns
    -------
    averaged : (n,) float64 array

    >>> moving_average(np.array([1.0, 2.0, np.nan, 4.0]), 3).tolist()
    [1.5, 1.5, nan, 4.0]
    """
    if not len(values):
        return np.zeros(0)
    known = np.isfinite(values)
    kernel = np.ones(width)
    # mode "same" would return the length of the kernel for shorter inputs: "full", then cut
    cut = slice((width - 1) // 2, (width - 1) // 2 + len(values))
    total = np.convolve(np.where(known, values, 0.0), kernel)[cut]
    count = np.convolve(known.astype(float), kernel)[cut]
    return np.where(known, total / np.maximum(count, 1.0), np.nan)
