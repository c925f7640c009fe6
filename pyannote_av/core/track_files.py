"""Reading and writing of face tracks; use ``FaceTracks.read`` and ``FaceTracks.write``."""

from __future__ import annotations

import csv
import gzip
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pyannote_av.core.atomic import replacing
from pyannote_av.core.reading import (
    LONGEST,
    TRACKS_LIMIT,
    TRACKS_LINES,
    ReadError,
    decimal,
    read_json,
    read_lines,
    read_npz,
    refusing,
)
from pyannote_av.core.track_columns import COLUMNS, Label

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: columns of AVA-ActiveSpeaker, named as in its evaluation script; AVA-AVD adds spkid
AVA_COLUMNS = ("video_id", "frame_timestamp", "entity_box_x1", "entity_box_y1", "entity_box_x2")
AVA_COLUMNS += ("entity_box_y2", "label", "entity_id")
_AVA_LABELS = {label.name: label for label in Label if label != Label.UNKNOWN}
_AVA_LABELS[""] = Label.UNKNOWN
# maximum digits of a track number in an entity_id
_DIGITS = 18
# maximum width and height of a frame in pixels
_WIDEST = 100_000


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = suffixes[-2] if zipped and len(suffixes) > 1 else suffixes[-1] if suffixes else ""
    if suffix not in (".npz", ".json", ".csv") or (zipped and suffix == ".npz"):
        raise ValueError(f"{path}: face tracks are .npz, .json[.gz] or .csv[.gz] files")
    return suffix


def read(path: str | Path, uri: str | None, make: type[FaceTracks]) -> FaceTracks:
    """See ``FaceTracks.read``; `make` is that class."""
    path = Path(path)
    suffix = _suffix(path)
    if suffix == ".npz":
        return _read_npz(path, make)
    return _read_json(path, make) if suffix == ".json" else _read_csv(path, uri, make)


def write(tracks: FaceTracks, path: str | Path) -> None:
    """See ``FaceTracks.write``."""
    path = Path(path)
    suffix = _suffix(path)
    with replacing(path) as temporary:
        if suffix == ".npz":
            with open(temporary, "wb") as file:
                _write_npz(tracks, file)
        else:
            zipped = path.suffix.lower() == ".gz"
            with (gzip.open if zipped else open)(
                temporary, "wt", encoding="utf-8", newline=""
            ) as file:
                (_write_json if suffix == ".json" else _write_csv)(tracks, file)


def _read_npz(path: Path, make: type[FaceTracks]) -> FaceTracks:
    what = "not a file of face tracks"
    try:
        # files written by older versions have no labels
        content = read_npz(path, [name for name in COLUMNS if name != "label"])
    except ReadError as error:
        raise ReadError(f"{path}: {what} ({error})") from error
    with refusing(path, what):
        names = zip(content["speaker_track"], content["speaker_label"], strict=True)
        speaker = {int(track): str(label) for track, label in names}
        uri, frame_size = str(content["uri"]), tuple(content["frame_size"].tolist())
    columns = {name: content[name] for name in COLUMNS if name in content}
    return _build(
        path, make, **columns, speaker=speaker, uri=uri or None, frame_size=frame_size or None
    )


def _write_npz(tracks: FaceTracks, file: IO[bytes]) -> None:
    np.savez_compressed(
        file,
        **{name: getattr(tracks, name) for name in COLUMNS},
        speaker_track=np.array(list(tracks.speaker), np.int64),
        speaker_label=np.array(list(tracks.speaker.values()), np.str_),
        uri=np.array(tracks.uri or "", np.str_),
        frame_size=np.array(tracks.frame_size or (), np.int64),
    )


def _build(where: str | Path, make: type[FaceTracks], **columns: Any) -> FaceTracks:
    """Face tracks from columns of an untrusted file; raises ReadError for absurd values"""
    # invalid track numbers are refused, so numpy's warning is not needed
    with refusing(where), np.errstate(invalid="ignore"):
        tracks = make(**columns)
        if not isinstance(tracks.uri, (str, type(None))):
            raise ValueError(f"uri must be text, not {tracks.uri!r}")
        if not all(0 < pixels <= _WIDEST for pixels in tracks.frame_size or ()):
            raise ValueError(f"a frame of {tracks.frame_size} pixels")
        if (late := np.abs(tracks.time) > LONGEST).any():
            i = int(late.argmax())
            raise ValueError(
                f"track {tracks.track[i]} is visible at {tracks.time[i]:g} s, where "
                f"{LONGEST:,.0f} s is the maximum"
            )
    return tracks


