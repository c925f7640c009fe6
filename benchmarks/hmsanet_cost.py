"""What HMSA-Net costs: parameters, and time by number of speakers and duration.

    python benchmarks/hmsanet_cost.py [--repeats 3]

Networks with random weights, which cost what trained ones cost, in fp32, given what a visual
encoder made of faces (pipelines encode each face once, however many chunks it is in). Measured is
processor time of one thread, the least of some repeats, which other work on the machine hardly adds
to; for 20 speakers in 8 s also time by the clock with two threads, which it does. Figure and
numbers are written to benchmarks/results/hmsanet_cost.{png,json}. Checks that time is linear in
duration, at most quadratic in the number of speakers, and that 20 speakers are faster than real
time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

from pyannote_av.models.hmsanet.model import LARGE, HMSANet

RESULTS = Path(__file__).parent / "results"
SPEAKERS = (1, 2, 4, 8, 14, 20)
SECONDS = (4, 8, 16, 32)
MODELS = {"compact": {}, "large": LARGE}


def parameters(model: HMSANet) -> dict[str, int]:
    """Number of parameters, in all and by branch."""
    branches = {"all": model, **dict(model.named_children())}
    branches["visual.encoder"] = model.visual.encoder
    return {name: sum(p.numel() for p in part.parameters()) for name, part in branches.items()}


def inputs(model: HMSANet, speakers: int, seconds: int) -> dict[str, torch.Tensor]:
    """A chunk in which everybody is seen and has a voiceprint."""
    torch.manual_seed(0)
    frames = 25 * seconds
    dimension = model.hparams.voiceprint_dimension
    return {
        "waveforms": 0.1 * torch.randn(1, 1, 16000 * seconds),
        "faces": torch.randn(1, speakers, frames, model.visual_dimension),
        "voiceprints": torch.randn(1, speakers, dimension),
        "speaker_features": torch.randn(1, -(-frames // 4), dimension),
    }


def fastest(run: Callable, repeats: int, clock: Callable[[], float] = process_time) -> float:
    """Seconds of the fastest of some repeats, after one to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begin = clock()
            run()
            times.append(clock() - begin)
    return min(times[1:])


def order(sizes: tuple[int, ...], times: list[float]) -> float:
    """Exponent of growth between the two largest sizes: 1 is linear, 2 quadratic."""
    return float(np.log(times[-1] / times[-2]) / np.log(sizes[-1] / sizes[-2]))


def chunk(model: HMSANet, speakers: int, seconds: int, *how) -> float:
    """Seconds that a chunk takes; see :func:`fastest`."""
    data = inputs(model, speakers, seconds)
    return fastest(lambda: model(**data), *how)


def measure(model: HMSANet, repeats: int) -> dict:
    """Time of chunks, and of pictures."""
    torch.set_num_threads(1)
    times = {k: {s: chunk(model, k, s, repeats) for s in SECONDS} for k in SPEAKERS}
    pictures = torch.randint(256, (1, 1, 25, 112, 112)).byte()
    face = fastest(lambda: model.visual_features(pictures), repeats)
    torch.set_num_threads(2)
    clock = chunk(model, 20, 8, 10 * repeats, perf_counter)
    return {
        "parameters": parameters(model),
        "seconds by speakers and duration": times,
        "order in duration": order(SECONDS, [times[8][s] for s in SECONDS]),
        "order in speakers": order(SPEAKERS, [times[k][8] for k in SPEAKERS]),
        "real-time factor of 20 speakers in 8 s": times[20][8] / 8,
        "the same by the clock, two threads": clock / 8,
        "seconds per second of pictures of a face": face,
    }


def plot(results: dict, path: Path) -> None:
    """Time against number of speakers and duration, a column per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, len(MODELS), squeeze=False)
    for name, (top, bottom) in zip(MODELS, axes.T, strict=True):
        times = results[name]["seconds by speakers and duration"]
        for seconds in SECONDS:
            values = [times[k][seconds] for k in SPEAKERS]
            top.plot(SPEAKERS, values, marker="o", label=f"{seconds} s")
        for speakers in SPEAKERS:
            values = [times[speakers][s] for s in SECONDS]
            label = f"{speakers} speaker" + "s" * (speakers > 1)
            bottom.plot(SECONDS, values, marker="o", label=label)
        bottom.plot(SECONDS, SECONDS, color="0.6", linestyle="--", label="real time")
        size = results[name]["parameters"]["all"] / 1e6
        top.set(title=f"{name}: {size:.1f} M parameters", xlabel="speakers", ylabel="time (s)")
        top.set(xticks=SPEAKERS, ylim=(0, None))
        bottom.set(xlabel="duration of the chunk (s)", ylabel="time (s)", xscale="log")
        bottom.set_yscale("log")
        bottom.set_xticks(SECONDS, [str(s) for s in SECONDS])
        bottom.minorticks_off()
        top.legend(fontsize="small")
        bottom.set_ylim(bottom=bottom.get_ylim()[0] / 3)  # room for the legend
        bottom.legend(fontsize="small", loc="lower right", ncols=3)
    figure.suptitle("Processor time per chunk, one thread, fp32")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    results = {"load before": os.getloadavg()[0]}
    for name, hparams in MODELS.items():
        results[name] = measure(HMSANet(**hparams).eval(), arguments.repeats)
    results["load after"] = os.getloadavg()[0]

    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hmsanet_cost.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, RESULTS / "hmsanet_cost.png")
    for name in MODELS:
        for key, value in results[name].items():
            print(f"{name} | {key} | {value}")
    compact = results["compact"]
    assert compact["order in duration"] < 1.3, "not linear in duration"
    assert compact["order in speakers"] < 2.1, "more than quadratic in speakers"
    assert compact["real-time factor of 20 speakers in 8 s"] < 1, "slower than real time"


if __name__ == "__main__":
    main()
