"""AVA-ActiveSpeaker (Roth et al., 2020): active speakers in movies.

Faces are annotated, not speakers. A "speaker" in these protocols is one face track, and off-screen
speech is not in the reference. Use the protocols to train and score active speaker detection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.formats.lists import read_names
from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, Tracks
from recipes.fetch import Download
from recipes.media import Link

LISTS = ("train", "val")
#: minutes 15 to 30 of each movie are annotated
SCORED = Segment(900, 1800)

_BUCKET = "https://s3.amazonaws.com/ava-dataset"
_END = "-activespeaker.csv"
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


def _labels(folder: Path, name: str) -> list[Path]:
    """Label files, one per movie: in train/, ava_activespeaker_train_v1.0/ or similar"""
    places = sorted(path for path in folder.iterdir() if path.is_dir() and name in path.name)
    return sorted({path for place in places for path in place.rglob(f"*{_END}")})


def _movie(folder: Path, movie: str) -> Path:
    paths = [folder / "videos" / f"{movie}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def files(folder: Path) -> Iterator[File]:
    """Yield the movies on their own clock. Faces are annotated from second 900 on."""
    from pyannote_av.core.tracks import FaceTracks, Label

    for name in LISTS:
        for path in _labels(folder, name):
            movie = path.name.removesuffix(_END)
            tracks = FaceTracks.read(path, uri=movie)
            if not tracks:
                raise ValueError(f"{path} has no entry for {movie!r}")
            talking = tracks.take(tracks.label == Label.SPEAKING_AUDIBLE)
            annotation = Annotation(uri=movie)
            for segment, place, track in talking.to_annotation().itertracks(yield_label=True):
                annotation[segment & SCORED, place] = f"face{track}"
            yield File(
                movie,
                name,
                annotation,
                Timeline([SCORED], uri=movie),
                media={"video": Link(_movie(folder, movie))},
                tracks=Tracks(partial(FaceTracks.read, path, uri=movie), (path,), movie),
            )


def downloads(folder: Path) -> Iterable[Download]:
    """Yield the labels, and then the labelled movies."""
    for name in LISTS:
        archive = f"ava_activespeaker_{name}_v1.0.tar.bz2"
        place = f"labels_{name}/{archive}"
        yield Download(f"{_BUCKET}/annotations/{archive}", place, unpack=True)
    names = "ava_file_names_trainval_v2.1.txt"
    yield Download(f"{_BUCKET}/annotations/{names}", names)
    if (folder / names).is_file():
        movies = {p.name.removesuffix(_END) for name in LISTS for p in _labels(folder, name)}
        for line in read_names(folder / names):
            if Path(line).stem in movies:
                yield Download(f"{_BUCKET}/trainval/{line}", f"videos/{line}")


RECIPE = Recipe(
    name="ava_activespeaker",
    database="AVA-ActiveSpeaker",
    licence="labels CC BY 4.0; movies are not redistributable",
    files=files,
    protocols=(Protocol("Movies", {"train": "train", "development": "val", "test": "val"}),),
    expected={"train": Expected(120), "val": Expected(33)},
    downloads=downloads,
    instructions="""\
Run `get` twice: first for labels, then for the movies (about 100 GB). Labels of the test set are
not published: the figures of papers are those of the validation set, which is `test` here.
""",
    metric="active speaker",
)
