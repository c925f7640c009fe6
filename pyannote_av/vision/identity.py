"""Face embeddings, which tell whether tracks show the same person."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pyannote_av.core.tracks import FRAME_RATE, FaceSamples
from pyannote_av.vision.crops import cut

if TYPE_CHECKING:
    from pyannote_av.core.io import Frame

#: default time between two samples of a face, in seconds
INTERVAL = 2.0
#: growth of this time with the age of a track where only the mean of its samples is used
GROWTH = 0.5
#: cosine distance up to which two faces show the same person. Embedders are scaled to it, so that
#: one threshold fits all of them
SAME_PERSON = 0.45
# package of the extra `identity` with the networks of dlib
_DLIB_MODELS = "face_recognition_models"
#: smaller faces are not embedded, in pixels
MIN_SIZE = 32.0
#: detections with less confidence are not embedded: many are no faces, or are occluded
MIN_CONFIDENCE = 0.8
# number of faces that are embedded together
_BATCH = 16


@runtime_checkable
class FaceEmbedder(Protocol):
    """Face embedder, whose cosine distances are on the scale of :data:`SAME_PERSON`.

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


class SFace:
    """SFace (https://arxiv.org/abs/2205.12010), a MobileNet, in OpenCV's dnn module.

    The weights come with an installed package. The network expects faces whose eyes, nose and mouth
    are at fixed places. They are found by :class:`~pyannote_av.vision.detection.YuNet`. Where it
    finds none, their mean places are used.

    Two faces show the same person if their cosine distance is below 0.637 according to the authors.
    A constant component is added to the embeddings and brings this distance to
    :data:`SAME_PERSON`.

    Raises
    ------
    MissingWeightsError
        If the weights are not on this machine.
    ValueError
        If they are not the registered ones.
    """

    name = "sface"
    size = 160
    # landmarks of the training data, in pixels of the 112 x 112 pictures that the network expects
    _TEMPLATE = np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    )
    # median landmarks of portraits and talking heads, as fractions of the square around their box
    _MEAN = np.array([[0.32, 0.385], [0.67, 0.385], [0.5, 0.59], [0.345, 0.74], [0.65, 0.74]])
    # the detector needs some space around the face, in pixels
    _BORDER = 16
    # cosine distance up to which the network takes two faces for the same person
    _SAME_PERSON = 0.637

    def __init__(self):
        import cv2

        from pyannote_av.core import weights
        from pyannote_av.vision.detection import YuNet

        self._detector = YuNet()
        # OpenCV 5 cannot run this file in FaceRecognizerSF
        self._net = cv2.dnn.readNetFromONNX(str(weights.verified(self.name)))

    def __reduce__(self):
        # networks of OpenCV cannot be pickled
        return SFace, ()

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """See :class:`FaceEmbedder`."""
        # one by one: OpenCV 4 computes the second and further ones of a batch wrongly
        vectors = np.array([self._embed(face) for face in faces]).reshape(-1, 128)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        share = SAME_PERSON / self._SAME_PERSON
        constant = np.full((len(vectors), 1), np.sqrt(1 - share))
        return np.hstack([np.sqrt(share) * vectors, constant]).astype(np.float32)

    def _embed(self, face: np.ndarray) -> np.ndarray:
        """Output of the network, (128,), for one (size, size, 3) uint8 face"""
        aligned = self._align(face).transpose(2, 0, 1)[None]
        self._net.setInput(aligned.astype(np.float32), "data")
        return self._net.forward()[0].copy()

    def _align(self, face: np.ndarray) -> np.ndarray:
        """Rotate, scale and shift a face: its landmarks go where the network expects them"""
        import cv2

        border = self._BORDER
        face = cv2.copyMakeBorder(face, *[border] * 4, cv2.BORDER_REPLICATE)
        found = self._detector(face).largest(1)
        landmarks = self._MEAN * self.size + border
        if len(found):
            landmarks = found.landmarks[0] * len(face)
        return cv2.warpAffine(face, similarity(landmarks, self._TEMPLATE), (112, 112))


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

    It is slower than :class:`SFace`, and tells people apart less well.

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
    embedder : {"auto", "sface", "facenet-vggface2", "dlib-resnet"}, FaceEmbedder or None
        "auto" is the first of these that is on this machine: sface is, after an ordinary
        installation. Without any it is None: face tracks are not compared. "dlib" is short for
        dlib-resnet.

    Raises
    ------
    ValueError
        For any other name.
    MissingWeightsError, ModuleNotFoundError
        For an embedder that is not on this machine. The message explains how to get it.
    """
    if embedder is None or not isinstance(embedder, str):
        if embedder is not None and not callable(embedder):
            raise ValueError(f"{embedder!r} is not a face embedder: it cannot be called")
        return embedder
    if embedder == "auto":
        from pyannote_av.core import weights

        if weights.find(SFace.name) and weights.find("yunet"):
            return SFace()
        if path := weights.find(InceptionResnet.name):
            return InceptionResnet(path)
        return DlibResnet() if dlib_models() else None
    known = {one.name: one for one in (SFace, InceptionResnet, DlibResnet)}
    if embedder not in (*known, "dlib"):
        names = ", ".join(f'"{name}"' for name in ("auto", *known))
        raise ValueError(f"face embedder must be one of {names}, or None, not {embedder!r}")
    return known.get(embedder, DlibResnet)()


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
    """Collector that embeds each face at intervals.

    Unlike other collectors, it is updated with pictures in colour, at their full resolution. A few
    faces are embedded together.

    Parameters
    ----------
    embedder : FaceEmbedder
    interval : float, optional
        Minimum time between two samples of the same track, in seconds.
    growth : float, optional
        Minimum time between two samples, as a share of the time since the first one. Long tracks
        then have few samples, most of them at the beginning.
    """

    def __init__(self, embedder: FaceEmbedder, interval: float = INTERVAL, growth: float = 0.0):
        self.interval, self.growth = interval, growth
        self._embedder = embedder
        self._samples: list[tuple[int, int, np.ndarray]] = []
        self._waiting: list[tuple[int, int, np.ndarray]] = []
        self._first: dict[int, int] = {}
        self._next: dict[int, float] = {}

    def update(self, frame: Frame, track: int, row: np.ndarray) -> None:
        """Take a sample of a face if it is good enough, and the last one is old enough.

        Parameters
        ----------
        frame : Frame
            Picture on the grid. It is converted to RGB only if a sample is taken.
        track : int
            Track of the face.
        row : (15,) array
            Box, landmarks and confidence of the face; see :func:`good`.
        """
        shape = frame.size[::-1]
        if frame.index < self._next.get(track, 0) or not good(row, shape):
            return
        age = frame.index - self._first.setdefault(track, frame.index)
        self._next[track] = frame.index + max(self.interval * FRAME_RATE, self.growth * age)
        face = cut(frame.image, face_box(row[:4], shape), self._embedder.size)
        self._waiting.append((track, frame.index, face))
        if len(self._waiting) >= _BATCH:
            self._embed()

    def _embed(self) -> None:
        """Embed the faces that wait"""
        if self._waiting:
            tracks, indices, faces = zip(*self._waiting, strict=True)
            self._samples += zip(tracks, indices, self._embedder(np.stack(faces)), strict=True)
            self._waiting = []

    def compute(self) -> FaceSamples:
        """All samples, by track and time."""
        self._embed()
        samples = sorted(self._samples, key=lambda sample: sample[:2])
        # without samples, the shape of embeddings is unknown too
        vectors = np.stack([v for *_, v in samples]) if samples else np.zeros((0, 0), np.float32)
        where = np.array([sample[:2] for sample in samples], np.int64).reshape(-1, 2)
        return FaceSamples(where[:, 0], where[:, 1], vectors)


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


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation, scaling and shift that maps points to others with the least squared error.

    Parameters
    ----------
    source, target : (n, 2)

    Returns
    -------
    matrix : (2, 3) float64
        ``matrix @ [x, y, 1]`` is the image of (x, y), as in ``cv2.warpAffine``.
    """
    # as complex numbers, the map is z -> turn * z + shift
    start, end = (points @ [1, 1j] for points in (source, target))
    centred = start - start.mean()
    turn = np.vdot(centred, end - end.mean()) / np.vdot(centred, centred)
    shift = end.mean() - turn * start.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
