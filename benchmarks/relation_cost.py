"""Cost of comparing every two windows of a five-minute file with AVR-Net: time and memory.

Example:
    python -m benchmarks relation_cost --windows 600 --threads 2

The backbones process the audio and one face of every window once. Then all pairs are scored in both
orders: by the plain network, whose time is extrapolated from some pairs, and by the scorer of the
pipelines, in both precisions. Weights are random, which does not matter here. Memory is the highest
that the process ever had, which includes torch. Writes relation_cost.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks._runner import Results, peak_memory, rounded

BATCH = 16
#: pairs that the plain network scores
SOME = 4096


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--windows", type=int, default=600, help="number of windows")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")


def seconds(work: Callable[[], object]) -> float:
    """Elapsed time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory() -> float:
    """Highest memory so far, in GB."""
    return peak_memory() / 1024


def run(given: argparse.Namespace, results: Results) -> None:
    """Measure the backbones and all scorers."""
    import torch

    from pyannote_av.clustering.avrnet import FACE_SIZE, AVRNet
    from pyannote_av.clustering.pair_scores import BLOCK, score_pairs

    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model, count = AVRNet().eval(), given.windows
    visible = torch.arange(count) % 2 == 0
    maps: dict[str, list] = {"audio": [], "face": []}
    scores = {}
    with torch.inference_mode():
        faces = torch.randint(256, (BATCH, 1, 3, FACE_SIZE, FACE_SIZE)).byte()
        model.audio_map(torch.randn(BATCH, 1, 32000))  # warm up

        def encode() -> None:
            for first in range(0, count, BATCH):
                size = min(BATCH, count - first)
                maps["audio"].append(model.audio_map(torch.randn(size, 1, 32000)))
                maps["face"].append(model.face_map(faces[:size]))

        found = {"windows": count, "threads": given.threads, "start GB": memory()}
        found["backbones"] = seconds(encode)
        audio, face = torch.cat(maps["audio"]), torch.cat(maps["face"])
        first, second = torch.triu_indices(count, count, 1)
        some = min(SOME, len(first))
        pairs = list(zip(first[:some].split(BLOCK), second[:some].split(BLOCK), strict=True))

        def relate() -> None:
            for a, b in pairs:
                model.relate(audio[a], face[a], audio[b], face[b], visible[a], visible[b])

        found["as it is"] = seconds(relate) * len(first) / some
        found["as it is GB"] = memory()
        for precision in ("fp32", "bf16"):

            def score(precision=precision) -> None:
                scores[precision] = score_pairs(
                    model, audio, face, visible, block=512, precision=precision
                )

            found[precision] = seconds(score)
            found[f"{precision} GB"] = memory()
            found[f"{precision} of backbones"] = found[precision] / found["backbones"]
        found["bf16 difference"] = float((scores["bf16"] - scores["fp32"]).abs().max())
    found = rounded(found, 4)
    for name, value in found.items():
        print(f"{name:20} {value}")
    results.write("relation_cost", found)
