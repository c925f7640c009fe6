"""Fit the conversation statistics that ship with the package.

    python -m recipes.simulated.statistics DATA [--into pyannote_av/simulation/fitted]

DATA contains ``annotations/ava_avd`` and ``annotations/ami``. Turns are those of the train lists.
The visibility of speakers in AVA-AVD is measured on the test movies, the only ones with face
tracks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pyannote.core import Annotation, Segment

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.formats.annotations import read_rttm
from pyannote_av.simulation import statistics
from pyannote_av.simulation.statistics import fit, visibility
from pyannote_av.simulation.turns import calibrated

#: time of the first clip in each movie, and duration of clips, in seconds
FIRST, DURATION = 900, 300


def turns_of(folder: Path, subset: str) -> dict[str, Annotation]:
    """Reference turns of a subset of AVA-AVD, by clip."""
    names = (folder / "split" / f"{subset}.list").read_text().split()
    return {name: read_rttm(folder / "rttms" / f"{name}.rttm")[name] for name in names}


def tracks_of(folder: Path, clips: Iterable[str]) -> dict[str, FaceTracks]:
    """Face tracks by clip. There is one file per movie, with clip numbers before speaker names."""
    clips, tracks = list(clips), {}
    for path in sorted((folder / "tracks").glob("*.csv.gz")):
        movie = FaceTracks.read(path)
        for name in clips:
            if name.startswith(path.name.removesuffix(".csv.gz") + "_c_"):
                number = name[-2:]
                first = FIRST + DURATION * (int(number) - 1)
                clip = movie.crop(Segment(first, first + DURATION))
                speakers = {t: s[2:] for t, s in clip.speaker.items() if s.startswith(number)}
                tracks[name] = clip.with_speakers(speakers)
    return tracks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--into", type=Path, default=Path(statistics.__file__).parent / "fitted")
    given = parser.parse_args()
    ava, ami = (given.data / "annotations" / name for name in ("ava_avd", "ami"))
    test = turns_of(ava, "test")
    found = {
        "ava_avd": replace(fit(turns_of(ava, "train")), **visibility(test, tracks_of(ava, test))),
        "ami": fit(read_rttm(ami / "rttms" / "train.rttm")),
    }
    for name, one in found.items():
        print(calibrated(one).write(given.into / f"{name}.json"))


if __name__ == "__main__":
    main()
