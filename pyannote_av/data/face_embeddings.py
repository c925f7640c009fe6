"""Precomputed embeddings of the face samples of a store."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.tracks import FaceSamples
from pyannote_av.core.weights import how_to_get
from pyannote_av.data.array_store import FillReport, fill, open_arrays
from pyannote_av.data.crop_store import CropStore
from pyannote_av.vision.identity import FaceEmbedder, get_embedder


def face_embeddings_folder(store: CropStore) -> Path:
    """Default output folder of :func:`build_face_embeddings`."""
    return store.folder / "identities"


def build_face_embeddings(
    store: CropStore,
    uris: Iterable[str] | None = None,
    embedder: str | FaceEmbedder = "auto",
    folder: str | Path | None = None,
    interval: float = 2.0,
    progress: bool = False,
) -> FillReport:
    """Embed the face samples of a store, and write the embeddings to disk.

    Existing embeddings are kept, unless the face samples or the embedder changed. Use
    :class:`FaceEmbeddings` to read them.

    Parameters
    ----------
    store : CropStore
        A store with face samples. Stores written by early versions have none.
    uris : iterable of str, optional
        Defaults to all files of the store.
    embedder : str or FaceEmbedder, optional
        See :func:`~pyannote_av.vision.identity.get_embedder`.
    folder : str or Path, optional
        Defaults to ``identities`` in the folder of the store.
    interval : float, optional
        Minimum time between two embedded samples of a track, in seconds. Samples in between get
        the embedding of the previous one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    report : FillReport

    Raises
    ------
    ValueError
        If no face embedder is installed on this machine.
    """
    embedder = get_embedder(embedder)
    if embedder is None:
        raise ValueError(f"this machine has no face embedder: {how_to_get('sface')}")
    sources = {
        uri: store[uri].index["sha256"].get("looks.npy", "none")
        for uri in (store.uris if uris is None else uris)
    }
    return fill(
        face_embeddings_folder(store) if folder is None else folder,
        {"embedder": embedder.name, "interval": interval},
        sources,
        partial(_vectors, store, embedder, interval),
        "Faces" if progress else None,
    )


def _vectors(store: CropStore, embedder: FaceEmbedder, interval: float, uri: str) -> np.ndarray:
    from cv2 import INTER_LINEAR, resize

    track, frame, pictures = store[uri].face_samples
    vectors: list[np.ndarray] = []
    before = -1
    for i in range(len(track)):
        again = vectors and track[i] == track[before]
        if again and frame[i] - frame[before] < interval * FRAME_RATE:
            vectors.append(vectors[-1])
            continue
        before = i
        face = resize(np.asarray(pictures[i]), (embedder.size,) * 2, interpolation=INTER_LINEAR)
        vectors.append(embedder(face[None])[0])
    # without faces, the dimension is unknown
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 0), np.float32)


class FaceEmbeddings:
    """Reads the face embeddings written by :func:`build_face_embeddings`.

    Parameters
    ----------
    store : CropStore
    folder : str or Path, optional
        Defaults to ``identities`` in the folder of the store.

    Raises
    ------
    FileNotFoundError
        If there are no embeddings in the folder.
    """

    def __init__(self, store: CropStore, folder: str | Path | None = None):
        self.store = store
        folder = face_embeddings_folder(store) if folder is None else Path(folder)
        self.arrays = open_arrays(folder, "faces", "build_face_embeddings")

    @cached_property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return max((self.arrays[uri].shape[1] for uri in self.arrays), default=0)

    def __contains__(self, uri: str) -> bool:
        """Whether a file has embeddings, and they match the face samples in the store."""
        if uri not in self.arrays or uri not in self.store:
            return False
        source = self.store[uri].index["sha256"].get("looks.npy", "none")
        return self.arrays.source(uri) == source

    def __getitem__(self, uri: str) -> FaceSamples:
        """Face samples of a file, as embeddings."""
        samples, vectors = self.store[uri].face_samples, np.asarray(self.arrays[uri])
        # without faces in a file, the dimension is unknown from its array
        return samples._replace(vector=vectors.reshape(len(samples.track), self.dimension))
