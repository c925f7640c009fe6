"""Train the networks that the claims of HMSA-Net's abstract are tested with.

    python benchmarks/hmsanet_claims.py CORPUS WORK [--seeds 0 1 2] [--only visual|ablation|mso]

CORPUS is what ``recipes/simulated/corpus.py`` made. WORK receives weights; everything is taken up
where it was left, and what is there is kept. Then ``hmsanet_errors.py`` tries them on test files.

(a) Multi-stage optimization against end-to-end training of the same network from pictures, with
    equally many updates, by loss on development files (``--only mso``).
(b) Consistency gates (CGIMA) against ungated cross-attention and concatenation: pictures late by
    up to 0.4 s, of somebody else, missing; noise.
(c) Dense inter-speaker attention (DISA) against a fixed number of places, the mean of the others,
    and none, by overlap and by number of speakers (both ``--only ablation``).

For (b) and (c) the visual encoder is trained once (``--only visual``) and its features are
precomputed; networks of one seed share all stages before the one in which they differ, and go
without the last one, in which everything is trained together.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyannote_av.core.crop_store import CropStore
from pyannote_av.models.segmentation.hmsanet import HMSANet
from pyannote_av.tasks import TargetSpeakerSegmentation
from pyannote_av.training import Stage, optimize
from pyannote_av.training.stages import multi_stage

COMPACT = {"width": 96, "visual": "compact", "face_size": 56, "cgima_layers": 1}
DURATION, BATCH, SLOTS = 4.0, 8, 5
#: steps of an epoch, and epochs: of the visual encoder, and of the stages of (a) and of (b), (c)
STEPS = 100
VISUAL, CLAIM_A, ABLATION = 10, (2, 1, 1, 1, 1), (5, 6, 5)
RATE = 1e-3
FUSIONS = ("cgima", "attention", "concat")
DECODERS = ("disa", "mean", "none", "fixed")


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
        num_workers=0,
        **{"max_slots": SLOTS, "batch_size": BATCH, **kwargs},
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
    model = run(make_model(0), make_task(corpus, work, max_slots=4), stages, folder, 0)
    build_features(CropStore(corpus), model, progress=False)
    return folder / "model.safetensors"


def train_mso(corpus: Path, work: Path, seed: int) -> None:
    """(a): both ways from pictures, from the same initial weights."""
    names = [stage.name for stage in multi_stage()]
    task = make_task(corpus, work, max_slots=4, batch_size=6)
    run(make_model(seed), task, staged(CLAIM_A, names), work / f"mso-{seed}", seed)
    losses = dict(multi_stage()[-1].losses)
    whole = Stage(
        "end_to_end", losses=losses, max_epochs=sum(CLAIM_A), learning_rate=RATE, warm_up=20
    )
    run(make_model(seed), task, [whole], work / f"end_to_end-{seed}", seed)


def train_ablation(corpus: Path, work: Path, seed: int) -> None:
    """(b) and (c): every fusion with DISA, every decoder with CGIMA."""
    visual = str(work / "visual" / "model.safetensors")
    acoustic, fusion, decoder = ABLATION
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
        stages = staged([decoder], ["decoder"], start)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("visual", "ablation", "mso"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    if given.only in (None, "visual"):
        train_visual(given.corpus, given.work)
    for seed in given.seeds:
        if given.only in (None, "ablation"):
            train_ablation(given.corpus, given.work, seed)
        if given.only in (None, "mso"):
            train_mso(given.corpus, given.work, seed)


if __name__ == "__main__":
    main()
