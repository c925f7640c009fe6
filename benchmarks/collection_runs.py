"""Collections under attack, and what they cost.

    python benchmarks/collection_runs.py WORK [--only kills ray speed] [--files 200] [--kills 10]

WORK is a folder for what is made on the way. Everything is cut from the sample file.

kills: ``apply --manifest`` and ``prepare --manifest`` are killed (-9) at random moments and started
again until they end; outputs must be those of runs that nobody disturbed, each done once. Every
other kill comes while files are worked on, the others while processes start and look at files.
ray: many short files by the local engine and by Ray on two simulated nodes; a damaged file, a file
that cannot be opened (somebody has a lease on it), and, in one run, a node that is lost.
speed: seconds of work per second of media, one worker of one thread; once more with the weights
that ``pyannote-av download`` fetches, if $PYANNOTE_AV_WEIGHTS has them.

Figures go to benchmarks/results/collections.json, next to those of parts that were not run.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parent / "results" / "collections.json"
SEED = 0
TIMEOUT = 8.0


def cut_sounds(folder: Path, count: int) -> Path:
    """Sounds of 2 to 4 s; returns the list of them."""
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.data.shard_writer import to_int16
    from pyannote_av.simulation.sample import sample

    rng = random.Random(SEED)
    whole = to_int16(Video().waveform(sample()).numpy()[0])
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["uri,audio"]
    for i in range(count):
        length = int(rng.uniform(2, 4) * SAMPLE_RATE)
        start = rng.randrange(len(whole) - length)
        with wave.open(str(folder / f"{i:03d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(whole[start : start + length].astype("<i2").tobytes())
        lines.append(f"{i:03d},{i:03d}.wav")
    return write_list(folder, lines)


def cut_videos(folder: Path, count: int) -> Path:
    """Videos of 1 s; returns the list of them."""
    from pyannote.core import Segment

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.encoding import encode
    from pyannote_av.simulation.sample import SIZE, sample

    folder.mkdir(parents=True, exist_ok=True)
    video, path = Video(), sample()
    sound = video.waveform(path).numpy()[0]
    lines = ["uri,video"]
    for i in range(count):
        pictures, _ = video.crop(path, Segment(i, i + 1))
        heard = sound[i * SAMPLE_RATE : (i + 1) * SAMPLE_RATE]
        encode(folder / f"{i:03d}.mp4", enumerate(pictures), heard, SIZE, compression=20)
        lines.append(f"{i:03d},{i:03d}.mp4")
    return write_list(folder, lines)


def write_list(folder: Path, lines: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments: object) -> list[str]:
    code = "import sys; from pyannote_av.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def contents(into: Path) -> dict[str, str]:
    """Digests of what was made, whatever is known about it apart."""
    from pyannote_av.core.atomic import HOUSEKEEPING
    from pyannote_av.core.checksums import sha256_of

    about = {HOUSEKEEPING, "manifest.json"}
    return {
        str(path.relative_to(into)): sha256_of(path)
        for path in sorted(into.rglob("*"))
        if path.is_file() and about.isdisjoint(path.parts)
    }


def events_of(into: Path) -> list[dict]:
    from pyannote_av.batch.ledger import read_events

    return read_events(into)


def working_seconds(into: Path) -> float:
    """From the first file that was done to the last."""
    from datetime import datetime

    done = [one["time"] for one in events_of(into) if one["event"] == "done"]
    times = [datetime.fromisoformat(time).timestamp() for time in done]
    return max(times) - min(times)


def done_events(into: Path) -> Counter:
    return Counter(one["uri"] for one in events_of(into) if one["event"] == "done")


def killed(arguments: list[object], folder: Path, kills: int) -> dict:
    """Kill a command again and again; compare with a run that was left alone."""
    rng = random.Random(SEED)
    whole, into = folder / "whole", folder / "killed"
    for path in (whole, into):
        shutil.rmtree(path, ignore_errors=True)
    since = time.perf_counter()
    subprocess.run(command(*arguments, "--into", whole), check=True, stdout=subprocess.DEVNULL)
    lasts = time.perf_counter() - since
    working = working_seconds(whole)
    moments, progress, ended = [], [], 0
    while len(moments) < kills and ended < 3:
        at_work = len(moments) % 2 == 1
        wait = rng.uniform(0, 2 * working / kills if at_work else lasts - working)
        before = done_events(into).total()
        since = time.perf_counter()
        process = subprocess.Popen(
            command(*arguments, "--into", into),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while at_work and process.poll() is None and done_events(into).total() == before:
            time.sleep(0.01)
        try:
            process.wait(wait)
            ended += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(time.perf_counter() - since, 2))
            progress.append(len(done_events(into)))
    last = subprocess.run(command(*arguments, "--into", into), stdout=subprocess.PIPE, text=True)
    expected, found, events = contents(whole), contents(into), done_events(into)
    return {
        "command": " ".join(map(str, arguments[:1])),
        "seconds undisturbed": round(lasts, 1),
        "killed after (s)": moments,
        "runs that ended before they were killed": ended,
        "files done at each kill": progress,
        "exit code of the last run": last.returncode,
        "files": len(done_events(whole)),
        "outputs": len(expected),
        "outputs that are the same": sum(found.get(k) == v for k, v in expected.items()),
        "outputs too many": len(found.keys() - expected.keys()),
        "files done once": sum(n == 1 for n in events.values()),
        "files done more than once": sum(n > 1 for n in events.values()),
    }


def attack(work: Path, kills: int) -> list[dict]:
    sounds = cut_sounds(work / "sounds60", 60)
    videos = cut_videos(work / "videos", 16)
    apply = ["apply", "--manifest", sounds, "--pipeline", "audio"]
    prepare = ["prepare", "--manifest", videos]
    return [
        killed(apply, work / "kill_apply", kills),
        killed(prepare, work / "kill_prepare", kills),
    ]


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """Keep others from opening a file for 45 s: they wait, as for a disk that does not answer."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(path, "rb+") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield


