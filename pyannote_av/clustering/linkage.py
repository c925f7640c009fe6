"""Windows become speakers: a tree of likeness, cut where a threshold or a number of them says.

Average linkage throughout (UPGMA), by scipy. Memory grows with the square of the number of windows:
an hour of windows every 0.75 s takes 0.1 GB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: cluster of windows of which nothing is known
NOBODY = -1
# a distance that is next to none; added to others, it is lost
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
        Of any length. Those that are 0, or not finite, are nobody's.
    count : float
        Prediction; rounded, then bounded by what follows.
    num_speakers, min_speakers, max_speakers : int, optional
        What is known of the number of speakers. There are never more than windows, nor less
        than one.

    Returns
    -------
    clusters : (num_windows,) int array
        Numbered from 0 in order of appearance; :data:`NOBODY` where nothing is known.

    Raises
    ------
    ValueError
        When the count is not finite, or bounds contradict each other.

    References
    ----------
    Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker
    diarization. Interspeech 2025.
    """
    if not np.isfinite(count):
        raise ValueError(f"the predicted number of speakers is {count}")
    bounds = num_speakers, min_speakers, max_speakers
    return _cosine(embeddings, lambda heights: round(float(count)), bounds)


def threshold_clusters(
    embeddings: np.ndarray,
    threshold: float,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
) -> np.ndarray:
    """Cluster windows until clusters are further apart than a threshold.

    Parameters
    ----------
    threshold : float
        Mean cosine distance, in [0, 2].
    others
        See :func:`informed_clusters`, which this is the ablation of.

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
) -> np.ndarray:
    """Cluster items of which the distance of every two is known.

    Parameters
    ----------
    distance : (n (n - 1) / 2,) float array
        Of pairs, at least 0, in the order of ``scipy.spatial.distance.pdist``.
    threshold : float
        Mean distance above which clusters are not joined.
    num_speakers, min_speakers, max_speakers : int, optional
        See :func:`informed_clusters`.
    same : (k, 2) int array, optional
        Pairs that are one speaker: all pairs of every group of such.
    apart : (k, 2) int array, optional
        Pairs that are not: clusters that hold such a pair are joined last, and only where the
        number of speakers demands it.

    Returns
    -------
    clusters : (n,) int array
        Numbered from 0 in order of appearance.

    Raises
    ------
    ValueError
        When a distance is not finite.
    """
    from scipy.spatial.distance import num_obs_y

    distance = np.array(distance, np.float64)
    if not np.isfinite(distance).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(distance))} distances are not finite")
    if not len(distance):
        return np.zeros(1, int)
    size = num_obs_y(distance)
    # what one distance must be for the mean of any two clusters to be beyond all others
    beyond = (1.0 + max(distance.max(), threshold)) * size**2
    # groups of the same are joined first, also where others are no distance apart
    distance = np.maximum(distance, _TINY)
    for pairs, value in ((same, 0.0), (apart, beyond)):
        if pairs is not None and len(pairs):
            first, second = np.sort(pairs, axis=1).T
            distance[size * first - first * (first + 1) // 2 + second - first - 1] = value
    return _cut(distance, _above(threshold + 2 * _TINY), (num_speakers, min_speakers, max_speakers))


def _above(threshold: float) -> Callable[[np.ndarray], int]:
    """Clusters that are left when those at most `threshold` apart are joined"""
    return lambda heights: 1 + np.count_nonzero(heights > threshold)


def _cosine(
    embeddings: np.ndarray,
    choose: Callable[[np.ndarray], int],
    bounds: tuple[int | None, int | None, int | None],
) -> np.ndarray:
    """Clusters of embeddings by cosine distance"""
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
    """Cut the tree into as many clusters as `choose` makes of the heights at which it is joined"""
    from pyannote.audio.pipelines.clustering import BaseClustering
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import num_obs_y

    if not len(distance):
        return np.zeros(1, int)
    wanted, fewest, most = BaseClustering().set_num_clusters(num_obs_y(distance), *bounds)
    tree = linkage(distance, method="average")
    count = wanted or int(np.clip(choose(tree[:, 2]), fewest, most))
    return cut_tree(tree, n_clusters=count)[:, 0]
