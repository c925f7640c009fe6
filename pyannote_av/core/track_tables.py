"""Face tracks as tables of pandas and detections of supervision; use the methods of FaceTracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from supervision import Detections

    from pyannote_av.core.tracks import FaceTracks

_BOX = ("x1", "y1", "x2", "y2")
_OPTIONAL = ("confidence", "speaking", "label")
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_LANDMARKS = [f"{point}_{axis}" for point in _POINTS for axis in "xy"]


def to_pandas(tracks: FaceTracks) -> pd.DataFrame:
    """See ``FaceTracks.to_pandas``."""
    import pandas as pd

    columns: dict[str, Any] = {"uri": tracks.uri, "time": tracks.time, "track": tracks.track}
    columns |= {name: tracks.box[:, i] for i, name in enumerate(_BOX)}
    columns |= {name: getattr(tracks, name) for name in _OPTIONAL}
    columns["speaker"] = [tracks.speaker.get(track) for track in tracks.track.tolist()]
    if np.isfinite(tracks.landmarks).any():
        flat = tracks.landmarks.reshape(-1, 10)
        columns |= {name: flat[:, i] for i, name in enumerate(_LANDMARKS)}
    table = pd.DataFrame(columns, index=range(len(tracks)))
    if tracks.frame_size is not None:
        table.attrs["frame_size"] = tracks.frame_size
    return table


def from_pandas(
    table: pd.DataFrame,
    uri: str | None,
    frame_size: tuple[int, int] | None,
    make: type[FaceTracks],
) -> FaceTracks:
    """See ``FaceTracks.from_pandas``; `make` is that class."""
    if missing := [name for name in ("time", "track", *_BOX) if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}")
    if "uri" in table:
        if uri is None:
            known = table["uri"].dropna().unique().tolist()
            if len(known) > 1:
                raise ValueError(f"the table holds several videos, {known[:3]}: name one with uri=")
            uri = str(known[0]) if known else None
        elif len(table) and (table["uri"] == uri).any():
            table = table[table["uri"] == uri]
        elif table["uri"].notna().any():
            raise ValueError(f"the table has no video {uri!r}")
    size = frame_size or table.attrs.get("frame_size")
    box = table[list(_BOX)].to_numpy(np.float64)
    if size is not None and len(box) and np.abs(box).max() > 2:
        box = box / [*size, *size]
    columns = {name: table[name].to_numpy() for name in _OPTIONAL if name in table}
    if all(name in table for name in _LANDMARKS):
        columns["landmarks"] = table[_LANDMARKS].to_numpy(np.float64).reshape(-1, 5, 2)
    speaker: dict[int, str] = {}
    if "speaker" in table:
        named = table.loc[table["speaker"].notna(), ["track", "speaker"]].drop_duplicates()
        twice = [track for track, count in Counter(named["track"].tolist()).items() if count > 1]
        if twice:
            raise ValueError(f"track {twice[0]} has several speakers")
        speaker = dict(zip(named["track"].tolist(), named["speaker"].tolist(), strict=True))
    time, track = table["time"].to_numpy(np.float64), table["track"].to_numpy()
    return make(time, track, box, **columns, speaker=speaker, uri=uri, frame_size=size)


def to_supervision(
    tracks: FaceTracks, frame_size: tuple[int, int] | None
) -> Iterator[tuple[float, Detections]]:
    """See ``FaceTracks.to_supervision``."""
    try:
        from supervision import Detections
    except ImportError as error:
        raise ModuleNotFoundError(
            "to_supervision needs supervision: pip install supervision"
        ) from error
    size = frame_size or tracks.frame_size
    if size is None:
        raise ValueError("detections are in pixels, and the size of the frame is not known")

    def generate() -> Iterator[tuple[float, Detections]]:
        order = np.lexsort((tracks.track, tracks.time))
        bounds = np.flatnonzero(np.diff(tracks.time[order])) + 1
        for rows in np.split(order, bounds) if len(order) else ():
            track = tracks.track[rows]
            speakers = [tracks.speaker.get(one, "") for one in track.tolist()]
            yield (
                float(tracks.time[rows[0]]),
                Detections(
                    xyxy=tracks.box[rows].astype(np.float64) * [*size, *size],
                    confidence=tracks.confidence[rows],
                    tracker_id=track,
                    data={"speaker": np.array(speakers), "speaking": tracks.speaking[rows]},
                ),
            )

    return generate()


def from_supervision(
    detections: Iterable[tuple[float, Detections]],
    frame_size: tuple[int, int],
    uri: str | None,
    make: type[FaceTracks],
) -> FaceTracks:
    """See ``FaceTracks.from_supervision``; `make` is that class."""
    columns: dict[str, list] = {
        name: [] for name in ("time", "track", "box", "confidence", "speaking")
    }
    speaker: dict[int, str] = {}
    for time, found in detections:
        count = len(found.xyxy)
        if not count:
            continue
        if found.tracker_id is None:
            raise ValueError(f"faces at {time:.3f} s have no tracker_id: use a tracker first")
        unknown = np.full(count, np.nan)
        columns["time"].append(np.full(count, time, np.float64))
        columns["track"].append(found.tracker_id)
        columns["box"].append(np.asarray(found.xyxy, np.float64) / [*frame_size, *frame_size])
        columns["confidence"].append(unknown if found.confidence is None else found.confidence)
        columns["speaking"].append(found.data.get("speaking", unknown))
        for track, name in zip(found.tracker_id, found.data.get("speaker", ()), strict=False):
            if name:
                speaker[int(track)] = str(name)
    if not columns["time"]:
        return make.empty(uri=uri, frame_size=frame_size)
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    return make(**arrays, speaker=speaker, uri=uri, frame_size=frame_size)
