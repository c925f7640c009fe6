"""Time per face and frame of active speaker networks, on one core, paired.

    python benchmarks/networks.py [--seconds 6] [--repeats 9] [--json FILE]

Four networks with random weights, which cost what trained ones cost, in fp32 and bf16 by torch and
in fp32 by ONNX Runtime. What is timed is what scores cost: sound to spectra, and one pass over a
face as long as the sound (LR-ASD and Light-ASD in the pipeline add a fiftieth for each further
window length; the others a whole pass). Each repeat times every variant once, in an order of its
own, so that whatever else the machine does hits all of them: ratios are taken within repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from pyannote_av.models.active_speaker.network_scorer import NetworkScorer
from pyannote_av.models.registry import get_network, published

VARIANTS = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "onnxruntime": {"engine": "onnxruntime"},
}
REFERENCE = "lr-asd fp32"


def scorers(seconds: int) -> dict[str, NetworkScorer]:
    """Every network in every variant, each with a single window over the whole face."""
    found = {}
    for name in published("ActiveSpeakerDetection"):
        model = get_network(name)().eval()
        for variant, options in VARIANTS.items():
            scorer = NetworkScorer(model, window_seconds=(seconds,), **options)
            found[f"{name} {variant}"] = scorer
    return found


def measure(timed: dict[str, NetworkScorer], seconds: int, repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds per face and frame, (repeats,) for each scorer."""
    num_frames = 25 * seconds
    generator = np.random.default_rng(0)
    waveform = torch.from_numpy(0.1 * generator.standard_normal((1, 640 * num_frames))).float()
    crops = generator.integers(0, 256, (num_frames, 112, 112), dtype=np.uint8)
    present = np.ones(num_frames, bool)
    times = {name: [] for name in timed}
    for repeat in range(-1, repeats):  # the first one warms up
        for name in random.Random(repeat).sample(sorted(timed), len(timed)):
            begin = perf_counter()
            timed[name](waveform, crops, present)
            if repeat >= 0:
                times[name].append(1000 * (perf_counter() - begin) / num_frames)
    return {name: np.array(each) for name, each in times.items()}


def summary(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    times = measure(scorers(arguments.seconds), arguments.seconds, arguments.repeats)
    results = {"load before": load, "load after": os.getloadavg()[0], "networks": {}}
    print(f"load {load:.1f} before, {results['load after']:.1f} after")
    print(f"| network | ms per face and frame | relative to {REFERENCE} (quartiles) |")
    print("|---|---|---|")
    for name, each in times.items():
        ratio = summary(each / times[REFERENCE])
        results["networks"][name] = {"ms": summary(each), "ratio": ratio}
        print(
            f"| {name} | {np.median(each):.2f} | "
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
