"""What the networks of ``hmsanet_claims.py`` get wrong, and what their gates do.

    python benchmarks/hmsanet_errors.py CORPUS WORK errors [--seeds 0 1 2]
    python benchmarks/hmsanet_errors.py CORPUS WORK gates [--seeds 0 1 2]
    python benchmarks/hmsanet_errors.py CORPUS WORK report --into benchmarks/results

Slots are given, with voiceprints of all that a speaker says, as in target-speaker tests: these
figures are of networks, not of pipelines. Each network's threshold is the one that is best on
development files. Errors are counted per test file, so that differences can be tested for
significance. Everything is taken up where it was left.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from hmsanet_claims import DECODERS, FUSIONS, make_task, variants

from pyannote_av.core.atomic import write_text
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import Model
from pyannote_av.evaluation.disturbances import noisy
from pyannote_av.evaluation.significance import bootstrap, permutation
from pyannote_av.models.embedding.voiceprints import speaker_features
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.models.loading import load_model

DELAYS = (3, 6, 10)  # frames of 40 ms
MISSING = (0.5, 1.0)
NOISE = (10, 0)  # dB
THRESHOLDS = np.arange(0.3, 0.91, 0.05).round(2)
#: of chunks of 4 s, one in so many, for the sake of time
EVERY = 2
#: frames by which faces are out of step where gates are to be closed: 0.6 s and more
OUT_OF_STEP = (15, 25, 40)
WHAT = ("errors", "gates", "report")
TITLES = {
    "mean": "mean of others",
    "none": "none",
    "fixed": "fixed places",
    "cgima": "CGIMA",
    "attention": "attention",
    "concat": "concatenation",
    "stages": "in stages",
}


# what is done to batches


def late(batch: Mapping[str, Any], rng: np.random.Generator, frames: int) -> None:
    """Pictures are shown later than they were"""
    X = batch["X"]
    X.faces = torch.roll(X.faces, frames, dims=2)
    X.face_mask = torch.roll(X.face_mask, frames, dims=2)
    X.face_mask[:, :, :frames] = False


def swapped(batch: Mapping[str, Any], rng: np.random.Generator) -> None:
    """Faces of a chunk change places"""
    X = batch["X"]
    for row in range(len(X)):
        count = int(X.target_mask[row].sum())
        rest = torch.arange(count, X.target_mask.shape[1])
        order = torch.cat([torch.arange(count).roll(1), rest])
        X.faces[row], X.face_mask[row] = X.faces[row][order], X.face_mask[row][order]


def missing(batch: Mapping[str, Any], rng: np.random.Generator, rate: float) -> None:
    """Faces are lost for stretches of 1 s"""
    mask = batch["X"].face_mask
    shape = (*mask.shape[:2], -(-mask.shape[2] // 25))
    kept = torch.from_numpy(rng.random(shape) >= rate).repeat_interleave(25, dim=2)
    batch["X"].face_mask = mask & kept[:, :, : mask.shape[2]]


def noise(batch: Mapping[str, Any], rng: np.random.Generator, snr: float, embedder) -> None:
    """Pink noise, in the sound and in what is heard of voices"""
    X, seed = batch["X"], int(rng.integers(2**31))
    for row, sound in enumerate(X.waveforms):
        file = {"uri": str(row), "waveform": sound, "sample_rate": SAMPLE_RATE}
        X.waveforms[row] = noisy(file, snr, seed=seed)["waveform"]
        found = speaker_features(X.waveforms[row], embedder)
        X.speaker_features[row] = torch.from_numpy(found).to(X.speaker_features.dtype)


def conditions() -> dict[str, Callable]:
    """What is done to batches, by name."""
    embedder = load_model("campplus")
    return {
        "as they are": lambda batch, rng: None,
        **{f"{40 * frames} ms late": partial(late, frames=frames) for frames in DELAYS},
        "somebody else's": swapped,
        **{f"{rate:.0%} missing": partial(missing, rate=rate) for rate in MISSING},
        **{f"noise {snr} dB": partial(noise, snr=snr, embedder=embedder) for snr in NOISE},
    }


# errors


def batches_of(corpus: Path, work: Path, subset: str, change: Callable) -> Iterator[tuple]:
    """(batch, [recording of each of its chunks]) of all files of a subset."""
    task = make_task(corpus, work, subset)
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
    """[errors, speech] in steps, where `level` is true: md-eval's, of slots that are known."""
    truth, claimed = (y == 1)[level], (found & (y >= 0))[level]
    said, told = truth.sum(axis=1), claimed.sum(axis=1)
    wrong = np.maximum(said, told) - (truth & claimed).sum(axis=1)
    return [int(wrong.sum()), int(said.sum())]


