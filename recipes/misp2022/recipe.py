"""MISP2022: Mandarin home-TV conversations, far, middle and near field (Wang et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.io import Video
from pyannote_av.core.reading import (
    LONGEST,
    TRACKS_LIMIT,
    ReadError,
    decimal,
    read_json,
    read_lines,
    refusing,
)
from pyannote_av.formats.annotations import read_turns
from pyannote_av.formats.lists import read_names
from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, Tracks, box_tracks, place, whole
from recipes.media import Link

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: files with list, turns and speech regions, named as in the folder scp_dir of the baseline
SETS = {
    "train": ("train.list", "train1.rttm", "train_fat_timestamp.lab"),
    "dev": ("dev.list", "dev_far_RTTM.rttm", "dev_far_timestamp.lab"),
}
FRAME_RATE = 25.0
#: frame sizes of the wide camera (far) and of the cameras of single participants (middle)
SIZES = {"far": (1920, 1080), "middle": (1280, 720)}


def read_speech(path: Path) -> dict[str, Timeline]:
    """Read speech regions from lines ``URI START END``, by uri. Errors name file and line."""
    found: dict[str, Timeline] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not (fields := line.split()):
            continue
        try:
            uri, start, end = fields[0], decimal(fields[1]), decimal(fields[2])
        except (ValueError, IndexError) as error:
            line = line.strip()
            raise ReadError(f"{path}, line {number}: not URI START END: {line!r}") from error
        if not 0 <= start <= end <= LONGEST:
            raise ReadError(f"{path}, line {number}: from {start} to {end}")
        found.setdefault(uri, Timeline(uri=uri)).add(Segment(start, end))
    return {uri: timeline.support() for uri, timeline in found.items()}


def read_boxes(path: Path, uri: str, frame_size: tuple[int, int]) -> FaceTracks:
    """Read supplied faces, in pixels.

    The format is ``{"frame": [{"id": 186, "x1": ..., "lip": [...]}, ...]}``.
    """
    content = read_json(path, TRACKS_LIMIT)
    with refusing(path, "not a file of face boxes"):
        rows = [
            (f"frame {frame}", int(frame), f"{face['id']:03d}", [float(face[n]) for n in _SIDES])
            for frame, faces in content.items()
            for face in faces
        ]
    return box_tracks(path, uri, rows, FRAME_RATE, frame_size)


_SIDES = ("x1", "y1", "x2", "y2")


def _tracks(path: Path, uri: str, video: Path, field: str) -> Tracks | None:
    if not path.is_file():
        return None
    stream = Video().probe(video).video if video.is_file() else None
    size = (stream.width, stream.height) if stream else SIZES[field]
    return Tracks(partial(read_boxes, path, uri, size), (path,), f"{uri} {size}")


def _speakers(uri: str) -> list[str]:
    """Speakers in a uri, three digits each: 186, 187 and 188 in R10_S186187188_C11_I1"""
    digits = uri.split("_")[1].removeprefix("S")
    return [digits[i : i + 3] for i in range(0, len(digits), 3)]


def files(folder: Path) -> Iterator[File]:
    """Yield each session (far and middle field), and then its participants separately."""
    released = folder / "Released" if (folder / "Released").is_dir() else folder
    for name, (listed, rttm, lab) in SETS.items():
        if not (folder / "scp_dir" / listed).is_file():
            continue
        turns = read_turns(folder / "scp_dir" / rttm)
        speech = read_speech(folder / "scp_dir" / lab)
        audio, video = released / "audio" / name, released / "video" / name
        boxes = released / "roi_coordinates" / name
        for uri in read_names(folder / "scp_dir" / listed):
            for what, where in ((turns, rttm), (speech, lab)):
                if uri not in what:
                    raise ValueError(f"{folder / 'scp_dir' / where} has no entry for {uri!r}")
            wide = video / "far" / f"{uri}_Far.mp4"
            far = audio / "far" / f"{uri}_Far_0.wav"
            scored, problems = whole(uri, turns[uri], far)
            annotation, cut = place(uri, turns[uri], scored)
            yield File(
                uri,
                name,
                annotation,
                scored,
                lab=speech[uri].crop(scored),
                media={
                    "video": Link(wide),
                    "audio_far": Link(far),
                    "audio_middle": Link(audio / "middle" / f"{uri}_Middle_0.wav"),
                },
                tracks=_tracks(boxes / "far" / "lip" / f"{uri}_Far.json", uri, wide, "far"),
                problems=problems + cut,
            )
            yield from _alone(uri, name, annotation, scored, audio, video, boxes)


def _alone(
    uri: str,
    name: str,
    annotation: Annotation,
    scored: Timeline,
    audio: Path,
    video: Path,
    boxes: Path,
) -> Iterator[File]:
    """Participants with their own camera: near-field audio, middle-field video"""
    for speaker in _speakers(uri):
        camera = video / "middle" / f"{uri}_Middle_{speaker}.mp4"
        if not camera.is_file():
            continue
        mine = f"{uri}_{speaker}"
        said = annotation.subset([speaker]).rename_tracks()
        said.uri = mine
        yield File(
            mine,
            f"{name}_near",
            said,
            Timeline(scored, uri=mine),
            media={
                "video": Link(camera),
                "audio_near": Link(audio / "near" / f"{uri}_Near_{speaker}.wav"),
            },
            tracks=_tracks(
                boxes / "middle" / "lip" / f"{uri}_Middle_{speaker}.json", mine, camera, "middle"
            ),
        )


_SUBSETS = {"train": "train", "development": "dev"}

RECIPE = Recipe(
    name="misp2022",
    database="MISP2022",
    licence="agreement with the organisers, non-commercial",
    files=files,
    protocols=(
        Protocol(
            "Far",
            _SUBSETS,
            {"video": "video/{uri}.mp4", "audio": "audio_far/{uri}.wav"},
            scope="database",
        ),
        Protocol(
            "Middle",
            _SUBSETS,
            {"video": "video/{uri}.mp4", "audio": "audio_middle/{uri}.wav"},
            scope="database",
        ),
        Protocol(
            "Near",
            {subset: f"{name}_near" for subset, name in _SUBSETS.items()},
            {"video": "video/{uri}.mp4", "audio": "audio_near/{uri}.wav"},
            scope="database",
        ),
    ),
    expected={"dev": Expected(10, 3.22)},
    instructions="""\
The corpus is given out by its organisers (mispchallenge@gmail.com) upon a signed agreement, for
non-commercial research. Put into one folder:
  Released/                 as received: audio/, video/, roi_coordinates/
  scp_dir/                  folder track1_AVSD/scp_dir of github.com/mispchallenge/misp2022_baseline
""",
)
