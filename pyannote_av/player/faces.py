"""A picture of each speaker's face, cut out of the video."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

logger = logging.getLogger(__name__)

#: width and height of a picture in pixels
SIZE = 96
#: maximum number of pictures; each needs a seek in the video
MOST = 40
_QUALITY = 80
# side of the picture in heights of the face
_MARGIN = 1.5


def best_rows(tracks: FaceTracks) -> dict[str, int]:
    """Row of the tracks in which each speaker's face is large, frontal and surely a face.

    Returns
    -------
    rows : dict of str to int
        By speaker, in the order in which they are seen longest.
    """
    width, height = tracks.frame_size or (16, 9)
    size = (tracks.box[:, 3] - tracks.box[:, 1]) * height / (width + height)
    inside = np.minimum(tracks.box[:, :2].min(axis=1), 1 - tracks.box[:, 2:].max(axis=1))
    score = size * np.where(inside < 0, 0.5, 1.0) * np.nan_to_num(tracks.confidence, nan=1.0)
    score *= _frontal(tracks.landmarks)
    # in the middle of a shot, nothing is faded
    edge = np.r_[True, np.diff(tracks.track) != 0, True]
    score[edge[1:] | edge[:-1]] *= 0.9
    best: dict[str, int] = {}
    seen: dict[str, int] = {}
    for track, speaker in tracks.speaker.items():
        rows = tracks.track_slice(track)
        row = rows.start + int(score[rows].argmax())
        seen[speaker] = seen.get(speaker, 0) + rows.stop - rows.start
        if speaker not in best or score[row] > score[best[speaker]]:
            best[speaker] = row
    return {speaker: best[speaker] for speaker in sorted(best, key=lambda one: -seen[one])}


def _frontal(landmarks: np.ndarray) -> np.ndarray:
    """1 where the nose is midway between the eyes, 0.2 in profile; 1 where unknown."""
    left, right, nose = landmarks[:, 0, 0], landmarks[:, 1, 0], landmarks[:, 2, 0]
    span = np.maximum(np.abs(right - left), 1e-6)
    shift = np.abs(nose - (left + right) / 2) / span
    return np.nan_to_num(np.clip(1 - 1.5 * shift, 0.2, 1.0), nan=1.0)


def face_pictures(video: str | Path, tracks: FaceTracks, most: int = MOST) -> dict[str, bytes]:
    """JPEG of each speaker's face.

    A video that cannot be read gives no pictures and a warning, not an error.

    Parameters
    ----------
    video : str or Path
    tracks : FaceTracks
    most : int, optional
        Maximum number of speakers, of whom those are taken that are seen longest.

    Returns
    -------
    pictures : dict of str to bytes
        Square JPEG files by speaker.
    """
    from pyannote_av.core.grid import FRAME_RATE
    from pyannote_av.core.io import Video

    pictures: dict[str, bytes] = {}
    try:
        reader = Video()
        for speaker, row in list(best_rows(tracks).items())[:most]:
            start = round(tracks.time[row] * FRAME_RATE) / FRAME_RATE
            frames = reader.frames(str(video), start, start + 1 / FRAME_RATE, problems=[])
            for frame in frames:
                pictures[speaker] = _cut(frame.image, tracks.box[row])
    except (OSError, ValueError, RuntimeError) as error:
        logger.warning("no pictures of faces: %s", error)
    return pictures


def _cut(image: np.ndarray, box: np.ndarray) -> bytes:
    """Square around a face, as JPEG; what is outside of the picture repeats its edge."""
    import cv2

    height, width = image.shape[:2]
    x1, y1, x2, y2 = box * [width, height, width, height]
    side = max(4, round(_MARGIN * max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    face = cv2.resize(image[np.ix_(rows, columns)], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        raise RuntimeError("OpenCV writes no JPEG")
    return content.tobytes()
