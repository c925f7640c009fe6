"""Harm: files that are worse than sound alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: a file is worse, or much worse, if its DER is higher by more than this, in points
WORSE, MUCH_WORSE = 0.5, 2.0


def harm(ders: Sequence[float], alone: Sequence[float]) -> dict[str, float]:
    """Mean DER of files, how many are worse than sound alone, and the largest difference.

    Parameters
    ----------
    ders, alone : sequences of float
        DER of each file for a system and for sound alone, in percent.

    Returns
    -------
    harm : dict
        "DER" and "most" in percent and points; "worse" and "worse by 2" are numbers of files.
    """
    more = np.asarray(ders) - np.asarray(alone)
    return {
        "DER": round(float(np.mean(ders)), 2),
        "worse": int((more > WORSE).sum()),
        "worse by 2": int((more > MUCH_WORSE).sum()),
        "most": round(float(more.max()), 2),
    }
