"""Face embeddings, which tell whether tracks show the same person."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pyannote_av.core.tracks import FRAME_RATE, FaceSamples
from pyannote_av.vision.crops import cut

#: default time between two samples of a face, in seconds
INTERVAL = 2.0
# package of the extra `identity` with the networks of dlib
_DLIB_MODELS = "face_recognition_models"
#: smaller faces are not embedded, in pixels
MIN_SIZE = 32.0
#: detections with less confidence are not embedded: many are no faces, or are occluded
MIN_CONFIDENCE = 0.8


@runtime_checkable
class FaceEmbedder(Protocol):
    """Face embedder.

    Attributes
    ----------
    name : str
    size : int
        Side of the input pictures in pixels. They are squares around the detected box.
    """

    name: str
    size: int

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Embed (n, size, size, 3) uint8 RGB pictures: (n, E) float32 vectors of unit length."""
        ...


class InceptionResnet:
    """InceptionResnetV1 of facenet-pytorch, trained on VGGFace2.

    Parameters
    ----------
    path : str or Path, optional
        State dictionary. Defaults to the weights named "facenet-vggface2".

    Raises
    ------
    CheckpointError, UntrustedError
        If the file contains anything else.
    """

    name = "facenet-vggface2"
    size = 160

    def __init__(self, path: str | Path | None = None):
        import torch
        from facenet_pytorch import InceptionResnetV1

        from pyannote_av.core.checkpoint import CheckpointError, load_checkpoint

        if path is None:
            from pyannote_av.core import weights

            path = weights.require("facenet-vggface2")
        state = load_checkpoint(path)
        self._net = InceptionResnetV1(classify=False)
        try:
            # the classifier of the 8,631 people of the training set is not needed
            state = {name: value for name, value in state.items() if not name.startswith("logits.")}
            self._net.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} does not hold InceptionResnetV1: {error}") from error
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


class DlibResnet:
    """The ResNet of dlib, trained on three million faces. It needs the extra ``identity``.

    The packages of this extra contain its weights (CC0), so nothing is downloaded. Embeddings of
    dlib are compared by Euclidean distance and have a large common offset. This class subtracts
    the mean embedding of many faces and normalises the result to unit length, so that embeddings
    can be compared by cosine distance, as those of other embedders.

    References
    ----------
    http://dlib.net/face_recognition.py.html
    """

    name = "dlib-resnet"
    size = 150

    def __init__(self):
        folder = dlib_models()
        if folder is None:
            raise ModuleNotFoundError(
                "the face embedder of dlib is not installed: pip install 'pyannote-av[identity]'"
            )
        import dlib

        self._landmarks = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._net = dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )
        self._centre = np.loadtxt(Path(__file__).with_name("dlib_centre.txt"))
        self._whole = dlib.rectangle(0, 0, self.size - 1, self.size - 1)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """See :class:`FaceEmbedder`."""
        found = [
            self._net.compute_face_descriptor(face, self._landmarks(face, self._whole))
            for face in np.ascontiguousarray(faces)
        ]
        vectors = np.array(found).reshape(-1, len(self._centre)) - self._centre
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@cache
def dlib_models() -> Path | None:
    """Folder of the models of dlib, or None if the extra ``identity`` is not installed."""
    from importlib.util import find_spec

    # not imported, because it imports a part of setuptools that has been removed
    models = find_spec(_DLIB_MODELS)
    if models is None or find_spec("dlib") is None:
        return None
    return Path(models.submodule_search_locations[0]) / "models"


