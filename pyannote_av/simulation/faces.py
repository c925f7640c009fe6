"""Extraction of portraits from pictures, and variation of portraits."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.simulation.portrait import Portrait

if TYPE_CHECKING:
    from pyannote_av.vision.detection import Detections, FaceDetector

logger = logging.getLogger(__name__)

#: suffixes of pictures
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: minimum height in pixels of a face to animate
SMALLEST = 64
#: extent of a portrait around the centre of the face, in heights of its box
LEFT, TOP, RIGHT, BOTTOM = 0.8, 0.85, 0.8, 0.95
#: half width and half height of an open eye, relative to the distance between the eyes
_EYE = (0.19, 0.1)


def public_portraits() -> list[Portrait]:
    """The two public-domain portraits of the sample file (needs scikit-image)."""
    from pyannote_av.simulation.sample import _portraits

    return _portraits()


def _frontal(landmarks: np.ndarray) -> bool:
    """Whether a face is frontal: the mouth of a profile cannot be warped"""
    (lx, ly), (rx, ry), (nose, _), (ml, _), (mr, _) = landmarks
    apart = rx - lx
    return bool(
        apart > 0
        and abs(ry - ly) < 0.35 * apart
        and 0.25 < (nose - lx) / apart < 0.75
        and mr - ml > 0.5 * apart
    )


def _portrait(image: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> Portrait:
    """Portrait of one face, rotated so that its eyes are level"""
    import cv2

    x1, y1, x2, y2 = box
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    across = landmarks[1] - landmarks[0]
    matrix = cv2.getRotationMatrix2D(
        tuple(map(float, middle)), float(np.degrees(np.arctan2(across[1], across[0]))), 1.0
    )
    landmarks = landmarks @ matrix[:, :2].T + matrix[:, 2]
    image = cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    reach = 1.2 * (y2 - y1)
    left, top = max(0, int((x1 + x2) / 2 - reach)), max(0, int((y1 + y2) / 2 - reach))
    right, bottom = int((x1 + x2) / 2 + reach), int((y1 + y2) / 2 + reach)
    points = landmarks - [left, top]
    apart = float(np.linalg.norm(points[1] - points[0]))
    centre = points[3:].mean(axis=0) + np.array([0, 0.06 * apart])
    return Portrait(
        image=np.ascontiguousarray(image[top:bottom, left:right]),
        box=(x1 - left, y1 - top, x2 - left, y2 - top),
        landmarks=tuple(map(tuple, points.tolist())),
        lips=(tuple(points[3].tolist()), tuple(centre.tolist()), tuple(points[4].tolist())),
        eye=(_EYE[0] * apart, _EYE[1] * apart),
    )


def _usable(found: Detections, detector: FaceDetector, shape: tuple[int, ...]):
    """(box, landmarks) in pixels of all faces that are large, frontal and not close to others"""
    size = np.array([shape[1], shape[0]])
    boxes, landmarks = found.box * np.tile(size, 2), found.landmarks * size
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for i, (box, points) in enumerate(zip(boxes, landmarks, strict=True)):
        height = box[3] - box[1]
        if found.confidence[i] < detector.min_confidence or height < SMALLEST:
            continue
        others = np.abs(np.delete(centres, i, axis=0) - centres[i]) / height
        # the boxes of other faces must not reach into this portrait
        if (others < [LEFT + 0.25, TOP + 0.3]).all(axis=1).any() or not _frontal(points):
            continue
        yield box, points


def read_portraits(path: str | Path, detector: FaceDetector) -> list[Portrait]:
    """Portraits of all usable faces in one picture.

    Raises
    ------
    ValueError
        If the file is not a picture, or has no face that can be animated; the message names it.
    """
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: not a picture that can be read")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    faces = list(_usable(detector(image), detector, image.shape))
    if not faces:
        raise ValueError(
            f"{path}: no face in this picture that can be animated (at least {SMALLEST} pixels "
            "high, seen from the front, no other face beside it)"
        )
    return [_portrait(image, box, points) for box, points in faces]


def find_portraits(folder: str | Path, detector: str | FaceDetector = "auto") -> list[Portrait]:
    """Portraits of all faces in the pictures of a folder, in order of file names.

    Pictures without a usable face are skipped, with a warning.

    Parameters
    ----------
    folder : str or Path
    detector : {"auto", "mtcnn", "yunet"} or FaceDetector

    Raises
    ------
    ValueError
        If the folder has no picture, or none with a usable face.
    """
    from pyannote_av.vision.detection import get_detector

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of portraits")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"{folder}: no picture ({', '.join(SUFFIXES)})")
    backend, portraits = get_detector(detector), []
    for path in paths:
        try:
            portraits += read_portraits(path, backend)
        except ValueError as error:
            last = error
            logger.warning("%s", error)
    if not portraits:
        raise ValueError(f"{folder}: none of {len(paths)} pictures can be used: {last}")
    return portraits


def mirrored(portrait: Portrait) -> Portrait:
    """Mirror a portrait. Landmarks on the left of the picture still come first."""
    width = portrait.image.shape[1]
    x1, y1, x2, y2 = portrait.box

    def flip(points, order):
        return tuple((width - points[i][0], points[i][1]) for i in order)

    return replace(
        portrait,
        image=np.ascontiguousarray(portrait.image[:, ::-1]),
        box=(width - x2, y1, width - x1, y2),
        landmarks=flip(portrait.landmarks, (1, 0, 2, 4, 3)),
        lips=flip(portrait.lips, (2, 1, 0)),
    )


def random_tone(rng: np.random.Generator) -> np.ndarray:
    """Random tint and contrast, as lookup tables for red, green and blue: (3, 256) uint8."""
    tint = rng.uniform(0.88, 1.12, 3)
    level = np.arange(256) / 255
    table = 255 * np.clip(level ** rng.uniform(0.8, 1.25) * tint[:, None], 0, 1)
    return table.round().astype(np.uint8)


def varied(portrait: Portrait, rng: np.random.Generator) -> Portrait:
    """A similar portrait with another tint and contrast, mirrored at random."""
    if rng.random() < 0.5:
        portrait = mirrored(portrait)
    tone = random_tone(rng)
    channels = [tone[c][portrait.image[..., c]] for c in range(3)]
    return replace(portrait, image=np.stack(channels, axis=-1))


def window(
    portrait: Portrait, face_height: float, left: float, top: float, right: float, bottom: float
) -> Portrait:
    """Scale a portrait and crop it around the face. Beyond the picture, its edge is repeated.

    Parameters
    ----------
    portrait : Portrait
    face_height : float
        Height of the face in pixels.
    left, top, right, bottom : float
        Extent of the crop from the centre of the face, in heights of its box.
    """
    import cv2

    x1, y1, x2, y2 = portrait.box
    scale = face_height / (y2 - y1)
    # pixel i of the window is at (i + corner) / scale
    corner = (
        np.floor((x1 + x2) / 2 * scale - left * face_height),
        np.floor((y1 + y2) / 2 * scale - top * face_height),
    )
    size = (round((left + right) * face_height), round((top + bottom) * face_height))
    image = portrait.image
    if scale < 0.5:
        # bilinear sampling alone would alias
        shrunk = max(1, int(1 / scale))
        height, width = image.shape[:2]
        image = cv2.resize(image, (width // shrunk, height // shrunk), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    offset = [(c + 0.5) / scale - 0.5 for c in corner]
    matrix = np.array([[1 / scale, 0, offset[0]], [0, 1 / scale, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def moved(points):
        return tuple((px * scale - corner[0], py * scale - corner[1]) for px, py in points)

    return Portrait(
        image=image,
        box=sum(moved([(x1, y1), (x2, y2)]), ()),
        landmarks=moved(portrait.landmarks),
        lips=moved(portrait.lips),
        eye=(portrait.eye[0] * scale, portrait.eye[1] * scale),
    )
