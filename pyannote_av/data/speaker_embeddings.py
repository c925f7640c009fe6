"""Precomputed speaker embeddings of the files of a store, by window."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.checksums import weights_digest
from pyannote_av.data.array_store import ArrayStore, FillReport, fill, open_arrays
from pyannote_av.data.crop_store import CropStore
from pyannote_av.models.embedding.voiceprints import HOP, WINDOW, speaker_features

if TYPE_CHECKING:
    from pyannote.audio import Model


def build_speaker_embeddings(
    store: CropStore,
    uris: Iterable[str] | None = None,
    embedder: str | Path | Model = "campplus",
    folder: str | Path | None = None,
    progress: bool = False,
) -> FillReport:
    """Write the speaker embeddings of the files of a store.

    Existing ones are kept, unless the sound or the embedder changed. Read them with ``ArrayStore``.

    Parameters
    ----------
    store : CropStore
    uris : iterable of str, optional
        Files of the store. Defaults to all of them.
    embedder : str, Path or Model, optional
        See :func:`~pyannote_av.models.loading.load_model`. Defaults to the embedder of
        :class:`~pyannote_av.pipelines.audio_diarization.AudioDiarization`.
    folder : str or Path, optional
        Defaults to ``voices`` in the folder of the store.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    report : FillReport
    """
    from pyannote_av.models.loading import load_model

    embedder = load_model(embedder)
    made_by = {
        "embedder": type(embedder).__name__,
        "weights": weights_digest(embedder),
        "window": WINDOW,
        "hop": HOP,
    }
    uris = store.uris if uris is None else uris
    sources = {uri: store[uri].index["sha256"]["waveform.npy"] for uri in uris}
    return fill(
        speaker_embeddings_folder(store) if folder is None else folder,
        made_by,
        sources,
        partial(_features_of, store, embedder),
        "Speaker embeddings" if progress else None,
    )


def speaker_embeddings_folder(store: CropStore) -> Path:
    """Default folder of :func:`build_speaker_embeddings`."""
    return store.folder / "voices"


def _features_of(store: CropStore, embedder: Model, uri: str) -> np.ndarray:
    import torch

    waveform = torch.from_numpy(store.sound(uri))
    return speaker_features(waveform[None], embedder).astype(np.float16)


def read_speaker_embeddings(store: CropStore, folder: str | Path | None = None) -> ArrayStore:
    """Open the speaker embeddings that :func:`build_speaker_embeddings` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder holds none.
    """
    folder = speaker_embeddings_folder(store) if folder is None else Path(folder)
    return open_arrays(folder, "speaker embeddings", "build_speaker_embeddings")