class Pictures:
    """Embedder that returns pictures unchanged, so that they can be embedded later.

    Parameters
    ----------
    size : int
        Width and height, in pixels.
    """

    name = "pictures"

    def __init__(self, size: int):
        self.size = size

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Return `faces` (n, size, size, 3) unchanged."""
        return faces


def get_embedder(embedder: str | FaceEmbedder | None = "auto") -> FaceEmbedder | None:
    """Embedder by name.

    Parameters
    ----------
    embedder : {"auto", "facenet-vggface2", "dlib-resnet"}, FaceEmbedder or None
        "auto" is facenet-vggface2 if its weights are on this machine, and otherwise dlib-resnet if
        it is installed. Without either it is None: face tracks are not compared.

    Raises
    ------
    ValueError
        For any other name.
    MissingWeightsError, ModuleNotFoundError
        For an embedder that is not on this machine. The message explains how to get it.
    """
    if embedder is None or not isinstance(embedder, str):
        if embedder is not None and not callable(embedder):
            raise ValueError(f"{embedder!r} is no face embedder: it cannot be called")
        return embedder
    if embedder == "auto":
        from pyannote_av.core import weights

        if path := weights.find(InceptionResnet.name):
            return InceptionResnet(path)
        return DlibResnet() if dlib_models() else None
    known = {one.name: one for one in (InceptionResnet, DlibResnet)}
    if embedder not in known:
        names = ", ".join(f'"{name}"' for name in ("auto", *known))
        raise ValueError(f"face embedder must be one of {names}, or None, not {embedder!r}")
    return known[embedder]()


def good(row: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a face is good enough to embed: large, confident, inside the picture, not in profile.

    Parameters
    ----------
    row : (15,)
        Box, landmarks (5 x 2) and confidence. Unknown values are NaN, and are not checked.
    shape : (height, width, ...)
        Of the picture, in pixels.
    """
    box, landmarks, confidence = row[:4], row[4:14].reshape(5, 2), row[14]
    pixels = (box[2:] - box[:2]) * (shape[1], shape[0])
    if pixels.min() < MIN_SIZE or confidence < MIN_CONFIDENCE:
        return False
    if (box < -0.02).any() or (box > 1.02).any():
        return False
    left, right, nose = landmarks[0, 0], landmarks[1, 0], landmarks[2, 0]
    return not (nose <= left or nose >= right)


class FaceSampler:
    """Embeds a few good looks at each track.

    Parameters
    ----------
    embedder : FaceEmbedder
    interval : float, optional
        Seconds between two looks at the same track, at least.
    """

    def __init__(self, embedder: FaceEmbedder, interval: float = INTERVAL):
        self.interval = interval
        self._embedder = embedder
        self._looks: list[tuple[int, int, np.ndarray]] = []
        self._next: dict[int, float] = {}

    def look(self, index: int, track: int, image: np.ndarray, row: np.ndarray) -> None:
        """Consider the face `row` (see :func:`good`) of `track` at grid `index`; RGB picture."""
        if index < self._next.get(track, 0) or not good(row, image.shape):
            return
        self._next[track] = index + self.interval * FRAME_RATE
        face = cut(image, face_box(row[:4], image.shape), self._embedder.size)
        self._looks.append((track, index, self._embedder(face[None])[0]))

    @property
    def looks(self) -> FaceSamples:
        """All that was seen, by track and time."""
        looks = sorted(self._looks, key=lambda look: look[:2])
        # of a face nobody has seen the shape is not known either
        vectors = np.stack([v for *_, v in looks]) if looks else np.zeros((0, 0), np.float32)
        where = np.array([look[:2] for look in looks], np.int64).reshape(-1, 2)
        return FaceSamples(where[:, 0], where[:, 1], vectors)

    @property
    def embeddings(self) -> dict[int, np.ndarray]:
        """(E,) unit-length vector of each track that was good to look at once at least."""
        return self.looks.means


def face_box(box: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Square around a detected box that embedders get. Its side is the longer side of the box.

    Parameters
    ----------
    box : (4,) normalised
    shape : (height, width, ...) in pixels

    Returns
    -------
    left, top, side : float, in pixels
    """
    x1, y1, x2, y2 = box * np.array([shape[1], shape[0]] * 2)
    side = max(x2 - x1, y2 - y1)
    return (x1 + x2 - side) / 2, (y1 + y2 - side) / 2, side
