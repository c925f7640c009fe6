"""The synthetic sample of this package: half a minute with two people, only for testing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pyannote.core import Segment, Timeline

from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, Tracks, place, turns_of
from recipes.media import Link

DURATION = 30.0


def files(folder: Path) -> Iterator[File]:
    """Yield the only file."""
    from pyannote_av.core.tracks import FaceTracks

    tracks = folder / "sample.tracks.npz"
    scored = Timeline([Segment(0, DURATION)], uri="sample")
    turns = turns_of(folder / "sample.rttm", "sample")
    annotation, problems = place("sample", turns, scored)
    yield File(
        "sample",
        "sample",
        annotation,
        scored,
        media={"video": Link(folder / "sample.mp4")},
        tracks=Tracks(partial(FaceTracks.read, tracks), (tracks,)),
        problems=problems,
    )


def _make(folder: Path) -> None:
    from pyannote_av.simulation.sample import make_sample

    make_sample(folder)


RECIPE = Recipe(
    name="sample",
    database="Sample",
    licence="MIT (sound of pyannote.audio), public domain (portraits)",
    files=files,
    protocols=(Protocol("TwoPeople", {"test": "sample"}, {"video": "video/{uri}.mp4"}),),
    expected={"sample": Expected(1)},
    make=_make,
)
