"""Rendering of a scene: whole frames, or only the crops of its faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pyannote_av.simulation.faces import LEFT, TOP
from pyannote_av.simulation.performer import Performer
from pyannote_av.simulation.scene import Appearance, Scene, Shot

#: side of the crops in pixels
SIDE = 112
#: maximum face height to draw crops from; the side of their square is 0.7 of it
_CROP_HEIGHT = 150.0
#: JPEG quality from which images are not compressed
_LOSSLESS = 95


def _feather(height: int, width: int) -> np.ndarray:
    """Opacity (height, width, 1) float32: opaque around the head, fading towards the edges"""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = (np.abs(x) ** 3 + np.abs(y) ** 3) ** (1 / 3)
    fade = np.clip((1 - radius) / 0.16, 0, 1)
    return (fade * fade * (3 - 2 * fade)).astype(np.float32)[..., None]


def backdrop(scene: Scene, shot: Shot) -> np.ndarray:
    """Background (H, W, 3) uint8: blurred shapes, with a different wall for each tile."""
    import cv2

    rng = np.random.default_rng(shot.backdrop)
    width, height = scene.options.size
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in scene.tiles or ((0, 0, width, height),):
        cells = rng.integers(2, 7, 2)
        wall = rng.uniform(30, 190, 3) + rng.normal(0, 28, (*cells, 3))
        wall = cv2.resize(wall, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
        image[y1:y2, x1:x2] = np.clip(wall, 0, 255)
    for x1, y1, x2, y2 in scene.tiles:
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (12, 12, 12), 2)
    return image


def _corner(face: Appearance) -> tuple[int, int]:
    return round(face.x - LEFT * face.height), round(face.y - TOP * face.height)


def _place(scene: Scene, face: Appearance) -> tuple[slice, slice]:
    """Rows and columns of the frame that a face is confined to: its tile, if there are tiles"""
    x1, y1, x2, y2 = next(
        (t for t in scene.tiles if t[0] <= face.x < t[2] and t[1] <= face.y < t[3]),
        (0, 0, *scene.options.size),
    )
    return slice(y1, y2), slice(x1, x2)


def _torso(image: np.ndarray, face: Appearance, person: Performer, scene: Scene) -> None:
    """Draw shoulders into an image"""
    import cv2

    rows, columns = _place(scene, face)
    inside, h, colour = image[rows, columns], face.height, person.clothes.tolist()
    x, y = round(face.x - columns.start), round(face.y - rows.start + 1.75 * h)
    half = round(0.95 * h)
    cv2.ellipse(inside, (x, y), (half, round(1.1 * h)), 0, 0, 360, colour, -1)
    cv2.rectangle(inside, (x - half, y), (x + half, inside.shape[0]), colour, -1)


def _paste(image: np.ndarray, patch: np.ndarray, alpha: np.ndarray, corner: tuple[int, int]):
    """Blend `patch` over `image` in place, as far as it is inside"""
    x, y = corner
    height, width = image.shape[:2]
    left, top = max(0, -x), max(0, -y)
    right, bottom = min(patch.shape[1], width - x), min(patch.shape[0], height - y)
    if right <= left or bottom <= top:
        return
    place = image[y + top : y + bottom, x + left : x + right]
    share = alpha[top:bottom, left:right]
    over = patch[top:bottom, left:right]
    place[:] = (place + (over - place.astype(np.float32)) * share).round()


def _lit(image: np.ndarray, shot: Shot) -> np.ndarray:
    """Apply the light and blur of a shot"""
    import cv2

    if shot.blur > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), shot.blur)
    return cv2.convertScaleAbs(image, alpha=shot.light)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image as JPEG, at the size that it would have in a film"""
    import cv2

    if quality >= _LOSSLESS:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def render(scene: Scene, people: Mapping[str, Performer]) -> Iterator[tuple[int, np.ndarray]]:
    """Frames that are not dropped, with their indices: (H, W, 3) uint8 RGB."""
    for shot in scene.shots:
        behind = backdrop(scene, shot)
        faces = []
        for face in shot.faces:
            _torso(behind, face, people[face.person], scene)
            drawn = people[face.person].face(face.height)
            place, (x, y) = _place(scene, face), _corner(face)
            corner = (x - place[1].start, y - place[0].start)
            faces.append((drawn, _feather(*drawn.shape), place, corner))
        for k in shot.first + np.flatnonzero(scene.kept[shot.first : shot.end]):
            image = behind.copy()
            for drawn, alpha, place, corner in faces:
                _paste(image[place], drawn.draw(k), alpha, corner)
            yield int(k), _lit(image, shot)


def geometry(person: Performer, face: Appearance, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """Position of a face in frames of its shot, in pixels of the frame.

    Returns
    -------
    box : (T, 4)
    landmarks : (T, 5, 2)
    """
    box, landmarks = person.face(face.height).geometry(frames)
    corner = np.float64(_corner(face))
    return box + np.tile(corner, 2), landmarks + corner


def face_image(person: Performer, face: Appearance, shot: Shot, k: int, size: int) -> np.ndarray:
    """A face in colour at frame `k`, as input for embedders: (size, size, 3) uint8."""
    from pyannote_av.vision.crops import cut
    from pyannote_av.vision.identity import face_box

    drawn = person.face(face.height)
    box, _ = drawn.geometry(slice(k, k + 1))
    picture = _compressed(_lit(drawn.draw(k), shot), shot.quality)
    return cut(picture, face_box(box[0] / np.tile(drawn.shape[::-1], 2), drawn.shape), size)


def face_crops(
    person: Performer, face: Appearance, shot: Shot, frames: range, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Crops of one face without the rest of the frame, as input for networks.

    Parameters
    ----------
    person : Performer
    face : Appearance
    shot : Shot
        Shot of this appearance.
    frames : range
        Frames within the shot.
    rng : numpy.random.Generator
        Source of the random deviations of detected boxes.

    Yields
    ------
    crop : (112, 112) uint8
    """
    from pyannote_av.vision.crops import cut, face_square

    height = min(face.height, _CROP_HEIGHT)
    drawn = person.face(height, crops=True)
    size = np.tile(drawn.shape[::-1], 2)
    box, _ = drawn.geometry(slice(frames.start, frames.stop))
    # detected boxes are larger or smaller than ours, offset and jittered
    shift, grown = rng.uniform(-0.04, 0.04, 2), rng.uniform(-0.06, 0.06)
    box = box + np.r_[shift - grown, shift + grown] * height
    box = box + 0.004 * height * rng.standard_normal(box.shape)
    blurred = shot._replace(blur=shot.blur * height / face.height)
    for k, one in zip(frames, box, strict=True):
        picture = _compressed(_lit(drawn.draw(k)[..., 0], blurred), shot.quality)
        yield cut(picture, face_square(one / size, drawn.shape), SIDE)
