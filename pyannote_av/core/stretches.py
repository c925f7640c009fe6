"""Where something is true for a while."""

from __future__ import annotations

import numpy as np


def stretches(mask: np.ndarray) -> np.ndarray:
    """First and behind-last index of the runs of True in (T,) bool: (n, 2) int."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return edges.reshape(-1, 2)
