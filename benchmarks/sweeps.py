"""Sweeps of two pipelines over simulated conversations: faces missing, lip-sync off, noise.

    python benchmarks/sweeps.py DATA_FOLDER WORK_FOLDER [--only missing-faces|desync|noise]
                                [--seeds 0 1 2] [--into benchmarks/results]

The files are some of those that ``benchmarks/fusion_tuning.py`` holds aside, one minute each: 4 on
film, 2 in meetings, 2 in galleries, face tracks given. What is written (JSON and PNG of each sweep,
and ``sweep_files.txt``: the files as they are, by condition) is what ``pyannote-av sweep`` and
``pyannote-av evaluate`` say for ``--pipeline audio --pipeline late_fusion``, but sooner: each
waveform is listened to once, and each picture is decoded once. Faces that are missing are left out
before faces are scored.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from clips import look_for_weights
from fusion_tuning import make_files, once

from pyannote_av.pipelines.audio_diarization import AudioDiarization
from pyannote_av.pipelines.face_tracking import FaceTracking

#: layout to number of files
FILES = {"film": 4, "meeting": 2, "gallery": 2}
#: other than the usual ones, for the sake of time: every one of these is listened to anew
VALUES = {"desync": (0.0, 0.2, 0.4, 1.0), "noise": (float("inf"), 20.0, 10.0, 0.0)}


class HearingOnce(AudioDiarization):
    """Listens to each waveform once, whoever asks.

    Parameters
    ----------
    folder : Path
        What was heard is kept there.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder
        self.instantiate(self.default_parameters())

    def diarize(self, file, **options):
        name = hashlib.sha256(file["waveform"].numpy().tobytes()).hexdigest()
        listen = partial(super().diarize, **options)
        return once(self._folder / f"{name}.pickle", listen, file)


class LookingOnce(FaceTracking):
    """Decodes each file once and keeps its faces, of which it shows those that are asked for.

    Parameters
    ----------
    truth : dict of uri to FaceTracks
        All faces of the files.
    """

    def __init__(self, truth: dict):
        super().__init__(embedder=None)
        self._truth = truth
        self._crops: dict = {}

    def _look(self, file) -> tuple[dict, object]:
        """Crops by track and grid index, and statistics of the picture"""
        if file["uri"] not in self._crops:
            crops = {}

            def keep(segment):
                for i in np.flatnonzero(segment.present):
                    crops[segment.track, segment.start + int(i)] = segment.crops[i]

            tracks = super().apply(file, self._truth[file["uri"]], [keep])
            self._crops[file["uri"]] = (crops, tracks.stats)
        return self._crops[file["uri"]]

    def apply(self, file, tracks=None, consumers=(), hook=None, problems=None):
        from pyannote_av.vision.crops import Segmenter, on_grid

        crops, stats = self._look(file)
        tracks, segmenter = on_grid(tracks), Segmenter()

        def publish(segments):
            for segment in segments:
                for consumer in consumers:
                    consumer(segment)

        for row in np.argsort(tracks.time, kind="stable"):
            place = int(tracks.track[row]), round(tracks.time[row] * 25)
            publish(segmenter.add(*place, crops[place]))
        publish(segmenter.close_all())
        return replace(tracks, stats=stats)


def load_pipelines(files: list[dict], folder: Path) -> dict:
    """The shipped pipelines, neither of which does anything twice."""
    from pyannote_av.pipelines.late_fusion import LateFusion

    audio = HearingOnce(folder)
    fusion = LateFusion(audio=HearingOnce(folder))
    fusion.faces = LookingOnce({file["uri"]: file["face_tracks"] for file in files})
    fusion.instantiate(fusion.default_parameters())
    return {"audio": audio, "late_fusion": fusion}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", metavar="SWEEP", help="these, or none but the files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    look_for_weights(options.data / "weights")
    warnings.simplefilter("ignore")
    import torch

    from pyannote_av import FaceTracks
    from pyannote_av.cli.evaluate import reference_tracks, score
    from pyannote_av.evaluation import report, sweeps
    from pyannote_av.evaluation.significance import describe

    torch.set_num_threads(1)
    files = [
        {**file, "face_tracks": FaceTracks.read(file["face_tracks"])}
        for layout, count in FILES.items()
        for file in make_files(options.data, options.work, "held aside", layout)[:count]
    ]
    pipelines = load_pipelines(files, options.work / "heard")
    if not options.only:
        references = {file["uri"]: file["annotation"] for file in files}
        maps = {file["uri"]: file["annotated"] for file in files}
        systems = {
            name: {file["uri"]: sweeps.diarization(loaded, file) for file in files}
            for name, loaded in pipelines.items()
        }
        faces = reference_tracks(files)
        text = report.to_text(*score(references, systems, maps, faces=faces, tracks="given"))
        print(text, "\n", flush=True)
        (options.into / "sweep_files.txt").write_text(text + "\n")
    for what in sweeps.DISTURBANCES if options.only is None else options.only:
        usual = sweeps.DISTURBANCES[what]
        values = VALUES.get(what, usual.values)
        # noise takes as long as all of the missing faces
        seeds = options.seeds[: 1 if what == "noise" else None] if usual.random else ()
        found = []
        for name, loaded in pipelines.items():
            found.append(sweeps.sweep(loaded, files, usual.change, values, what, name, seeds))
            print(found[-1], "\n", flush=True)
        print(describe(sweeps.compare_sweeps(found)), "\n", flush=True)
        stem = options.into / f"sweep_{what.replace('-', '_')}"
        sweeps.write_json(
            stem.with_suffix(".json"),
            found,
            f"python benchmarks/sweeps.py DATA_FOLDER WORK_FOLDER --only {what}",
        )
        sweeps.plot_sweeps(found, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
