"""The claims of HMSA-Net's abstract: gates, DISA and training in stages against alternatives.

Examples:
    python -m benchmarks hmsanet_claims CORPUS WORK
    python -m benchmarks hmsanet_claims CORPUS WORK --only train --networks cgima concat --seeds 0

All networks have the size of the shipped one and are trained as it was
(``recipes/simulated/train/hmsanet-compact.yaml``: one stage, all losses), with fewer updates. Their
visual encoder is that of the shipped active speaker network. It is frozen, so its features are
computed once.

- ``cgima``: HMSA-Net, end to end
- ``stages``: the same in five stages, with as many updates in all: an eighth for each of the first
  four, and the rest for all modules together, at a quarter of the learning rate
- ``stages-fast``: the same, with all modules together at the full learning rate
- ``attention``, ``concat``: cross-attention without gates, and concatenation, instead of CGIMA
- ``mean``, ``fixed``, ``none``: the mean of the others, a fixed number of places, and no other
  speakers, instead of DISA
- ``first-pass``: with the posteriors of a first pass over the sound, which segmentation-3.0 and
  clusters of voices give; the network corrects them
- ``no-gate-loss``: without the loss that tells the gates which faces are wrong or out of sync

Target speakers are given, with speaker embeddings of all that they say, as in evaluations of target
speaker networks: these are errors of networks, not of pipelines. The threshold of each network is
the best one on development files. Parts: train, errors, gates (mean gates of ``cgima``), report. An
interrupted run continues where it was. Writes hmsanet_claims.json and .png.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks._data import protocol
from benchmarks._harm import harm
from benchmarks._runner import Results, add, table
from pyannote_av.core.atomic import write_text

if TYPE_CHECKING:
    from pyannote_av.models.hmsanet.model import HMSANet
    from pyannote_av.tasks import TargetSpeakerSegmentation
    from pyannote_av.training import Stage, TrainingConfig

#: one of this many epochs goes to each of the first four stages of ``stages``
OF_EPOCHS = 8
FUSIONS = ("cgima", "attention", "concat")
DECODERS = ("disa", "mean", "none", "fixed")
#: learning rate of the last stage, relative to that of training end to end
STAGED = {"stages": 0.25, "stages-fast": 1.0}
#: networks with another input or without a loss
INPUTS = ("first-pass", "no-gate-loss")
DELAYS = (3, 6, 10)  # frames of 40 ms
MISSING = (0.5, 1.0)
NOISE = (10, 0)  # dB
THRESHOLDS = np.arange(0.3, 0.91, 0.05).round(2)
#: one of this many chunks of 4 s is evaluated, to save time
EVERY = 2
#: frames by which faces are late where gates should close: 0.6 s and more
OUT_OF_SYNC = (15, 25, 40)
TITLES = {
    "mean": "mean of others",
    "none": "none",
    "fixed": "fixed places",
    "cgima": "CGIMA",
    "attention": "attention",
    "concat": "concatenation",
    "stages": "in stages",
    "stages-fast": "in stages, full rate",
    "first-pass": "with first pass",
    "no-gate-loss": "without gate loss",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "corpus", "work", "--seeds")
    add(parser, "--only", choices=PARTS, default=list(PARTS))
    parser.add_argument("--networks", nargs="+", default=list(variants()), choices=variants())
    parser.add_argument("--steps", type=int, default=100, help="steps of an epoch (default: 100)")
    parser.add_argument("--epochs", type=int, default=6, help="except in stages (default: 6)")
    parser.add_argument("--data", type=Path, help="media, to compare pipelines; see above")
    parser.add_argument("--conversations", type=int, default=100, help="for this (default: 100)")


# ------------------------------------------------------------------------------------ training


@cache
def shipped() -> TrainingConfig:
    """Configuration of the shipped network."""
    from pyannote_av.training import TrainingConfig
    from recipes.simulated.weights import CONFIGURATIONS

    return TrainingConfig.read(CONFIGURATIONS / "hmsanet-compact.yaml")


def make_task(
    corpus: Path, work: Path, subset: str = "development", first_pass: bool = False
) -> TargetSpeakerSegmentation:
    """Task with visual features; `subset` is the one that it is validated on."""
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.tasks import TargetSpeakerSegmentation

    files = protocol(corpus)
    if subset != "development":
        files.development = getattr(files, subset)
    return TargetSpeakerSegmentation(
        files,
        features=True,
        first_pass=first_pass,
        cache=work / f"files-{subset}.npz",
        num_workers=0,
        **{**shipped().task.params, "store": CropStore(corpus)},
    )


def variants() -> dict[str, dict[str, Any]]:
    """Hyper-parameters of all networks, by name."""
    return {
        **{fusion: {"fusion": fusion, "decoder": "disa"} for fusion in FUSIONS},
        **{
            decoder: {"fusion": "cgima", "decoder": decoder, "max_targets": 12}
            for decoder in DECODERS[1:]
        },
        **{
            name: {"fusion": "cgima", "decoder": "disa", "first_pass": name == "first-pass"}
            for name in (*STAGED, *INPUTS)
        },
    }


def plan(name: str, start: Path, epochs: int) -> list[Stage]:
    """Stages in which a network is trained."""
    from pyannote_av.training.stages import multi_stage

    (whole,) = shipped().plan()
    begin = {"start": str(start), "take": ("visual.encoder",)}
    if name not in STAGED:
        losses = {k: v for k, v in whole.losses.items() if (name, k) != ("no-gate-loss", "gate")}
        return [whole.model_copy(update={"max_epochs": epochs, "losses": losses, **begin})]
    early = max(1, epochs // OF_EPOCHS)
    chosen = [
        stage.model_copy(update={"max_epochs": early, "warm_up": 20})
        for stage in multi_stage(learning_rate=whole.learning_rate)
    ]
    last = chosen[-1].model_copy(
        update={
            "losses": whole.losses,
            "learning_rate": whole.learning_rate * STAGED[name],
            "schedule": whole.schedule,
            "max_epochs": max(1, epochs - 4 * early),
        }
    )
    return [chosen[0].model_copy(update=begin), *chosen[1:-1], last]


def train(given: argparse.Namespace) -> None:
    """Train all networks."""
    from pyannote_av.core.model import read_safetensors
    from pyannote_av.core.weights import require
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.visual_features import build_features
    from pyannote_av.models.hmsanet.model import HMSANet
    from pyannote_av.training import optimize
    from recipes.simulated.weights import encoder

    start = encoder(require("compact-asd"), given.work / "encoder.safetensors")
    frozen = HMSANet(**shipped().model.params)
    frozen.load_state_dict(read_safetensors(start)[0], strict=False)
    build_features(CropStore(given.corpus), frozen, progress=True)
    for seed in given.seeds:
        for name in given.networks:
            torch.manual_seed(seed)
            optimize(
                HMSANet(**{**shipped().model.params, **variants()[name]}),
                make_task(given.corpus, given.work, first_pass=name == "first-pass"),
                plan(name, start, given.epochs),
                given.work / f"{name}-{seed}",
                seed=1000 * seed,
                limit_train_batches=given.steps,
                enable_progress_bar=False,
                precision="bf16-mixed",
                accelerator="cpu",
            )


# ------------------------------------------------------------------------------------ conditions


def late(batch: Mapping[str, Any], rng: np.random.Generator, frames: int) -> None:
    """Shift the faces to a later time."""
    X = batch["X"]
    X.faces = torch.roll(X.faces, frames, dims=2)
    X.face_mask = torch.roll(X.face_mask, frames, dims=2)
    X.face_mask[:, :, :frames] = False


def swapped(batch: Mapping[str, Any], rng: np.random.Generator) -> None:
    """Swap the faces of a chunk."""
    X = batch["X"]
    for row in range(len(X)):
        count = int(X.target_mask[row].sum())
        rest = torch.arange(count, X.target_mask.shape[1])
        order = torch.cat([torch.arange(count).roll(1), rest])
        X.faces[row], X.face_mask[row] = X.faces[row][order], X.face_mask[row][order]


def missing(batch: Mapping[str, Any], rng: np.random.Generator, rate: float) -> None:
    """Remove faces for 1 s at a time."""
    mask = batch["X"].face_mask
    shape = (*mask.shape[:2], -(-mask.shape[2] // 25))
    kept = torch.from_numpy(rng.random(shape) >= rate).repeat_interleave(25, dim=2)
    batch["X"].face_mask = mask & kept[:, :, : mask.shape[2]]


def noise(batch: Mapping[str, Any], rng: np.random.Generator, snr: float, embedder) -> None:
    """Add pink noise to the audio, and compute the speaker embeddings of windows again."""
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.evaluation.disturbances import noisy
    from pyannote_av.models.embedding.voiceprints import speaker_features

    X, seed = batch["X"], int(rng.integers(2**31))
    for row, sound in enumerate(X.waveforms):
        file = {"uri": str(row), "waveform": sound, "sample_rate": SAMPLE_RATE}
        X.waveforms[row] = noisy(file, snr, seed=seed)["waveform"]
        found = speaker_features(X.waveforms[row], embedder)
        X.speaker_features[row] = torch.from_numpy(found).to(X.speaker_features.dtype)


def conditions() -> dict[str, Callable]:
    """Functions that disturb a batch, by name."""
    from pyannote_av.models.loading import load_model

    embedder = load_model("campplus")
    return {
        "as they are": lambda batch, rng: None,
        **{f"{40 * frames} ms late": partial(late, frames=frames) for frames in DELAYS},
        "somebody else's": swapped,
        **{f"{rate:.0%} missing": partial(missing, rate=rate) for rate in MISSING},
        **{f"noise {snr} dB": partial(noise, snr=snr, embedder=embedder) for snr in NOISE},
    }


# ------------------------------------------------------------------------------------ errors


def batches_of(
    corpus: Path, work: Path, subset: str, change: Callable, models: dict[str, HMSANet]
) -> Iterator[tuple]:
    """Batches of all files of a subset for some models, each with the recordings of its chunks."""
    first_pass = any(model.hparams.first_pass for model in models.values())
    task = make_task(corpus, work, subset, first_pass)
    task.prepare_data()
    task.setup()
    batches, size = task.batches("development"), task.batch_size
    rng = np.random.default_rng(0)
    batches.chunks = batches.chunks[::EVERY]
    for index in range(len(batches)):
        batch = batches[index]
        change(batch, rng)
        numbers = batches.chunks[index * size : (index + 1) * size, 0]
        yield batch, [batches.recordings[number] for number in numbers]


def count(found: np.ndarray, y: np.ndarray, level: np.ndarray) -> list[int]:
    """Errors of md-eval, and speech, in steps where `level` is true and targets are known."""
    truth, claimed = (y == 1)[level], (found & (y >= 0))[level]
    expected, predicted = truth.sum(axis=1), claimed.sum(axis=1)
    wrong = np.maximum(expected, predicted) - (truth & claimed).sum(axis=1)
    return [int(wrong.sum()), int(expected.sum())]


@torch.inference_mode()
def thresholds(corpus: Path, work: Path, models: dict[str, HMSANet]) -> dict[str, float]:
    """Threshold of each network with the fewest errors on development files."""
    errors = {name: np.zeros(len(THRESHOLDS), int) for name in models}
    for batch, _ in batches_of(corpus, work, "development", conditions()["as they are"], models):
        y = batch["y"].numpy()
        for name, model in models.items():
            activity = model(**batch["X"].present()).numpy()
            for k, least in enumerate(THRESHOLDS):
                errors[name][k] += count(activity >= least, y, np.ones(y.shape[:2], bool))[0]
    return {name: float(THRESHOLDS[found.argmin()]) for name, found in errors.items()}


@torch.inference_mode()
def errors_of(
    corpus: Path, work: Path, change: Callable, models: dict[str, HMSANet], least: dict[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """Errors and speech of each network, by test file and number of simultaneous speakers."""
    rows: dict[str, dict[tuple, np.ndarray]] = {name: {} for name in models}
    speakers = {}
    for batch, recordings in batches_of(corpus, work, "test", change, models):
        y = batch["y"].numpy()
        level = np.minimum((y == 1).sum(axis=2), 2)
        for name, model in models.items():
            found = model(**batch["X"].present()).numpy() >= least[name]
            for b, recording in enumerate(recordings):
                speakers[recording.uri] = recording.num_speakers
                for simultaneous in (0, 1, 2):
                    row = rows[name].setdefault((recording.uri, simultaneous), np.zeros(2, int))
                    row += count(found[b], y[b], level[b] == simultaneous)
    return {
        name: [
            {
                "uri": uri,
                "simultaneous": simultaneous,
                "speakers": speakers[uri],
                "wrong": int(wrong),
                "speech": int(speech),
            }
            for (uri, simultaneous), (wrong, speech) in found.items()
        ]
        for name, found in rows.items()
    }


def load(work: Path, seeds: list[int]) -> dict[str, HMSANet]:
    """Networks that have been trained, by NAME|SEED."""
    from pyannote_av.core.model import Model

    paths = {
        f"{name}|{seed}": work / f"{name}-{seed}" / "model.safetensors"
        for name in variants()
        for seed in seeds
    }
    there = {key: path for key, path in paths.items() if path.is_file()}
    return {key: Model.from_pretrained(path).eval() for key, path in there.items()}


def errors(given: argparse.Namespace) -> None:
    """Errors of every network, file and condition, in ``WORK/errors.json``."""
    path, where = given.work / "errors.json", (given.corpus, given.work)
    known = json.loads(path.read_text()) if path.is_file() else {"thresholds": {}, "errors": {}}
    models = load(given.work, given.seeds)
    new = {key: model for key, model in models.items() if key not in known["thresholds"]}
    if new:
        known["thresholds"] |= thresholds(*where, new)
        write_text(path, json.dumps(known))
    for condition, change in conditions().items():
        wanted = {
            key: model
            for key, model in models.items()
            if f"{key}|{condition}" not in known["errors"]
            and (condition == "as they are" or key.split("|")[0] in FUSIONS)
        }
        if not wanted:
            continue
        found = errors_of(*where, change, wanted, known["thresholds"])
        known["errors"] |= {f"{key}|{condition}": rows for key, rows in found.items()}
        write_text(path, json.dumps(known))
        for key, rows in found.items():
            logging.info("%s, %s: %.2f %%", key, condition, der(rows))


def der(rows: list[dict[str, Any]]) -> float:
    """DER in percent."""
    return 100 * sum(row["wrong"] for row in rows) / max(1, sum(row["speech"] for row in rows))


@torch.inference_mode()
def gates(given: argparse.Namespace) -> None:
    """Mean gates on test files, by direction, in ``WORK/gates.json``.

    For faces of active speakers: unchanged, late, and swapped. Also for faces of silent people
    while somebody else speaks.
    """
    models = {k: one for k, one in load(given.work, given.seeds).items() if k[:6] == "cgima|"}
    found: dict[str, dict[str, list[float]]] = {key: {} for key in models}

    def measure(name: str, change: Callable, silent: bool = False) -> None:
        total = {key: np.zeros(3) for key in models}
        for batch, _ in batches_of(given.corpus, given.work, "test", change, models):
            speaks = batch["y"].transpose(1, 2)[..., ::4] == 1
            others = (speaks.sum(1, keepdim=True) - speaks.int()) > 0
            where = batch["X"].face_mask & (~speaks & others if silent else speaks)
            for key, model in models.items():
                output = model.predict(**batch["X"].present(), branches=("fusion",))
                opened = output.gate_logits.sigmoid().mean(dim=-1)[where]
                total[key] += [*opened.sum(dim=0).tolist(), len(opened)]
        for key, (sound, picture, frames) in total.items():
            found[key][name] = [sound / max(frames, 1), picture / max(frames, 1), frames]
            logging.info("%s %s: %s", key, name, found[key][name])

    unchanged = conditions()["as they are"]
    measure("genuine", unchanged)
    for frames in OUT_OF_SYNC:
        measure(f"{0.04 * frames:.1f} s late", partial(late, frames=frames))
    measure("somebody else's", swapped)
    measure("silent", unchanged, silent=True)
    write_text(given.work / "gates.json", json.dumps(found, indent=1) + "\n")


# ------------------------------------------------------------------------------------ pipelines


def pipelines(given: argparse.Namespace) -> None:
    """DER of the pipeline with each network, by conversation, in ``WORK/pipelines.json``.

    All networks share the first pass, and the visual features, because their visual encoders are
    equal.
    """
    from rich.progress import track

    from pyannote_av.evaluation.diarization import evaluate
    from recipes.simulated import held_aside

    if given.data is None:
        return
    path = given.work / "pipelines.json"
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
    models = load(given.work, given.seeds)
    models = {key: one for key, one in models.items() if key.split("|")[0] in given.networks}
    work = given.work / "held-aside"
    store = held_aside.simulate(given.data, work, "development", given.conversations)
    pipeline = held_aside.load("hmsanet", store)
    for uri in track(store.uris, description="pipelines"):
        missing = [key for key in models if uri not in known.setdefault(key, {})]
        if not missing:
            continue
        file = held_aside.read(store, uri)
        reference, whole = file.pop("annotation"), file.pop("annotated")
        prepared = pipeline.prepare_one(file)
        fuse = pipeline.first_pass.fuse
        fused = fuse(prepared, visual_model=models[missing[0]])
        turns = {
            "sound": fused.output.audio_only,
            "late fusion": fused.kept.speaker_diarization,
        }
        pipeline.first_pass.fuse = lambda *_, fused=fused, **__: fused
        for key in missing:
            pipeline.segmentation.model = models[key]
            turns[key] = pipeline.apply(prepared).speaker_diarization
        pipeline.first_pass.fuse = fuse
        for key, one in turns.items():
            scored = evaluate({uri: reference}, {uri: one}, {uri: whole})["automatic", "Full"]
            known.setdefault(key, {})[uri] = round(100 * scored.der, 3)
        write_text(path, json.dumps(known))


def harm_by_seed(known: dict[str, dict[str, float]], name: str, seeds) -> dict[str, list[float]]:
    """Mean DER of conversations and harm of a network, for each seed."""
    keys = [name] if name in known else [f"{name}|{seed}" for seed in seeds]
    rows = [known[key] for key in keys if key in known]
    found = [harm([*row.values()], [known["sound"][uri] for uri in row]) for row in rows]
    return {key: [one[key] for one in found] for key in found[0]}


# ------------------------------------------------------------------------------------ report


def histories(work: Path, name: str, seed: int) -> list[list[float]]:
    """Updates, and diarization loss on development files, throughout the stages."""
    rows, done = [], 0
    for path in sorted((work / f"{name}-{seed}").glob("*/stage.json")):
        history = json.loads(path.read_text())["history"]
        rows += [
            [done + row["step"], row["loss/val/diarization"]]
            for row in history
            if "loss/val/diarization" in row
        ]
        done += history[-1]["step"]
    return rows


def mean_of(known: dict, name: str, condition: str, seeds, keep: Callable = bool) -> list[float]:
    """DER of each seed, over the rows to keep."""
    keys = [f"{name}|{seed}|{condition}" for seed in seeds]
    return [der([row for row in known[key] if keep(row)]) for key in keys if key in known]


def against(known: dict, one: str, other: str, condition: str, seeds, keep=bool) -> dict[str, Any]:
    """Difference of DER over seeds and paired files, with its range and two p-values."""
    from pyannote_av.evaluation.significance import bootstrap, permutation

    uris: dict[str, np.ndarray] = {}
    seeds = [s for s in seeds if all(f"{name}|{s}|{condition}" in known for name in (one, other))]
    for sign, name in ((1, one), (-1, other)):
        for seed in seeds:
            for row in known[f"{name}|{seed}|{condition}"]:
                if keep(row):
                    total = uris.setdefault(row["uri"], np.zeros(2))
                    total += [sign * row["wrong"], row["speech"] * (sign == 1)]
    wrong, speech = np.array([*uris.values()]).reshape(-1, 2).T
    if not speech.any():
        return {}
    low, high, p = bootstrap(wrong, speech)
    return {
        "difference": 100 * wrong.sum() / speech.sum(),
        "range": [100 * low, 100 * high],
        "p bootstrap": p,
        "p permutation": permutation(wrong),
    }


#: parts of the errors
STRATA: dict[str, Callable[[dict], bool]] = {
    "all": lambda row: True,
    "one speaks": lambda row: row["simultaneous"] == 1,
    "overlap": lambda row: row["simultaneous"] == 2,
    "2-3 speakers": lambda row: row["speakers"] <= 3,
    "4 speakers": lambda row: row["speakers"] == 4,
    "5-6 speakers": lambda row: row["speakers"] >= 5,
}


def report(given: argparse.Namespace, results: Results) -> None:
    """Print tables; write them and the figures."""
    content = json.loads((given.work / "errors.json").read_text())
    known, seeds = content["errors"], given.seeds
    conditioned, there = list(conditions()), {key.split("|")[0] for key in known}
    decoders = ["cgima", *DECODERS[1:]]

    def compare(title: str, rows: list[str], names: list[str], cell: Callable) -> dict:
        names = [name for name in names if name in there]
        found = {row: {name: cell(row, name) for name in names} for row in rows}
        print(f"\n{title}: DER (%), mean (range) of seeds")
        shown = [
            {"": row}
            | {
                TITLES[k]: f"{np.mean(v):.2f} ({min(v):.2f}-{max(v):.2f})"
                for k, v in cells.items()
                if v
            }
            for row, cells in found.items()
        ]
        print(table(shown))
        return found

    def by_stratum(stratum: str, name: str) -> list[float]:
        return mean_of(known, name, "as they are", seeds, STRATA[stratum])

    result: dict[str, Any] = {
        "thresholds": content["thresholds"],
        "fusion": compare(
            "Fusion, by disturbance of faces and audio",
            conditioned,
            list(FUSIONS),
            lambda condition, name: mean_of(known, name, condition, seeds),
        ),
        "decoder": compare('Decoders ("CGIMA" has DISA)', list(STRATA), decoders, by_stratum),
        "optimization": compare(
            'Training ("CGIMA": end to end)', list(STRATA), ["cgima", *STAGED], by_stratum
        ),
        "inputs": compare(
            'Inputs and losses ("CGIMA": all but the first pass)',
            list(STRATA),
            ["cgima", *INPUTS],
            by_stratum,
        ),
        "differences": {
            f"cgima - {other}, {condition}": against(known, "cgima", other, condition, seeds)
            for other in FUSIONS[1:]
            for condition in conditioned
        }
        | {
            f"{mine} - {other}, {part}": against(known, "cgima", other, "as they are", seeds, keep)
            for mine, others in (
                ("disa", decoders[1:]),
                ("end to end", [*STAGED]),
                ("cgima", INPUTS),
            )
            for other in others
            for part, keep in STRATA.items()
        },
        "development losses": {
            f"{name}|{seed}": histories(given.work, name, seed)
            for name in (*STAGED, "cgima")
            for seed in seeds
            if (given.work / f"{name}-{seed}" / "model.safetensors").is_file()
        },
    }
    print("\nDifferences of DER (negative: ours is better), 95 % range, p of permutation")
    for name, one in result["differences"].items():
        if one:
            low, high = one["range"]
            p = one["p permutation"]
            print(f"{name:>45}: {one['difference']:6.2f} ({low:.2f} to {high:.2f})  p = {p:.4f}")
    if (given.work / "gates.json").is_file():
        result["gates"] = json.loads((given.work / "gates.json").read_text())
    if (given.work / "pipelines.json").is_file():
        found = json.loads((given.work / "pipelines.json").read_text())
        names = dict.fromkeys(key.split("|")[0] for key in found)
        result["pipelines"] = {name: harm_by_seed(found, name, given.seeds) for name in names}
        result["conversations"] = len(found["sound"])
        print("\nIn the pipeline: mean DER (%), conversations that are worse than sound, at most")
        print(table([{"": name, **cells} for name, cells in result["pipelines"].items()]))
    results.write("hmsanet_claims", result)
    results.plot("hmsanet_claims.png", lambda path: plot(result, path))


def plot(result: dict[str, Any], path: Path) -> None:
    """The four figures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained")
    axes = figure.subplots(2, 2)
    bars(axes[0, 0], result["fusion"], "Fusion: disturbance of faces and audio", rotate=35)
    labels = bars(axes[0, 1], result["decoder"], "Decoder, on CGIMA", rotate=20)
    axes[0, 1].legend([label.replace("CGIMA", "DISA") for label in labels])
    for key, curve in result["development losses"].items():
        name, seed = key.split("|")
        label = {**TITLES, "cgima": "end to end"}[name] if seed == "0" else None
        colour = {"stages": "C0", "cgima": "C1"}.get(name, "C2")
        axes[1, 0].plot(*np.transpose(curve), marker="o", color=colour, label=label)
    axes[1, 0].set(xlabel="updates", ylabel="diarization loss, development", title="Training")
    axes[1, 0].legend()
    found = result.get("gates", {})
    for direction, name in enumerate(("sound from picture", "picture from sound")):
        if found:
            kinds = list(next(iter(found.values())))
            values = [[one[kind][direction] for one in found.values()] for kind in kinds]
            axes[1, 1].errorbar(
                kinds,
                np.mean(values, axis=1),
                np.ptp(values, axis=1) / 2,
                marker="o",
                capsize=4,
                linestyle="none",
                label=name,
            )
    axes[1, 1].set(ylim=(0, 1), ylabel="mean gate", title="Gates of CGIMA on test files")
    axes[1, 1].legend()
    figure.savefig(path, dpi=110)


def bars(axis, found: dict[str, dict[str, list[float]]], title: str, rotate: int) -> list[str]:
    """Draw means as bars and ranges of seeds as whiskers; returns the labels."""
    names = list(next(iter(found.values())))
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        at = [(i, row[name]) for i, row in enumerate(found.values()) if row[name]]
        places = [i + (k - (len(names) - 1) / 2) * width for i, _ in at]
        means = np.array([np.mean(v) for _, v in at])
        reach = [means - [min(v) for _, v in at], [max(v) for _, v in at] - means]
        axis.bar(places, means, width, yerr=reach, capsize=2, label=TITLES[name])
    axis.set_xticks(range(len(found)), list(found), rotation=rotate, ha="right")
    axis.set(ylabel="DER (%), targets given", title=title)
    axis.legend()
    return [TITLES[name] for name in names]


PARTS = {
    "train": train,
    "errors": errors,
    "gates": gates,
    "pipelines": pipelines,
    "report": report,
}


def run(given: argparse.Namespace, results: Results) -> None:
    """Run the parts, in order."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    for part, step in PARTS.items():
        if part in given.only:
            step(given, results) if part == "report" else step(given)
