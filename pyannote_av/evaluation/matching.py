"""Matching of predictions and annotated faces by video, time and track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyannote_av.core.reading import LONGEST, TRACKS_LIMIT, ReadError, open_bytes, refusing
from pyannote_av.core.track_files import AVA_COLUMNS
from pyannote_av.core.tracks import Label

if TYPE_CHECKING:
    import pandas as pd

    from pyannote_av.core.tracks import FaceTracks

_TEXT = ("video_id", "label", "entity_id")
# columns of times and boxes must be finite; a score may be infinite
_FINITE = AVA_COLUMNS[1:6]


@dataclass(frozen=True, eq=False)
class FaceRows:
    """Faces of any number of videos, one row per face and frame.

    Attributes
    ----------
    source : str
        Source of the rows, for error messages.
    video, entity : (N,) pandas.Categorical of str
    time : (N,) float
        Seconds.
    box : (N, 4) float
        x1, y1, x2, y2 as fractions of the frame.
    label : (N,) int8
        See :class:`~pyannote_av.core.tracks.Label`.
    score : (N,) array, optional
    line : (N,) int, optional
        Line of each row in its file.
    """

    source: str
    video: pd.Categorical
    time: np.ndarray
    box: np.ndarray
    entity: pd.Categorical
    label: np.ndarray
    score: np.ndarray | None = None
    line: np.ndarray | None = None

    def where(self, row: int) -> str:
        """Description of row `row` for error messages."""
        source = self.source if self.line is None else f"{self.source}, line {self.line[row]}"
        face = f"face {self.entity[row]} of video {self.video[row]} at {self.time[row]:g} s"
        return f"{source}: {face}"

    def frame(self) -> np.ndarray:
        """(N,) int identifiers of frames, equal for all rows of one frame of one video."""
        _, time = np.unique(self.time, return_inverse=True)
        return self.video.codes.astype(np.int64) * (len(self.time) + 1) + time


def read_rows(path: str | Path, scored: bool = False) -> FaceRows:
    """Read a CSV file of AVA-ActiveSpeaker, of one or many videos.

    Parameters
    ----------
    path : str or Path
        The file has a header line that names the columns, or the columns video_id,
        frame_timestamp, entity_box_x1, entity_box_y1, entity_box_x2, entity_box_y2, label,
        entity_id and, in predictions, score. It may be gzipped.
    scored : bool
        Whether the file holds predictions. Their labels must be empty or SPEAKING_AUDIBLE, the
        class to which the score refers.

    Raises
    ------
    ValueError
        With file and line, if the file is malformed.
    """
    import pandas as pd

    names = [*AVA_COLUMNS, "score"] if scored else list(AVA_COLUMNS)
    first = _read_csv(path, header=None, nrows=1, dtype=str).iloc[0].tolist()
    # parse numbers as the official script does, so that close scores tie in both or in neither
    how = {"skip_blank_lines": False, "dtype": dict.fromkeys(_TEXT, "category")}
    if header := "entity_id" in first:
        if missing := [name for name in names if name not in first]:
            raise ReadError(f"{path}, line 1: no column {', '.join(missing)}")
        how["usecols"] = names
    else:
        if len(first) < len(names):
            raise ReadError(f"{path}, line 1: {len(first)} fields, {len(names)} are expected")
        how |= {"header": None, "names": names, "usecols": range(len(names))}
    table = _read_csv(path, **how)
    if not isinstance(table.index, pd.RangeIndex):
        raise ReadError(f"{path}: rows have more fields than there are columns")
    table = table.dropna(how="all")
    if table.empty:
        raise ReadError(f"{path}: no rows")
    line = table.index.to_numpy() + (2 if header else 1)
    _check_values(path, table, line)
    return FaceRows(
        source=str(path),
        video=table["video_id"].array,
        time=table["frame_timestamp"].to_numpy(),
        box=table[names[2:6]].to_numpy(),
        entity=table["entity_id"].array,
        label=_labels(path, table, line, scored),
        score=table["score"].to_numpy() if scored else None,
        line=line,
    )


def _read_csv(path: str | Path, **how: Any) -> pd.DataFrame:
    """Read with pandas, from an open file, because pandas could take a path for an address"""
    import pandas as pd

    with open_bytes(path, TRACKS_LIMIT) as file, refusing(path):
        try:
            return pd.read_csv(file, **how)
        except pd.errors.EmptyDataError as error:
            raise ReadError(f"{path}: the file is empty") from error


def _check_values(path: str | Path, table: pd.DataFrame, line: np.ndarray) -> None:
    """Convert columns to numbers; raises ReadError for missing or invalid values"""
    import pandas as pd

    for name in table.columns.drop("label"):
        column = table[name]
        if name not in _TEXT:
            column = pd.to_numeric(column, errors="coerce").astype(float)
        wrong = column.isna().to_numpy()
        if name in _FINITE:
            wrong = wrong | (np.abs(column.to_numpy()) > LONGEST)
        if wrong.any():
            i = int(wrong.argmax())
            value = table[name].iloc[i]
            what = f"no {name}" if pd.isna(value) else f"{name} {value!r} is not a number"
            if not pd.isna(column.iloc[i]):
                what = f"{name} {value} is beyond {LONGEST:,.0f}"
            raise ReadError(f"{path}, line {line[i]}: {what}")
        if name not in _TEXT:
            table[name] = column


def _labels(path: str | Path, table: pd.DataFrame, line: np.ndarray, scored: bool) -> np.ndarray:
    allowed = set(Label) - {Label.UNKNOWN} if not scored else {Label.SPEAKING_AUDIBLE}
    values = {label.name: int(label) for label in sorted(allowed)}
    labels = table["label"].array
    codes = [values.get(name, -2) for name in labels.categories]
    # an empty label has code -1, the last element
    label = np.array([*codes, Label.UNKNOWN], np.int8)[labels.codes]
    if (wrong := label == -2).any():
        i = int(wrong.argmax())
        raise ReadError(
            f"{path}, line {line[i]}: label {labels[i]!r}, where {' or '.join(values)} is expected"
        )
    return label


def track_rows(tracks: Sequence[FaceTracks], source: str) -> FaceRows:
    """Rows of face tracks of different videos, in order. Times are rounded to milliseconds."""
    import pandas as pd

    uris = [one.uri or "" for one in tracks]
    if len(set(uris)) != len(uris):
        raise ValueError(f"{source}: several face tracks of one uri, or without: {uris}")

    if not tracks:
        raise ValueError(f"{source} has no face tracks")

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in tracks])

    video = np.repeat(np.arange(len(uris)), [len(one) for one in tracks])
    return FaceRows(
        source=source,
        video=pd.Categorical.from_codes(video, uris),
        time=np.round(column("time"), 3),
        box=column("box"),
        entity=pd.Categorical(column("track").astype(int).astype(str)),
        label=column("label"),
        score=column("speaking"),
    )


def match(reference: FaceRows, prediction: FaceRows, tolerance: float = 1e-9) -> np.ndarray:
    """Index of the row of `prediction` for each row of `reference`.

    Parameters
    ----------
    reference, prediction : FaceRows
        They must have the same rows, in any order.
    tolerance : float
        Maximum difference of their boxes, in fractions of the frame.

    Returns
    -------
    rows : (N,) int array

    Raises
    ------
    ValueError
        With the first row that is duplicated, has no counterpart, or has a different box.
    """
    from pandas.api.types import union_categoricals

    keys = np.zeros(len(reference.time) + len(prediction.time), np.int64)
    _, time = np.unique(np.concatenate([reference.time, prediction.time]), return_inverse=True)
    for codes in (
        union_categoricals([reference.video, prediction.video]).codes,
        time,
        union_categoricals([reference.entity, prediction.entity]).codes,
    ):
        keys = keys * (int(codes.max(initial=0)) + 1) + codes
    wanted, given = np.split(keys, [len(reference.time)])
    for rows, key in ((reference, wanted), (prediction, given)):
        order = np.argsort(key, kind="stable")
        if len(twice := order[1:][np.diff(key[order]) == 0]):
            raise ValueError(f"{rows.where(int(twice.min()))} is listed twice")
    if (alone := ~np.isin(wanted, given)).any():
        raise ValueError(
            f"{reference.where(int(alone.argmax()))} has no counterpart in {prediction.source} "
            f"(nor have {int(alone.sum()) - 1} others)"
        )
    if (alone := ~np.isin(given, wanted)).any():
        raise ValueError(
            f"{prediction.where(int(alone.argmax()))} has no counterpart in {reference.source} "
            f"(nor have {int(alone.sum()) - 1} others)"
        )
    # `order` is that of the prediction, the last item of the loop above
    found = order[np.searchsorted(given, wanted, sorter=order)]
    moved = (np.abs(reference.box - prediction.box[found]) > tolerance).any(axis=1)
    if moved.any():
        i = int(moved.argmax())
        raise ValueError(
            f"{reference.where(i)} has box {reference.box[i].tolist()}, but in "
            f"{prediction.where(int(found[i]))} {prediction.box[found[i]].tolist()}"
        )
    return found