def collection(manifest: Path, into: Path, engine, tell=None) -> dict:
    """One run over all files; seconds from the first that was handed out to the last done."""
    from datetime import datetime

    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.ledger import read_record
    from pyannote_av.batch.manifest import read_manifest
    from pyannote_av.batch.run import Limits, process

    shutil.rmtree(into, ignore_errors=True)
    since = time.perf_counter()
    with lease(manifest.with_name("042.wav")):
        report = process(
            Diarize("audio"),
            read_manifest(manifest),
            into,
            engine,
            Limits(timeout=TIMEOUT, retries=2),
            tell=tell or (lambda job, result, final: None),
        )
    events = [one for one in events_of(into) if one["event"] == "done"]
    times = sorted(datetime.fromisoformat(one["time"]).timestamp() for one in events)
    counts = Counter(one["uri"] for one in events)
    # of all but the first file, which waits for models to be loaded
    return {
        "done": len(report.done),
        "failed": {
            uri: why.replace(f"{manifest.parent}{os.sep}", "") for uri, why in report.failed.items()
        },
        "done more than once": sum(n > 1 for n in counts.values()),
        "seconds in all": round(time.perf_counter() - since, 1),
        "seconds of work for a file": round(
            mean(read_record(into, uri)["seconds"] for uri in counts), 3
        ),
        "files per second": round((len(times) - 1) / (times[-1] - times[0]), 2),
        "load average": round(os.getloadavg()[0], 1),
    }


def on_two_nodes(manifest: Path, into: Path, lose_after: int | None) -> dict:
    import ray
    from ray.cluster_utils import Cluster

    from pyannote_av.batch.engines import Engine
    from pyannote_av.batch.jobs import Made

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    count = 0

    def tell(job, result, final) -> None:
        nonlocal count
        count += isinstance(result, Made)
        if count == lose_after and isinstance(result, Made):
            cluster.remove_node(second, allow_graceful=False)

    try:
        return collection(manifest, into, Engine("ray", 2, cluster.address), tell)
    finally:
        ray.shutdown()
        cluster.shutdown()


def engines(work: Path, files: int) -> dict:
    from pyannote_av.batch.engines import Engine

    folder = work / f"sounds{files}"
    manifest = cut_sounds(folder, files)
    (folder / "007.wav").write_bytes(random.Random(SEED).randbytes(20_000))
    runs = {
        "local, 1 worker": collection(manifest, work / "local1", Engine(workers=1)),
        "local, 2 workers": collection(manifest, work / "local2", Engine(workers=2)),
        "ray, 2 nodes": on_two_nodes(manifest, work / "ray", None),
        "ray, 2 nodes, one lost": on_two_nodes(manifest, work / "lost", files // 2),
    }
    expected = contents(work / "local1")
    for name, folder in zip(runs, ("local1", "local2", "ray", "lost"), strict=True):
        found = contents(work / folder)
        same = sum(found.get(path) == digest for path, digest in expected.items())
        runs[name]["outputs as those of one worker"] = f"{same} of {len(expected)}"
    return runs


def speed(work: Path) -> dict:
    """Real-time factors on the sample file, by the clock and by the time of the processor."""
    import torch

    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.preparation import Prepare
    from pyannote_av.core.io import Video
    from pyannote_av.core.workers import single_thread
    from pyannote_av.simulation.sample import sample

    into = work / "speed"
    shutil.rmtree(into, ignore_errors=True)
    single_thread()
    torch.set_num_threads(1)
    duration = Video().get_duration(sample())
    found = {}
    works = {"audio": Diarize("audio"), "late_fusion": Diarize("late_fusion")}
    for name, one in {**works, "prepare": Prepare(into / "store")}.items():
        # the first file pays for what is done once in a process
        first, second = (Job(f"{k}", {"video": str(sample())}) for k in range(2))
        (into / name).mkdir(parents=True)
        one.load()
        one.process(first, into / name)
        clock, processor = time.perf_counter(), time.process_time()
        one.process(second, into / name)
        found[name] = {
            "real-time factor": round((time.perf_counter() - clock) / duration, 3),
            "of the processor": round((time.process_time() - processor) / duration, 3),
            "load average": round(os.getloadavg()[0], 1),
        }
        if name == "late_fusion":
            report = json.loads((into / name / "1.json").read_text())["report"]
            found[name]["components"] = report["components"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=("kills", "ray", "speed"))
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    parts = {
        "kills": lambda: attack(arguments.work, arguments.kills),
        "ray": lambda: engines(arguments.work, arguments.files),
        "speed": lambda: speed(arguments.work),
    }
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in arguments.only or parts:
        key = name
        if name == "speed" and os.environ.get("PYANNOTE_AV_WEIGHTS"):
            key = "speed, downloaded weights"
        found[key] = parts[name]()
        print(json.dumps({key: found[key]}, indent=1))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
