"""Does memory grow with the length of a file? One clip, repeated for minutes and for an hour.

    python benchmarks/long_files.py CLIP [--minutes 10 60] [--weights FOLDER] [--trace]

The packets of CLIP are copied again and again, without decoding, into a temporary file; picture and
sound are moved by the same time, the length of the picture, so that they are in sync at every seam.
Late fusion runs on each file in a fresh process, on one thread. The waveform is in memory as a
whole by design (64 kB a second): the ratio of peaks is given apart from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import warnings
from fractions import Fraction
from pathlib import Path

from clips import in_fresh_process, look_for_weights, peak_memory, table

COLUMNS = {
    "file": "file",
    "s": "duration",
    "peak MB": "peak_memory",
    "waveform MB": "waveform",
    "apart MB": "apart_from_waveform",
    "ratio": "ratio",
    "loaded MB": "memory_when_loaded",
    "RTF": "real_time_factor",
    "RTF cpu": "cpu_real_time_factor",
    "speakers": "speakers",
    "tracks": "tracks",
}


def repeat(clip: Path, target: Path, seconds: float) -> None:
    """Copy the packets of a clip as many times as come nearest to a duration."""
    import av

    with av.open(str(clip)) as source:
        video = source.streams.video[0]
        steps = [p.duration for p in source.demux(video) if p.size]
        period = sum(steps) * video.time_base
    repeats = max(1, round(seconds / period))
    with av.open(str(target), "w") as container:
        copies = {}
        for index in range(repeats):
            with av.open(str(clip)) as source:
                chosen = [source.streams.video[0], source.streams.audio[0]]
                for stream in chosen if not copies else ():
                    copies[stream.index] = container.add_stream_from_template(stream)
                for packet in source.demux(chosen):
                    if packet.size and _belongs(packet, index, period):
                        _move(packet, index * period)
                        packet.stream = copies[packet.stream.index]
                        container.mux(packet)


def _belongs(packet, index: int, period: Fraction) -> bool:
    """Sound before the first picture (priming) counts once, sound after the last one never does."""
    if packet.stream.type == "video":
        return True
    middle = (packet.pts + (packet.duration or 0) / 2) * packet.time_base
    return middle < period and (index == 0 or middle > 0)


def _move(packet, seconds: Fraction) -> None:
    shift = round(seconds / packet.time_base)
    packet.pts += shift
    packet.dts += shift


class Trace:
    """Resident size, sampled once a second, with the step that was heard of last."""

    def __init__(self):
        self.samples: list[tuple[float, str, float]] = []
        self._step = "start"
        self._begin = time.perf_counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, step, artifact, file=None, total=None, completed=None) -> None:
        """The hook of a pipeline."""
        self._step = step if completed is None or completed < (total or 0) else f"after {step}"

    def __enter__(self) -> Trace:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while True:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            self.samples.append((time.perf_counter() - self._begin, self._step, resident))
            if self._done.wait(1.0):
                return


def process(path: Path, pipeline: str, trace: bool) -> dict:
    """The row of one file."""
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.core.grid import SAMPLE_RATE

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fusion = Pipeline.from_pretrained(pipeline)
    loaded = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    if trace:
        with Trace() as steps:
            output = fusion(str(path), hook=steps)
    else:
        output = fusion(str(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    report = output.report
    waveform = report.duration * SAMPLE_RATE * 4 / 2**20
    return {
        "duration": report.duration,
        "peak_memory": peak_memory(),
        "waveform": waveform,
        "apart_from_waveform": peak_memory() - waveform,
        "memory_when_loaded": loaded,
        "real_time_factor": wall / report.duration,
        "cpu_real_time_factor": cpu / report.duration,
        "speakers": len(output.speaker_diarization.labels()),
        "tracks": len(output.face_tracks.tracks),
        "report": report.to_dict(),
        "trace": steps.samples if trace else [],
    }


def peaks(samples: list) -> dict[str, tuple[float, float]]:
    """Largest size per step, and when it was seen."""
    found: dict[str, tuple[float, float]] = {}
    for seconds, step, resident in samples:
        if resident > found.get(step, (0.0, 0.0))[0]:
            found[step] = (resident, seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--weights", type=Path, help="look for weights there, too")
    parser.add_argument("--pipeline", default="late_fusion", help="name, folder or YAML file")
    parser.add_argument("--trace", action="store_true", help="memory per step (Linux only)")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clip.suffix.lower() == ".avi":
        parser.error("an AVI file has no timestamps that could be moved: give an MP4 or MKV file")
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    if arguments.one:
        print(json.dumps(process(arguments.clip, arguments.pipeline, arguments.trace)))
        return
    if arguments.weights:
        look_for_weights(arguments.weights)

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            name = f"{arguments.clip.stem}_{minutes:g}min"
            path = Path(folder) / f"{name}{arguments.clip.suffix}"
            repeat(arguments.clip, path, 60 * minutes)
            print(f"{name}: {path.stat().st_size / 2**20:.0f} MB", file=sys.stderr)
            options = ["--pipeline", arguments.pipeline, *(["--trace"] * arguments.trace)]
            row = in_fresh_process(__file__, str(path), "--one", *options)
            path.unlink()
            rows.append({"file": name, "minutes": minutes, **row})

    done = [row for row in rows if "error" not in row]
    for row in done:
        row["ratio"] = row["apart_from_waveform"] / done[0]["apart_from_waveform"]
    print("\n".join(table(rows, COLUMNS)))
    for row in done:
        print(f"\n{row['file']}")
        for stage, seconds in row["report"]["seconds"].items():
            print(f"  {stage}: {seconds:.1f} s ({seconds / row['duration']:.3f} of real time)")
        for step, (size, at) in peaks(row["trace"]).items():
            print(f"  {step}: up to {size:.0f} MB, at {at:.0f} s")
        for note in row["report"]["problems"]:
            print(f"  problem: {note}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
