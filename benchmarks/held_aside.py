"""HMSA-Net, late fusion and sound alone on conversations that were held aside from training.

    python benchmarks/held_aside.py DATA WORK [--files 200] [--limit N] [--workers 2]
                                    [--pipeline hmsanet] [--sweeps] [--into benchmarks/results]

The conversations are those of ``recipes/simulated/held_aside.py``; WORK keeps them, and what is
said of every file, and the next run goes on from there. Writes ``held_aside.json``, ``.txt`` and
``.png``, and ``held_aside_files.csv`` (DER of each file); with ``--sweeps``, also
``held_aside_desync`` and ``held_aside_missing_faces``, ``.json`` and ``.png``: sound that is late
or early and faces that are missing, on a tenth of the files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore
from recipes.simulated.held_aside import load, read, simulate

if TYPE_CHECKING:
    from pyannote_av.evaluation.sweeps import Sweep

SYSTEMS = ("audio", "late_fusion", "hmsanet")
#: what is changed, and how much: see ``pyannote_av.evaluation.sweeps.DISTURBANCES``
SWEPT = {
    "desync": (-0.4, -0.2, 0.0, 0.2, 0.4),
    "missing-faces": (0.0, 0.25, 0.5, 0.75, 1.0),
}

_loaded: dict = {}


def diarize(name: str, folder: Path, into: Path, uri: str, change: Callable | None = None) -> str:
    """Write what all systems say of a file."""
    from pyannote_av.formats.rttm import write_rttm

    if all((into / system / f"{uri}.rttm").is_file() for system in SYSTEMS):
        return uri
    if name not in _loaded:
        _loaded[name] = load(name, CropStore(folder))
    pipeline, file = _loaded[name], read(CropStore(folder), uri)
    file = dict(file if change is None else change(file))
    file |= {"problems": [], "decoding_seconds": 0.0}
    first, seen = pipeline._first(file, (None, None, None), lambda *_, **__: None)
    said = {"audio": first.output.audio_only, "late_fusion": first.output.speaker_diarization}
    heard = pipeline._heard(file)
    second = pipeline._second(file, first, seen, heard, np.inf, lambda *_, **__: None)
    said["hmsanet"] = second.speaker_diarization
    for system, turns in said.items():
        write_rttm(turns.rename_tracks(), into / system / f"{uri}.rttm")
    return uri


def run(
    name: str, store: CropStore, into: Path, uris: list[str], workers: int, change=None
) -> dict[str, dict]:
    """Turns by system and file."""
    from pyannote.core import Annotation
    from pyannote.database.util import load_rttm
    from rich.progress import track

    work = partial(diarize, name, store.folder, into, change=change)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in track(pool.map(work, uris), total=len(uris), description=into.name):
            pass
    return {
        system: {
            uri: load_rttm(into / system / f"{uri}.rttm").get(uri, Annotation(uri=uri))
            for uri in uris
        }
        for system in SYSTEMS
    }


def changed(file: Mapping, kind: str, value: float) -> Mapping:
    """A file with something wrong."""
    from pyannote_av.evaluation.sweeps import DISTURBANCES

    return DISTURBANCES[kind].change(file, value)


def in_turn(uris: Sequence[str]) -> list[str]:
    """Files of all layouts in turn, so that the first of them have the shares of all."""
    layouts: dict[str, list[str]] = {}
    for uri in uris:
        layouts.setdefault(uri.rsplit("-", 1)[0], []).append(uri)
    place = {
        uri: (number + 1) / len(layout)
        for layout in layouts.values()
        for number, uri in enumerate(layout)
    }
    return sorted(uris, key=place.__getitem__)


def by_file(files: Mapping[str, Mapping], results: list, values: Mapping[str, float]) -> str:
    """Error rates of thirds of the files, in the order of a value."""
    order = sorted(files, key=values.__getitem__)
    lines = []
    for part in np.array_split(order, 3):
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


def swept(kind: str, name: str, store: CropStore, work: Path, workers: int) -> list[Sweep]:
    """What each system says when files are changed more and more, on every tenth of them."""
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.evaluation.sweeps import Sweep

    runs: dict[str, dict] = {system: {} for system in SYSTEMS}
    for value in SWEPT[kind]:
        change = partial(changed, kind=kind, value=value)
        into = work / "rttm" / (f"{kind}{value:+g}" if value else "as-is")
        uris = store.uris[::10]
        systems = run(name, store, into, uris, workers, change)
        # turns move along with the sound
        files = {uri: change(read(store, uri)) for uri in uris}
        references = {uri: file["annotation"] for uri, file in files.items()}
        maps = {uri: file["annotated"] for uri, file in files.items()}
        for system, turns in systems.items():
            runs[system][value] = {None: evaluate(references, turns, maps, system=system)}
    return [Sweep(kind, values) for values in runs.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--limit", type=int, help="score that many only, of all layouts")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pipeline", default="hmsanet", help="name or folder")
    parser.add_argument("--sweeps", action="store_true")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    from pyannote_av.cli.evaluate import score
    from pyannote_av.core.atomic import write_text
    from pyannote_av.evaluation import report
    from pyannote_av.evaluation.sweeps import plot_sweeps, write_json

    store = simulate(given.data, given.work, "test", given.files)
    uris = sorted(in_turn(store.uris)[: given.limit])
    files = {uri: read(store, uri) for uri in uris}
    systems = run(given.pipeline, store, given.work / "rttm" / "as-is", uris, given.workers)
    references = {uri: file["annotation"] for uri, file in files.items()}
    maps = {uri: file["annotated"] for uri, file in files.items()}
    faces = {uri: FaceTracks.read(store.folder / "tracks" / f"{uri}.npz") for uri in files}
    found = score(references, systems, maps, faces=faces, tracks="given")
    text = report.to_text(*found)
    text += f"\n\nheight of faces (pixels), thirds of the files: {', '.join(systems)}\n"
    heights = {uri: face_height(file) for uri, file in files.items()}
    text += by_file(files, found[0], heights)
    scores = [result.per_file() for result in found[0]]
    rows = [
        {"uri": uri, "face height": round(heights[uri])}
        | {name: round(100 * one[uri].der, 2) for name, one in zip(systems, scores, strict=True)}
        for uri in uris
    ]
    report.write_rows(given.into / "held_aside_files.csv", rows)
    command = f"python benchmarks/held_aside.py DATA WORK --pipeline {given.pipeline}"
    report.write_json(given.into / "held_aside.json", *found, command, per_file=False)
    report.plot(found[0], given.into / "held_aside.png")
    for kind in SWEPT if given.sweeps else ():
        found = swept(kind, given.pipeline, store, given.work, given.workers)
        stem = given.into / f"held_aside_{kind.replace('-', '_')}"
        write_json(stem.with_suffix(".json"), found, f"{command} --sweeps")
        plot_sweeps(found, stem.with_suffix(".png"))
        text += "".join(f"\n\n{one}" for one in found)
    print(text)
    write_text(given.into / "held_aside.txt", text)


if __name__ == "__main__":
    main()
