"""Target-speaker diarization against late fusion and sound alone, with weights of our own training.

    python benchmarks/hmsanet_pipeline.py DATA CORPUS WEIGHTS WORK [--into benchmarks/results]

CORPUS is what ``recipes/simulated/corpus.py`` made of DATA, WEIGHTS a network that was trained on
it, such as ``cgima-0/model.safetensors`` of ``hmsanet_claims.py``. One-minute videos are simulated
in WORK with the talkers and faces of CORPUS that are for development, on which the thresholds of
the second pass are chosen, and with those for test. Faces are found by the pipelines. Then come the
real clips of DATA, none of which has a part in any choice. Everything is taken up where it was
left.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from clips import look_for_weights
from fusion_tuning import once
from sweeps import HearingOnce

from pyannote_av.core.atomic import write_text

#: subset to layout to (files, seed)
FILES = {
    "development": {"film": (3, 31), "meeting": (1, 32), "gallery": (2, 33)},
    "test": {"film": (6, 41), "meeting": (3, 42), "gallery": (3, 43)},
}
#: an onset of None: the first pass counts
GRID = {
    "prior": (0.0, 1.0, 2.0, 3.0),
    "onset": (None, 0.4, 0.5, 0.6, 0.7, 0.8),
    "drop": (0.0, 0.2),
    "min_duration_on": (0.0, 0.1, 0.2),
    "min_duration_off": (0.0, 0.1, 0.25),
}


def simulate(corpus: Path, work: Path, subset: str) -> Iterator[dict]:
    """Files of a subset, as a protocol gives them."""
    from pyannote.database.util import load_rttm, load_uem

    program = Path(sys.executable).with_name("pyannote-av")
    for layout, (count, seed) in FILES[subset].items():
        into = work / f"{subset}-{layout}"
        options = {
            "into": into,
            "speech": corpus / "parts" / "speech" / subset,
            "portraits": corpus / "parts" / "portraits" / subset,
            "files": count,
            "minutes": 1,
            "speakers": "2-6" if layout == "film" else "2-5",
            "layout": layout,
            "seed": seed,
            "subset": subset,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        subprocess.run([program, "simulate", *words], check=True, stdout=subprocess.DEVNULL)
        for video in sorted((into / "video").glob("*.mp4")):
            uri = video.stem
            yield {
                "uri": uri,
                "video": str(video),
                "annotation": load_rttm(into / "rttm" / f"{uri}.rttm")[uri],
                "annotated": load_uem(into / "uem" / f"{uri}.uem")[uri],
                "reference_tracks": into / "tracks" / f"{uri}.npz",
            }


def clips(data: Path) -> Iterator[dict]:
    """Real clips, with a reference where there is one."""
    from pyannote.database.util import load_rttm

    for video in sorted((data / "clips" / "several").iterdir()):
        if video.suffix not in (".avi", ".mp4"):
            continue
        rttm = video.with_suffix(".rttm")
        file = {"uri": video.stem, "video": str(video)}
        yield file | ({"annotation": load_rttm(rttm)[video.stem]} if rttm.is_file() else {})


class AskedOnce:
    """Asks a network of each file and its target speakers once, whatever the thresholds."""

    def __init__(self, inference, folder: Path):
        self._inference, self._folder = inference, folder
        self.model = inference.model

    def __call__(self, waveform, targets, heard, progress):
        from hashlib import sha256

        name = sha256(waveform.numpy().tobytes()).hexdigest()

        def ask(waveform):
            return self._inference(waveform, targets, heard, progress)

        return once(self._folder / f"{name}.pickle", ask, waveform)


def load(weights: Path, work: Path):
    """The pipeline, which never listens or asks twice."""
    from pyannote_av.pipelines.target_speaker_diarization import TargetSpeakerDiarization
    from pyannote_av.tasks.voices import weights_digest

    pipeline = TargetSpeakerDiarization(weights)
    pipeline.first_pass.audio = HearingOnce(work / "heard")
    asked = work / "asked" / weights_digest(pipeline.segmentation.model)
    pipeline.segmentation = AskedOnce(pipeline.segmentation, asked)
    return pipeline.instantiate(pipeline.default_parameters())


class Passes:
    """Both passes of a file, of which the first is gone through once."""

    def __init__(self, pipeline, folder: Path):
        self.pipeline, self.folder = pipeline, folder

    def first(self, file: dict):
        from pyannote_av.core.io import Video

        file = Video().validate_file(file)
        file["waveform"], file["sample_rate"] = Video().waveform(file), 16000

        def see(file):
            first = self.pipeline._first(file, (None, None, None), lambda *_, **__: None)
            return *first, self.pipeline._heard(file)

        return file, once(self.folder / f"{file['uri']}.pickle", see, file)

    def second(self, file: dict, passed):
        fused, seen, heard = passed
        return self.pipeline._second(file, fused, seen, heard, np.inf, lambda *_, **__: None)


def tune(passes: Passes, files: list[dict]) -> dict[str, float]:
    """The thresholds that are best on files, without the guard."""
    from pyannote_av.evaluation.diarization import score_file

    ready = [(file, *passes.first(file)) for file in files]
    found = []
    for prior, onset, drop, on, off in product(*GRID.values()):
        if onset is None and drop:
            continue
        given = {
            "prior": prior,
            "counting": "network" if onset else "first_pass",
            "onset": onset or 0.5,
            "offset": round((onset or 0.5) - drop, 2),
            "min_duration_on": on,
            "min_duration_off": off,
            "max_change": 2.0,
        }
        passes.pipeline.instantiate(passes.pipeline.default_parameters() | given)
        scores = [
            score_file(
                file["annotation"],
                passes.second(prepared, passed).speaker_diarization,
                file["annotated"],
            )["Full"]
            for file, prepared, passed in ready
        ]
        found.append((sum(s.errors for s in scores) / sum(s.total for s in scores), given))
    error, best = min(found, key=lambda one: one[0])
    print(f"development: DER {100 * error:.2f} % with {best}", flush=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("data", "corpus", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    look_for_weights(options.data / "weights")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    from pyannote_av import FaceTracks
    from pyannote_av.cli.evaluate import score
    from pyannote_av.evaluation import report
    from pyannote_av.tasks.voices import weights_digest

    work = options.work
    pipeline = load(options.weights, work)
    encoder = weights_digest(pipeline.segmentation.model.visual.encoder)
    passes = Passes(pipeline, work / "first" / encoder)
    best = tune(passes, list(simulate(options.corpus, work, "development")))
    guarded = {name: value for name, value in best.items() if name != "max_change"}
    pipeline.instantiate(pipeline.default_parameters() | guarded)

    def answers(file: dict) -> dict:
        """Turns by system; that of the second pass as the guard lets it."""
        prepared, passed = passes.first(file)
        output = passes.second(prepared, passed)
        return {
            "audio": passed[0].output.audio_only,
            "late_fusion": passed[0].output.speaker_diarization,
            "hmsanet": output.speaker_diarization,
        }

    def table(files: list[dict]) -> str:
        systems: dict[str, dict] = {}
        for file in files:
            for name, turns in answers(file).items():
                systems.setdefault(name, {})[file["uri"]] = turns
        references = {file["uri"]: file["annotation"] for file in files}
        maps = {file["uri"]: file["annotated"] for file in files if "annotated" in file}
        faces = {
            file["uri"]: FaceTracks.read(file["reference_tracks"])
            for file in files
            if "reference_tracks" in file
        }
        return report.to_text(*score(references, systems, maps or None, faces=faces or None))

    text = f"thresholds: {best}\n\nheld-aside simulated conversations\n"
    text += table(list(simulate(options.corpus, work, "test")))
    real = list(clips(options.data))
    text += "\n\nreal clips with a reference\n" + table([f for f in real if "annotation" in f])
    text += "\n\nreal clips: share of the speech that the second pass changed\n"
    for file in real:
        _, passed = prepared = passes.first(file)
        output = passes.second(*prepared)
        change = output.report.numbers["change by the second pass"]
        stands = " (the first pass stands)" if output is passed[0].output else ""
        text += f"{file['uri']}: {100 * change:.1f} %{stands}\n"
    print(text)
    write_text(options.into / "hmsanet_pipeline.txt", text)


if __name__ == "__main__":
    main()
