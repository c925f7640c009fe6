"""Reproduce the shipped weights of the systems that cluster windows of speech.

    python -m recipes.simulated.window_weights DATA WORK [--scale 1.0] [--seed 0] [--seconds 300]

The script runs these steps:

1. Embed voices and faces of many people (:mod:`recipes.simulated.people`).
2. Fit the PLDA of VBx to the training voices.
3. Calibrate the similarity of voices and faces, and train the network that corrects it, AVR-Net,
   with several losses.
4. Train the embeddings and the speaker counter of CYS-MSD, and a speaker counter for the scores of
   AVR-Net.
5. Choose the thresholds, and the AVR-Net with the least confusion, on recordings composed of the
   embeddings of development people.
6. Write all figures to WORK/window_errors.json, and the pipeline folders to WORK/pretrained.
   ``cysmsd`` is AVR-Net with its speaker counter. It is left out if a threshold counts better.

Existing results are not computed again. With ``--seconds``, the command stops between two parts
after the given time, to be continued later.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from pyannote_av.clustering.linkage import pair_clusters
from pyannote_av.clustering.people import People, PeopleEpisodes, PeopleRecordings
from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import read_json
from recipes.simulated import people as embedded

if TYPE_CHECKING:
    import torch

#: steps of training
STEPS = {"calibration": 150, "relation": 600, "embeddings": 250, "counting": 1500, "counter": 3000}
#: number of recordings whose trees a counter learns from: trees of voices, and of scores of AVR-Net
TREES = {"counting": 2500, "counter": 4000}
#: share of training windows that also contain another speaker
BLENDED = 0.3
#: largest number of speakers that can be counted
MOST = 10
#: development recordings: how many of each size and number of speakers
EACH, SPEAKERS = 4, range(2, 9)
#: likewise, to compare a threshold with the counter of AVR-Net
COUNTS = 20
#: numbers of windows: for scores of pairs of windows, and for counts, from 30 s to 5 minutes
SIZES, SIZES_OF_COUNTS = (40, 160), (40, 160, 400)
#: most windows of a recording from which the counter of AVR-Net learns
LONGEST = 300
#: thresholds to try, for scores in (0, 1)
THRESHOLDS = np.round(np.arange(0.02, 0.99, 0.02), 2)
#: segments of each speaker for the PLDA, and their duration in seconds
SEGMENTS, DURATION = 3, 2.0


# --------------------------------------------------------------------------------------- training


def calibrate(model, people: People, steps: int, seed: int) -> None:
    """Fit the calibration of similarities; both outcomes have the same weight in each case."""
    import torch
    import torch.nn.functional as F

    batches, found = PeopleEpisodes(people, seed=seed), []
    for step in range(steps):
        batch = batches[step]
        ways = batch["audio"].shape[2]
        for voices, faces, visible in zip(
            *(batch[k] for k in ("audio", "faces", "visible")), strict=True
        ):
            alike = [F.normalize(x[0], dim=1) @ F.normalize(x[1], dim=1).T for x in (voices, faces)]
            seen = visible[0].unsqueeze(1).expand(ways, ways), visible[1].expand(ways, ways)
            found.append([x.flatten() for x in (*alike, *seen, torch.eye(ways))])
    voice, face, visible_a, visible_b, same = (torch.cat(x) for x in zip(*found, strict=True))
    case = visible_a.long() + visible_b.long()
    weight = torch.zeros_like(same)
    for k in range(3):
        for outcome in (0, 1):
            rows = (case == k) & (same == outcome)
            weight[rows] = 1 / rows.sum()
    fitted = model.similarity
    optimizer = torch.optim.LBFGS(fitted.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        odds = fitted(voice, face, visible_a, visible_b)
        value = F.binary_cross_entropy_with_logits(odds, same, weight, reduction="sum")
        value.backward()
        return value

    optimizer.step(loss)


def compare(model, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (orders, pairs) of all pairs of support and query windows, and their labels."""
    from pyannote_av.clustering.pair_scores import episode_scores

    sound, faces, visible = batch["audio"], batch["faces"], batch["visible"]
    shape = sound.shape[:3]
    audio = model.audio_map(sound.flatten(0, 2)).unflatten(0, shape)
    face = model.face_map(faces.flatten(0, 2), visible.flatten()).unflatten(0, shape)
    return episode_scores(model, audio, face, visible, batch["speakers"])


