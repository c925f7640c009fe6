"""AVA-AVD (Xu et al., "AVA-AVD: audio-visual speaker diarization in the wild", 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote.core import Segment, Timeline

from pyannote_av.formats.lists import read_names
from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, Tracks, place, shifted, speech_of, turns_of
from recipes.fetch import Download, checksums
from recipes.media import Cut

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: start of the first clip in a movie, and length of a clip, in seconds; clips are consecutive
FIRST, LENGTH = 900.0, 300.0
LISTS = {"train": "train", "val": "development", "test": "test"}

_LABELS = "https://raw.githubusercontent.com/IrvingBaez/AVA-AVD"
_COMMIT = "2c058842a86603386e5617c0b1ce057734ce9dcd"
_MOVIES = "https://s3.amazonaws.com/ava-dataset/trainval"


def _root(folder: Path) -> Path:
    return folder / "dataset" if (folder / "dataset" / "split").is_dir() else folder


def clip(uri: str) -> tuple[str, int, float]:
    """Parse a clip name into movie, number of the clip, and its start in the movie (seconds)."""
    if not (match := re.fullmatch(r"(.+)_c_(\d\d)", uri)):
        raise ValueError(f"{uri!r} is not the name of a clip (MOVIE_c_01)")
    movie, which = match[1], int(match[2])
    return movie, which, FIRST + LENGTH * (which - 1)


@lru_cache(maxsize=2)
def _read_movie(path: Path, movie: str, changed: int) -> FaceTracks:
    # cached, because clips of the same movie are read one after another
    from pyannote_av.core.tracks import FaceTracks

    return FaceTracks.read(path, uri=movie)


def read_tracks(path: Path, uri: str) -> FaceTracks:
    """Read the tracks of one clip, on its clock, with speaker names as in the RTTM file.

    The files contain times in the movie and names such as ``02spk01``: speaker spk01 of clip 02.
    Names of other clips, and names without a speaker (``02NA``, ``-1``), are ignored.
    """
    from dataclasses import replace

    import numpy as np

    movie, which, start = clip(uri)
    whole = _read_movie(path, movie, path.stat().st_mtime_ns)
    tracks = whole.crop(Segment(start, start + LENGTH))
    mine = f"{which:02d}spk"
    speakers = {t: name[2:] for t, name in tracks.speaker.items() if name.startswith(mine)}
    return replace(tracks, time=np.round(tracks.time - start, 6), speaker=speakers, uri=uri)


def files(folder: Path) -> Iterator[File]:
    """Yield the clips of the three lists."""
    root = _root(folder)
    movies = {Path(name).stem: name for name in read_names(root / "split" / "video.list")}
    for name in LISTS:
        for uri in read_names(root / "split" / f"{name}.list"):
            movie, _, start = clip(uri)
            whole = Timeline([Segment(0, LENGTH)], uri=uri)
            turns = turns_of(root / "rttms" / f"{uri}.rttm", uri)
            # five turns extend beyond the end of their clip, one of them by almost a minute
            annotation, problems = place(uri, turns, whole, start, cut=True)
            speech = speech_of(root / "labs" / f"{uri}.lab")
            tracks = next(
                (
                    path
                    for end in ("-activespeaker.csv", "-activespeaker.csv.gz", ".csv", ".csv.gz")
                    if (path := root / "tracks" / f"{movie}{end}").is_file()
                ),
                None,
            )
            if tracks is None:
                problems += (f"file {uri!r}: there are no face tracks of {movie!r}",)
            yield File(
                uri,
                name,
                annotation,
                whole,
                lab=shifted(speech, start, Segment(0, LENGTH)),
                media={
                    "video": Cut(
                        root / "videos" / movies.get(movie, f"{movie}.mp4"), start, start + LENGTH
                    )
                },
                tracks=tracks and Tracks(partial(read_tracks, tracks, uri), (tracks,), uri),
                maps={"reference_cut": Timeline([annotation.get_timeline().extent()], uri=uri)},
                problems=problems,
            )


def downloads(folder: Path) -> Iterable[Download]:
    """Yield the annotations, with checksums if known, and then the movies."""
    known = checksums(Path(__file__).with_name("SHA256SUMS"))
    for path, digest in known.items():
        yield Download(f"{_LABELS}/{_COMMIT}/dataset/{path}", path, digest)
    movies = folder / "split" / "video.list"
    if movies.is_file():
        for name in read_names(movies):
            tracks = f"tracks/{Path(name).stem}-activespeaker.csv"
            if tracks not in known and Path(name).stem not in ("Kb1fduj-jdY", "rUYsoIIE37A"):
                yield Download(f"{_LABELS}/{_COMMIT}/dataset/{tracks}", tracks)
            yield Download(f"{_MOVIES}/{name}", f"videos/{name}")


RECIPE = Recipe(
    name="ava_avd",
    database="AVA-AVD",
    licence="annotations MIT; movies are not redistributable",
    files=files,
    protocols=(
        Protocol("Clips", {"train": "train", "development": "val", "test": "test"}),
        Protocol(
            "ReferenceCut",
            {"train": "train", "development": "val", "test": "test"},
            {"annotated": "reference_cut/{uri}.uem_strict"},
        ),
    ),
    expected={
        "train": Expected(243, 9.63),
        "val": Expected(54, 2.06),
        "test": Expected(54, 2.38),
    },
    downloads=downloads,
    instructions="""\
Run `get --only split/` first (lists), then `get` (annotations and about 100 GB of movies).
Face tracks of movies Kb1fduj-jdY and rUYsoIIE37A are in the authors' archive only (Google Drive,
18kjJJbebBg7e8umI6HoGE4_tI3OWufzA): unpack its folder `tracks` into the same folder.
""",
)