@torch.inference_mode()
def threshold(corpus: Path, work: Path, models: dict[str, HMSANet]) -> dict[str, float]:
    """Where each decides best on development files."""
    errors = {name: np.zeros(len(THRESHOLDS), int) for name in models}
    for batch, _ in batches_of(corpus, work, "development", conditions()["as they are"]):
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
    """Errors and speech of each network by test file and number of simultaneous speakers."""
    rows: dict[str, dict[tuple, np.ndarray]] = {name: {} for name in models}
    speakers = {}
    for batch, recordings in batches_of(corpus, work, "test", change):
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
    """Networks that are there, as NAME|SEED."""
    paths = {
        f"{name}|{seed}": work / f"{name}-{seed}" / "model.safetensors"
        for name in variants()
        for seed in seeds
    }
    there = {key: path for key, path in paths.items() if path.is_file()}
    return {key: Model.from_pretrained(path).eval() for key, path in there.items()}


def errors(corpus: Path, work: Path, seeds: list[int]) -> None:
    """Errors of every network, file and condition, in ``WORK/errors.json``."""
    path = work / "errors.json"
    known = json.loads(path.read_text()) if path.is_file() else {"thresholds": {}, "errors": {}}
    models = load(work, seeds)
    new = {key: model for key, model in models.items() if key not in known["thresholds"]}
    if new:
        known["thresholds"] |= threshold(corpus, work, new)
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
        found = errors_of(corpus, work, change, wanted, known["thresholds"])
        known["errors"] |= {f"{key}|{condition}": rows for key, rows in found.items()}
        write_text(path, json.dumps(known))
        for key, rows in found.items():
            logging.info("%s, %s: %.2f %%", key, condition, der(rows))


def der(rows: list[dict[str, Any]]) -> float:
    """Per cent."""
    return 100 * sum(row["wrong"] for row in rows) / max(1, sum(row["speech"] for row in rows))


# gates


@torch.inference_mode()
def gates(corpus: Path, work: Path, seeds: list[int]) -> None:
    """Mean gates of test files, by direction, in ``WORK/gates.json``.

    Of faces while their person speaks, as they are, out of step, and while another face is shown
    instead; and of faces whose person is silent while another one speaks.
    """
    models = {key: one for key, one in load(work, seeds).items() if key.startswith("cgima|")}
    found: dict[str, dict[str, list[float]]] = {key: {} for key in models}

    def add(name: str, change: Callable, silent: bool = False) -> None:
        total = {key: np.zeros(3) for key in models}
        for batch, _ in batches_of(corpus, work, "test", change):
            speaks = batch["y"].transpose(1, 2)[..., ::4] == 1
            others = (speaks.sum(1, keepdim=True) - speaks.int()) > 0
            where = batch["X"].face_mask & (~speaks & others if silent else speaks)
            for key, model in models.items():
                output = model.predict(**batch["X"].present(), branches=("fusion",))
                open_ = output.gate_logits.sigmoid().mean(dim=-1)[where]
                total[key] += [*open_.sum(dim=0).tolist(), len(open_)]
        for key, (sound, picture, frames) in total.items():
            found[key][name] = [sound / frames, picture / frames, frames]
            logging.info("%s %s: %s", key, name, found[key][name])

    as_they_are = conditions()["as they are"]
    add("genuine", as_they_are)
    for frames in OUT_OF_STEP:
        add(f"{0.04 * frames:.1f} s late", partial(late, frames=frames))
    add("somebody else's", swapped)
    add("silent", as_they_are, silent=True)
    write_text(work / "gates.json", json.dumps(found, indent=1) + "\n")


# report


def histories(work: Path, name: str, seed: int) -> list[list[float]]:
    """[updates, diarization loss on development files] throughout the stages."""
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
    """DER of all seeds, of the rows to keep."""
    keys = [f"{name}|{seed}|{condition}" for seed in seeds]
    return [der([row for row in known[key] if keep(row)]) for key in keys if key in known]


def against(known: dict, one: str, other: str, condition: str, seeds, keep=bool) -> dict[str, Any]:
    """Difference of DER, mean over seeds and files paired: its range, and two p-values."""
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


def strata() -> dict[str, Callable]:
    """Parts of the errors, by name."""
    return {
        "all": lambda row: True,
        "one speaks": lambda row: row["simultaneous"] == 1,
        "overlap": lambda row: row["simultaneous"] == 2,
        "2-3 speakers": lambda row: row["speakers"] <= 3,
        "4 speakers": lambda row: row["speakers"] == 4,
        "5-6 speakers": lambda row: row["speakers"] >= 5,
    }


