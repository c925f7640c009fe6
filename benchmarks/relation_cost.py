"""What it costs to compare every two windows of a five-minute file with AVR-Net.

    python benchmarks/relation_cost.py [--windows 600] [--threads 2] [--into benchmarks/results]

Backbones look at every window once, at its sound and at one face, and then all pairs are scored in
both orders: in blocks by the network as it is, for as many pairs as it takes to know its speed; and
all of them by the scorer that pipelines use, in both precisions. Weights are those of chance: they
do not matter here. Memory is the highest that the process ever had, which includes torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pyannote_av.clustering.avrnet import FACE_SIZE, AVRNet
from pyannote_av.clustering.pairs import BLOCK, score_pairs
from pyannote_av.core.atomic import write_text

BATCH = 16
#: pairs by which the network as it is is judged
SOME = 4096


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory() -> float:
    """Highest memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, count = AVRNet().eval(), given.windows
    visible = torch.arange(count) % 2 == 0
    maps = {"audio": [], "face": []}
    with torch.inference_mode():
        waveforms = torch.randn(BATCH, 1, 32000)
        faces = torch.randint(256, (BATCH, 1, 3, FACE_SIZE, FACE_SIZE)).byte()
        model.audio_map(waveforms)

        def look() -> None:
            for first in range(0, count, BATCH):
                size = min(BATCH, count - first)
                maps["audio"].append(model.audio_map(torch.randn(size, 1, 32000)))
                maps["face"].append(model.face_map(faces[:size]))

        found = {"windows": count, "threads": given.threads, "start GB": memory()}
        found["backbones"] = seconds(look)
        audio, face = torch.cat(maps["audio"]), torch.cat(maps["face"])
        first, second = torch.triu_indices(count, count, 1)
        some = min(SOME, len(first))
        pairs = zip(first[:some].split(BLOCK), second[:some].split(BLOCK), strict=True)

        def relate() -> None:
            for a, b in pairs:
                model.relate(audio[a], face[a], audio[b], face[b], visible[a], visible[b])

        found["as it is"] = seconds(relate) * len(first) / some
        found["as it is GB"] = memory()
        scores = {}
        for precision in ("fp32", "bf16"):

            def score(precision=precision) -> None:
                scores[precision] = score_pairs(
                    model, audio, face, visible, block=512, precision=precision
                )

            found[precision] = seconds(score)
            found[f"{precision} GB"] = memory()
            found[f"{precision} of backbones"] = found[precision] / found["backbones"]
        found["bf16 difference"] = float((scores["bf16"] - scores["fp32"]).abs().max())
    found = {name: round(value, 4) for name, value in found.items()}
    print(json.dumps(found, indent=1))
    write_text(given.into / "relation_cost.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
