"""Face identity: which tracks show the same person."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pyannote_av.core.tracks import FRAME_RATE
from pyannote_av.vision.crops import cut

#: seconds between two looks at the same face
INTERVAL = 2.0
#: pixels: smaller faces do not tell who they are
MIN_SIZE = 32.0
#: faces found with less confidence are often not faces, or hidden ones
MIN_CONFIDENCE = 0.8


@runtime_checkable
class FaceEmbedder(Protocol):
    """What tells faces apart.

    ``size`` is the side in pixels of the pictures it wants: squares on the detector's box.
    """

    name: str
    size: int

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(n, size, size, 3) uint8 RGB to (n, E) float32 of unit length."""
        ...


class InceptionResnet:
    """InceptionResnetV1 of facenet-pytorch, trained on VGGFace2.

    Parameters
    ----------
    path : str or Path, optional
        State dict; by default the weights named "facenet-vggface2". It is read without unpickling
        anything but tensors.
    """

    name = "facenet-vggface2"
    size = 160

    def __init__(self, path: str | Path | None = None):
        import torch
        from facenet_pytorch import InceptionResnetV1

        if path is None:
            from pyannote_av.core import weights

            path = weights.require("facenet-vggface2")
        state = torch.load(path, map_location="cpu", weights_only=True)
        # the layer that named the 8,631 people of the training set
        state = {name: value for name, value in state.items() if not name.startswith("logits.")}
        self._net = InceptionResnetV1(classify=False)
        try:
            self._net.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold InceptionResnetV1: {error}") from error
        self._net.eval()
        self._device = torch.device("cpu")

    def to(self, device) -> InceptionResnet:
        """Move the network to a torch device."""
        self._net.to(device)
        self._device = device
        return self

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """See :class:`FaceEmbedder`."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(faces)).to(self._device)
            # facenet's fixed_image_standardization
            batch = (batch.permute(0, 3, 1, 2).float() - 127.5) / 128
            return self._net(batch).cpu().numpy()


def get_embedder(embedder: str | FaceEmbedder | None = "auto") -> FaceEmbedder | None:
    """Embedder by name.

    Parameters
    ----------
    embedder : {"auto", "facenet-vggface2"}, FaceEmbedder or None
        "auto" is facenet-vggface2 where its weights are on this machine, and None (tracks are
        told apart by voice, place and time only) otherwise.

    Raises
    ------
    ValueError
        For any other name.
    MissingWeightsError
        For "facenet-vggface2" without its weights; the message says how to get them.
    """
    if embedder is None or not isinstance(embedder, str):
        return embedder
    if embedder == "auto":
        from pyannote_av.core import weights

        path = weights.find(InceptionResnet.name)
        return InceptionResnet(path) if path else None
    if embedder != InceptionResnet.name:
        raise ValueError(
            f'face embedder must be "auto", "{InceptionResnet.name}" or None, not {embedder!r}'
        )
    return InceptionResnet()


def good(row: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a face is worth an embedding: large, sure, inside the picture, not in profile.

    Parameters
    ----------
    row : (15,)
        Box, landmarks (5 x 2), confidence. NaN where unknown, which speaks against nothing.
    shape : (height, width, ...) of the picture in pixels
    """
    box, landmarks, confidence = row[:4], row[4:14].reshape(5, 2), row[14]
    pixels = (box[2:] - box[:2]) * (shape[1], shape[0])
    if pixels.min() < MIN_SIZE or confidence < MIN_CONFIDENCE:
        return False
    if (box < -0.02).any() or (box > 1.02).any():
        return False
    left, right, nose = landmarks[0, 0], landmarks[1, 0], landmarks[2, 0]
    return not (nose <= left or nose >= right)


class IdentityCollector:
    """Embeds a few good looks at each track, and averages.

    Parameters
    ----------
    embedder : FaceEmbedder
    """

    def __init__(self, embedder: FaceEmbedder):
        self._embedder = embedder
        self._sums: dict[int, np.ndarray] = {}
        self._next: dict[int, float] = {}

    def look(self, index: int, track: int, image: np.ndarray, row: np.ndarray) -> None:
        """Consider the face `row` (see :func:`good`) of `track` at grid `index`; RGB picture."""
        if index < self._next.get(track, 0) or not good(row, image.shape):
            return
        self._next[track] = index + INTERVAL * FRAME_RATE
        x1, y1, x2, y2 = row[:4] * np.array([image.shape[1], image.shape[0]] * 2)
        side = max(x2 - x1, y2 - y1)
        square = ((x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side)
        vector = self._embedder(cut(image, square, self._embedder.size)[None])[0]
        self._sums[track] = self._sums.get(track, 0) + vector

    @property
    def embeddings(self) -> dict[int, np.ndarray]:
        """(E,) unit-length vector of each track that was good to look at once at least."""
        return {t: (v / np.linalg.norm(v)).astype(np.float32) for t, v in self._sums.items()}
