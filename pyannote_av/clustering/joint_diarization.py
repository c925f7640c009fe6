"""Joint clustering of voices and faces, after 3D-Speaker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyannote.core import Segment, Timeline
from pyannote.pipeline.parameter import Uniform

from pyannote_av.clustering.joint_clustering import join, spectral_clusters
from pyannote_av.clustering.window_diarization import WindowDiarization
from pyannote_av.clustering.windowed_file import WindowedFile


class JointDiarization(WindowDiarization):
    """Speaker diarization by spectral clustering of voices, relabelled by talking faces.

    This is a baseline; see :mod:`pyannote_av.clustering.joint_clustering`.

    Parameters
    ----------
    duration, step : float, optional
        Duration of windows, and step between them, in seconds. Default to 1.5 and 0.75, as
        published.
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Notes
    -----
    A given number of speakers applies to the clusters of voices. Faces may then split and merge
    these clusters.

    Hyper-parameters
    ----------------
    pruning : float
        Share of the similarities of a window that are kept.
    merge : float
        Minimum cosine similarity of clusters of voices that are merged.
    identity : float
        Minimum mean cosine similarity of face tracks of the same person.
    """

    def __init__(self, duration: float = 1.5, step: float = 0.75, **others: Any):
        super().__init__(duration=duration, step=step, **others)
        self.pruning = Uniform(0.01, 0.3)
        self.merge = Uniform(0.3, 1.0)
        self.identity = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given. Clustering parameters are the published ones."""
        chosen = {"pruning": 0.032, "merge": 0.8, "identity": 0.5}
        return {**super().default_parameters(), **chosen}

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        windows, entries = windowed.windows, windowed.entries
        voices = windowed.speaker_embeddings
        clusters = spectral_clusters(voices, *bounds, self.pruning, self.merge)
        alone = entries.visible & (np.bincount(entries.window)[entries.window] == 1)
        talks: list[list[tuple[float, float]]] = []
        for group in windowed.faces.people(self.identity):
            own = windows.own[entries.window[alone & np.isin(entries.track, group)]]
            spans = Timeline(Segment(*span) for span in own).support()
            talks.append([tuple(span) for span in spans])
        return join(clusters, windows.span, talks, voices)[entries.window]
