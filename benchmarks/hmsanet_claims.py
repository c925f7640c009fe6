"""The three claims of HMSA-Net's abstract, on simulated conversations of real voices.

    python benchmarks/hmsanet_claims.py CORPUS WORK train [--seeds 0 1 2] [--only mso|ablation]
    python benchmarks/hmsanet_claims.py CORPUS WORK evaluate [--seeds 0 1 2]
    python benchmarks/hmsanet_claims.py CORPUS WORK report --into benchmarks/results

CORPUS is what ``pyannote-av simulate --store`` wrote (train, development and test; lists and shards
of several layouts joined in one folder), with its voices (``build_voices``). WORK receives weights
and figures; everything is taken up where it was left.

(a) Multi-stage optimization against end-to-end training of the same network from pictures, with
    equally many updates, by loss on development files.
(b) Consistency gates (CGIMA) against ungated cross-attention and concatenation: pictures late by
    up to 0.4 s, of somebody else, missing. DER of slots on test files.
(c) Dense inter-speaker attention (DISA) against a fixed number of places, the mean of the others,
    and none, by overlap and by number of speakers.

For (b) and (c) the visual encoder is trained once and its features are precomputed; networks of
one seed share all stages before the one in which they differ.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyannote_av.core.atomic import write_text
from pyannote_av.core.crop_store import CropStore
from pyannote_av.core.model import Model
from pyannote_av.models.segmentation.hmsanet import HMSANet
from pyannote_av.tasks import TargetSpeakerSegmentation
from pyannote_av.training import Stage, optimize
from pyannote_av.training.stages import multi_stage

COMPACT = {"width": 96, "visual": "compact", "face_size": 56, "cgima_layers": 1}
DURATION, BATCH, SLOTS = 4.0, 8, 5
#: steps of an epoch, and epochs: of the visual encoder, and of the stages of (a) and of (b), (c)
STEPS = 50
VISUAL, CLAIM_A, ABLATION = 5, (3, 2, 3, 2, 2), (5, 4, 4, 3)
RATE = 1e-3
FUSIONS = ("cgima", "attention", "concat")
DECODERS = ("disa", "mean", "none", "fixed")
DELAYS = (0, 2, 4, 6, 8, 10)  # frames of 40 ms
MISSING = (0.25, 0.5, 0.75, 1.0)


def protocol_of(corpus: Path, development: str = "development"):
    """The corpus as a protocol; its test files can take the place of the development files."""
    from pyannote.database import registry

    registry.load_database(corpus / "database.yml")
    protocol = registry.get_protocol("Simulated.SpeakerDiarization.Simulated")
    if development != "development":
        protocol.development = getattr(protocol, development)
    return protocol


def make_task(
    corpus: Path, work: Path, features: Any = False, **kwargs
) -> TargetSpeakerSegmentation:
    name = "pictures" if features is False else "features"
    return TargetSpeakerSegmentation(
        protocol_of(corpus, kwargs.pop("development", "development")),
        CropStore(corpus),
        features=features,
        cache=work / f"files-{kwargs.pop('cache', name)}.npz",
        duration=DURATION,
        max_slots=SLOTS,
        batch_size=BATCH,
        num_workers=0,
        **kwargs,
    )


def make_model(seed: int, **changed) -> HMSANet:
    torch.manual_seed(seed)
    return HMSANet(**{**COMPACT, **changed})


def run(model, task, stages, folder: Path, seed: int) -> HMSANet:
    return optimize(
        model,
        task,
        stages,
        folder,
        seed=1000 * seed,
        limit_train_batches=STEPS,
        enable_progress_bar=False,
        precision="bf16-mixed",
        accelerator="cpu",
    )


def staged(lengths, names, start: str | None = None, **first) -> list[Stage]:
    """Some of the five stages, at the learning rate of small networks."""
    stages = {stage.name: stage for stage in multi_stage(learning_rate=RATE)}
    chosen = []
    for name, length in zip(names, lengths, strict=True):
        stage = replace(stages[name], max_epochs=length, warm_up=20)
        if name == "joint":
            stage = replace(stage, learning_rate=RATE / 4)
        chosen.append(stage)
    if start is not None:
        chosen[0] = replace(chosen[0], start=start, **first)
    return chosen


# training


def train_visual(corpus: Path, work: Path) -> Path:
    """The visual encoder that (b) and (c) share, and its features of all files."""
    from pyannote_av.tasks.visual_features import build_features

    folder = work / "visual"
    stages = staged([VISUAL], ["visual"])
    model = run(make_model(0), make_task(corpus, work), stages, folder, 0)
    build_features(CropStore(corpus), model, progress=False)
    return folder / "model.safetensors"


def train_mso(corpus: Path, work: Path, seed: int) -> None:
    """(a): both ways from pictures, from the same initial weights."""
    names = [stage.name for stage in multi_stage()]
    task = make_task(corpus, work)
    run(make_model(seed), task, staged(CLAIM_A, names), work / f"mso-{seed}", seed)
    losses = dict(multi_stage()[-1].losses)
    whole = Stage(
        "end_to_end", losses=losses, max_epochs=sum(CLAIM_A), learning_rate=RATE, warm_up=20
    )
    run(make_model(seed), task, [whole], work / f"end_to_end-{seed}", seed)


def train_ablation(corpus: Path, work: Path, seed: int) -> None:
    """(b) and (c): every fusion with DISA, every decoder with CGIMA."""
    visual = str(work / "visual" / "model.safetensors")
    acoustic, fusion, decoder, joint = ABLATION
    task = make_task(corpus, work, features=True)
    base = work / f"acoustic-{seed}"
    stages = staged([acoustic], ["acoustic"], visual, take=("visual",))
    run(make_model(seed), task, stages, base, seed)
    for name in FUSIONS:
        folder = work / f"fusion-{name}-{seed}"
        start = str(base / "model.safetensors")
        run(make_model(seed, fusion=name), task, staged([fusion], ["fusion"], start), folder, seed)
    for name, changed in variants().items():
        start = str(work / f"fusion-{changed['fusion']}-{seed}" / "model.safetensors")
        stages = staged([decoder, joint], ["decoder", "joint"], start)
        run(make_model(seed, **changed), task, stages, work / f"{name}-{seed}", seed)


def variants() -> dict[str, dict[str, Any]]:
    """Name and hyper-parameters of all networks of (b) and (c)."""
    return {
        **{fusion: {"fusion": fusion, "decoder": "disa"} for fusion in FUSIONS},
        **{
            decoder: {"fusion": "cgima", "decoder": decoder, "max_slots": 12}
            for decoder in DECODERS[1:]
        },
    }


# evaluation


def _late(batch: Mapping[str, Any], frames: int) -> None:
    """Pictures are shown later than they were"""
    X = batch["X"]
    X.faces = torch.roll(X.faces, frames, dims=2)
    X.face_mask = torch.roll(X.face_mask, frames, dims=2)
    X.face_mask[:, :, :frames] = False


def _swapped(batch: Mapping[str, Any], rng: np.random.Generator) -> None:
    """Faces of a chunk change places"""
    X = batch["X"]
    for row in range(len(X)):
        count = int(X.slot_mask[row].sum())
        rest = torch.arange(count, X.slot_mask.shape[1])
        order = torch.cat([torch.arange(count).roll(1), rest])
        X.faces[row], X.face_mask[row] = X.faces[row][order], X.face_mask[row][order]


def _missing(batch: Mapping[str, Any], rng: np.random.Generator, rate: float) -> None:
    """Faces are lost for stretches of 1 s"""
    mask = batch["X"].face_mask
    shape = (*mask.shape[:2], -(-mask.shape[2] // 25))
    kept = torch.from_numpy(rng.random(shape) >= rate).repeat_interleave(25, dim=2)
    batch["X"].face_mask = mask & kept[:, :, : mask.shape[2]]


def conditions() -> dict[str, Any]:
    """What is done to batches, by name."""
    return {
        "clean": lambda batch, rng: None,
        **{
            f"late {40 * d} ms": partial(lambda batch, rng, d: _late(batch, d), d=d)
            for d in DELAYS[1:]
        },
        "swapped": _swapped,
        **{f"missing {r:g}": partial(_missing, rate=r) for r in MISSING},
    }


def evaluate(corpus: Path, work: Path, seeds) -> None:
    """Errors of every network, file and condition, in ``WORK/errors.json``."""
    path = work / "errors.json"
    errors = json.loads(path.read_text()) if path.is_file() else {}
    for seed in seeds:
        for name in variants():
            weights = work / f"{name}-{seed}" / "model.safetensors"
            wanted = conditions() if name in FUSIONS else {"clean": conditions()["clean"]}
            for condition, change in wanted.items():
                key = f"{name}|{seed}|{condition}"
                if key in errors or not weights.is_file():
                    continue
                errors[key] = errors_of(Model.from_pretrained(weights), corpus, work, change)
                path.write_text(json.dumps(errors))
                logging.info("%s: %.2f %%", key, 100 * total(errors[key]))


def errors_of(model: HMSANet, corpus: Path, work: Path, change) -> list[dict[str, Any]]:
    """Errors and speech in steps of 10 ms, by file and number of simultaneous speakers."""
    task = make_task(corpus, work, features=True, development="test", cache="test")
    task.prepare_data()
    task.setup()
    batches = task.batches("development")
    rows: dict[tuple, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for index in range(len(batches)):
        batch = batches[index]
        change(batch, rng)
        with torch.inference_mode():
            found = (model(batch["X"]) >= 0.5).numpy()
        truth, scored = (batch["y"] == 1).numpy(), (batch["y"] != -1).numpy()
        found &= scored
        said, claimed = truth.sum(axis=2), found.sum(axis=2)
        wrong = np.maximum(said, claimed) - (truth & found).sum(axis=2)
        for b in range(len(truth)):
            number = int(batches.chunks[index * BATCH + b, 0])
            recording = batches.recordings[number]
            for level in (0, 1, 2):
                at = np.minimum(said[b], 2) == level
                row = rows.setdefault((recording.uri, level), np.zeros(2, int))
                row += [int(wrong[b][at].sum()), int(said[b][at].sum())]
    speakers = {one.uri: one.num_speakers for one in batches.recordings}
    return [
        {
            "uri": uri,
            "simultaneous": level,
            "speakers": speakers[uri],
            "wrong": int(w),
            "speech": int(s),
        }
        for (uri, level), (w, s) in rows.items()
    ]


def total(rows: list[dict[str, Any]]) -> float:
    """DER as a share."""
    return sum(row["wrong"] for row in rows) / max(1, sum(row["speech"] for row in rows))


# report


def histories(work: Path, name: str, seed: int) -> list[float]:
    """Diarization loss on development files after each epoch, throughout all stages."""
    rows = []
    for path in sorted((work / f"{name}-{seed}").glob("*/stage.json")):
        rows += json.loads(path.read_text())["history"]
    return [row.get("loss/val/diarization", float("nan")) for row in rows]


def report(work: Path, into: Path, seeds: list[int]) -> None:
    """Tables to read, and all of it as JSON."""
    errors = json.loads((work / "errors.json").read_text())
    losses = {
        f"{name}|{seed}": histories(work, name, seed)
        for name in ("mso", "end_to_end")
        for seed in seeds
        if (work / f"{name}-{seed}").is_dir()
    }
    print("DER (%) of slots, mean over seeds:")
    names, done = list(variants()), list(conditions())
    print("".join(f"{word:>15}" for word in ("", *names)))
    for condition in done:
        cells = []
        for name in names:
            keys = (f"{name}|{seed}|{condition}" for seed in seeds)
            found = [100 * total(errors[key]) for key in keys if key in errors]
            cells.append(f"{np.mean(found):.2f}" if found else "-")
        print("".join(f"{word:>15}" for word in (condition, *cells)))
    for level, title in ((1, "one speaks"), (2, "overlap")):
        cells = []
        for name in names:
            keys = (f"{name}|{seed}|clean" for seed in seeds)
            rows = [row for key in keys for row in errors.get(key, ())]
            rows = [row for row in rows if row["simultaneous"] == level]
            cells.append(f"{100 * total(rows):.2f}" if rows else "-")
        print("".join(f"{word:>15}" for word in (title, *cells)))
    for key, curve in losses.items():
        print(key, [round(value, 4) for value in curve])
    totals = {key: round(100 * total(rows), 3) for key, rows in errors.items()}
    write_text(
        into / "hmsanet_claims.json",
        json.dumps({"der": totals, "development losses of (a)": losses}, indent=1) + "\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=("train", "evaluate", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("visual", "mso", "ablation"))
    parser.add_argument("--into", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    if given.what == "train":
        if given.only in (None, "visual", "ablation"):
            train_visual(given.corpus, given.work)
        for seed in given.seeds:
            if given.only in (None, "ablation"):
                train_ablation(given.corpus, given.work, seed)
            if given.only in (None, "mso"):
                train_mso(given.corpus, given.work, seed)
    elif given.what == "evaluate":
        evaluate(given.corpus, given.work, given.seeds)
    else:
        report(given.work, given.into, given.seeds)


if __name__ == "__main__":
    main()
