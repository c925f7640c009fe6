"""HMSA-Net, late fusion and sound alone on conversations that were held aside from training.

    python benchmarks/held_aside.py DATA WORK [--files 200] [--limit N] [--workers 2]
                                    [--pipeline hmsanet] [--sweeps] [--into benchmarks/results]

The conversations are those of ``recipes/simulated/held_aside.py``; WORK keeps them, and what is
said of every file, and the next run goes on from there. Writes ``held_aside.json``, ``.txt`` and
``.png``, and ``held_aside_files.csv`` (DER of each file); with ``--sweeps``, also pictures that are
late or early and faces that are missing, on a tenth of the files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyannote_av.core.crop_store import CropStore
from pyannote_av.core.tracks import FaceTracks
from recipes.simulated.held_aside import load, read, simulate

SYSTEMS = ("audio", "late_fusion", "hmsanet")
#: what is changed in sweeps: seconds by which the sound is late, share of faces missing
DESYNC = (-0.4, -0.2, 0.0, 0.2, 0.4)
MISSING = (0.0, 0.25, 0.5, 0.75, 1.0)

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


def sweeps(name: str, store: CropStore, work: Path, workers: int) -> Iterator[tuple]:
    """Error rates of all systems by what was changed, and how much."""
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.evaluation.disturbances import desync, missing_faces

    uris = store.uris[::10]
    files = {uri: read(store, uri) for uri in uris}
    references = {uri: file["annotation"] for uri, file in files.items()}
    maps = {uri: file["annotated"] for uri, file in files.items()}
    for kind, function, values in (
        ("desync", desync, DESYNC),
        ("missing faces", missing_faces, MISSING),
    ):
        for value in values:
            change = partial(function, **{"desync": {"offset": value}}.get(kind, {"rate": value}))
            into = work / "rttm" / f"{kind.replace(' ', '-')}{value:+g}"
            systems = run(name, store, into, uris, workers, change)
            rates = {
                system: 100 * evaluate(references, turns, maps)["automatic", "Full"].der
                for system, turns in systems.items()
            }
            yield kind, value, rates


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
    if given.sweeps:
        text += f"\n\nchanged, on every tenth file: {', '.join(systems)}\n"
        for kind, value, rates in sweeps(given.pipeline, store, given.work, given.workers):
            text += f"{kind} {value:g}: {', '.join(f'{rate:.2f}' for rate in rates.values())}\n"
    print(text)
    write_text(given.into / "held_aside.txt", text)


if __name__ == "__main__":
    main()