def _numbers(values: np.ndarray, digits: int) -> list[Any]:
    """Round values; NaN, which JSON lacks, becomes None"""
    if values.ndim > 1:
        return [_numbers(row, digits) for row in values]
    return [None if np.isnan(v) else round(float(v), digits) for v in values]


def to_dict(tracks: FaceTracks) -> dict[str, Any]:
    """See ``FaceTracks.to_dict``. Times and scores have 3 digits, positions 5."""
    content: dict[str, Any] = {"uri": tracks.uri, "frame_rate": round(tracks.frame_rate, 3)}
    if tracks.frame_size:
        content["frame_size"] = list(tracks.frame_size)
    content["tracks"] = []
    for track in tracks.tracks:
        one = tracks.of(track)
        entry = {
            "id": track,
            "speaker": tracks.speaker.get(track),
            "start": round(float(one.time[0]), 3),
            "end": round(float(one.time[-1] + 1 / tracks.frame_rate), 3),
            "times": _numbers(one.time, 3),
            "boxes": _numbers(one.box, 5),
        }
        for name, digits in (("confidence", 3), ("speaking", 3), ("landmarks", 5)):
            if not np.isnan(getattr(one, name)).all():
                entry[name] = _numbers(getattr(one, name), digits)
        if (one.label != Label.UNKNOWN).any():
            entry["label"] = one.label.tolist()
        content["tracks"].append(entry)
    return content


def _write_json(tracks: FaceTracks, file: IO[str]) -> None:
    """Write one key per line, with each array on a single line, so that the file is readable"""
    content = to_dict(tracks)
    entries = content.pop("tracks")
    head = "".join(f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in content.items())
    body = ",\n".join(
        "    {\n"
        + ",\n".join(f"      {json.dumps(k)}: {json.dumps(v)}" for k, v in entry.items())
        + "\n    }"
        for entry in entries
    )
    file.write(f'{{\n{head}  "tracks": [{chr(10) + body + chr(10) + "  " if body else ""}]\n}}\n')


def _read_json(path: Path, make: type[FaceTracks]) -> FaceTracks:
    return from_dict(read_json(path, TRACKS_LIMIT, nan=True), str(path), make)


