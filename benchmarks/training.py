"""Every network trained from scratch and fine-tuned, with one command each, on a CPU.

Example:
    python -m benchmarks training CORPUS WORK --only lrasd hmsanet

Runs ``pyannote-av train`` on the configurations of ``recipes/simulated/train`` with small batches.
Then each checkpoint is used in its pipeline, which diarizes the sample file. An interrupted run
continues where it was.

Writes training.json. Results of networks that are not run are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks._runner import ROOT, Results, add, table

RECIPES = ROOT / "recipes" / "simulated" / "train"
_ASD = ("task.params.frames_per_batch=100", "task.params.duration=2.0")
#: overrides that make batches small
SMALL = {
    "lrasd": _ASD,
    "talknet": _ASD,
    "loconet": ("task.params.frames_per_batch=100", "task.params.duration=1.2"),
    "hmsanet": ("task.params.batch_size=4", "task.params.max_targets=4"),
    "avrnet": ("task.params.ways=6",),
    "cysmsd": ("task.params.batch_size=16",),
}
#: validation batches; they contain whole tracks, the longest ones first
VALIDATION = {"lrasd": 6, "talknet": 3, "loconet": 2, "hmsanet": 20, "avrnet": 10, "cysmsd": 9}
#: networks with few batches per epoch, and how many more epochs they get
LONGER = {"cysmsd": 4}
#: stages of fine-tuning
STAGES = {"avrnet": ("relation", "all")}
COMPACT = "model.params={width: 96, visual: compact, face_size: 56}"
# if malloc returns memory after every step, that takes as long as the step
QUICK = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "100000000",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "corpus", "work")
    add(parser, "--only", choices=SMALL, default=list(SMALL), help="networks (default: all)")
    parser.add_argument("--steps", type=int, default=50, help="steps of an epoch (default: 50)")
    parser.add_argument("--epochs", type=int, default=6, help="from scratch (default: 6)")
    parser.add_argument("--fine-tuning", type=int, default=4, help="epochs of it (default: 4)")


def folder(name: str, tuned: bool, given: argparse.Namespace) -> Path:
    """Folder of weights and records."""
    return given.work / (f"{name}-finetune" if tuned else name)


def train(config: str, into: Path, given: argparse.Namespace, *overrides: str) -> None:
    """Run ``pyannote-av train``."""
    common = [
        "protocol=Simulated.SpeakerDiarization.Simulated",
        f"database={given.corpus / 'database.yml'}",
        f"into={into}",
        f"task.params.store={given.corpus}",
        "trainer.accelerator=cpu",
    ]
    command = [sys.executable, "-m", "pyannote_av", "train", str(RECIPES / f"{config}.yaml")]
    subprocess.run(
        [*command, *common, *overrides], check=True, env={**os.environ, **QUICK}, cwd=ROOT
    )


def overrides(name: str, tuned: bool, given: argparse.Namespace) -> list[str]:
    """Changes of a configuration."""
    changes = [
        "task.params.num_workers=0",
        "trainer.precision=bf16-mixed",
        f"trainer.limit_train_batches={given.steps}",
        f"trainer.limit_val_batches={VALIDATION[name]}",
        *SMALL[name],
    ]
    epochs = LONGER.get(name, 1) * (given.fine_tuning if tuned else given.epochs)
    if tuned:
        weights = folder(name, False, given) / "model.safetensors"
        stages = STAGES.get(name, ("fine-tune",))
        epochs_of = [f"stages.{stage}.max_epochs={epochs}" for stage in stages]
        return [*changes, f"model.checkpoint={weights}", *epochs_of]
    if name == "hmsanet":
        # the visual encoder starts from random weights, and learns slowly
        whole = [4, 2, 3, 2, 2] if given.epochs > 1 else [1] * 5
        stages = f"{{preset: multi_stage, epochs: {whole}, learning_rate: 1.0e-3}}"
        return [*changes, COMPACT, f"stages={stages}"]
    return [*changes, f"stages.training.max_epochs={epochs}"]


def train_and_use(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train from scratch, fine-tune, and diarize with both."""
    rows, used = [], {}
    for tuned in (False, True):
        into = folder(name, tuned, given)
        config = f"{name}-finetune" if tuned else name
        train(config, into, given, *overrides(name, tuned, given))
        for path in sorted(into.glob("*/stage.json")):
            record = json.loads(path.read_text())
            history, done = record["history"], record["lineage"][-1]
            (metric,) = set(done) - {"stage", "seed", "steps", "epochs", "epoch"}
            rows.append(
                {
                    **record["pace"],
                    "network": name,
                    "stage": path.parent.name,
                    "fine-tuned": tuned,
                    "steps": done["steps"],
                    "loss": [history[0]["loss/train"], history[-1]["loss/train"]],
                    "metric": metric,
                    "development": [history[0][metric], done[metric]],
                }
            )
        used["fine-tuned" if tuned else "scratch"] = diarize(name, into)
    return {"training": rows, "pipeline": used}


def diarize(name: str, weights: Path) -> dict[str, Any]:
    """Result on the sample file, with the pipeline of a network with these weights."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av.clustering.counting_diarization import CountingDiarization
    from pyannote_av.clustering.relation_diarization import RelationDiarization
    from pyannote_av.formats.loaders import StrictRTTM
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
    from pyannote_av.pipelines.target_speaker_diarization import TargetSpeakerDiarization
    from pyannote_av.simulation.sample import sample

    path = sample()
    makers = {
        "hmsanet": lambda: TargetSpeakerDiarization(segmentation=str(weights)),
        "avrnet": lambda: RelationDiarization(relation=str(weights)),
        "cysmsd": lambda: CountingDiarization(counter=str(weights)),
    }
    if name not in makers:
        pipeline = ActiveSpeakerDetection(scorer=str(weights / "model.safetensors"))
        tracks = pipeline.instantiate(pipeline.default_parameters())(path)
        return {"rows scored": int((tracks.speaking == tracks.speaking).sum())}
    pipeline = makers[name]()
    output = pipeline.instantiate(pipeline.default_parameters())(path)
    reference = StrictRTTM(path.with_suffix(".rttm"))({"uri": path.stem})
    error = DiarizationErrorRate()(reference, output.speaker_diarization)
    return {"DER of the sample": round(100 * error, 2)}


def run(given: argparse.Namespace, results: Results) -> None:
    """Train all networks, and use them."""
    given.corpus, given.work = given.corpus.resolve(), given.work.resolve()
    if {"avrnet", "cysmsd"} & set(given.only):
        from pyannote_av.data.crop_store import CropStore
        from pyannote_av.data.face_embeddings import build_face_embeddings

        build_face_embeddings(CropStore(given.corpus), interval=4.0, progress=True)
    columns = {key: key for key in ("network", "stage", "fine-tuned", "steps", "metric")}
    for name in given.only:
        found = train_and_use(name, given)
        print(table(found["training"], {**columns, "first, best": "development"}))
        print(found["pipeline"])
        results.update("training", name, found)
