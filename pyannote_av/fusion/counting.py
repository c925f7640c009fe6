"""Windows become speakers: a tree of likeness, cut where a predicted count says, or a threshold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: cluster of windows of which nothing is known
NOBODY = -1


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

    Notes
    -----
    Average linkage of cosine distances. Memory grows with the square of the number of windows:
    an hour of windows every 0.75 s takes 0.1 GB.

    References
    ----------
    Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker
    diarization. Interspeech 2025.
    """
    if not np.isfinite(count):
        raise ValueError(f"the predicted number of speakers is {count}")
    bounds = num_speakers, min_speakers, max_speakers
    return _cut(embeddings, lambda heights: round(float(count)), bounds)


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
    return _cut(embeddings, lambda heights: 1 + np.count_nonzero(heights > threshold), bounds)


def _cut(
    embeddings: np.ndarray,
    choose: Callable[[np.ndarray], int],
    bounds: tuple[int | None, int | None, int | None],
) -> np.ndarray:
    """Cut the tree into as many clusters as `choose` makes of the heights at which it is joined."""
    from pyannote.audio.pipelines.clustering import BaseClustering
    from scipy.cluster.hierarchy import cut_tree, linkage

    embeddings = np.asarray(embeddings, dtype=np.float64)
    known = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    clusters = np.where(known, 0, NOBODY)
    size = np.count_nonzero(known)
    wanted, fewest, most = BaseClustering().set_num_clusters(size, *bounds)
    if size > 1:
        tree = linkage(embeddings[known], method="average", metric="cosine")
        count = wanted or int(np.clip(choose(tree[:, 2]), fewest, most))
        clusters[known] = cut_tree(tree, n_clusters=count)[:, 0]
    return clusters
