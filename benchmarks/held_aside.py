"""HMSA-Net, late fusion and audio alone on held-out simulated conversations.

Examples:
    python -m benchmarks held_aside DATA WORK --workers 2
    python -m benchmarks held_aside DATA WORK --sweeps desync missing-faces noise
    python -m benchmarks held_aside DATA WORK --subset development --files 100 --into INTO

The conversations are those of ``recipes/simulated/held_aside.py``, made from DATA. WORK keeps them
and all turns. Face tracks are given.

Writes held_aside.json, .txt and .png, and held_aside_files.csv (DER of each file). ``--sweeps``
also disturbs every tenth file: audio out of sync with the video, missing faces, noise. Each writes
held_aside_SWEEP.json and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks._runner import Results, add

if TYPE_CHECKING:
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.evaluation.sweeps import Sweep

SYSTEMS = ("audio", "late_fusion", "hmsanet")
#: values of each sweep; see ``pyannote_av.evaluation.sweeps.DISTURBANCES``
SWEPT = {
    "desync": (-0.4, -0.2, 0.0, 0.2, 0.4),
    "missing-faces": (0.0, 0.25, 0.5, 0.75, 1.0),
    "noise": (float("inf"), 20.0, 10.0, 0.0),
}
#: values that leave a file as it is
NEUTRAL = {"desync": 0.0, "missing-faces": 0.0, "noise": float("inf")}


class Change(NamedTuple):
    """A disturbance and its value."""

    kind: str
    value: float

    def __call__(self, file: Mapping) -> Mapping:
        """Disturb a file."""
        from pyannote_av.evaluation.sweeps import DISTURBANCES

        one = DISTURBANCES[self.kind]
        return one.change(file, self.value, **({"seed": 0} if one.random else {}))

    @property
    def name(self) -> str:
        """Name of its folder."""
        return "as-is" if self.value == NEUTRAL[self.kind] else f"{self.kind}{self.value:+g}"


AS_IS = Change("desync", 0.0)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "work", "--pipeline", "--workers")
    parser.add_argument("--files", type=int, default=200, help="conversations (default: 200)")
    parser.add_argument(
        "--subset",
        choices=("development", "test"),
        default="test",
        help="people, noises and rooms of the conversations (default: test)",
    )
    add(parser, "--limit", help="score N of them, of all layouts (default: all)")
    parser.add_argument("--sweeps", nargs="+", default=[], choices=SWEPT, metavar="SWEEP")


@cache
def loaded(name: str, folder: Path):
    """A pipeline that takes its faces from a store, loaded once in a process."""
    from pyannote_av.data.crop_store import CropStore
    from recipes.simulated.held_aside import load

    return load(name, CropStore(folder))


def diarize(name: str, folder: Path, into: Path, change: Change, uri: str) -> None:
    """Write the turns of all systems for one file, unless they are there."""
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.formats.rttm import write_rttm
    from recipes.simulated.held_aside import read

    if all((into / system / f"{uri}.rttm").is_file() for system in SYSTEMS):
        return
    turns = {}

    def keep(step: str, artifact, **_) -> None:
        if step == "fusion":
            turns["late_fusion"] = artifact

    file = read(CropStore(folder), uri)
    output = loaded(name, folder)(dict(change(file)), hook=keep)
    turns |= {"audio": output.audio_only, "hmsanet": output.speaker_diarization}
    for system in SYSTEMS:
        write_rttm(turns[system].rename_tracks(), into / system / f"{uri}.rttm")


@dataclass
class Runner:
    """Diarizes files of a store in several processes, which load the pipeline once."""

    pipeline: str
    store: CropStore
    into: Path
    pool: ProcessPoolExecutor

    def __call__(self, uris: Sequence[str], change: Change = AS_IS) -> dict[str, dict]:
        """Turns by system and file."""
        from pyannote.core import Annotation
        from pyannote.database.util import load_rttm
        from rich.progress import track

        into = self.into / change.name
        work = partial(diarize, self.pipeline, self.store.folder, into, change)
        for _ in track(self.pool.map(work, uris), total=len(uris), description=change.name):
            pass
        return {
            system: {
                uri: load_rttm(into / system / f"{uri}.rttm").get(uri, Annotation(uri=uri))
                for uri in uris
            }
            for system in SYSTEMS
        }


def mixed(uris: Sequence[str]) -> list[str]:
    """Files in an order in which the first ones have the shares of layouts that all have."""
    layouts: dict[str, list[str]] = {}
    for uri in uris:
        layouts.setdefault(uri.rsplit("-", 1)[0], []).append(uri)
    place = {
        uri: (number + 1) / len(layout)
        for layout in layouts.values()
        for number, uri in enumerate(layout)
    }
    return sorted(uris, key=place.__getitem__)


def by_thirds(files: Mapping[str, Mapping], results: list, values: Mapping[str, float]) -> str:
    """DER of thirds of the files, ordered by a value."""
    order = sorted(files, key=values.__getitem__)
    lines = []
    for part in np.array_split(order, min(3, len(order))):
        cells = []
        for result in results:
            scores = result.per_file()
            wrong = sum(scores[uri].errors for uri in part)
            cells.append(f"{100 * wrong / sum(scores[uri].total for uri in part):6.2f}")
        span = f"{values[part[0]]:.0f} to {values[part[-1]]:.0f}"
        lines.append(f"{span:>14}  {'  '.join(cells)}")
    return "\n".join(lines)


def face_height(file: Mapping) -> float:
    """Median height of the faces of a file, in pixels."""
    tracks = file["face_tracks"]
    heights = (tracks.box[:, 3] - tracks.box[:, 1]) * (tracks.frame_size or (640, 360))[1]
    return float(np.median(heights)) if len(heights) else 0.0


def swept(kind: str, runner: Runner, uris: Sequence[str]) -> list[Sweep]:
    """Results of each system by value of a disturbance."""
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.evaluation.sweeps import Sweep
    from recipes.simulated.held_aside import read

    runs: dict[str, dict] = {system: {} for system in SYSTEMS}
    for value in SWEPT[kind]:
        change = Change(kind, value)
        systems = runner(uris, change)
        # the reference is shifted along with the audio
        files = {uri: change(read(runner.store, uri)) for uri in uris}
        references = {uri: file["annotation"] for uri, file in files.items()}
        maps = {uri: file["annotated"] for uri, file in files.items()}
        for system, turns in systems.items():
            runs[system][value] = {None: evaluate(references, turns, maps, system=system)}
    return [Sweep(kind, values) for values in runs.values()]


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize and score all conversations, and sweep."""
    from recipes.simulated.held_aside import simulate

    store = simulate(given.data, given.work, given.subset, given.files)
    uris = sorted(mixed(store.uris)[: given.limit])
    into = given.work / "rttm" / f"{Path(given.pipeline).name}-{given.subset}"
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        runner = Runner(given.pipeline, store, into, pool)
        text = score_all(runner, uris, results)
        every = [uri for uri in store.uris[::10] if uri in uris] or uris
        for kind in given.sweeps:
            text += sweep(kind, runner, every, results)
    results.text("held_aside.txt", text)


