"""Face detectors, which share one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pyannote_av.core.pictures import shrink

#: larger pictures are shrunk to this length of the longer side, in pixels, before detection
LONG_SIDE = 640
#: smaller faces are not returned by YuNet, in pixels of the shrunk picture: it misses a third of
#: them, and the edges of their boxes are off by a tenth of their height
SMALLEST = 16.0


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces of one picture.

    Attributes
    ----------
    box : (n, 4) float32
        x1, y1, x2, y2 as fractions of the picture. Boxes may extend slightly beyond it.
    landmarks : (n, 5, 2) float32
        Eyes, nose, mouth corners as fractions of the picture. In each pair, the one further left
        in the picture comes first. NaN if the detector gives no landmarks.
    confidence : (n,) float32
        In [0, 1].
    """

    box: np.ndarray
    landmarks: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.box)

    def __getitem__(self, rows: np.ndarray) -> Detections:
        return Detections(self.box[rows], self.landmarks[rows], self.confidence[rows])

    @classmethod
    def empty(cls) -> Detections:
        """Detections without faces."""
        return cls(np.empty((0, 4), "f4"), np.empty((0, 5, 2), "f4"), np.empty(0, "f4"))

    def largest(self, count: int) -> Detections:
        """The `count` largest faces, largest first."""
        width, height = (self.box[:, 2:] - self.box[:, :2]).T
        return self[np.argsort(-width * height, kind="stable")[:count]]


@runtime_checkable
class FaceDetector(Protocol):
    """Face detector. ``tests/test_detection.py`` holds the conformance tests.

    `min_confidence` is the confidence that is needed to begin a track. Weaker detections may be
    returned too; they can only extend tracks.

    A detector that shrinks larger pictures may say so with an attribute `long_side`, in pixels. It
    then gets pictures of that size, which cost less than large ones.
    """

    name: str
    min_confidence: float

    def __call__(self, image: np.ndarray) -> Detections:
        """Detect faces in `image`, (H, W, 3) uint8 RGB of any size, without modifying it."""
        ...


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a (H, W, 3) uint8 picture, got {image.shape} {image.dtype}")


def _detections(box, landmarks, confidence, shape) -> Detections:
    """Convert pixels of a picture of `shape` to fractions, and drop boxes mostly outside it"""
    height, width = shape[:2]
    box = np.asarray(box, np.float32).reshape(-1, 4) / [width, height, width, height]
    landmarks = np.asarray(landmarks, np.float32).reshape(-1, 5, 2) / [width, height]
    confidence = np.clip(np.asarray(confidence, np.float32), 0, 1)
    centre = (box[:, :2] + box[:, 2:]) / 2
    sound = np.isfinite(box).all(1) & (box[:, 2:] - box[:, :2] > 1e-4).all(1)
    sound &= ((centre > 0) & (centre < 1)).all(1) & (np.abs(box - 0.5) < 1.2).all(1)
    return Detections(box.astype("f4"), landmarks.astype("f4"), confidence)[sound]


class MTCNN:
    """The cascade of Zhang et al. (https://arxiv.org/abs/1604.02878) from facenet-pytorch.

    The wheel contains the weights. The cost depends on the size of the smallest face. Therefore
    this size is a fraction of the picture, not a number of pixels.

    Parameters
    ----------
    min_face : float
        Height of the smallest face as a fraction of the shorter side of the picture.
    """

    name = "mtcnn"
    # crossed hands often score 0.9
    min_confidence = 0.95
    long_side = LONG_SIDE

    def __init__(self, min_face: float = 0.1):
        import torch
        from facenet_pytorch import MTCNN as Cascade

        self.min_face = min_face
        self._cascade = Cascade(keep_all=True, device=torch.device("cpu"))

    def to(self, device) -> MTCNN:
        """Move the networks to a torch device."""
        self._cascade.to(device)
        self._cascade.device = device
        return self

    def __call__(self, image: np.ndarray) -> Detections:
        """See :class:`FaceDetector`."""
        _check(image)
        small = shrink(image, LONG_SIDE)
        short = min(small.shape[:2])
        self._cascade.min_face_size = max(20.0, self.min_face * short)
        # the input of the first network is 12 x 12 pixels; facenet-pytorch fails if no level of
        # the image pyramid is that large
        if short <= self._cascade.min_face_size:
            return Detections.empty()
        box, confidence, landmarks = self._cascade.detect(small, landmarks=True)
        if box is None:
            return Detections.empty()
        return _detections(box.tolist(), landmarks.tolist(), confidence.tolist(), small.shape)


class YuNet:
    """YuNet (https://doi.org/10.1007/s11633-023-1423-y) in OpenCV's dnn module.

    The weights come with an installed package. Boxes and landmarks agree with those of
    :class:`MTCNN` within a few per cent of the size of the face, so crops do as well.

    Parameters
    ----------
    path : str or Path, optional
        ONNX file. Defaults to the weights named "yunet".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the installed weights are not the registered ones.
    """

    name = "yunet"
    # on portraits and talking heads, faces score 0.74 or more, with rare exceptions; with their
    # faces made unrecognisable, nothing in the same pictures scores more than 0.61
    min_confidence = 0.7
    long_side = LONG_SIDE
    _KEEP = 0.5

    def __init__(self, path: str | Path | None = None):
        import cv2

        self._path = None if path is None else Path(path)
        if path is None:
            from pyannote_av.core import weights

            path = weights.verified("yunet")
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such YuNet file")
        # before OpenCV 4.13, these functions are in cv2 itself
        logging = getattr(cv2.utils, "logging", cv2)
        level = logging.getLogLevel()
        # silence a warning on stderr about a preference that was never set: errors only
        logging.setLogLevel(2)
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), score_threshold=self._KEEP, nms_threshold=0.3
            )
        finally:
            logging.setLogLevel(level)

    def __reduce__(self):
        # networks of OpenCV cannot be pickled
        return YuNet, (self._path,)

    def __call__(self, image: np.ndarray) -> Detections:
        """See :class:`FaceDetector`."""
        _check(image)
        small = shrink(image, LONG_SIDE)
        self._net.setInputSize(small.shape[1::-1])
        # RGB to BGR, in contiguous memory
        found = self._net.detect(np.ascontiguousarray(small[:, :, ::-1]))[1]
        if found is None:
            return Detections.empty()
        found = found[found[:, 3] >= SMALLEST]
        box = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return _detections(box, found[:, 4:14], found[:, 14], small.shape)


def get_detector(detector: str | FaceDetector = "auto") -> FaceDetector:
    """Detector by name.

    Parameters
    ----------
    detector : {"auto", "mtcnn", "yunet"} or FaceDetector
        "auto" selects YuNet if its weights are on this machine, as they are after an ordinary
        installation, and MTCNN otherwise. YuNet is several times faster. Instances are returned
        unchanged.

    Raises
    ------
    ValueError
        For any other name.
    MissingWeightsError
        For "yunet" without its weights. The message explains how to get them.
    """
    if not isinstance(detector, str):
        if not callable(detector):
            raise ValueError(f"{detector!r} is not a face detector: it cannot be called")
        return detector
    if detector == "auto":
        from pyannote_av.core import weights

        detector = "yunet" if weights.find("yunet") else "mtcnn"
    if detector not in (known := {"mtcnn": MTCNN, "yunet": YuNet}):
        raise ValueError(f'face detector must be "auto", "mtcnn" or "yunet", not {detector!r}')
    return known[detector]()
