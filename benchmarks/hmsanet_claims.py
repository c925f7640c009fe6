"""Train the networks that the claims of HMSA-Net's abstract are tested with.

    python benchmarks/hmsanet_claims.py CORPUS WORK [--seeds 0 1 2] [--networks NAME ...]

CORPUS is what ``recipes/simulated/corpus.py`` made. WORK receives weights; everything is taken up
where it was left, and what is there is kept. Then ``hmsanet_errors.py`` tries them on test files.

All networks are of the size of the one that ships and trained as it was
(``recipes/simulated/train/hmsanet-compact.yaml``: one stage, all losses), with fewer updates, on
what the encoder of the active speaker network that ships sees of faces; it does not learn further,
so that its features are computed once.

- ``cgima``: HMSA-Net, end to end.
- ``stages``: the same in the five stages of multi-stage optimization, equally many updates in all.
- ``attention``, ``concat``: cross-attention without gates, and concatenation, instead of CGIMA.
- ``mean``, ``fixed``, ``none``: the mean of the others, a fixed number of places, and nobody,
  instead of DISA.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyannote_av.core.model import read_safetensors
from pyannote_av.core.weights import require
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.visual_features import build_features
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.tasks import TargetSpeakerSegmentation
from pyannote_av.training import Stage, TrainingConfig, optimize
from pyannote_av.training.stages import multi_stage
from recipes.simulated.weights import CONFIGURATIONS, encoder

#: steps of an epoch, and epochs: of one stage, and of five
STEPS, EPOCHS, STAGES = 100, 6, (1, 1, 1, 1, 2)
FUSIONS = ("cgima", "attention", "concat")
DECODERS = ("disa", "mean", "none", "fixed")


@cache
def shipped() -> TrainingConfig:
    """How the network that ships was trained."""
    return TrainingConfig.read(CONFIGURATIONS / "hmsanet-compact.yaml")


def protocol_of(corpus: Path, development: str = "development"):
    """The corpus as a protocol; its test files can take the place of the development files."""
    from pyannote.database import registry

    registry.load_database(corpus / "database.yml")
    protocol = registry.get_protocol("Simulated.SpeakerDiarization.Simulated")
    if development != "development":
        protocol.development = getattr(protocol, development)
    return protocol


def make_task(corpus: Path, work: Path, subset: str = "development") -> TargetSpeakerSegmentation:
    """With features of faces; `subset` is what it is validated on."""
    return TargetSpeakerSegmentation(
        protocol_of(corpus, subset),
        features=True,
        cache=work / f"files-{subset}.npz",
        num_workers=0,
        **{**shipped().task.params, "store": CropStore(corpus)},
    )


def variants() -> dict[str, dict[str, Any]]:
    """Name and hyper-parameters of all networks."""
    return {
        **{fusion: {"fusion": fusion, "decoder": "disa"} for fusion in FUSIONS},
        **{
            decoder: {"fusion": "cgima", "decoder": decoder, "max_targets": 12}
            for decoder in DECODERS[1:]
        },
        "stages": {"fusion": "cgima", "decoder": "disa"},
    }


def plan(name: str, start: Path) -> list[Stage]:
    """How a network is trained."""
    (whole,) = shipped().plan()
    begin = {"start": str(start), "take": ("visual.encoder",)}
    if name != "stages":
        return [whole.model_copy(update={"max_epochs": EPOCHS, **begin})]
    chosen = [
        stage.model_copy(update={"max_epochs": length, "warm_up": 20})
        for stage, length in zip(
            multi_stage(learning_rate=whole.learning_rate), STAGES, strict=True
        )
    ]
    last = chosen[-1].model_copy(
        update={"losses": whole.losses, "learning_rate": whole.learning_rate / 4}
    )
    return [chosen[0].model_copy(update=begin), *chosen[1:-1], last]


def fit(corpus: Path, work: Path, name: str, seed: int) -> HMSANet:
    """One network."""
    torch.manual_seed(seed)
    model = HMSANet(**{**shipped().model.params, **variants()[name]})
    return optimize(
        model,
        make_task(corpus, work),
        plan(name, work / "encoder.safetensors"),
        work / f"{name}-{seed}",
        seed=1000 * seed,
        limit_train_batches=STEPS,
        enable_progress_bar=False,
        precision="bf16-mixed",
        accelerator="cpu",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=list(variants()), choices=variants())
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.work.mkdir(parents=True, exist_ok=True)
    start = encoder(require("compact-asd"), given.work / "encoder.safetensors")
    seen = HMSANet(**shipped().model.params)
    seen.load_state_dict(read_safetensors(start)[0], strict=False)
    build_features(CropStore(given.corpus), seen, progress=True)
    for seed in given.seeds:
        for name in given.networks:
            fit(given.corpus, given.work, name, seed)


if __name__ == "__main__":
    main()