def from_dict(content: Any, where: str, make: type[FaceTracks]) -> FaceTracks:
    """See ``FaceTracks.from_dict``; `make` is that class."""
    columns: dict[str, list] = defaultdict(list)
    speaker = {}
    try:
        for entry in content["tracks"]:
            track, count = int(entry["id"]), len(entry["times"])
            columns["track"] += [track] * count
            if entry.get("speaker") is not None:
                speaker[track] = entry["speaker"]
            for name, key, blank in (
                ("time", "times", None),
                ("box", "boxes", None),
                ("confidence", "confidence", np.nan),
                ("speaking", "speaking", np.nan),
                ("label", "label", Label.UNKNOWN),
                ("landmarks", "landmarks", [[np.nan] * 2] * 5),
            ):
                values = entry[key] if blank is None else entry.get(key, [blank] * count)
                if len(values) != count:
                    raise ValueError(f"track {track} has {count} times but {len(values)} {key}")
                columns[name] += values
    except KeyError as error:
        raise ReadError(f"{where}: not a file of face tracks, no {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ReadError(f"{where}: {error}") from error
    if named := [one for one in speaker.values() if not isinstance(one, (str, int, float))]:
        raise ReadError(f"{where}: a speaker is called {named[0]!r}")
    with refusing(where):
        arrays = {name: np.array(values, np.float64) for name, values in columns.items()}
        frame_size = tuple(content.get("frame_size") or ()) or None
    if not arrays:
        arrays = {"time": np.empty(0), "track": np.empty(0), "box": np.empty((0, 4))}
    return _build(
        where, make, **arrays, speaker=speaker, uri=content.get("uri"), frame_size=frame_size
    )


def _csv_columns(row: list[str]) -> dict[str, int] | None:
    """Position of each column according to a header line; None if `row` is not a header"""
    if "entity_id" not in row and row[0] != "video_id":
        return None
    names = {"timestamp": "frame_timestamp"} | {
        n.removeprefix("entity_box_"): n for n in AVA_COLUMNS
    }
    columns = {names.get(name, name): position for position, name in enumerate(row)}
    if missing := [name for name in AVA_COLUMNS if name not in columns]:
        raise ValueError(f"no column {', '.join(missing)}")
    return columns


def _read_csv(path: Path, uri: str | None, make: type[FaceTracks]) -> FaceTracks:
    """video_id, timestamp, x1, y1, x2, y2, label, entity_id[, spkid]

    A header line is optional. With a header, columns may be in any order, and there may be a score.
    If each entity_id reads ``video_id:number``, its number identifies the track. Otherwise tracks
    are numbered in the order in which their entity_id first appears. An spkid that ends in ``NA``
    (AVA-AVD) is ignored. If a track has several spkid, the most frequent one is used.
    """
    numbers, labels, rows = array("d"), array("b"), array("q")
    entities: dict[str, int] = {}
    named: dict[str, Counter] = defaultdict(Counter)
    video, columns, widths = uri, {n: i for i, n in enumerate((*AVA_COLUMNS, "spkid"))}, {8, 9}
    for line, row in enumerate(_csv_rows(path), 1):
        try:
            if not row:
                continue
            if line == 1 and (header := _csv_columns(row)):
                columns, widths = header, {len(row)}
                continue
            if len(row) not in widths:
                expected = " or ".join(map(str, sorted(widths)))
                raise ValueError(f"{len(row)} fields where {expected} are expected")
            one = {name: row[i] for name, i in columns.items() if i < len(row)}
            if one["video_id"] != video:
                if uri is not None:
                    continue
                if video is not None:
                    raise ValueError(
                        f"a second video, {one['video_id']!r} after {video!r}; "
                        "name the one to read with uri="
                    )
                video = one["video_id"]
            score = one.get("score")
            numbers.extend([decimal(one[name]) for name in AVA_COLUMNS[1:6]])
            numbers.append(float(score or "nan"))
            if one["label"] not in _AVA_LABELS:
                raise ValueError(f"unknown label {one['label']!r}")
        except ValueError as error:
            raise ReadError(f"{path}, line {line}: {error}") from error
        labels.append(_AVA_LABELS[one["label"]])
        rows.append(entities.setdefault(one["entity_id"], len(entities)))
        if (name := one.get("spkid")) and not name.endswith("NA"):
            named[one["entity_id"]][name] += 1
    if not numbers:
        return make.empty(uri=video)
    number = _number_entities(video, list(entities))
    table = np.array(numbers).reshape(-1, 6)
    return _build(
        path,
        make,
        time=table[:, 0],
        track=np.array(list(number.values()), np.int64)[np.array(rows)],
        box=table[:, 1:5],
        speaking=table[:, 5],
        label=np.array(labels),
        speaker={number[e]: counts.most_common(1)[0][0] for e, counts in named.items()},
        uri=video,
    )


def _csv_rows(path: Path) -> Iterator[list[str]]:
    with refusing(path):
        yield from csv.reader(read_lines(path, TRACKS_LIMIT, TRACKS_LINES))


def _number_entities(video: str, entities: list[str]) -> dict[str, int]:
    """Number of each track, in the order of `entities`"""
    tails = [entity.removeprefix(f"{video}:") for entity in entities]
    usable = all(t.isascii() and t.isdecimal() and len(t) <= _DIGITS for t in tails)
    if usable and len(set(map(int, tails))) == len(tails):
        return dict(zip(entities, map(int, tails), strict=True))
    return {entity: number for number, entity in enumerate(entities)}


def _write_csv(tracks: FaceTracks, file: IO[str]) -> None:
    """Write CSV with a header, and columns score and spkid if there are scores and speakers"""
    uri, scored = tracks.uri or "", not np.isnan(tracks.speaking).all()
    writer = csv.writer(file, lineterminator="\n")
    extra = ["score"] * scored + ["spkid"] * bool(tracks.speaker)
    writer.writerow([*AVA_COLUMNS, *extra])
    for i in range(len(tracks)):
        score, label, track = tracks.speaking[i], Label(tracks.label[i]), int(tracks.track[i])
        row = [uri, repr(round(float(tracks.time[i]), 3)), *(f"{v:.6g}" for v in tracks.box[i])]
        row += ["" if label == Label.UNKNOWN else label.name, f"{uri}:{track}"]
        if scored:
            row.append("" if np.isnan(score) else str(score))
        writer.writerow([*row, tracks.speaker.get(track, "NA")] if tracks.speaker else row)
