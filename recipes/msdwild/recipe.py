"""MSDWild (Liu et al., 2022): daily life videos with few (2-4) or many (5-10) speakers."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.io import Video
from pyannote_av.core.reading import TRACKS_LIMIT, TRACKS_LINES, read_lines, refusing
from pyannote_av.formats.annotations import read_turns
from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, Tracks, box_tracks, located, place, whole
from recipes.media import Link

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

LISTS = {"few.train": "few_train", "few.val": "few_val", "many.val": "many_val"}
FRAME_RATE = 25.0


def read_boxes(path: Path, uri: str, frame_rate: float, frame_size: tuple[int, int]) -> FaceTracks:
    """Read a CSV of lines ``frame,face,id,x1,y1,x2,y2,0``, in pixels, with RTTM speakers as ids."""

    def rows() -> Iterator[tuple[str, int, str, list[float]]]:
        with refusing(path):
            lines = csv.reader(read_lines(path, TRACKS_LIMIT, TRACKS_LINES))
            for number, row in enumerate(lines, start=1):
                if not row:
                    continue
                with located(path, number):
                    if len(row) < 7:
                        raise ValueError(f"{len(row)} fields where 8 are expected")
                    frame, box = int(row[0]), [float(v) for v in row[3:7]]
                yield f"line {number}", frame, row[2], box

    return box_tracks(path, uri, rows(), frame_rate, frame_size)


def _tracks(folder: Path, uri: str) -> tuple[Tracks | None, tuple[str, ...]]:
    path, video = folder / "RELEASED_dark_labels" / f"{uri}.csv", _video(folder, uri)
    if not path.is_file() or not video.is_file():
        return None, (
            f"file {uri!r}: no face tracks, because {path.name} or {video.name} is missing",
        )
    stream = Video().probe(video).video
    if stream is None:
        return None, (f"file {uri!r}: {video} has no picture",)
    size, rate = (stream.width, stream.height), stream.frame_rate or FRAME_RATE
    read = partial(read_boxes, path, uri, rate, size)
    return Tracks(read, (path,), f"{uri} {size} {rate:.4f}"), ()


def _video(folder: Path, uri: str) -> Path:
    return folder / "RELEASED_dark_labels" / f"{uri}.mp4"


def files(folder: Path) -> Iterator[File]:
    """Yield the files of all RTTM files. Each RTTM file is one list."""
    for stem, name in LISTS.items():
        path = folder / "rttms" / f"{stem}.rttm"
        if not path.is_file():
            continue
        for uri, turns in sorted(read_turns(path).items()):
            scored, problems = whole(uri, turns, _video(folder, uri), folder / "wav" / f"{uri}.wav")
            annotation, cut = place(uri, turns, scored, cut=True)
            tracks, lacking = _tracks(folder, uri)
            yield File(
                uri,
                name,
                annotation,
                scored,
                media={"video": Link(_video(folder, uri))},
                tracks=tracks,
                problems=problems + cut + lacking,
            )


RECIPE = Recipe(
    name="msdwild",
    database="MSDWild",
    licence="research only, upon a signed agreement; so are models trained on it",
    files=files,
    protocols=(
        Protocol("Few", {"train": "few_train", "test": "few_val"}, {"video": "video/{uri}.mp4"}),
        Protocol("Many", {"train": "few_train", "test": "many_val"}, {"video": "video/{uri}.mp4"}),
    ),
    expected={
        "few_train": Expected(2476),
        "few_val": Expected(490, 9.98),
        "many_val": Expected(177, 4.31),
    },
    instructions="""\
Sign the agreement of github.com/X-LANCE/MSDWILD (not for students) and send it to
msdwild@163.com. Put into one folder:
  rttms/                    few.train.rttm, few.val.rttm, many.val.rttm of that repository
  RELEASED_dark_labels/     00001.csv, 00001.mp4, ... as received
""",
)
