"""Hierarchical clustering of windows, with a threshold or with a number of speakers.

All functions use average linkage (UPGMA) of scipy. Memory grows with the square of the number of
windows: one hour of windows every 0.75 s takes 0.1 GB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: cluster of windows without an embedding
NOBODY = -1
# smallest positive distance; negligible when added to others
_TINY = 1e-100


def informed_clusters(
    embeddings: np.ndarray,
    count: float,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> np.ndarray:
    """Cluster windows into a predicted number of speakers.

    Parameters
    ----------
    embeddings : (num_windows, dimension) array
        Embeddings of any norm. Those that are 0 or not finite are not clustered.
    count : float
        Predicted number of speakers. It is rounded, then clipped to the bounds.
    num_speakers, min_speakers, max_speakers : int, optional
        Known number of speakers, or bounds on it. The result always has between one speaker and as
        many speakers as windows.

    Returns
    -------
    clusters : (num_windows,) int array
        Numbered from 0 in order of appearance. :data:`NOBODY` for windows that are not clustered.

    Raises
    ------
    ValueError
        If the count is not finite, or if bounds contradict each other.

    References
    ----------
    Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker
    diarization. Interspeech 2025.
    """
    if not np.isfinite(count):
        raise ValueError(f"the predicted number of speakers is {count}")
    bounds = num_speakers, min_speakers, max_speakers
    return _cosine(embeddings, lambda tree: round(float(count)), bounds)


def threshold_clusters(
    embeddings: np.ndarray,
    threshold: float,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> np.ndarray:
    """Cluster windows up to a maximum distance between merged clusters.

    Parameters
    ----------
    threshold : float
        Maximum mean cosine distance of clusters that are merged, in [0, 2].
    others
        See :func:`informed_clusters`. In its paper, this function is the ablation.

    Returns
    -------
    clusters : (num_windows,) int array
        See :func:`informed_clusters`.
    """
    bounds = num_speakers, min_speakers, max_speakers
    return _cosine(embeddings, _above(threshold), bounds)


def pair_clusters(
    distance: np.ndarray,
    threshold: float,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    same: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    counter: Callable[[np.ndarray], int] | None = None,
) -> np.ndarray:
    """Cluster items from their pairwise distances.

    Parameters
    ----------
    distance : (n (n - 1) / 2,) float array
        Non-negative distances of pairs, in the order of ``scipy.spatial.distance.pdist``.
    threshold : float
        Mean distance above which clusters are not merged.
    num_speakers, min_speakers, max_speakers : int, optional
        See :func:`informed_clusters`.
    same : (k, 2) int array, optional
        Pairs with the same speaker. All pairs of each group must be given.
    apart : (k, 2) int array, optional
        Pairs with different speakers. Clusters with such a pair are merged last, and only to reach
        the requested number of speakers.
    counter : callable, optional
        Function of the average-linkage tree, as scipy returns it, that returns the number of
        clusters. It replaces the threshold.

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance.

    Raises
    ------
    ValueError
        If a distance is not finite.
    """
    from scipy.spatial.distance import num_obs_y

    distance = np.array(distance, np.float64)
    if not np.isfinite(distance).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(distance))} distances are not finite")
    if not len(distance):
        return np.zeros(1, int)
    size = num_obs_y(distance)
    # one distance of this value makes the mean distance of two clusters larger than all others
    beyond = (1.0 + max(distance.max(), threshold)) * size**2
    # pairs of the same speaker are merged first, even before other pairs with distance 0
    distance = np.maximum(distance, _TINY)
    for pairs, value in ((same, 0.0), (apart, beyond)):
        if pairs is not None and len(pairs):
            first, second = np.sort(pairs, axis=1).T
            distance[size * first - first * (first + 1) // 2 + second - first - 1] = value
    choose = counter or _above(threshold + 2 * _TINY)
    return _cut(distance, choose, (num_speakers, min_speakers, max_speakers))


def _above(threshold: float) -> Callable[[np.ndarray], int]:
    """Function that counts the clusters left after merging those at most `threshold` apart"""
    return lambda tree: 1 + np.count_nonzero(tree[:, 2] > threshold)


def _cosine(
    embeddings: np.ndarray,
    choose: Callable[[np.ndarray], int],
    bounds: tuple[int | None, int | None, int | None],
) -> np.ndarray:
    """Cluster embeddings by cosine distance"""
    from scipy.spatial.distance import pdist

    embeddings = np.asarray(embeddings, dtype=np.float64)
    known = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    clusters = np.full(len(known), NOBODY)
    if known.any():
        clusters[known] = _cut(pdist(embeddings[known], "cosine"), choose, bounds)
    return clusters


def _cut(
    distance: np.ndarray,
    choose: Callable[[np.ndarray], int],
    bounds: tuple[int | None, int | None, int | None],
) -> np.ndarray:
    """Cut the tree into the number of clusters that `choose` returns for it"""
    from pyannote.audio.pipelines.clustering import BaseClustering
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import num_obs_y

    if not len(distance):
        return np.zeros(1, int)
    wanted, fewest, most = BaseClustering().set_num_clusters(num_obs_y(distance), *bounds)
    tree = linkage(distance, method="average")
    count = wanted or int(np.clip(choose(tree), fewest, most))
    return cut_tree(tree, n_clusters=count)[:, 0]
