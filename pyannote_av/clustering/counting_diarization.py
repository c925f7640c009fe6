"""Clustering of windows into the number of speakers predicted by a network: CYS-MSD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pyannote.pipeline.parameter import Categorical, Uniform

from pyannote_av.clustering.linkage import informed_clusters, threshold_clusters
from pyannote_av.clustering.window_diarization import WindowDiarization
from pyannote_av.clustering.windowed_file import WindowedFile
from pyannote_av.clustering.windows import all_faces
from pyannote_av.core.caching import cached
from pyannote_av.models.loading import ModelReference, load_model


class CountingDiarization(WindowDiarization):
    """Speaker diarization by contextual embeddings of windows and a predicted speaker count.

    Parameters
    ----------
    counter : str, Path, mapping or Model
        :class:`~pyannote_av.clustering.cysmsd.CYSMSD`; see
        :func:`~pyannote_av.models.loading.load_model`.
    duration, step : float, optional
        Duration of windows, and step between them, in seconds. Default to 1.5 and 0.75, as
        published.
    others
        See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`.

    Hyper-parameters
    ----------------
    counting : {"predicted", "threshold"}
        How the number of speakers is chosen. "predicted" uses the count of the network.
        "threshold" merges clusters up to a distance, as in the ablation of the paper.
    threshold : float
        Mean cosine distance above which clusters are not merged, for "threshold".

    References
    ----------
    Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker
    diarization. Interspeech 2025.

    Notes
    -----
    As published, all visible faces are averaged, whether they talk or not. Each window gets one
    speaker.
    """

    def __init__(
        self, counter: ModelReference, duration: float = 1.5, step: float = 0.75, **others: Any
    ):
        super().__init__(duration=duration, step=step, **others)
        self.counter = load_model(counter, others.get("token"), others.get("cache_dir"))
        self.counting = Categorical(["predicted", "threshold"])
        self.threshold = Uniform(0.0, 1.0)

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given."""
        return {**super().default_parameters(), "counting": "predicted", "threshold": 0.3}

    def to(self, device) -> CountingDiarization:
        """Move all models."""
        self.counter.to(device)
        return super().to(device)

    def count(self, windowed: WindowedFile) -> tuple[np.ndarray, float]:
        """Embeddings of windows (n, D), and the predicted number of speakers, not rounded."""
        windows, samples = windowed.windows, windowed.faces.samples
        voices, (faces, visible) = windowed.speaker_embeddings, all_faces(windows, samples)
        if self.missing_rate:  # faces are removed per window
            kept = np.random.default_rng(self.seed).random(len(windows)) >= self.missing_rate
            visible = visible & kept
        dimension = self.counter.hparams.face_dimension
        if not visible.any():
            faces = np.zeros((len(windows), dimension), np.float32)
        elif faces.shape[1] != dimension:
            raise ValueError(
                f"the network takes face embeddings of dimension {dimension}, not "
                f"{faces.shape[1]}: give the `embedder` that it was trained with, or None"
            )
        inputs = [torch.from_numpy(x).unsqueeze(0) for x in (voices, faces, visible)]
        with torch.inference_mode():
            output = self.counter(*(x.to(self.counter.device) for x in inputs))
        embeddings = output.embeddings[0].float().cpu().numpy()
        # silent windows without a face have no information
        embeddings[~voices.any(axis=1) & ~visible] = 0.0
        return embeddings, float(output.count)

    def cluster(
        self,
        windowed: WindowedFile,
        bounds: tuple[int | None, int | None, int | None],
        hook: Callable,
    ) -> np.ndarray:
        """See :class:`~pyannote_av.clustering.window_diarization.WindowDiarization`."""
        inputs = (
            windowed.windows.span,
            windowed.speaker_embeddings,
            windowed.faces.samples,
            self.missing_rate,
            self.seed,
        )
        embeddings, count = cached(
            windowed.file, "count", (self.counter, inputs), lambda: self.count(windowed)
        )
        hook("counting", count)
        if self.counting == "predicted":
            clusters = informed_clusters(embeddings, count, *bounds)
        else:
            clusters = threshold_clusters(embeddings, self.threshold, *bounds)
        return clusters[windowed.entries.window]