def score_all(runner: Runner, uris: Sequence[str], results: Results) -> str:
    """Score conversations as they are; returns the tables."""
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.evaluation import diarization_report as report
    from recipes.simulated.held_aside import read

    store, systems = runner.store, runner(uris)
    files = {uri: read(store, uri) for uri in uris}
    references = {uri: file["annotation"] for uri, file in files.items()}
    maps = {uri: file["annotated"] for uri, file in files.items()}
    faces = {uri: FaceTracks.read(store.folder / "tracks" / f"{uri}.npz") for uri in files}
    found = report.evaluate_systems(references, systems, maps, faces=faces, tracks="given")
    heights = {uri: face_height(file) for uri, file in files.items()}
    scores = [result.per_file() for result in found[0]]
    rows = [
        {"uri": uri, "face height": round(heights[uri])}
        | {name: round(100 * one[uri].der, 2) for name, one in zip(systems, scores, strict=True)}
        for uri in uris
    ]
    report.write_rows(results.folder / "held_aside_files.csv", rows)
    results.adopt("held_aside", lambda path: report.write_json(path, *found, per_file=False))
    results.plot("held_aside.png", lambda path: report.plot(found[0], path))
    title = f"height of faces (pixels), thirds of the files: {', '.join(systems)}"
    return f"{report.to_text(*found)}\n\n{title}\n{by_thirds(files, found[0], heights)}"


def sweep(kind: str, runner: Runner, uris: Sequence[str], results: Results) -> str:
    """Disturb conversations, and score them; returns the tables."""
    from pyannote_av.evaluation.sweeps import plot_sweeps, write_json

    sweeps, stem = swept(kind, runner, uris), f"held_aside_{kind.replace('-', '_')}"
    results.adopt(stem, lambda path: write_json(path, sweeps))
    results.plot(f"{stem}.png", lambda path: plot_sweeps(sweeps, path))
    return "".join(f"\n\n{one}" for one in sweeps)
