"""HMSA-Net, late fusion and sound alone on conversations that were held aside from training.

    python benchmarks/held_aside.py DATA WORK [--files 200] [--workers 2] [--pipeline hmsanet]
                                    [--sweeps] [--into benchmarks/results]

Half a minute each, of talkers, faces, noises and rooms of DATA that ``hmsanet_corpus.py`` leaves
out of training: half films, a quarter meetings, a quarter split screens. They are simulated as
stores of crops, so face tracks are given (without saying whose they are: identity is dlib's).
Writes what is said of every file to WORK/rttm, from which it goes on when started again, and
``held_aside.json``, ``.txt`` and ``.png``; with ``--sweeps``, also pictures that are late or early
and faces that are missing, on a tenth of the files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from math import ceil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from hmsanet_corpus import links, sources

from pyannote_av.core.crop_store import CropStore
from pyannote_av.core.tracks import FaceTracks, PictureStats
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.crops import Segmenter, on_grid

SYSTEMS = ("audio", "late_fusion", "hmsanet")
#: layout to share of the files and seed, by subset
SHARES = {"film": 0.5, "meeting": 0.25, "gallery": 0.25}
SEEDS = {"development": 61, "test": 71}
MINUTES = 0.5
#: what is changed in sweeps: seconds by which the sound is late, share of faces missing
DESYNC = (-0.4, -0.2, 0.0, 0.2, 0.4)
MISSING = (0.0, 0.25, 0.5, 0.75, 1.0)


class StoredFaces(FaceTracking):
    """Shows the faces of files as they are in a store.

    Parameters
    ----------
    store : CropStore
    identities : ArrayStore
        What looks of its files look like.
    """

    def __init__(self, store: CropStore, identities):
        super().__init__(embedder=None)
        self._store, self._identities = store, identities

    def apply(self, file, tracks=None, consumers=(), hook=None, problems=None):
        uri, tracks, segmenter = file["uri"], on_grid(tracks), Segmenter()

        def publish(segments):
            for segment in segments:
                for consumer in consumers:
                    consumer(segment)

        index = np.round(tracks.time * 25).astype(int)
        shown = {
            track: self._store.crops(uri, track, int(index[rows].min()), int(index[rows].max()) + 1)
            for track, rows in ((t, tracks.track == t) for t in tracks.tracks)
        }
        first = {track: int(index[tracks.track == track].min()) for track in tracks.tracks}
        for row in np.argsort(tracks.time, kind="stable"):
            track = int(tracks.track[row])
            publish(segmenter.add(track, index[row], shown[track][0][index[row] - first[track]]))
        publish(segmenter.close_all())
        look = self._store[uri].looks
        vectors = self._identities[uri]
        embeddings = {}
        for track in tracks.tracks:
            mine = vectors[look.track == track]
            if len(mine):
                embeddings[track] = mine[0] / np.linalg.norm(mine[0])
        return replace(tracks, stats=PictureStats(), embeddings=embeddings, speaker={})


def simulate(data: Path, work: Path, subset: str, files: int) -> CropStore:
    """Conversations of a subset, as a store."""
    sources(data, work / "parts")
    noises, responses = (sorted((data / "noise").glob(f"{kind}*.wav")) for kind in ("noise", "rir"))
    links(noises[-1:], work / "noises")
    links(responses[-1:], work / "responses")
    into = work / subset
    for number, (layout, share) in enumerate(SHARES.items()):
        options = {
            "into": work / f"{subset}-{layout}",
            "speech": work / "parts" / "speech" / subset,
            "portraits": work / "parts" / "portraits" / subset,
            "noises": work / "noises",
            "responses": work / "responses",
            "files": ceil(share * files),
            "minutes": MINUTES,
            "speakers": "2-6" if layout == "film" else "2-5",
            "layout": layout,
            "seed": SEEDS[subset] + number,
            "subset": subset,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        program = Path(sys.executable).with_name("pyannote-av")
        subprocess.run([program, "simulate", "--store", *words], check=True)
        for kind in ("rttm", "shards", "tracks", "uem"):
            links((work / f"{subset}-{layout}" / kind).iterdir(), into / kind)
    return CropStore(into)


def read(store: CropStore, uri: str) -> dict:
    """A file, as protocols give it."""
    import torch
    from pyannote.database.util import load_rttm, load_uem

    samples = store[uri].index["samples"]
    waveform = store.waveform(uri, 0, ceil(samples / 640))[:samples]
    return {
        "uri": uri,
        "waveform": torch.from_numpy(np.array(waveform, np.float32))[None],
        "sample_rate": 16000,
        "face_tracks": replace(FaceTracks.read(store.folder / "tracks" / f"{uri}.npz"), speaker={}),
        "annotation": load_rttm(store.folder / "rttm" / f"{uri}.rttm")[uri],
        "annotated": load_uem(store.folder / "uem" / f"{uri}.uem")[uri],
    }


def load(name: str, store: CropStore):
    """A pipeline that looks at faces of a store."""
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.tasks.array_store import ArrayStore
    from pyannote_av.tasks.identities import identities_folder

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pipeline = Pipeline.from_pretrained(name)
    values = pipeline.parameters(instantiated=True)
    pipeline.first_pass.faces = StoredFaces(store, ArrayStore(identities_folder(store)))
    return pipeline.instantiate(values)


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
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pipeline", default="hmsanet", help="name or folder")
    parser.add_argument("--sweeps", action="store_true")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    from pyannote_av.cli.evaluate import score
    from pyannote_av.core.atomic import write_text
    from pyannote_av.evaluation import report
    from pyannote_av.tasks.identities import build_identities

    store = simulate(given.data, given.work, "test", given.files)
    build_identities(store, interval=1e9, progress=True)
    files = {uri: read(store, uri) for uri in store.uris}
    systems = run(given.pipeline, store, given.work / "rttm" / "as-is", store.uris, given.workers)
    references = {uri: file["annotation"] for uri, file in files.items()}
    maps = {uri: file["annotated"] for uri, file in files.items()}
    faces = {uri: FaceTracks.read(store.folder / "tracks" / f"{uri}.npz") for uri in files}
    found = score(references, systems, maps, faces=faces, tracks="given")
    text = report.to_text(*found)
    text += f"\n\nheight of faces (pixels), thirds of the files: {', '.join(systems)}\n"
    text += by_file(files, found[0], {uri: face_height(file) for uri, file in files.items()})
    report.write_json(given.into / "held_aside.json", *found)
    report.plot(found[0], given.into / "held_aside.png")
    if given.sweeps:
        text += f"\n\nchanged, on every tenth file: {', '.join(systems)}\n"
        for kind, value, rates in sweeps(given.pipeline, store, given.work, given.workers):
            text += f"{kind} {value:g}: {', '.join(f'{rate:.2f}' for rate in rates.values())}\n"
    print(text)
    write_text(given.into / "held_aside.txt", text)


if __name__ == "__main__":
    main()
