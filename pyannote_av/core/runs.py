"""Runs of True values in boolean arrays."""

from __future__ import annotations

import numpy as np


def true_runs(mask: np.ndarray) -> np.ndarray:
    """Start and end (exclusive) index of each run of True in (T,) bool: (n, 2) int."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return edges.reshape(-1, 2)
