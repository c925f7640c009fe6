"""Precomputed visual features of the faces of a store, which training reads instead of crops.

There is one array per file. Its rows correspond to those of the shard's crops.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.checksums import weights_digest
from pyannote_av.data.array_store import FillReport, fill, open_arrays
from pyannote_av.data.crop_store import CropStore

if TYPE_CHECKING:
    from pyannote_av.models.hmsanet.model import HMSANet

#: frames that are encoded together (8 s), and additional frames of context on either side
_BLOCK, _CONTEXT = 200, 25


def features_folder(store: CropStore) -> Path:
    """Default folder of :func:`build_features`."""
    return store.folder / "features"


def whole_tracks(pieces: np.ndarray) -> np.ndarray:
    """Join pieces (P, 4) of a shard that are contiguous in time and in rows."""
    joined: list[list[int]] = []
    for track, start, length, row in pieces.tolist():
        if joined and joined[-1][0] == track:
            _, first, before, first_row = joined[-1]
            if (start, row) == (first + before, first_row + before):
                joined[-1][2] += length
                continue
        joined.append([track, start, length, row])
    return np.array(joined, np.int64).reshape(-1, 4)


def build_features(
    store: CropStore,
    model: HMSANet,
    folder: str | Path | None = None,
    uris: Iterable[str] | None = None,
    progress: bool = False,
) -> FillReport:
    """Write the visual features of the files of a store, as float16.

    Existing features are kept, unless the crops or the weights of the visual encoder changed.

    Parameters
    ----------
    store : CropStore
    model : HMSANet
        Runs on its current device, in evaluation mode.
    folder : str or Path, optional
        Defaults to ``features`` in the folder of the store.
    uris : iterable of str, optional
        Files of the store. Defaults to all of them.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    report : FillReport
    """
    made_by = {
        "model": type(model).__name__,
        "weights": weights_digest(model.visual.encoder),
        "face_size": model.visual.face_size,
        "block": _BLOCK,
        "context": _CONTEXT,
    }
    uris = store.uris if uris is None else uris
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return fill(
            features_folder(store) if folder is None else folder,
            made_by,
            {uri: store[uri].index["sha256"]["crops.npy"] for uri in uris},
            partial(_features_of, store, model),
            "Visual features" if progress else None,
        )
    finally:
        for module, mode in training.items():
            module.training = mode


def _features_of(store: CropStore, model: HMSANet, uri: str) -> np.ndarray:
    shard = store[uri]
    tracks = whole_tracks(shard.pieces)
    features = np.zeros((int(tracks[:, 2].sum()), model.visual_dimension), np.float16)
    for track, first, length, row in tracks.tolist():
        for start in range(0, length, _BLOCK):
            stop = min(length, start + _BLOCK)
            low, high = max(0, start - _CONTEXT), min(length, stop + _CONTEXT)
            encoded = _encode(model, *shard.crops(track, first + low, first + high))
            features[row + start : row + stop] = encoded[start - low : stop - low]
    return features


def _encode(model: HMSANet, crops: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Encode (T, 112, 112) crops and (T,) presence as (T, D) features"""
    import torch

    faces, mask = (torch.from_numpy(x)[None, None].to(model.device) for x in (crops, present))
    with torch.inference_mode():
        return model.visual_features(faces, mask)[0, 0].float().cpu().numpy()


class VisualFeatures:
    """Reads the features that :func:`build_features` wrote.

    Parameters
    ----------
    store : CropStore
    folder : str or Path, optional
        Defaults to ``features`` in the folder of the store.

    Raises
    ------
    FileNotFoundError
        If the folder holds no features.
    """

    def __init__(self, store: CropStore, folder: str | Path | None = None):
        folder = features_folder(store) if folder is None else Path(folder)
        self.arrays = open_arrays(folder, "visual features", "build_features")
        self.store = store

    def like(self) -> np.ndarray:
        """An empty frame: zeros."""
        return np.zeros(self.arrays[next(iter(self.arrays))].shape[1], np.float32)

    def read(self, uri: str, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and presence of a track of a file.

        Returns
        -------
        features : (stop - start, D) float32 array
        present : (stop - start,) bool array
        """
        array, shard = self.arrays[uri], self.store[uri]
        features = np.zeros((stop - start, array.shape[1]), np.float32)
        present = np.zeros(stop - start, bool)
        for _, first, length, row in shard.pieces[shard.pieces[:, 0] == track].tolist():
            low, high = max(start, first), min(stop, first + length)
            if low < high:
                rows = slice(row + low - first, row + high - first)
                features[low - start : high - start] = array[rows]
                present[low - start : high - start] = shard.present[rows]
        return features, present
