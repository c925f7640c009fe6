"""pyannote's clustering methods, extended to very short and very long files."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from threading import RLock

import numpy as np
from pyannote.audio.pipelines.clustering import AgglomerativeClustering as _Agglomerative
from pyannote.audio.pipelines.clustering import VBxClustering as _VBx
from pyannote.core import SlidingWindowFeature

logger = logging.getLogger(__name__)

# clustering changes attributes and redirects stdout while it runs: one thread at a time
_LOCK = RLock()


class _AnyDuration:
    """Mixin for pyannote's clustering methods.

    * Long files: at most :attr:`MAX_EMBEDDINGS` embeddings, evenly spread over the file, are
      clustered, because memory and time grow with the square of their number. All others are
      assigned to the closest centroid. Chunks overlap, so neighbouring embeddings are nearly
      redundant.
    * Short files: if too few embeddings come from speakers who talk alone for 20 % of a chunk,
      speakers with less speech are clustered too.
    * NaN embeddings get no cluster, unless all embeddings are NaN.

    For all other files, results are those of the base class.
    """

    MAX_EMBEDDINGS = 2000
    _num_wanted = 1

    def filter_embeddings(
        self,
        embeddings: np.ndarray,
        segmentations: SlidingWindowFeature | None = None,
        min_active_ratio: float = 0.2,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose the embeddings to cluster; see pyannote's ``BaseClustering``."""
        _, num_frames, _ = segmentations.data.shape
        # the last two ratios accept a single frame of non-overlapping speech, then any embedding
        for ratio in (min_active_ratio, min_active_ratio / 4, 1 / num_frames, 0.0):
            kept, chunk, speaker = super().filter_embeddings(embeddings, segmentations, ratio)
            if len(kept) >= self._num_wanted:
                break
        if len(kept) > self.MAX_EMBEDDINGS:
            spread = np.linspace(0, len(kept) - 1, self.MAX_EMBEDDINGS).round().astype(int)
            kept, chunk, speaker = kept[spread], chunk[spread], speaker[spread]
        return kept, chunk, speaker

    def __call__(
        self,
        embeddings: np.ndarray,
        segmentations: SlidingWindowFeature | None = None,
        num_clusters: int | None = None,
        min_clusters: int | None = None,
        max_clusters: int | None = None,
        **kwargs,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cluster; see pyannote's ``BaseClustering``."""
        invalid = np.isnan(embeddings).any(axis=2)
        with _LOCK, warnings.catch_warnings():
            self._num_wanted = num_clusters or min_clusters or 1
            # NaN is the intended mean of an empty set of embeddings
            warnings.filterwarnings("ignore", category=RuntimeWarning, message="(Mean|invalid)")
            hard, soft, centroids = super().__call__(
                embeddings,
                segmentations=segmentations,
                num_clusters=num_clusters,
                min_clusters=min_clusters,
                max_clusters=max_clusters,
                **kwargs,
            )
        if not invalid.all():
            hard[invalid] = -2
        return hard, soft, centroids


class AgglomerativeClustering(_AnyDuration, _Agglomerative):
    """Agglomerative clustering that returns the requested number of clusters where possible."""

    def cluster(
        self,
        embeddings: np.ndarray,
        min_clusters: int | None = None,
        max_clusters: int | None = None,
        num_clusters: int | None = None,
    ) -> np.ndarray:
        """Cluster embeddings. Smaller clusters are accepted to reach the requested number."""
        wanted = num_clusters or min_clusters or 1
        chosen_size = self.min_cluster_size
        try:
            while True:
                printed = io.StringIO()
                with redirect_stdout(printed):  # log what upstream prints
                    clusters = super().cluster(
                        embeddings.copy(), min_clusters, max_clusters, num_clusters
                    )
                if printed.getvalue():
                    logger.debug(printed.getvalue().strip())
                if len(np.unique(clusters)) >= wanted or self.min_cluster_size == 1:
                    return clusters
                self.min_cluster_size = self.min_cluster_size // 2
        finally:
            self.min_cluster_size = chosen_size


class VBxClustering(_AnyDuration, _VBx):
    """Variational Bayes clustering of x-vectors."""
