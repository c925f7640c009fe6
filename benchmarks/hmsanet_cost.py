"""Cost of HMSA-Net: parameters, and time by number of speakers and duration.

Example:
    python -m benchmarks hmsanet_cost --repeats 3

Networks with random weights, which cost as much as trained ones, in fp32, with face features
already computed (pipelines compute them once, however many chunks a face is in). The time is the
least CPU time of some repeats on one thread, to which other work on the machine adds little. For 20
speakers in 8 s, the elapsed time with two threads is measured as well.

Writes hmsanet_cost.json and .png. Fails if time is not linear in duration or more than quadratic in
the number of speakers, or if 20 speakers are slower than real time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._runner import Results, add

if TYPE_CHECKING:
    from pyannote_av.models.hmsanet.model import HMSANet

SPEAKERS = (1, 2, 4, 8, 14, 20)
SECONDS = (4, 8, 16, 32)
MODELS = ("compact", "large")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "--repeats")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--speakers", nargs="+", type=int, default=list(SPEAKERS), metavar="N")
    parser.add_argument("--seconds", nargs="+", type=int, default=list(SECONDS), metavar="S")


def parameters(model: HMSANet) -> dict[str, int]:
    """Number of parameters, in all and by branch."""
    branches = {"all": model, **dict(model.named_children())}
    branches["visual.encoder"] = model.visual.encoder
    return {name: sum(p.numel() for p in part.parameters()) for name, part in branches.items()}


def fastest(run: Callable, repeats: int, clock: Callable[[], float] = process_time) -> float:
    """Seconds of the fastest of some repeats, after one to warm up."""
    import torch

    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begin = clock()
            run()
            times.append(clock() - begin)
    return min(times[1:])


def order(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Exponent of growth between the two largest sizes: 1 is linear, 2 quadratic."""
    return float(np.log(times[-1] / times[-2]) / np.log(sizes[-1] / sizes[-2]))


def chunk(model: HMSANet, speakers: int, seconds: int, *how) -> float:
    """Seconds for a chunk with everybody visible and with a speaker embedding; see `fastest`."""
    import torch

    torch.manual_seed(0)
    frames = 25 * seconds
    dimension = model.hparams.voiceprint_dimension
    data = {
        "waveforms": 0.1 * torch.randn(1, 1, 16000 * seconds),
        "faces": torch.randn(1, speakers, frames, model.visual_dimension),
        "voiceprints": torch.randn(1, speakers, dimension),
        "speaker_features": torch.randn(1, -(-frames // 4), dimension),
    }
    return fastest(lambda: model(**data), *how)


def measure(model: HMSANet, given: argparse.Namespace) -> dict:
    """Time of chunks, and of face features."""
    import torch

    speakers, seconds = sorted(given.speakers), sorted(given.seconds)
    most, middle = speakers[-1], seconds[min(1, len(seconds) - 1)]
    usual = speakers[-3] if len(speakers) > 2 else most
    torch.set_num_threads(1)
    times = {k: {s: chunk(model, k, s, given.repeats) for s in seconds} for k in speakers}
    pictures = torch.randint(256, (1, 1, 25, 112, 112)).byte()
    face = fastest(lambda: model.visual_features(pictures), given.repeats)
    torch.set_num_threads(2)
    clock = chunk(model, most, middle, 10 * given.repeats, perf_counter)
    torch.set_num_threads(1)
    return {
        "parameters": parameters(model),
        "seconds by speakers and duration": times,
        "order in duration": order(seconds, [times[usual][s] for s in seconds]),
        "order in speakers": order(speakers, [times[k][middle] for k in speakers]),
        f"real-time factor of {most} speakers in {middle} s": times[most][middle] / middle,
        "the same by the clock, two threads": clock / middle,
        "seconds per second of pictures of a face": face,
    }


def plot(found: dict[str, dict], path: Path) -> None:
    """Time by number of speakers and by duration, a column per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False)
    for (name, one), (top, bottom) in zip(found.items(), axes.T, strict=True):
        times = one["seconds by speakers and duration"]
        speakers, durations = list(times), list(next(iter(times.values())))
        for seconds in durations:
            values = [times[k][seconds] for k in speakers]
            top.plot(speakers, values, marker="o", label=f"{seconds} s")
        for count in speakers:
            label = f"{count} speaker" + "s" * (count > 1)
            bottom.plot(durations, list(times[count].values()), marker="o", label=label)
        bottom.plot(durations, durations, color="0.6", linestyle="--", label="real time")
        size = one["parameters"]["all"] / 1e6
        top.set(title=f"{name}: {size:.1f} M parameters", xlabel="speakers", ylabel="time (s)")
        top.set(xticks=speakers, ylim=(0, None))
        bottom.set(xlabel="duration of the chunk (s)", ylabel="time (s)", xscale="log")
        bottom.set_yscale("log")
        bottom.set_xticks(durations, [str(s) for s in durations])
        bottom.minorticks_off()
        top.legend(fontsize="small")
        bottom.set_ylim(bottom=bottom.get_ylim()[0] / 3)  # room for the legend
        bottom.legend(fontsize="small", loc="lower right", ncols=3)
    figure.suptitle("CPU time per chunk, one thread, fp32")
    figure.savefig(path, dpi=110)


def run(given: argparse.Namespace, results: Results) -> None:
    """Measure all networks."""
    from pyannote_av.models.hmsanet.model import LARGE, HMSANet

    hparams = {"compact": {}, "large": LARGE}
    found = {name: measure(HMSANet(**hparams[name]).eval(), given) for name in given.models}
    results.write("hmsanet_cost", found)
    results.plot("hmsanet_cost.png", lambda path: plot(found, path))
    for name, one in found.items():
        for key, value in one.items():
            print(f"{name} | {key} | {value}")
    if given.speakers == list(SPEAKERS) and given.seconds == list(SECONDS):
        check(found[given.models[0]])


def check(found: dict) -> None:
    """Raise RuntimeError if the claims of the description do not hold."""
    limits = {
        "order in duration": 1.3,
        "order in speakers": 2.1,
        "real-time factor of 20 speakers in 8 s": 1.0,
    }
    for name, limit in limits.items():
        if found[name] >= limit:
            raise RuntimeError(f"{name} is {found[name]:.2f}, which is not below {limit}")
