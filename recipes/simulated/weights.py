"""Reproduce the shipped weights, from simulated conversations to the pipeline folder.

    python -m recipes.simulated.weights DATA WORK [--scale 1.0] [--workers 2] [--seed 0]

The script runs these steps:

1. Simulate conversations (:mod:`recipes.simulated.corpus`).
2. Train the active speaker network (``train/compact.yaml``) and HMSA-Net
   (``train/hmsanet-compact.yaml``) on them.
3. Tune the thresholds of the pipeline with pyannote's ``Optimizer``, on held-out conversations
   (:mod:`recipes.simulated.held_aside`) and on some training conversations. The latter have real
   mouths, which no held-out conversations have.
4. Write the pipeline folder WORK/hmsanet.
5. Evaluate the pipeline, and audio alone, on conversations whose speakers, faces, rooms and noises
   were not used for training or tuning (WORK/errors.json).

Existing results are not computed again. At a scale of 1, WORK takes 30 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from importlib.metadata import version
from math import ceil
from pathlib import Path
from time import perf_counter

import yaml

from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import read_safetensors
from pyannote_av.core.reading import read_json
from pyannote_av.core.weights import REGISTRY
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.face_embeddings import build_face_embeddings
from recipes.simulated import corpus
from recipes.simulated.held_aside import load, read, simulate

CONFIGURATIONS = Path(__file__).parent / "train"
#: number of epochs of each stage, steps per epoch, and development batches per epoch
EPOCHS = {"compact": {"training": 24, "sync": 7}, "hmsanet-compact": {"joint": 28}}
STEPS, BATCHES = 100, {"compact": 15, "hmsanet-compact": 15}
#: number of held-out conversations for tuning, of conversations for tuning from each part with real
#: mouths, of trials, and of test conversations
DEVELOPMENT, REAL, TRIALS, TEST = 40, 8, 100, 200
#: folders of a store, and the suffix of the file names in each
STORED = {"rttm": ".rttm", "shards": "", "tracks": ".npz", "uem": ".uem"}
#: hyper-parameters that are not tuned. The first pass is the same for all networks. The guard
#: (`max_change`) is frozen because these files do not need it, so tuning would weaken it
FROZEN = ("first_pass", "max_change")


def encoder(scorer: Path, into: Path) -> Path:
    """Save the visual encoder of the active speaker network under its names in HMSA-Net."""
    from safetensors.torch import save_file

    own = "visual."
    found = {
        f"visual.encoder.{name.removeprefix(own)}": value
        for name, value in read_safetensors(scorer)[0].items()
        if name.startswith(own)
    }
    with replacing(into) as temporary:
        save_file(found, temporary)
    return into


def train(
    name: str, conversations: Path, into: Path, scale: float, seed: int, *overrides: str
) -> Path:
    """Train the network of ``train/NAME.yaml``; returns the path of its weights."""
    from pyannote_av.training import TrainingConfig
    from pyannote_av.training import train as run

    config = TrainingConfig.read(
        CONFIGURATIONS / f"{name}.yaml",
        [
            "protocol=Simulated.SpeakerDiarization.Simulated",
            f"database={conversations / 'database.yml'}",
            f"into={into}",
            f"seed={seed}",
            f"task.params.store={conversations}",
            "task.params.num_workers=0",
            "trainer.precision=bf16-mixed",
            f"trainer.limit_train_batches={STEPS}",
            f"trainer.limit_val_batches={BATCHES[name]}",
            *(f"stages.{k}.max_epochs={ceil(scale * n)}" for k, n in EPOCHS[name].items()),
            *overrides,
        ],
    )
    run(config)
    return into / "model.safetensors"


def configuration(network: str) -> dict:
    """Configuration of the pipeline, without tuned parameters."""
    return {
        "pipeline": {
            "name": "pyannote_av.pipelines.target_speaker_diarization.TargetSpeakerDiarization",
            "params": {"segmentation": network, "scorer": "compact-asd+synchrony"},
        }
    }


def assemble(network: Path, scorer: Path, params: dict, into: Path) -> Path:
    """Write the pipeline folder, and print the checksums of its weights."""
    from pyannote_av.sharing.atomic_folder import new_folder
    from pyannote_av.sharing.card import write_card

    about = (Path(__file__).parent / "about.md").read_text(encoding="utf-8")
    installed = {name: version(name) for name in ("pyannote.audio", "pyannote-av")}
    config = {"dependencies": installed, **configuration("$model/segmentation"), "params": params}
    with new_folder(into, overwrite=True) as folder:
        write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        for source, name in ((network, "segmentation"), (scorer, "scorer")):
            (folder / name).mkdir()
            shutil.copyfile(source, folder / name / "model.safetensors")
            print(f"{name}: sha256 {sha256_of(source)}")
        write_card(folder, about=about, licence="mit")
    return into


def for_tuning(data: Path, work: Path, scale: float) -> CropStore:
    """Build a store of development conversations, and some conversations with real mouths."""
    aside = simulate(data, work / "held-aside", "development", ceil(scale * DEVELOPMENT))
    chosen = [(aside, aside.uris)]
    for part in corpus.PARTS:
        if part.real:
            store = CropStore(work / "corpus" / "parts" / part.name)
            chosen.append((store, store.uris[: ceil(scale * REAL)]))
    into = work / "tuning"
    for store, uris in chosen:
        for kind, suffix in STORED.items():
            corpus.links([store.folder / kind / f"{uri}{suffix}" for uri in uris], into / kind)
    store = CropStore(into)
    build_face_embeddings(store, interval=1e9, progress=True)
    return store


def tune(data: Path, work: Path, scale: float, seed: int) -> dict:
    """Find the best parameters on the tuning conversations."""
    from pyannote.pipeline import Optimizer

    if (kept := work / "parameters.json").is_file():
        return read_json(kept)
    store = for_tuning(data, work, scale)
    pipeline = load(configuration("hmsanet"), store)
    usual = pipeline.default_parameters()
    frozen = {name: usual[name] for name in FROZEN}
    pipeline.freeze(frozen)
    files = [read(store, uri) for uri in store.uris]
    optimizer = Optimizer(pipeline, seed=seed)
    first = {name: value for name, value in usual.items() if name not in FROZEN}
    trials = optimizer.tune_iter(files, warm_start=first, show_progress=False)
    for number, found in zip(range(ceil(scale * TRIALS)), trials, strict=False):
        print(f"trial {number + 1}: best DER {100 * found['loss']:.2f} %", flush=True)
    params = {**usual, **found["params"], **frozen}
    write_text(kept, json.dumps(params, indent=1) + "\n")
    return params


def errors(pipeline: Path, data: Path, work: Path, scale: float) -> dict[str, float]:
    """DER in percent on the test conversations, for audio alone and for the pipeline."""
    from rich.progress import track

    from pyannote_av.evaluation.diarization import evaluate

    store = simulate(data, work / "held-aside", "test", ceil(scale * TEST))
    diarize, references, maps = load(pipeline, store), {}, {}
    said: dict[str, dict] = {"sound alone": {}, "hmsanet": {}}
    for uri in track(store.uris, description="test"):
        file = read(store, uri)
        references[uri], maps[uri] = file.pop("annotation"), file.pop("annotated")
        output = diarize(file)
        said["sound alone"][uri] = output.audio_only
        said["hmsanet"][uri] = output.speaker_diarization
    return {
        system: round(100 * evaluate(references, turns, maps)["automatic", "Full"].der, 2)
        for system, turns in said.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=0, help="processes that simulate")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    work = given.work.resolve()
    kept = work / "seconds.json"
    # add up the time of interrupted and resumed runs
    seconds = Counter(read_json(kept) if kept.is_file() else {})
    begin = perf_counter()

    def done(step: str) -> None:
        nonlocal begin
        seconds[step] += round(perf_counter() - begin)
        begin = perf_counter()
        write_text(kept, json.dumps(seconds, indent=1) + "\n")
        print(f"{step}: {seconds[step]} s", flush=True)

    conversations = work / "corpus"
    corpus.build(given.data.resolve(), conversations, given.scale, given.workers)
    done("conversations")
    scorer = train("compact", conversations, work / "compact", given.scale, given.seed)
    done("active speaker network")
    into = work / "hmsanet-compact"
    begin_with = encoder(scorer, work / "encoder.safetensors")
    begins = f"stages.joint.start={begin_with}", "stages.joint.take=[visual.encoder]"
    network = train("hmsanet-compact", conversations, into, given.scale, given.seed, *begins)
    done("HMSA-Net")
    # weights in this folder take precedence over the shipped ones
    named = corpus.links([], work / "weights")
    for path, name in ((network, "hmsanet"), (scorer, "compact-asd")):
        (named / REGISTRY[name].filenames[0]).unlink(missing_ok=True)
        (named / REGISTRY[name].filenames[0]).symlink_to(path)
    os.environ["PYANNOTE_AV_WEIGHTS"] = str(named)
    params = tune(given.data, work, given.scale, given.seed)
    done("thresholds")
    pipeline = assemble(network, scorer, params, work / "hmsanet")
    found = errors(pipeline, given.data, work, given.scale)
    done("test")
    write_text(work / "errors.json", json.dumps(found, indent=1) + "\n")
    print(f"pipeline: {pipeline}\nDER (%) on conversations held aside: {found}")


if __name__ == "__main__":
    sys.exit(main())