def fit(
    model,
    batches: Any,
    loss_of: Callable[[Any, Any], torch.Tensor],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    trained: tuple[str, ...],
    name: str,
) -> None:
    """Train modules of a network on batches, with Adam and a cosine schedule."""
    import torch

    learnt = [p for n, p in model.named_parameters() if n.split(".")[0] in trained]
    optimizer = torch.optim.AdamW(learnt, lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    mean, began = 0.0, perf_counter()
    for step in range(steps):
        loss = loss_of(model, batches[step])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 5.0)
        optimizer.step()
        schedule.step()
        mean += (loss.item() - mean) / min(step + 1, 50)
        if (step + 1) % max(1, steps // 4) == 0:
            print(f"{name} {step + 1}: {mean:.4f}, {perf_counter() - began:.0f} s", flush=True)
    model.eval()
    stage = {"name": name, "train": list(trained)}
    model.lineage = [*model.lineage, {"stage": stage, "steps": steps, "seed": batches.seed}]


def squared_error(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Squared error of scores, as published; see ``PairwiseRelation``."""
    scores, same = compare(model, batch)
    return batch["speakers"].shape[1] * (scores - same.to(scores)).square().mean()


def cross_entropy(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of scores, with the same weight for both outcomes."""
    import torch
    import torch.nn.functional as F

    scores, same = compare(model, batch)
    same = same.expand_as(scores).to(scores)
    weight = torch.where(same > 0, 0.5 / same.mean(), 0.5 / (1 - same.mean()))
    return F.binary_cross_entropy(scores.clamp(1e-6, 1 - 1e-6), same, weight)


#: losses of pairs
LOSSES = {"squared error": squared_error, "cross entropy": cross_entropy}


def embedding_loss(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Losses of CYS-MSD for activity and similarity of windows; see ``SpeakerCounting``."""
    from pyannote_av.clustering.counting_losses import activity_loss, nt_xent

    names = "speaker_embeddings", "faces", "face_mask", "window_mask"
    output = model(*(batch[name] for name in names))
    activity = activity_loss(output.activity_logits, batch["y"]).mean()
    return activity + nt_xent(output.embeddings, batch["y"]).mean()


class Trees:
    """Linkage trees of composed recordings, and their numbers of speakers, in random batches.

    The trees depend on frozen networks only, so they are computed once.

    Parameters
    ----------
    features : (recordings, 25) tensor
    speakers : (recordings,) tensor
    batch_size, seed : int, optional
    """

    def __init__(
        self,
        features: torch.Tensor,
        speakers: torch.Tensor,
        batch_size: int = 128,
        seed: int = 0,
    ):
        self.features, self.speakers = features, speakers
        self.batch_size, self.seed = batch_size, seed

    @classmethod
    def of_recordings(
        cls,
        composed: PeopleRecordings,
        count: int,
        distance: Callable[[dict], np.ndarray],
        batch_size: int = 128,
    ) -> Trees:
        """Trees of the distances of the first recordings."""
        import torch
        from scipy.cluster.hierarchy import linkage

        from pyannote_av.clustering.linkage_tree import features_of_tree

        features, speakers = [], []
        for number in range(count):
            one = composed.recording(np.random.default_rng([composed.seed, number]))
            features.append(features_of_tree(linkage(distance(one), "average")))
            speakers.append(one["y"].shape[1])
        found = torch.from_numpy(np.array(features)), torch.tensor(speakers)
        return cls(*found, batch_size, composed.seed)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = np.random.default_rng([self.seed, index]).integers(
            len(self.speakers), size=self.batch_size
        )
        return self.features[rows], self.speakers[rows]


def count_loss(model, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of the number of speakers, for CYS-MSD or a ``TreeCounter``."""
    import torch.nn.functional as F

    from pyannote_av.clustering.tree_counter import TreeCounter

    features, speakers = batch
    if isinstance(model, TreeCounter):
        logits = model(features)
    else:
        logits = model.counter(model.tree_norm(features))
    return F.cross_entropy(logits, speakers - 1)


# ------------------------------------------------------------------------------- development people


class Errors(NamedTuple):
    """Share of windows with a wrong speaker, and share of recordings with a wrong count."""

    confusion: float
    miscounted: float


def recordings(
    people: People, sizes: tuple[int, ...], listeners: bool, seed: int = 1, each: int = EACH
) -> list[dict[str, np.ndarray]]:
    """Composed recordings of 2 to 8 speakers, with the given numbers of windows."""
    composed = PeopleRecordings(people, listeners=listeners, mixed=0.0)
    return [
        composed.recording(np.random.default_rng([seed, windows, speakers, k]), speakers, windows)
        for windows in sizes
        for speakers in SPEAKERS
        for k in range(each)
    ]


def confusion(y: np.ndarray, clusters: np.ndarray) -> float:
    """Share of windows whose cluster is not that of a speaker, after the best assignment."""
    from scipy.optimize import linear_sum_assignment

    hits = np.eye(clusters.max() + 1)[clusters].T @ y
    rows, columns = linear_sum_assignment(-hits)
    return 1 - hits[rows, columns].sum() / len(y)


def errors(files: list[dict], clusters: Iterable[np.ndarray]) -> Errors:
    """Mean errors of recordings."""
    found = [
        (confusion(one["y"], c), c.max() + 1 != one["y"].any(axis=0).sum())
        for one, c in zip(files, clusters, strict=True)
    ]
    return Errors(*(float(x) for x in np.mean(found, axis=0)))


def best(
    files: list[dict], distances: list[np.ndarray], key: Callable[[Errors], Any] = tuple
) -> tuple[float, Errors]:
    """Threshold with the least confusion, or the least `key`. Scores are 1 minus distances."""
    from scipy.cluster.hierarchy import fcluster, linkage

    trees, tried = [linkage(one, "average") for one in distances], []
    for threshold in THRESHOLDS.tolist():
        clusters = (fcluster(tree, 1 - threshold, "distance") - 1 for tree in trees)
        tried.append((errors(files, clusters), threshold))
    least, threshold = min(tried, key=lambda one: (key(one[0]), one[1]))
    return threshold, least


def cosines(files: list[dict], faces: bool) -> list[np.ndarray]:
    """Distances of ``SimilarityDiarization``."""
    from scipy.spatial.distance import squareform

    found = []
    for one in files:
        voices, face, visible = (one[k] for k in ("speaker_embeddings", "faces", "face_mask"))
        alike = voices @ voices.T
        if faces:
            face = face / np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-6)
            both = visible[:, None] & visible
            alike = np.where(both, (alike + face @ face.T) / 2, alike)
        found.append(squareform(1 - alike, checks=False).clip(min=0))
    return found


def scores(files: list[dict], model) -> list[np.ndarray]:
    """Distances of a relation network."""
    import torch

    from pyannote_av.clustering.pair_scores import score_pairs

    found = []
    with torch.inference_mode():
        for one in files:
            voices, faces, visible = (
                torch.from_numpy(one[k]) for k in ("speaker_embeddings", "faces", "face_mask")
            )
            audio, face = model.audio_map(voices), model.face_map(faces, visible)
            found.append(1 - score_pairs(model, audio, face, visible, block=8192).numpy())
    return found


def counted(files: list[dict], model) -> tuple[list[np.ndarray], np.ndarray]:
    """Distances of embeddings of CYS-MSD, and predicted counts."""
    import torch
    from scipy.spatial.distance import pdist

    names, distances, counts = ("speaker_embeddings", "faces", "face_mask"), [], []
    with torch.inference_mode():
        for one in files:
            output = model(*(torch.from_numpy(one[name])[None] for name in names))
            distances.append(pdist(output.embeddings[0].double().numpy(), "cosine"))
            counts.append(max(1, round(float(output.count))))
    return distances, np.array(counts)


# ------------------------------------------------------------------------------------------- steps


def plda(data: Path, into: Path) -> None:
    """Fit the PLDA of VBx to the training voices, in their rooms."""
    import torch
    from pyannote.core import Annotation, Segment

    from pyannote_av.clustering.plda import fit_plda, plda_embeddings, save_plda

    every = embedded.rooms(data, "train")
    rng = np.random.default_rng(0)

    def files() -> Iterator[dict]:
        for path in embedded.speakers(data, "train"):
            clean, size = embedded.utterance(path, 1.0), round(DURATION * 16000)
            # each segment in a room of its own
            parts = [
                every[rng.integers(len(every))].record(clean[first : first + size], rng)
                for first in range(0, len(clean) - size + 1, size)
            ]
            turns = Annotation(uri=path.stem)
            turns[Segment(0, len(parts) * DURATION)] = "speaker"
            waveform = torch.from_numpy(np.concatenate(parts))[None]
            known = {"uri": turns.uri, "annotation": turns, "scope": "file"}
            yield {**known, "waveform": waveform, "sample_rate": 16000}

    found = plda_embeddings(files(), duration=DURATION, most=SEGMENTS)
    save_plda(into, fit_plda(found.embeddings, found.speakers))


def calibrated(people: People, into: Path, seed: int):
    """Calibrate similarities: AVR-Net whose correction is zero."""
    import torch

    from pyannote_av.clustering.embedded import CorrectedSimilarity

    torch.manual_seed(seed)
    model = CorrectedSimilarity(people.voice.shape[1], people.face.shape[1])
    calibrate(model, people, STEPS["calibration"], seed)
    model.save(into)


def relation(people: People, into: Path, loss: str, scale: float, seed: int):
    """Train the correction of AVR-Net."""
    import torch

    from pyannote_av.core.model import Model

    torch.manual_seed(seed)
    model = Model.from_pretrained(into.with_name("relation-calibrated"))
    batches = PeopleEpisodes(people, blended=BLENDED, seed=seed)
    steps, trained = ceil(scale * STEPS["relation"]), ("mask", "correction")
    fit(model, batches, LOSSES[loss], steps, 5e-4, 1e-4, trained, f"relation, {loss}")
    model.save(into)


def embeddings(people: People, into: Path, scale: float, seed: int):
    """Train the embeddings of CYS-MSD."""
    import torch

    from pyannote_av.clustering.cysmsd import CYSMSD

    torch.manual_seed(seed)
    dimensions = people.voice.shape[1], people.face.shape[1]
    model = CYSMSD(*dimensions, max_speakers=MOST, counter="tree", dropout=0.3, corrects=True)
    batches = PeopleRecordings(people, batch_size=4, windows=(20, 200), seed=seed)
    trained = "acoustic", "visual", "fusion", "activity", "correction"
    steps = ceil(scale * STEPS["embeddings"])
    fit(model, batches, embedding_loss, steps, 5e-4, 1e-2, trained, "embeddings")
    model.save(into)


def counting(people: People, into: Path, scale: float, seed: int):
    """Train the speaker counter of CYS-MSD."""
    import torch

    from pyannote_av.core.model import Model

    torch.manual_seed(seed)
    model = Model.from_pretrained(into.with_name("cysmsd-embeddings"))
    composed = PeopleRecordings(people, speakers=(1, MOST), seed=seed)
    trees = Trees.of_recordings(
        composed, ceil(scale * TREES["counting"]), lambda one: cosines([one], faces=False)[0]
    )
    steps, trained = ceil(scale * STEPS["counting"]), ("tree_norm", "counter")
    fit(model, trees, count_loss, steps, 1e-3, 1e-2, trained, "counting")
    model.save(into)


def half(people: People, number: int) -> People:
    """Every other person."""
    voices, faces = people.voice_person % 2 == number, people.face_person % 2 == number
    return People(
        people.voice[voices],
        people.voice_person[voices],
        people.voice_room[voices],
        people.face[faces],
        people.face_person[faces],
    )


def tree_counter(people: People, into: Path, scale: float, seed: int):
    """Train the speaker counter for the scores of AVR-Net.

    AVR-Net knows its training people better than others, so their trees would be too good. Two
    AVR-Nets are trained on one half of the people each, and score recordings of the other half.
    """
    import torch

    from pyannote_av.clustering.tree_counter import TreeCounter
    from pyannote_av.core.model import Model

    found = []
    for number in range(2):
        known, folder = half(people, number), into.with_name(f"half-{number}") / COUNTED
        if not folder.is_dir():
            calibrated(known, folder.with_name("relation-calibrated"), seed)
            relation(known, folder, COUNTED, scale, seed)
        model = Model.from_pretrained(folder)
        composed = PeopleRecordings(
            half(people, 1 - number),
            speakers=(1, MOST),
            windows=(20, LONGEST),
            listeners=False,
            seed=seed + number,
        )
        count = ceil(scale * TREES["counter"] / 2)
        found.append(Trees.of_recordings(composed, count, lambda one, m=model: scores([one], m)[0]))
    trees = Trees(
        *(torch.cat([getattr(one, name) for one in found]) for name in ("features", "speakers")),
        seed=seed,
    )
    torch.manual_seed(seed)
    model = TreeCounter(MOST)
    steps = ceil(scale * STEPS["counter"])
    fit(model, trees, count_loss, steps, 1e-3, 1e-1, ("norm", "head"), "counter")
    model.save(into)


def figures(people: People, work: Path) -> dict[str, Any]:
    """Best thresholds and errors of all systems on composed development recordings."""
    from pyannote_av.core.model import Model

    if (kept := work / "window_errors.json").is_file():
        return read_json(kept)
    found: dict[str, Any] = {}

    def note(name: str, threshold: float | None, wrong: Errors) -> None:
        found[name] = {"threshold": threshold, **wrong._asdict()}
        print(f"{name}: {found[name]}", flush=True)

    files = recordings(people, SIZES, listeners=False)
    note("speech", *best(files, cosines(files, faces=False)))
    note("similarity", *best(files, cosines(files, faces=True)))
    for name in RELATIONS:
        model = Model.from_pretrained(work / f"relation-{name}")
        note(f"relation-{name}", *best(files, scores(files, model)))
    network, counter = (Model.from_pretrained(work / n) for n in (f"relation-{COUNTED}", "counter"))
    # one threshold for all sizes, with which the count is right most often, on other recordings
    others = recordings(people, SIZES_OF_COUNTS, listeners=False, seed=2, each=COUNTS // 2)
    threshold, _ = best(others, scores(others, network), key=lambda wrong: wrong.miscounted)
    for size in SIZES_OF_COUNTS:
        some = recordings(people, (size,), listeners=False, each=COUNTS)
        distances = scores(some, network)
        ways = {"threshold": {"threshold": 1 - threshold}, "counter": {"counter": counter.count}}
        for name, options in ways.items():
            options = {"threshold": 0.0, **options}
            clusters = (pair_clusters(one, **options) for one in distances)
            fixed = threshold if name == "threshold" else None
            note(f"AVR-Net, {name}, {size} windows", fixed, errors(some, clusters))
    # as published, CYS-MSD averages all visible faces
    model = Model.from_pretrained(work / "cysmsd")
    for size in SIZES_OF_COUNTS:
        files = recordings(people, (size,), listeners=True)
        voices = cosines(files, faces=False)
        note(f"speech, {size} windows", *best(files, voices))
        corrected, counts = counted(files, model)
        note(f"corrected speech, {size} windows", *best(files, corrected))
        for name, distances in (("speech", voices), ("corrected speech", corrected)):
            clusters = (
                pair_clusters(d, 0.0, int(n)) for d, n in zip(distances, counts, strict=True)
            )
            note(f"{name} and count, {size} windows", None, errors(files, clusters))
    write_text(kept, json.dumps(found, indent=1) + "\n")
    return found


#: AVR-Nets to choose from
RELATIONS = ("calibrated", *LOSSES)
#: loss of the AVR-Net whose scores are counted
COUNTED = "cross entropy"
#: class and parameters of the pipeline of each folder
PIPELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "avrnet": ("relation_diarization.RelationDiarization", {"relation": "$model/relation"}),
    "cysmsd": (
        "relation_diarization.RelationDiarization",
        {"relation": "$model/relation", "counter": "$model/counter"},
    ),
    "vbx": ("vbx_diarization.VBxDiarization", {"plda": "$model/plda", "embedder": None}),
    "similarity": ("similarity_diarization.SimilarityDiarization", {}),
    "enrolment": ("enrolment_pipeline.EnrolmentDiarization", {}),
    "joint": ("joint_diarization.JointDiarization", {}),
}


def assemble(work: Path, found: dict[str, Any]) -> list[Path]:
    """Write the pipeline folders, with cards, in WORK/pretrained."""
    from pyannote_av import Pipeline
    from pyannote_av.sharing.atomic_folder import new_folder
    from pyannote_av.sharing.card import write_card

    about = Path(__file__).with_name("about_windows.md").read_text(encoding="utf-8")
    installed = {name: version(name) for name in ("pyannote.audio", "pyannote-av")}
    networks = [f"relation-{name}" for name in RELATIONS]
    network = min(networks, key=lambda name: found[name]["confusion"])
    sources = {"relation": network, "counter": "counter", "plda": "plda"}
    chosen = {
        "avrnet": {"threshold": found[network]["threshold"]},
        "cysmsd": {"threshold": found[f"relation-{COUNTED}"]["threshold"]},  # without counter
        "similarity": {"threshold": found["similarity"]["threshold"]},
    }
    by_threshold, by_counter = (
        sum(found[f"AVR-Net, {name}, {size} windows"]["miscounted"] for size in SIZES_OF_COUNTS)
        for name in ("threshold", "counter")
    )
    helps = by_counter < by_threshold
    if not helps:
        print("cysmsd is left out: a threshold counts better")
    written = []
    for name, (path, params) in PIPELINES.items():
        if name == "cysmsd" and not helps:
            continue
        with new_folder(work / "pretrained" / name, overwrite=True) as folder:
            for argument, value in params.items():
                if isinstance(value, str):
                    counted = name == "cysmsd" and argument == "relation"
                    source = work / (f"relation-{COUNTED}" if counted else sources[argument])
                    (folder / argument).mkdir()
                    for one in source.iterdir():
                        (folder / argument / one.name).write_bytes(one.read_bytes())
            params = {"segmentation": "segmentation-3.0", "embedding": "campplus", **params}
            pipeline = {"name": f"pyannote_av.clustering.{path}", "params": params}
            config = {"dependencies": installed, "pipeline": pipeline}
            write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            usual = Pipeline.from_pretrained(folder).default_parameters()
            config["params"] = usual | chosen.get(name, {})
            write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            trained = any(str(value).startswith("$model") for value in params.values())
            write_card(folder, name=name, about=about if trained else None, licence="mit")
        written.append(work / "pretrained" / name)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after this time")
    given = parser.parse_args()
    began, work = perf_counter(), given.work.resolve()
    people = embedded.build(given.data, work, given.seconds)
    if people is None:
        return 3
    known, options = people["train"], (given.scale, given.seed)
    steps: dict[str, Callable[[Path], Any]] = {
        "plda": lambda into: plda(given.data, into),
        "relation-calibrated": lambda into: calibrated(known, into, given.seed),
        **{
            f"relation-{loss}": lambda into, loss=loss: relation(known, into, loss, *options)
            for loss in LOSSES
        },
        "cysmsd-embeddings": lambda into: embeddings(known, into, *options),
        "cysmsd": lambda into: counting(known, into, *options),
        "counter": lambda into: tree_counter(known, into, *options),
    }
    for name, step in steps.items():
        if (work / name).is_dir():
            continue
        if perf_counter() - began > given.seconds:
            return 3
        start = perf_counter()
        step(work / name)
        print(f"{name}: {perf_counter() - start:.0f} s", flush=True)
    for folder in assemble(work, figures(people["development"], work)):
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
