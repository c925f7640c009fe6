"""Voices are clustered, faces are clustered, and voices follow the faces: as 3D-Speaker does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyannote.core import Segment, Timeline
from pyannote.pipeline.parameter import Uniform

from pyannote_av.clustering.joint_clustering import join, spectral_clusters
from pyannote_av.clustering.scene import Scene
from pyannote_av.clustering.window_diarization import WindowDiarization


class JointDiarization(WindowDiarization):
    """Who spoke when, by spectral clustering of voices, relabelled by faces that talk meanwhile.

    A baseline; see :mod:`pyannote_av.clustering.joint_clustering`.

    Parameters
    ----------
    duration, step : float, optional
        Of windows and between them, in seconds. Default to 1.5 and 0.75, as published.
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Notes
    -----
    Given numbers of speakers are for clusters of voices; faces may split and merge these.

    Hyper-parameters
    ----------------
    pruning : float
        Share of similarities of a window that are kept.
    merge : float
        Cosine similarity from which clusters of voices are merged.
    identity : float
        Mean cosine similarity from which face tracks are of one person.
    """

    def __init__(self, duration: float = 1.5, step: float = 0.75, **others: Any):
        super().__init__(duration=duration, step=step, **others)
        self.pruning = Uniform(0.01, 0.3)
        self.merge = Uniform(0.3, 1.0)
        self.identity = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given; those of clustering are the published ones."""
        chosen = {"pruning": 0.032, "merge": 0.8, "identity": 0.5}
        return {**super().default_parameters(), **chosen}

    def cluster(
        self, scene: Scene, bounds: tuple[int | None, int | None, int | None], hook: Callable
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        windows, entries = scene.windows, scene.entries
        voices = scene.voices
        clusters = spectral_clusters(voices, *bounds, self.pruning, self.merge)
        alone = entries.visible & (np.bincount(entries.window)[entries.window] == 1)
        talks: list[list[tuple[float, float]]] = []
        for group in scene.seen.people(self.identity):
            own = windows.own[entries.window[alone & np.isin(entries.track, group)]]
            spans = Timeline(Segment(*span) for span in own).support()
            talks.append([tuple(span) for span in spans])
        return join(clusters, windows.span, talks, voices)[entries.window]
