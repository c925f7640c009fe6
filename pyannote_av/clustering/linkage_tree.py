"""The tree of likeness of windows, as a network sees it."""

from __future__ import annotations

import numpy as np
import torch

#: last merges of the tree that are looked at
MERGES = 12
#: what is known of a tree: height and size of each merge, and how many windows there are
NUM_FEATURES = 2 * MERGES + 1


def tree_features(windows: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """How windows of recordings come together, in average linkage of cosine distances.

    Parameters
    ----------
    windows : (batch, windows, dimension) tensor
        Of any length; those that are 0 are left aside.
    real : (batch, windows) bool tensor
        Which are not padding.

    Returns
    -------
    features : (batch, 25) tensor
        Mean distances at which the last clusters are joined, the last one first; logarithms of
        the number of windows in the smaller of both; and that of the number of windows. 0 where
        there are fewer merges. They depend on who is like whom only, not on what anybody is like.
        Nothing is learned through them.
    """
    found = [_features(x[there]) for x, there in zip(windows.detach(), real, strict=True)]
    return torch.from_numpy(np.array(found)).to(windows)


def _features(windows: torch.Tensor) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    x = windows.double().cpu().numpy()
    x = x[x.any(axis=1)]
    features, size = np.zeros((2, MERGES), np.float32), len(x)
    if size > 1:
        tree = linkage(pdist(x, "cosine"), method="average")
        sizes = np.concatenate([np.ones(size), tree[:, 3]])
        last = tree[::-1][:MERGES]
        features[0, : len(last)] = last[:, 2]
        features[1, : len(last)] = np.log(sizes[last[:, :2].astype(int)].min(axis=1))
    return np.append(features.ravel(), np.float32(np.log(max(size, 1))))
