"""Simulated conversations, as written by ``pyannote-av simulate``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pyannote_av.formats.annotations import read_uem
from pyannote_av.formats.lists import read_names
from recipes import Protocol, Recipe
from recipes.corpus import File, Tracks, place, turns_of
from recipes.media import Link

SUBSETS = ("train", "development", "test")


def files(folder: Path) -> Iterator[File]:
    """Yield the conversations of all simulated subsets."""
    from pyannote_av.core.tracks import FaceTracks

    for name in SUBSETS:
        listed = folder / "lists" / f"{name}.txt"
        for uri in read_names(listed) if listed.is_file() else ():
            path = folder / "uem" / f"{uri}.uem"
            maps = read_uem(path)
            if uri not in maps:
                raise ValueError(f"{path} has no entry for {uri!r}")
            turns = turns_of(folder / "rttm" / f"{uri}.rttm", uri)
            annotation, problems = place(uri, turns, maps[uri])
            tracks = folder / "tracks" / f"{uri}.npz"
            yield File(
                uri,
                name,
                annotation,
                maps[uri],
                media={"video": Link(folder / "video" / f"{uri}.mp4")},
                tracks=Tracks(partial(FaceTracks.read, tracks), (tracks,)),
                problems=problems,
            )


RECIPE = Recipe(
    name="simulated",
    database="Simulated",
    licence="that of the speech and the portraits it is made of",
    files=files,
    protocols=(
        Protocol(
            "Conversations",
            {name: name for name in SUBSETS},
            {"video": "video/{uri}.mp4"},
        ),
    ),
    instructions="""\
Nothing is downloaded. Write a corpus with, for instance:
  pyannote-av simulate --into data/download/simulated --speech SPEECH --files 100 --subset train
and the same with --subset development and --subset test, each with speakers of its own.
""",
)
