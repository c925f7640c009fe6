"""Clustering of windows by voice and face similarity: late fusion of similarities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyannote.pipeline.parameter import Uniform
from scipy.spatial.distance import squareform

from pyannote_av.clustering.linkage import NOBODY, pair_clusters
from pyannote_av.clustering.tree_counter import TreeCounter
from pyannote_av.clustering.window_diarization import WindowDiarization
from pyannote_av.clustering.windowed_file import WindowedFile
from pyannote_av.clustering.windows import at_once, entry_faces, same_track
from pyannote_av.core.caching import cached
from pyannote_av.models.loading import ModelReference, load_model


class SimilarityDiarization(WindowDiarization):
    """Speaker diarization by cosine similarity of voices, and of faces if both are visible.

    This is "Speech + Face", the late fusion baseline of the AVR-Net paper. Windows are clustered by
    average linkage.

    Parameters
    ----------
    constrained : bool, optional
        Constrain the clustering: windows of the same face track have the same speaker, and faces
        that are visible simultaneously have different ones.
    use_faces : bool, optional
        Compare voices and faces. If False, compare voices only.
    counter : str, Path, mapping or Model, optional
        Network that predicts the number of speakers from the linkage tree of the similarities
        (:class:`~pyannote_av.clustering.tree_counter.TreeCounter`), instead of a threshold. See
        :func:`~pyannote_av.models.loading.load_model`.
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Hyper-parameters
    ----------------
    threshold : float
        Clusters are not merged below this similarity. Not used with a `counter`.

    Raises
    ------
    TypeError
        If the counter is another network.
    """

    def __init__(
        self,
        constrained: bool = False,
        use_faces: bool = True,
        counter: ModelReference | None = None,
        **others: Any,
    ):
        super().__init__(**others)
        self.constrained, self.use_faces = constrained, use_faces
        self.counter = None
        if counter is not None:
            self.counter = load_model(counter, others.get("token"), others.get("cache_dir"))
            if not isinstance(self.counter, TreeCounter):
                raise TypeError(
                    f"counter must be a TreeCounter, not {type(self.counter).__name__}; "
                    "CountingDiarization takes other networks that count"
                )
        self.threshold = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        return {**super().default_parameters(), "threshold": 0.5}

    def to(self, device) -> SimilarityDiarization:
        """Move all models."""
        if self.counter:
            self.counter.to(device)
        return super().to(device)

    def similarities(self, windowed: WindowedFile, hook: Callable) -> np.ndarray:
        """Similarities of entries: (m (m - 1) / 2,) in the order of ``pdist``, NaN if unknown."""
        windows, entries = windowed.windows, windowed.entries
        voices = windowed.speaker_embeddings[entries.window]
        alike = voices @ voices.T
        if self.use_faces:
            faces, visible = entry_faces(windows, entries, windowed.faces.samples)
            faces = faces / np.maximum(np.linalg.norm(faces, axis=1, keepdims=True), 1e-6)
            both = visible[:, None] & visible
            alike = np.where(both, (alike + faces @ faces.T) / 2, alike)
        unknown = ~voices.any(axis=1)
        alike[unknown] = alike[:, unknown] = np.nan
        return squareform(alike, checks=False)

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        entries = windowed.entries
        inputs = windowed.windows, entries, windowed.speaker_embeddings, windowed.faces.samples
        alike = cached(
            windowed.file, "similarities", (self, inputs), lambda: self.similarities(windowed, hook)
        )
        distance = squareform(1.0 - alike, checks=False) if len(alike) else np.zeros((1, 1))
        known = np.isfinite(distance).sum(axis=1) > (
            len(distance) > 1
        )  # beyond the distance to itself
        place = np.cumsum(known) - 1
        pairs: dict[str, np.ndarray] = {}
        if self.constrained:
            pairs = {"same": same_track(entries), "apart": at_once(entries, windowed.faces.tracks)}
            pairs = {k: place[v[known[v].all(axis=1)]] for k, v in pairs.items()}
        clusters = np.full(len(entries), NOBODY)
        if known.any():
            clusters[known] = pair_clusters(
                squareform(distance[np.ix_(known, known)], checks=False).clip(min=0.0),
                1.0 - self.threshold,
                *bounds,
                **pairs,
                counter=self.counter and self.counter.count,
            )
        return clusters
