"""Very long files and very many files: memory while they are processed.

Examples:
    python -m benchmarks soak WORK
    python -m benchmarks soak WORK --only long --hours 0.25 1

long: diarize files of several durations, each in a process of its own. A file repeats five minutes
of video: the two people of the sample file talk for 30 seconds, and are silent after that. The peak
memory is compared without the waveform, of which 16,000 samples a second are kept.

many: one process diarizes many videos of two seconds. Memory is read after every file.

Killed runs are in ``python -m benchmarks batch``. Writes soak.json.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks._data import cut_sample, join_copies, write_joinable
from benchmarks._runner import Results, add, in_fresh_process, peak_memory, resident_memory, table

#: seconds of the part that is repeated, and frames per second of the video
PART, RATE = 300, 5
SIZE = (320, 180)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "work")
    add(parser, "--only", choices=PARTS, default=list(PARTS))
    add(parser, "--pipeline", default="late_fusion")
    parser.add_argument(
        "--hours", type=float, nargs="+", default=[0.5, 2, 10], help="durations for `long`"
    )
    parser.add_argument("--files", type=int, default=500, help="files for `many`")


# ------------------------------------------------------------------------------------ media


def write_part(path: Path) -> None:
    """Write five minutes: the sample file, then its people in silence."""
    import cv2

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.sample import sample

    video = Video()
    sound = video.waveform(sample()).numpy()[0]
    hiss = np.random.default_rng(0).normal(0, 1e-3, PART * SAMPLE_RATE)
    hiss[: len(sound)] += sound

    def pictures() -> Iterator[np.ndarray]:
        last, count = None, 0
        for frame in video.frames(sample()):
            if frame.time * RATE + 1e-6 >= count:
                last, count = cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_AREA), count + 1
                yield last
        yield from itertools.repeat(last, PART * RATE - count)

    write_joinable(path, pictures(), hiss, SIZE, RATE)


# ------------------------------------------------------------------------------------ parts


def diarize(path: Path, name: str) -> dict:
    """Diarize one file in this process."""
    from pyannote_av import Pipeline
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.pipeline import LONG

    pipeline = Pipeline.from_pretrained(name)
    loaded, begin = peak_memory(), time.perf_counter()
    output = pipeline(str(path))
    seconds, peak = time.perf_counter() - begin, peak_memory()
    size = 2 if output.report.duration > LONG else 4  # bytes of a sample
    waveform = output.report.duration * SAMPLE_RATE * size / 2**20
    return {
        "hours": output.report.duration / 3600,
        "speakers": len(output.speaker_diarization.labels()),
        "turns": len(output.speaker_diarization),
        "real-time factor": seconds / output.report.duration,
        "MB, models loaded": round(loaded),
        "MB, peak": round(peak),
        "MB of the waveform": round(waveform),
        "MB, peak without it": round(peak - waveform),
        "problems": output.report.problems,
    }


def long_files(given: argparse.Namespace) -> dict:
    """Files of several durations."""
    given.work.mkdir(parents=True, exist_ok=True)
    part, rows = given.work / "part.mkv", []
    write_part(part)
    for hours in given.hours:
        path = given.work / f"{hours:g}h.mkv"
        join_copies(part, round(hours * 3600 / PART), PART, path)
        rows.append(in_fresh_process(diarize, path, given.pipeline))
        print(table([{"pipeline": Path(given.pipeline).name, **rows[-1]}]), flush=True)
        path.unlink()
    return {"pipeline": Path(given.pipeline).name, "runs": rows}


def diarize_all(paths: list[Path], count: int, name: str) -> dict:
    """Diarize videos one after another in this process."""
    from pyannote_av import Pipeline

    pipeline, sizes, begin = Pipeline.from_pretrained(name), [], time.perf_counter()
    for k in range(count):
        pipeline(str(paths[k % len(paths)]))
        sizes.append(resident_memory())
    fifth = count // 5
    fifths = [mean(sizes[k * fifth : (k + 1) * fifth]) for k in range(5)]
    return {
        "files": count,
        "seconds for a file": (time.perf_counter() - begin) / count,
        "MB after the first": round(sizes[0]),
        "MB in each fifth": [round(size) for size in fifths],
        "growth from the second fifth to the last": fifths[-1] / fifths[1] - 1,
        "open files at the end": len(list(Path("/proc/self/fd").iterdir())),
    }


def many_files(given: argparse.Namespace) -> dict:
    """Many short files in one process."""
    paths = cut_sample(given.work / "short", 20, seconds=2)
    row = in_fresh_process(diarize_all, paths, given.files, given.pipeline)
    print(table([{"pipeline": Path(given.pipeline).name, **row}]), flush=True)
    return {"pipeline": Path(given.pipeline).name, **row}


PARTS = {"long": long_files, "many": many_files}


def run(given: argparse.Namespace, results: Results) -> None:
    """Run the parts."""
    hours = " and ".join(f"{one:g}" for one in given.hours)
    for part in given.only:
        title = f"{part}, {Path(given.pipeline).name}" + (f", {hours} h" if part == "long" else "")
        results.update("soak", title, PARTS[part](given))