def report(work: Path, into: Path, seeds: list[int]) -> None:
    """Tables to read, plots, and all of it as JSON."""
    content = json.loads((work / "errors.json").read_text())
    known, done = content["errors"], list(conditions())
    commands = [
        "python benchmarks/hmsanet_claims.py CORPUS WORK",
        *(f"python benchmarks/hmsanet_errors.py CORPUS WORK {what}" for what in WHAT),
    ]
    result: dict[str, Any] = {"commands": commands, "thresholds": content["thresholds"]}

    there = {key.split("|")[0] for key in known}

    def table(title: str, rows: list[str], names: list[str], cell: Callable) -> dict:
        names = [name for name in names if name in there]
        print(f"\n{title}")
        print(f"{'':>18}" + "".join(f"{TITLES[name]:>22}" for name in names))
        found = {row: {name: cell(row, name) for name in names} for row in rows}
        for row, cells in found.items():
            words = (f"{np.mean(v):.2f} ({min(v):.2f}-{max(v):.2f})" for v in cells.values() if v)
            print(f"{row:>18}" + "".join(f"{word:>22}" for word in words))
        return found

    result["fusion"] = table(
        "DER (%) by what happens to faces and sound, mean (range) of seeds",
        done,
        list(FUSIONS),
        lambda condition, name: mean_of(known, name, condition, seeds),
    )
    kept = strata()
    decoders = ["cgima", *DECODERS[1:]]
    result["decoder"] = table(
        'DER (%) of decoders on CGIMA ("CGIMA" has DISA), mean (range) of seeds',
        list(kept),
        decoders,
        lambda stratum, name: mean_of(known, name, "as they are", seeds, kept[stratum]),
    )
    result["optimization"] = table(
        'DER (%) by optimization ("CGIMA": end to end), mean (range) of seeds',
        list(kept),
        ["cgima", "stages"],
        lambda stratum, name: mean_of(known, name, "as they are", seeds, kept[stratum]),
    )
    result["differences"] = {
        f"cgima - {other}, {condition}": against(known, "cgima", other, condition, seeds)
        for other in FUSIONS[1:]
        for condition in done
    } | {
        f"{mine} - {other}, {stratum}": against(known, "cgima", other, "as they are", seeds, keep)
        for mine, others in (("disa", decoders[1:]), ("end to end", ["stages"]))
        for other in others
        for stratum, keep in kept.items()
    }
    print("\nDifferences of DER (negative: ours is better), 95 % range, p of permutation")
    for name, one in result["differences"].items():
        if one:
            low, high = one["range"]
            p = one["p permutation"]
            print(f"{name:>45}: {one['difference']:6.2f} ({low:.2f} to {high:.2f})  p = {p:.4f}")
    result["development losses"] = {
        f"{name}|{seed}": histories(work, name, seed)
        for name in ("stages", "cgima")
        for seed in seeds
        if (work / f"{name}-{seed}" / "model.safetensors").is_file()
    }
    for key, curve in result["development losses"].items():
        print(key, [(step, round(value, 4)) for step, value in curve])
    if (work / "gates.json").is_file():
        result["gates"] = json.loads((work / "gates.json").read_text())
    write_text(into / "hmsanet_claims.json", json.dumps(result, indent=1) + "\n")
    plot(result, into)


def plot(result: dict[str, Any], into: Path) -> None:
    """The four figures."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    bars(axes[0, 0], result["fusion"], "Fusion: what happens to faces and sound", rotate=35)
    bars(axes[0, 1], result["decoder"], "Decoder, on CGIMA", rotate=20)
    axes[0, 1].legend([name.replace("CGIMA", "DISA") for name in axes[0, 1].labels])
    for key, curve in result["development losses"].items():
        name, seed = key.split("|")
        label = {"stages": "stages", "cgima": "end to end"}[name] if seed == "0" else None
        colour = "C0" if name == "stages" else "C1"
        axes[1, 0].plot(*np.transpose(curve), marker="o", color=colour, label=label)
    axes[1, 0].set(xlabel="updates", ylabel="diarization loss, development", title="Optimization")
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
    figure.savefig(into / "hmsanet_claims.png", dpi=110)


def bars(axis, found: dict[str, dict[str, list[float]]], title: str, rotate: int) -> None:
    """Means as bars, ranges of seeds as whiskers."""
    names = list(next(iter(found.values())))
    width = 0.8 / len(names)
    axis.labels = [TITLES[name] for name in names]
    for k, name in enumerate(names):
        at = [(i, row[name]) for i, row in enumerate(found.values()) if row[name]]
        places = [i + (k - (len(names) - 1) / 2) * width for i, _ in at]
        means = np.array([np.mean(v) for _, v in at])
        reach = [means - [min(v) for _, v in at], [max(v) for _, v in at] - means]
        axis.bar(places, means, width, yerr=reach, capsize=2, label=TITLES[name])
    axis.set_xticks(range(len(found)), list(found), rotation=rotate, ha="right")
    axis.set(ylabel="DER (%), slots given", title=title)
    axis.legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--into", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if given.what == "report":
        report(given.work, given.into, given.seeds)
    else:
        work = {"errors": errors, "gates": gates}[given.what]
        work(given.corpus, given.work, given.seeds)


if __name__ == "__main__":
    main()
