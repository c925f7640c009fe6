"""Every network trained from scratch and fine-tuned, by one command each, at the size of a CPU.

``python benchmarks/training.py CORPUS WORK`` runs ``pyannote-av train`` on the configurations of
``recipes/simulated/train`` with small batches, on what ``recipes/simulated/corpus.py`` wrote to
CORPUS (with identities); what is done in WORK stays. Then each checkpoint is put into its pipeline,
which diarizes the sample file. ``--pace`` measures how fast the configurations are as they stand.
Writes ``results/training.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "simulated" / "train"
RESULT = ROOT / "benchmarks" / "results" / "training.json"

#: steps of an epoch, and epochs: from scratch and fine-tuned
STEPS, EPOCHS, FEWER = 50, 6, 4
_ASD = ("task.params.frames_per_batch=100", "task.params.duration=2.0")
_HMSA = ("task.params.batch_size=4", "task.params.max_targets=4")
#: what makes them small
SMALL = {
    "lrasd": _ASD,
    "talknet": _ASD,
    "loconet": ("task.params.frames_per_batch=100", "task.params.duration=1.2"),
    "hmsanet": _HMSA,
    "avrnet": ("task.params.ways=6",),
    "cysmsd": ("task.params.batch_size=16",),
}
#: batches to validate on: tracks are seen whole there, the longest first
VALIDATION = {"lrasd": 6, "talknet": 3, "loconet": 2, "hmsanet": 20, "avrnet": 10, "cysmsd": 9}
COMPACT = "model.params={width: 96, visual: compact, face_size: 56}"
# malloc that gives memory back after every step takes as long as the step
QUICK = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "PYANNOTE_METRICS_ENABLED": "0",
}


def overrides(name: str, tuned: bool, corpus: Path, work: Path) -> list[str]:
    """What is said on the command line."""
    given = [
        "protocol=Simulated.SpeakerDiarization.Simulated",
        f"database={corpus / 'database.yml'}",
        f"into={folder(name, tuned, work)}",
        f"task.params.store={corpus}",
        "task.params.num_workers=0",
        "trainer.accelerator=cpu",
        "trainer.precision=bf16-mixed",
        f"trainer.limit_train_batches={STEPS}",
        f"trainer.limit_val_batches={VALIDATION[name]}",
        *SMALL[name],
    ]
    if tuned:
        given.append(f"model.checkpoint={folder(name, False, work) / 'model.safetensors'}")
        epochs = 4 * FEWER if name == "cysmsd" else FEWER
        return [*given, *(f"stages.{n}.max_epochs={epochs}" for n in _stages(name))]
    if name == "hmsanet":
        # the visual encoder first sees faces, and learns slowly
        plan = "{preset: multi_stage, epochs: [4, 2, 3, 2, 2], learning_rate: 1.0e-3}"
        return [*given, COMPACT, f"stages={plan}"]
    # of 13 batches each
    longer = 4 * EPOCHS if name == "cysmsd" else EPOCHS
    return [*given, f"stages.training.max_epochs={longer}"]


def _stages(name: str) -> list[str]:
    return {"avrnet": ["relation", "all"]}.get(name, ["fine-tune"])


def folder(name: str, tuned: bool, work: Path) -> Path:
    """Where weights and records are."""
    return work / (f"{name}-finetune" if tuned else name)


def train(name: str, tuned: bool, corpus: Path, work: Path) -> list[dict[str, Any]]:
    """One command; a row for every stage."""
    config = RECIPES / f"{name}{'-finetune' if tuned else ''}.yaml"
    command = [sys.executable, "-m", "pyannote_av", "train", str(config)]
    command += overrides(name, tuned, corpus, work)
    subprocess.run(command, check=True, env={**os.environ, **QUICK}, cwd=ROOT)
    rows = []
    for path in sorted(folder(name, tuned, work).glob("*/stage.json")):
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
    return rows


def pace(name: str, corpus: Path, work: Path) -> dict[str, Any]:
    """Eight steps of each stage of the configuration as it is: steps a second, and waiting.

    But for active speaker networks, whose batches are for GPUs: those of LR-ASD take 20 GB.
    """
    given = [
        "protocol=Simulated.SpeakerDiarization.Simulated",
        f"database={corpus / 'database.yml'}",
        f"into={work / f'{name}-pace'}",
        f"task.params.store={corpus}",
        "trainer.accelerator=cpu",
        "trainer.limit_train_batches=8",
        "trainer.limit_val_batches=1",
        "loggers=[]",
    ]
    if name in ("lrasd", "talknet", "loconet"):
        given.append("task.params.frames_per_batch=300")
    stages = "stages.epochs" if name == "hmsanet" else "stages.training.max_epochs"
    command = [sys.executable, "-m", "pyannote_av", "train", str(RECIPES / f"{name}.yaml")]
    subprocess.run(
        [*command, *given, f"{stages}=1"], check=True, env={**os.environ, **QUICK}, cwd=ROOT
    )
    found = {}
    for path in sorted((work / f"{name}-pace").glob("*/stage.json")):
        found[path.parent.name] = json.loads(path.read_text())["pace"]
    return found


def diarize(name: str, weights: Path) -> dict[str, Any]:
    """The sample file, by the pipeline of a network with these weights."""
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
    from pyannote.metrics.diarization import DiarizationErrorRate

    pipeline = makers[name]()
    output = pipeline.instantiate(pipeline.default_parameters())(path)
    reference = StrictRTTM(path.with_suffix(".rttm"))({"uri": path.stem})
    error = DiarizationErrorRate()(reference, output.speaker_diarization)
    return {"DER of the sample": round(100 * error, 2)}


def main() -> None:
    """Train, fine-tune, diarize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=SMALL, default=list(SMALL))
    parser.add_argument("--pace", action="store_true", help="of the configurations as they are")
    arguments = parser.parse_args()
    content = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in arguments.only:
        if arguments.pace:
            content.setdefault("pace", {})[name] = pace(
                name, arguments.corpus.resolve(), arguments.work.resolve()
            )
            RESULT.write_text(json.dumps(content, indent=1) + "\n")
            print(name, json.dumps(content["pace"][name], indent=1))
            continue
        rows = []
        for tuned in (False, True):
            rows += train(name, tuned, arguments.corpus.resolve(), arguments.work.resolve())
        used = {}
        for tuned in (False, True):
            where = folder(name, tuned, arguments.work.resolve())
            used["fine-tuned" if tuned else "scratch"] = diarize(name, where)
        content[name] = {"training": rows, "pipeline": used}
        RESULT.write_text(json.dumps(content, indent=1) + "\n")
        print(json.dumps(content[name], indent=1))


if __name__ == "__main__":
    main()
