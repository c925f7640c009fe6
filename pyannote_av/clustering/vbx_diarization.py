"""Clustering of windows by pyannote's VBx, with a PLDA fitted by this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyannote.audio.core.plda import PLDA
from pyannote.core import SlidingWindow, SlidingWindowFeature

from pyannote_av.clustering.linkage import NOBODY
from pyannote_av.clustering.window_diarization import WindowDiarization
from pyannote_av.clustering.windowed_file import WindowedFile
from pyannote_av.core.caching import cached
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import load_plda
from pyannote_av.pipelines.clustering import VBxClustering

# windows per forward pass of the embedding model
_BATCH = 16


class VBxDiarization(WindowDiarization):
    """Speaker diarization by variational Bayes clustering of voices, without faces.

    This is a baseline. :class:`~pyannote_av.pipelines.audio_diarization.AudioDiarization` with a
    PLDA is better, because it handles overlapping speech.

    Parameters
    ----------
    plda : str, Path, mapping or PLDA
        A folder written by ``pyannote-av fit-plda`` for the embedding model.
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Hyper-parameters
    ----------------
    clustering : dict
        ``threshold``, ``Fa`` and ``Fb`` of pyannote's ``VBxClustering``.
    """

    def __init__(self, plda: str | Path | Mapping | PLDA, **others: Any):
        super().__init__(**others)
        plda = load_plda(plda, others.get("token"), others.get("cache_dir"))
        self.clustering = VBxClustering(plda)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given. They are those of pyannote's community-1."""
        chosen = {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}
        return {**super().default_parameters(), "clustering": chosen}

    def embed_windows(self, file: Mapping, spans: np.ndarray) -> np.ndarray:
        """Speaker embeddings of windows, not normalised, because the PLDA uses their length."""
        depends_on = self.embedding, spans
        return cached(
            file, "unscaled embeddings", depends_on, lambda: self._embed(file["waveform"], spans)
        )

    def _embed(self, sound: torch.Tensor, spans: np.ndarray) -> np.ndarray:
        """Embeddings (n, E), 0 for windows that are too short or digitally silent"""
        spans = np.round(spans * SAMPLE_RATE).astype(int)
        size = spans[:, 1] - spans[:, 0]
        found = np.zeros((len(spans), self.embedding.dimension), np.float32)
        shortest = self.embedding.receptive_field_size(self.embedding.MIN_FRAMES)
        with torch.inference_mode():
            for length in np.unique(size[size >= shortest]):
                rows = np.flatnonzero(size == length)
                for some in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                    pieces = torch.stack([sound[:, a : a + length] for a in spans[some, 0]]).float()
                    voices = self.embedding(pieces.to(self.embedding.device)).cpu().numpy()
                    # the embedding of digital silence is meaningless: set it to 0
                    found[some] = voices * pieces.any(dim=2).numpy()
        return np.where(np.isfinite(found).all(axis=1, keepdims=True), found, 0.0)

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        voices = windowed.speaker_embeddings
        known = voices.any(axis=1)
        clusters = np.full(len(voices), NOBODY)
        if known.any():
            number, fewest, most = bounds
            count = int(known.sum())
            # each window is treated as a chunk in which one speaker is always active
            always = SlidingWindowFeature(np.ones((count, 10, 1)), SlidingWindow())
            hard, _, _ = self.clustering(
                voices[known, None],
                segmentations=always,
                num_clusters=number and min(number, count),
                min_clusters=min(number or fewest or 1, count),
                max_clusters=min(number or most or count, count),
            )
            clusters[known] = hard[:, 0]
        return clusters[windowed.entries.window]
