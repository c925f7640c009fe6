"""MOT: one line per face and picture, in pixels (https://motchallenge.net).

``FRAME,ID,LEFT,TOP,WIDTH,HEIGHT,CONFIDENCE,-1,-1,-1``. Frames are counted from 1. Speakers,
landmarks and speaking scores are not stored, and neither are the frame rate and the size of the
picture, which have to be known on reading.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from pyannote_av.core.atomic import write_text
from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.reading import ReadError, decimal, refusing
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.formats.lines import lines_of


def to_mot(
    tracks: FaceTracks, frame_size: tuple[int, int] | None = None, frame_rate: float = FRAME_RATE
) -> str:
    """Face tracks as MOT lines, sorted by frame.

    Parameters
    ----------
    tracks : FaceTracks
    frame_size : (int, int), optional
        Width and height of the displayed picture in pixels. Defaults to that of `tracks`.
    frame_rate : float, optional
        Frames per second.

    Raises
    ------
    ValueError
        When the size of the picture is not known, or a track has two boxes in one frame.
    """
    size = frame_size or tracks.frame_size
    if size is None:
        raise ValueError("MOT holds pixels, and the size of the picture is not known (frame_size)")
    frame = np.round(tracks.time * frame_rate).astype(np.int64) + 1
    if len(np.unique(np.stack([tracks.track, frame]), axis=1).T) < len(tracks):
        raise ValueError(
            f"a track has two boxes in one frame at {frame_rate:g} frames a second (frame_rate)"
        )
    boxes = tracks.box.astype(np.float64) * [*size, *size]
    text = io.StringIO()
    for i in np.lexsort((tracks.track, frame)):
        x1, y1, x2, y2 = boxes[i]
        confidence = tracks.confidence[i]
        text.write(
            f"{frame[i]},{tracks.track[i]},{x1:.3f},{y1:.3f},{x2 - x1:.3f},{y2 - y1:.3f},"
            f"{-1 if np.isnan(confidence) else round(float(confidence), 4)},-1,-1,-1\n"
        )
    return text.getvalue()


def write_mot(
    tracks: FaceTracks,
    path: str | Path,
    frame_size: tuple[int, int] | None = None,
    frame_rate: float = FRAME_RATE,
) -> Path:
    """Write face tracks to a MOT file; return its path. See :func:`to_mot`."""
    return write_text(path, to_mot(tracks, frame_size, frame_rate))


def read_mot(
    path: str | Path,
    frame_size: tuple[int, int],
    frame_rate: float = FRAME_RATE,
    uri: str | None = None,
) -> FaceTracks:
    """Face tracks of a MOT file.

    Parameters
    ----------
    path : str or Path
    frame_size : (int, int)
        Width and height of the displayed picture in pixels.
    frame_rate : float, optional
        Frames per second.
    uri : str, optional

    Raises
    ------
    ReadError
        With file and line, when a line is malformed.
    """
    table = []
    for where, line in lines_of(path, comment="#"):
        fields = line.split(",")
        if len(fields) < 6:
            raise ReadError(f"{where}: {len(fields)} fields where at least 6 are expected")
        try:
            row = [decimal(one.strip()) for one in fields[:7]]
            if row[0] < 1 or any(one != int(one) for one in row[:2]):
                raise ValueError(f"{fields[0]}, {fields[1]} are not numbers of a frame and a track")
        except ValueError as error:
            raise ReadError(f"{where}: {error}") from error
        table.append(row if len(row) == 7 else [*row, -1.0])
    rows = np.array(table).reshape(-1, 7)
    corners = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)
    with refusing(path):
        return FaceTracks(
            time=np.round((rows[:, 0] - 1) / frame_rate, 6),
            track=rows[:, 1],
            box=corners / [*frame_size, *frame_size],
            confidence=np.where(rows[:, 6] < 0, np.nan, rows[:, 6]),
            uri=uri,
            frame_size=frame_size,
        )
