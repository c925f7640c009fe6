"""Systems that cluster windows of speech, trained and compared on simulated conversations.

Examples:
    python -m benchmarks window_systems DATA CORPUS WORK
    python -m benchmarks window_systems DATA CORPUS WORK --only compare --systems speech VBx

CORPUS is made from DATA (`python -m recipes.simulated.corpus DATA CORPUS`); nobody is in two of its
subsets. A noise from DATA is added to each conversation, 0 to 20 dB below the speech. The systems
that the package ships (AVR-Net, CYS-MSD, VBx and those without weights) need no train files:
`--scale 0` leaves them out. The other networks are trained on the train files: AVR-Net and CYS-MSD
alone, without the similarity that the shipped ones start from, and the fusions that the paper of
AVR-Net compares. Thresholds of all systems are chosen on development files. All are then scored on
test files, each trained network with every seed. Seed 0 of AVR-Net and CYS-MSD is what ships. For
seed N, copy OTHER/pretrained of `python -m recipes.simulated.window_weights DATA OTHER --seed N` to
WORK/pretrained-N. There are two conditions:

- oracle, as in AVA-AVD: speech and talking faces are given; a growing share of them is missing
- automatic: segmentation-3.0 and the shipped active speaker scorer detect them

Face tracks are given in both. Finally, the AMI excerpts of DATA are scored, for speech alone.
Parts: train, compare, report. An interrupted run continues where it was. Writes
window_systems.json, .txt and .png.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import ami, existing, protocol, score_faces, stored_segments
from benchmarks._runner import Results, add
from benchmarks._runner import table as markdown
from pyannote_av.core.atomic import replacing, write_text

#: shares of talking faces that are missing
RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: signal-to-noise ratio in dB, and noises of each subset
SNR = (0.0, 20.0)
NOISES = {"train": slice(0, 3), "development": slice(3, 4), "test": slice(4, 5)}
#: rule by which thresholds are chosen
TUNED_ON = "Full"
#: folder of speaker embeddings of noisy conversations
VOICES = "voices-noisy"
THRESHOLDS = tuple(round(0.06 * k, 2) for k in range(1, 17))
#: thresholds in log-odds above which a face talks, without oracle
TALKING = (1.0, 3.0, 5.0)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """A pipeline and its tuned hyper-parameters.

    Attributes
    ----------
    make : callable
        (folder of trained models, seed, options of windows) -> pipeline
    grid : dict
        Values to try for each hyper-parameter.
    network : str or None
        Name of its network, which is trained with each seed.
    faces : bool
        Whether it uses faces.
    seeds : bool
        Whether WORK has pipelines of other seeds than the one that ships.
    """

    make: Callable[..., Any]
    grid: Mapping[str, tuple]
    network: str | None = None
    faces: bool = True
    seeds: bool = False


def _shipped(name: str, *, seeds: bool = False, **grid: tuple):
    """A pipeline of the package, by name; with `seeds`, also those of WORK/pretrained-SEED"""

    def make(work: Path, seed: int, **options):
        from pyannote_av import Pipeline

        place = work / f"pretrained-{seed}" / name if seeds and seed else name
        return Pipeline.from_pretrained(place, **options)

    return System(make, grid, faces=name != "vbx", seeds=seeds)


def _relation(name: str):
    def make(work: Path, seed: int, **options):
        from pyannote_av.clustering.relation_diarization import RelationDiarization

        return RelationDiarization(work / f"{name}-{seed}" / "model.safetensors", **options)

    return System(make, {"threshold": THRESHOLDS}, name)


def _counting(counting: str, name: str = "cys-msd"):
    def make(work: Path, seed: int, **options):
        from pyannote_av.clustering.counting_diarization import CountingDiarization

        return CountingDiarization(work / f"{name}-{seed}" / "model.safetensors", **options)

    finer = tuple(round(0.02 * k, 2) for k in range(1, 41))
    thresholds = finer if counting == "threshold" else (0.3,)
    return System(make, {"counting": (counting,), "threshold": thresholds}, name)


def _speech(work: Path, seed: int, **options):
    from pyannote_av import Pipeline

    return Pipeline.from_pretrained("similarity", use_faces=False, **options)


SYSTEMS = {
    "speech": System(_speech, {"threshold": THRESHOLDS}, faces=False),
    "VBx": _shipped(
        "vbx",
        clustering=tuple(
            {"threshold": 0.6, "Fa": fa, "Fb": fb}
            for fa, fb in product((0.05, 0.1, 0.2, 0.4), (0.5, 1.0, 3.0, 8.0, 15.0))
        ),
    ),
    "WST": _shipped("enrolment", certain=(1.0, 2.0, 3.0), weight=(0.25, 0.5, 1.0)),
    "3D-Speaker": _shipped("joint", pruning=(0.032, 0.1), merge=(0.5, 0.6, 0.7, 0.8, 0.9)),
    "speech + face": _shipped("similarity", threshold=THRESHOLDS),
    "DIMNet": _relation("dimnet"),
    "GMU": _relation("gmu"),
    "AVR-Net, alone": _relation("avr-net"),
    "AVR-Net": _shipped("avrnet", seeds=True, threshold=THRESHOLDS),
    "CYS-MSD, alone, threshold": _counting("threshold"),
    "CYS-MSD, alone, published": _counting("predicted", "cys-msd-mean"),
    "CYS-MSD, alone": _counting("predicted"),
    "CYS-MSD": _shipped("cysmsd", seeds=True),
}


PARTS = ("train", "compare", "report")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "corpus", "work", "--seeds")
    add(parser, "--only", choices=PARTS, default=list(PARTS))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of all networks, to try it")


# ------------------------------------------------------------------------------------ training


def sound(store, uri: str, data: Path) -> np.ndarray:
    """Noisy waveform of a file (samples,). The noise depends on its uri only."""
    import zlib

    import soundfile

    clean = store.sound(uri)
    rng = np.random.default_rng(zlib.crc32(uri.encode()))
    noises = sorted(existing(data / "noise").glob("noise*.wav"))[NOISES[uri.split("-")[0]]]
    noise, rate = soundfile.read(noises[rng.integers(len(noises))], dtype="float32")
    if rate != 16000 or noise.ndim > 1:
        raise ValueError(f"{noises}: expected 16 kHz, mono")
    noise = np.resize(np.roll(noise, rng.integers(len(noise))), len(clean))
    loudness = np.sqrt(np.square(clean).mean() / np.square(noise).mean())
    return clean + noise * np.float32(loudness * 10 ** (-rng.uniform(*SNR) / 20))


def embed(corpus: Path, data: Path) -> None:
    """Speaker embeddings of all noisy conversations."""
    import torch

    from pyannote_av.data.array_store import fill
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.models.embedding.voiceprints import speaker_features
    from pyannote_av.models.loading import load_model

    store, embedder = CropStore(corpus), load_model("campplus")

    def compute(uri: str) -> np.ndarray:
        noisy = torch.from_numpy(sound(store, uri, data))[None]
        return speaker_features(noisy, embedder).astype(np.float16)

    sources = {uri: store[uri].index["sha256"]["waveform.npy"] for uri in store.uris}
    fill(corpus / VOICES, {"embedder": "campplus", "snr": list(SNR)}, sources, compute, "Voices")


def train(corpus: Path, work: Path, seed: int, names: list[str], epochs: int | None) -> None:
    """Networks of systems. `epochs` overrides their numbers of epochs."""
    if not any(SYSTEMS[name].network for name in names):
        return
    import torch

    from pyannote_av.clustering.cysmsd import CYSMSD
    from pyannote_av.clustering.embedded import FusedEmbeddings, RelationOfEmbeddings
    from pyannote_av.clustering.pairwise_relation import PairwiseRelation
    from pyannote_av.clustering.speaker_counting import SpeakerCounting
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.face_embeddings import FaceEmbeddings
    from pyannote_av.training.runner import optimize
    from pyannote_av.training.stages import Stage

    store, files = CropStore(corpus), protocol(corpus)
    dimensions = 192, FaceEmbeddings(store).dimension
    common = {"speaker_embeddings": corpus / VOICES, "cache": work / "files.npz", "num_workers": 0}
    relation = PairwiseRelation(files, store, per_recording=3, **common)
    counting = SpeakerCounting(files, store, **common)
    published = {"learning_rate": 5e-4, "weight_decay": 1e-4}
    # with the published rate, it hardly learns in this number of epochs
    faster = {"learning_rate": 2e-3, "weight_decay": 1e-4, "max_epochs": 15}
    plans = {
        "avr-net": (RelationOfEmbeddings, {}, relation, Stage(name="relation", **faster)),
        "gmu": (FusedEmbeddings, {"fusion": "gmu"}, relation, Stage(name="fusion", **published)),
        "dimnet": (
            FusedEmbeddings,
            {"fusion": "dimnet"},
            relation,
            Stage(name="fusion", **published),
        ),
        "cys-msd": (
            CYSMSD,
            {"counter": "tree", "dropout": 0.3},
            counting,
            # 1e-5 as published takes ten times as many epochs here
            Stage(name="counting", max_epochs=120, learning_rate=1e-3, weight_decay=1e-1),
        ),
        "cys-msd-mean": (
            CYSMSD,
            {},
            counting,
            Stage(name="counting", max_epochs=120, learning_rate=3e-4, weight_decay=1e-2),
        ),
    }
    for name in dict.fromkeys(filter(None, (SYSTEMS[name].network for name in names))):
        network, changed, task, stage = plans[name]
        torch.manual_seed(seed)
        optimize(
            network(*dimensions, **changed),
            task,
            [
                stage.model_copy(
                    update={"schedule": "cosine", "max_epochs": epochs or stage.max_epochs}
                )
            ],
            work / f"{name}-{seed}",
            seed=1000 * seed,
            enable_progress_bar=False,
            accelerator="cpu",
        )


# ------------------------------------------------------------------------------------ files


def simulated(corpus: Path, data: Path, work: Path, subset: str) -> Iterator[tuple[dict, dict]]:
    """Files of a subset, and their scored faces: with and without oracle."""
    import torch

    from pyannote_av.clustering.windowed_file import ScoredFaces
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.face_embeddings import FaceEmbeddings

    store = CropStore(corpus)
    identities = FaceEmbeddings(store)
    for one in getattr(protocol(corpus), subset)():
        uri = one["uri"]
        shard = store[uri]
        file = {
            "uri": uri,
            "waveform": torch.from_numpy(sound(store, uri, data))[None],
            "sample_rate": SAMPLE_RATE,
            "problems": [],
            "annotation": one["annotation"],
            "annotated": one["annotated"],
            "lab": one["annotation"].get_timeline().support(),
        }
        found = speaking(shard, file["waveform"], work / "speaking" / f"{uri}.npy")
        scored = {"oracle": oracle(found, one["face_tracks"]), "automatic": found}
        yield file, {vad: ScoredFaces(tracks, identities[uri]) for vad, tracks in scored.items()}


def oracle(tracks, reference: str):
    """Face tracks with scores from the reference."""
    from pyannote_av.core.tracks import FaceTracks, Label

    known = FaceTracks.read(reference)
    talks = {
        (track, round(25 * time))
        for track, time, label in zip(known.track, known.time, known.label, strict=True)
        if label == Label.SPEAKING_AUDIBLE
    }
    rows = zip(tracks.track.tolist(), np.round(25 * tracks.time).astype(int).tolist(), strict=True)
    return replace(tracks, speaking=np.float32([10.0 if row in talks else -10.0 for row in rows]))


@cache
def active_speaker_detection():
    """The shipped scorer, loaded once."""
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    return ActiveSpeakerDetection(scorer="compact-asd+synchrony")


def speaking(shard, waveform, path: Path):
    """Face tracks with speaking scores, which are kept in a file."""
    tracks = shard.face_tracks
    if not path.is_file():
        scored, _ = score_faces(
            active_speaker_detection(), waveform, stored_segments(shard), tracks
        )
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, scored.speaking)
    return replace(tracks, speaking=np.load(path))


def excerpts(data: Path) -> Iterator[tuple[dict, dict]]:
    """The AMI excerpts, which have no faces."""
    from pyannote_av.clustering.windowed_file import ScoredFaces
    from pyannote_av.core.io import Video
    from pyannote_av.core.tracks import FaceSamples, FaceTracks

    for one in ami(data):
        waveform = Video().waveform(one["audio"])
        file = {
            "uri": one["uri"],
            "waveform": waveform,
            "sample_rate": 16000,
            "problems": [],
            "annotation": one["annotation"],
            "annotated": one["annotated"],
            "lab": one["annotation"].get_timeline().support().crop(one["annotated"]),
        }
        nobody = ScoredFaces(FaceTracks.empty(uri=one["uri"]), FaceSamples.none())
        yield file, {"oracle": nobody, "automatic": nobody}


# ------------------------------------------------------------------------------------ scoring


def settings(system: System, vad: str) -> Iterator[dict[str, Any]]:
    """All combinations of hyper-parameters to try."""
    grid = {**system.grid}
    if system.faces and vad == "automatic":
        grid["talking"] = TALKING
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def prepared(system: System, work: Path, seed: int, vad: str):
    """The pipeline of a system, in training mode, so that its steps are cached."""
    pipeline = system.make(work, seed, oracle_vad=vad == "oracle", embedder=None)
    pipeline.training = True
    return pipeline


def diarize(pipeline, files, chosen: Mapping[str, Any], missing: float = 0.0, seed: int = 0):
    """Hypotheses of files, by uri."""
    pipeline.instantiate({**pipeline.default_parameters(), **chosen})
    pipeline.missing_rate, pipeline.seed = missing, seed
    return {file["uri"]: pipeline(file, scored_faces=faces) for file, faces in files}


def total(files, hypotheses) -> dict[str, Any]:
    """Scores of all files together and of each, by rule."""
    from pyannote_av.evaluation.diarization import score_file

    found: dict[str, Any] = {}
    for file, _ in files:
        scores = score_file(file["annotation"], hypotheses[file["uri"]], file["annotated"])
        for rule, one in scores.items():
            found.setdefault(rule, {})[file["uri"]] = [
                one.total, one.false_alarm, one.missed, one.confusion,
                one.speakers, one.guessed,
            ]  # fmt: skip
    return found


def error(scores: Mapping[str, list[float]], part: str = "DER") -> float:
    """DER, or a part of it, of all files together, in percent."""
    rows = np.array(list(scores.values()))[:, :4].sum(axis=0)
    wrong = {"DER": rows[1:].sum(), "FA": rows[1], "MISS": rows[2], "SPKE": rows[3]}[part]
    return 100 * float(wrong) / float(rows[0])


def once(path: Path, compute: Callable[[], Any]) -> Any:
    """Compute, or read what was computed before."""
    if not path.is_file():
        write_text(path, json.dumps(compute()))
    return json.loads(path.read_text(encoding="utf-8"))


def seeds_of(system: System, seeds: list[int]) -> list[int]:
    """Seeds that make a difference."""
    return seeds if system.network or system.seeds else seeds[:1]


def compare(corpus: Path, data: Path, work: Path, seeds: list[int], names: list[str]) -> None:
    """Choose thresholds on development files; score test files, and excerpts."""
    sets = {
        "development": list(simulated(corpus, data, work, "development")),
        "test": list(simulated(corpus, data, work, "test")),
        "ami": list(excerpts(data)),
    }
    for name in names:
        system = SYSTEMS[name]
        for seed, vad in product(seeds_of(system, seeds), ("oracle", "automatic")):
            place = work / "scores" / f"{name}-{seed}-{vad}"
            if (place / "done").is_file():
                continue
            pipeline = prepared(system, work, seed, vad)
            files = {
                part: [(file, faces[vad]) for file, faces in some] for part, some in sets.items()
            }

            def choose(pipeline=pipeline, system=system, vad=vad, some=files["development"]):
                tried = []
                for chosen in settings(system, vad):
                    scores = total(some, diarize(pipeline, some, chosen))
                    tried.append((error(scores[TUNED_ON]), json.dumps(chosen)))
                return min(tried)

            value, chosen = once(place / "chosen.json", choose)
            chosen = json.loads(chosen)
            logger.info("%s, seed %d, %s: %s (%.2f)", name, seed, vad, chosen, value)
            for rate in RATES if system.faces and vad == "oracle" else RATES[:1]:

                def score(pipeline=pipeline, chosen=chosen, rate=rate, some=files["test"], s=seed):
                    return total(some, diarize(pipeline, some, chosen, rate, s))

                once(place / f"test-{rate}.json", score)
            some = files["ami"]
            once(
                place / "ami.json",
                lambda p=pipeline, c=chosen, some=some: total(some, diarize(p, some, c)),
            )
            write_text(place / "done", "")


# ------------------------------------------------------------------------------------ report


def scores_of(work: Path, name: str, seed: int, vad: str, what: str) -> dict[str, Any]:
    """Scores that :func:`compare` wrote."""
    path = work / "scores" / f"{name}-{seed}-{vad}" / f"{what}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def report(work: Path, results: Results, seeds: list[int], names: list[str]) -> None:
    """Tables, plot, and significance of differences."""
    result: dict[str, Any] = {"systems": {}, "differences": {}}
    for name in names:
        system = SYSTEMS[name]
        mine = seeds_of(system, seeds)
        row: dict[str, Any] = {}
        for vad, rule in product(("oracle", "automatic"), ("Full", "Fair")):
            found = [scores_of(work, name, seed, vad, "test-0.0")[rule] for seed in mine]
            for part in ("DER", "SPKE"):
                row[f"{vad} {rule} {part}"] = [error(one, part) for one in found]
            ami = [scores_of(work, name, seed, vad, "ami")[rule] for seed in mine]
            row[f"AMI {vad} {rule} DER"] = [error(one) for one in ami]
        rates = RATES if system.faces else (0.0,) * len(RATES)
        curve = [
            [
                error(scores_of(work, name, seed, "oracle", f"test-{rate}")["Fair"], "SPKE")
                for seed in mine
            ]
            for rate in rates
        ]
        row["missing"] = [float(np.mean(values)) for values in curve]
        row["average SPKE"] = [float(v) for v in np.mean(curve, axis=0)]
        counts = [scores_of(work, name, s, "oracle", "test-0.0")["Full"].values() for s in mine]
        row["count accuracy"] = [
            100 * float(np.mean([c[4] == c[5] for c in one])) for one in counts
        ]
        result["systems"][name] = row
    others = "speech", "speech + face", "AVR-Net, alone", "DIMNet", "GMU"
    pairs = [("AVR-Net", other) for other in others]
    pairs += [("speech + face", "speech"), ("GMU", "speech"), ("AVR-Net", "VBx")]
    pairs += [
        ("CYS-MSD", other) for other in ("speech", "speech + face", "AVR-Net", "CYS-MSD, alone")
    ]
    pairs += [
        ("CYS-MSD, alone", f"CYS-MSD, alone, {other}") for other in ("threshold", "published")
    ]
    for first, second in (pair for pair in pairs if set(pair) <= set(names)):
        for vad in ("oracle", "automatic"):
            one = difference(work, first, second, vad, seeds)
            result["differences"][f"{first} - {second}, {vad}"] = one
    results.write("window_systems", result)
    results.text("window_systems.txt", tables(result))
    results.plot("window_systems.png", lambda path: plot(result, path))


def difference(work: Path, first: str, second: str, vad: str, seeds: list[int]) -> dict[str, Any]:
    """Difference of DER of two systems, averaged over seeds, with range and p-value."""
    from pyannote_av.evaluation.significance import bootstrap, permutation

    wrong = {}
    for name in (first, second):
        mine = seeds_of(SYSTEMS[name], seeds)
        found = [scores_of(work, name, seed, vad, "test-0.0")["Full"] for seed in mine]
        wrong[name] = np.mean([[sum(f[1:4]) for f in one.values()] for one in found], axis=0)
        spoken = np.array([f[0] for f in found[0].values()])
    change = wrong[first] - wrong[second]
    low, high, _ = bootstrap(change, spoken)
    return {
        "difference": 100 * float(change.sum() / spoken.sum()),
        "range": [100 * low, 100 * high],
        "p permutation": permutation(change),
    }


def tables(result: Mapping[str, Any]) -> str:
    """All figures, as text."""

    def cell(values: list[float]) -> str:
        reach = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
        return f"{np.mean(values):.2f}{reach}"

    lines = [
        "Simulated conversations in noise, tracks given: mean (range) of seeds, in percent.",
        "c0, c.25: collar of 0 and of 0.25 s on either side, overlap scored; thresholds are chosen",
        "at c0. average: mean SPKE (oracle, c.25) over shares of missing faces. count: oracle.",
        "",
    ]
    columns = {
        "oracle c0 DER": "oracle Full DER",
        "SPKE": "oracle Full SPKE",
        "c.25 DER": "oracle Fair DER",
        "SPKE ": "oracle Fair SPKE",
        "automatic c0 DER": "automatic Full DER",
        "c.25 DER ": "automatic Fair DER",
        "average": "average SPKE",
        "count": "count accuracy",
        "AMI oracle c0": "AMI oracle Full DER",
        "AMI automatic c0": "AMI automatic Full DER",
    }
    rows = [
        {"system": name} | {title: cell(row[key]) for title, key in columns.items()}
        for name, row in result["systems"].items()
    ]
    lines.append(markdown(rows))
    lines += ["", "SPKE (oracle, c.25) with a share of faces missing: " + str(RATES)]
    for name, row in result["systems"].items():
        lines.append(f"{name:>20}: " + "  ".join(f"{v:5.2f}" for v in row["missing"]))
    lines += ["", "Differences of DER at c0 (95 %), p of permutation of files"]
    for name, one in result["differences"].items():
        low, high = one["range"]
        lines.append(
            f"{name:>40}: {one['difference']:+6.2f} ({low:+.2f} to {high:+.2f})  "
            f"p = {one['p permutation']:.4f}"
        )
    return "\n".join(lines) + "\n"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """DER of all systems, and SPKE by share of missing faces."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    names = list(result["systems"])
    for k, vad in enumerate(("oracle", "automatic")):
        values = [result["systems"][name][f"{vad} Full DER"] for name in names]
        means = np.array([np.mean(v) for v in values])
        reach = [means - [min(v) for v in values], [max(v) for v in values] - means]
        axes[0].barh(np.arange(len(names)) + 0.4 * k, means, 0.4, xerr=reach, label=vad)
    axes[0].set_yticks(np.arange(len(names)) + 0.2, names)
    axes[0].set(xlabel="DER (%), collar 0, overlap scored", title="Test files")
    axes[0].invert_yaxis()
    axes[0].legend()
    for k, name in enumerate(names):
        style = "-" if SYSTEMS[name].faces else ":"
        values, colour = result["systems"][name]["missing"], colormaps["tab20"](k)
        axes[1].plot(RATES, values, style, marker="o", label=name, color=colour)
    axes[1].set(
        xlabel="share of talking faces that are missing",
        ylabel="SPKE (%), oracle, collar 0.25",
        title="Missing faces",
        yscale="log",
    )
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)


def run(given: argparse.Namespace, results: Results) -> None:
    """Run the parts, in order."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    if "train" in given.only:
        from pyannote_av.data.crop_store import CropStore
        from pyannote_av.data.face_embeddings import build_face_embeddings

        build_face_embeddings(CropStore(given.corpus), interval=4.0, progress=True)
        if any(SYSTEMS[name].network for name in given.systems):
            embed(given.corpus, given.data)
        for seed in given.seeds:
            train(given.corpus, given.work, seed, given.systems, given.epochs)
    if "compare" in given.only:
        from pyannote_av.core.caching import use
        from pyannote_av.tuning.cache import Cache

        with use(Cache(given.work / "cache")):
            compare(given.corpus, given.data, given.work, given.seeds, given.systems)
    if "report" in given.only:
        report(given.work, results, given.seeds, given.systems)
