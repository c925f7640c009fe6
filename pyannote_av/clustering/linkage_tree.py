"""Features of the linkage tree of windows, as network input."""

from __future__ import annotations

import numpy as np
import torch

#: number of merges of the tree that are used, from the last one
MERGES = 12
#: number of features: height and size of each merge, and the number of windows
NUM_FEATURES = 2 * MERGES + 1


def tree_features(windows: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Features of the average-linkage tree of cosine distances of each recording.

    Parameters
    ----------
    windows : (batch, windows, dimension) tensor
        Embeddings of any norm. Those that are 0 are ignored.
    real : (batch, windows) bool tensor
        Windows that are not padding.

    Returns
    -------
    features : (batch, 25) tensor
        Mean distances of the last merges, starting with the last one; logarithms of the number of
        windows in the smaller cluster of each merge; and the logarithm of the number of windows. 0
        if there are fewer merges. The features depend on similarities only, not on the embeddings
        themselves. No gradient flows through them.
    """
    found = [_features(x[there]) for x, there in zip(windows.detach(), real, strict=True)]
    return torch.from_numpy(np.array(found)).to(windows)


def features_of_tree(tree: np.ndarray) -> np.ndarray:
    """Features of one tree.

    Parameters
    ----------
    tree : (n - 1, 4) float array
        Average linkage of n windows, as scipy returns it.

    Returns
    -------
    features : (25,) float32 array
        See :func:`tree_features`. Distances are at most 2, the largest cosine distance; constraints
        of the clustering make them larger.
    """
    features, size = np.zeros((2, MERGES), np.float32), len(tree) + 1
    sizes = np.concatenate([np.ones(size), tree[:, 3]])
    last = tree[::-1][:MERGES]
    features[0, : len(last)] = last[:, 2].clip(max=2.0)
    features[1, : len(last)] = np.log(sizes[last[:, :2].astype(int)].min(axis=1))
    return np.append(features.ravel(), np.float32(np.log(size)))


def _features(windows: torch.Tensor) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    x = windows.double().cpu().numpy()
    x = x[x.any(axis=1)]
    tree = linkage(pdist(x, "cosine"), "average") if len(x) > 1 else np.zeros((0, 4))
    return features_of_tree(tree)
