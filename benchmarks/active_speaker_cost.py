"""Time per face and frame of active speaker networks, on one core.

Example:
    python -m benchmarks active_speaker_cost --seconds 6 --repeats 9

Networks with random weights, which cost as much as trained ones, in fp32 and bf16 with torch, and
in fp32 with ONNX Runtime. The time includes the spectrogram and one pass over a face that is
visible throughout. In the pipeline, each further window length of LR-ASD and Light-ASD adds 2 %,
and each of the others a whole pass. Each repeat times every variant once, in random order, and
ratios are computed within repeats, so that other work on the machine affects all variants alike.
Writes active_speaker_cost.json.
"""

from __future__ import annotations

import argparse
import random
from time import perf_counter

import numpy as np

from benchmarks._runner import Results, add, table
from pyannote_av.core.grid import FRAME_RATE, SAMPLES_PER_FRAME

VARIANTS = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "onnxruntime": {"engine": "onnxruntime"},
}
NETWORKS = ("lr-asd", "light-asd", "talknet", "loconet")
REFERENCE = "lr-asd fp32"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seconds", type=int, default=6, help="duration of the face")
    add(parser, "--repeats", default=9)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)


def scorers(networks: list[str], seconds: int) -> dict:
    """Each network in each variant, with one window over the whole face."""
    from pyannote_av.models.active_speaker.network_scorer import NetworkScorer
    from pyannote_av.models.importers import get_network

    found = {}
    for name in dict.fromkeys(["lr-asd", *networks]):
        model = get_network(name)().eval()
        for variant, settings in VARIANTS.items():
            scorer = NetworkScorer(model, window_seconds=(seconds,), **settings)
            found[f"{name} {variant}"] = scorer
    return found


def measure(timed: dict, seconds: int, repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds per face and frame, (repeats,) for each scorer."""
    import torch

    num_frames = round(FRAME_RATE * seconds)
    generator = np.random.default_rng(0)
    noise = 0.1 * generator.standard_normal((1, SAMPLES_PER_FRAME * num_frames))
    waveform = torch.from_numpy(noise).float()
    crops = generator.integers(0, 256, (num_frames, 112, 112), dtype=np.uint8)
    present = np.ones(num_frames, bool)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for repeat in range(-1, repeats):  # the first one warms up
        for name in random.Random(repeat).sample(sorted(timed), len(timed)):
            begin = perf_counter()
            timed[name](waveform, crops, present)
            if repeat >= 0:
                times[name].append(1000 * (perf_counter() - begin) / num_frames)
    return {name: np.array(each) for name, each in times.items()}


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def run(given: argparse.Namespace, results: Results) -> None:
    """Time all networks in all variants."""
    times = measure(scorers(given.networks, given.seconds), given.seconds, given.repeats)
    networks = {
        name: {"ms": quartiles(each), "ratio": quartiles(each / times[REFERENCE])}
        for name, each in times.items()
    }
    rows = [
        {
            "network": name,
            "ms per face and frame": one["ms"]["median"],
            f"relative to {REFERENCE}": one["ratio"]["median"],
            "quartiles": f"{one['ratio']['low']:.2f}-{one['ratio']['high']:.2f}",
        }
        for name, one in networks.items()
    ]
    print(table(rows))
    results.write("active_speaker_cost", {"networks": networks})
