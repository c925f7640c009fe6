"""Held-out conversations for tuning and testing.

Each is half a minute long. The speakers and faces are not in the training data of
:mod:`recipes.simulated.corpus`; for testing, neither are the noises and rooms. Half are films, a
quarter meetings, and a quarter split screens. They are stored as face crops, so the face tracks are
given, but not their speakers. Face recognition has to link the tracks of a person.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np

from pyannote_av.core.tracks import FaceTracks, PictureStats
from pyannote_av.data.crop_store import CropStore
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.crops import Segmenter, on_grid
from recipes.simulated.corpus import links, sources

#: share of the files by layout
SHARES = {"film": 0.5, "meeting": 0.25, "gallery": 0.25}
#: seed of the first layout, by subset
SEEDS = {"development": 61, "test": 71}
MINUTES = 0.5


class StoredFaces(FaceTracking):
    """Face tracking that takes the faces of a file from a store.

    Parameters
    ----------
    store : CropStore
    identities : ArrayStore
        Face embeddings of the face samples in the store.
    """

    def __init__(self, store: CropStore, identities):
        super().__init__(embedder=None)
        self._store, self._identities = store, identities

    def apply(self, file, tracks=None, collectors=(), hook=None, problems=None):
        uri, tracks, segmenter = file["uri"], on_grid(tracks), Segmenter()

        def publish(segments):
            for segment in segments:
                for collector in collectors:
                    collector.update(segment)

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
        samples = self._store[uri].face_samples
        vectors = self._identities[uri]
        embeddings = {}
        for track in tracks.tracks:
            mine = vectors[samples.track == track]
            if len(mine):
                embeddings[track] = mine[0] / np.linalg.norm(mine[0])
        return replace(tracks, stats=PictureStats(), embeddings=embeddings, speaker={})


def simulate(data: Path, work: Path, subset: str, files: int) -> CropStore:
    """Simulate the conversations of a subset, as a store with face embeddings."""
    from pyannote_av.data.face_embeddings import build_face_embeddings

    sources(data, work / "parts")
    unheard = slice(-1, None) if subset == "test" else slice(0, -1)
    for kind, name in (("noise", "noises"), ("rir", "responses")):
        links(sorted((data / "noise").glob(f"{kind}*.wav"))[unheard], work / name / subset)
    into = work / subset
    for number, (layout, share) in enumerate(SHARES.items()):
        options = {
            "into": work / f"{subset}-{layout}",
            "speech": work / "parts" / "speech" / subset,
            "portraits": work / "parts" / "portraits" / subset,
            "noises": work / "noises" / subset,
            "responses": work / "responses" / subset,
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
    store = CropStore(into)
    build_face_embeddings(store, interval=1e9, progress=True)
    return store


def read(store: CropStore, uri: str) -> dict:
    """Read a file as a mapping, as protocols return it."""
    import torch

    from pyannote_av.formats.annotations import read_rttm, read_uem

    samples = store[uri].index["samples"]
    waveform = store.waveform(uri, 0, ceil(samples / 640))[:samples]
    return {
        "uri": uri,
        "waveform": torch.from_numpy(np.array(waveform, np.float32))[None],
        "sample_rate": 16000,
        "face_tracks": replace(FaceTracks.read(store.folder / "tracks" / f"{uri}.npz"), speaker={}),
        "annotation": read_rttm(store.folder / "rttm" / f"{uri}.rttm")[uri],
        "annotated": read_uem(store.folder / "uem" / f"{uri}.uem")[uri],
    }


def load(checkpoint: str | Path | dict, store: CropStore):
    """Load a pipeline that takes its faces from a store."""
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.data.array_store import ArrayStore
    from pyannote_av.data.face_embeddings import face_embeddings_folder

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pipeline = Pipeline.from_pretrained(checkpoint)
    instantiated = pipeline.instantiated
    values = (
        pipeline.parameters(instantiated=True) if instantiated else pipeline.default_parameters()
    )
    pipeline.first_pass.faces = StoredFaces(store, ArrayStore(face_embeddings_folder(store)))
    return pipeline.instantiate(values)
