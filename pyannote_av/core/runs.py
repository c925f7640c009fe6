"""Runs of True values in boolean arrays."""

from __future__ import annotations

import numpy as np


def true_runs(mask: np.ndarray, max_gap: int = 0) -> np.ndarray:
    """Find runs of True.

    Parameters
    ----------
    mask : (T,) bool array
    max_gap : int, optional
        Runs are joined over up to this many False values.

    Returns
    -------
    runs : (n, 2) int array
        Start and end (exclusive) index of each run.
    """
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    if max_gap > 0 and len(edges):
        apart = edges[2::2] - edges[1:-1:2] > max_gap
        edges = edges[np.r_[True, np.repeat(apart, 2), True]]
    return edges.reshape(-1, 2)
