"""Many files: killed runs, local processes against Ray, and processing time.

Examples:
    python -m benchmarks batch WORK --only speed
    python -m benchmarks batch WORK --only ray --files 200

All files are cut from the sample file.

kills: ``apply --manifest`` and ``prepare --manifest`` are killed (-9) at random moments, and
started again until they finish. Outputs are compared with those of undisturbed runs, and it is
counted how often each file was done. Every other kill happens while files are processed, the others
at any time after the start.

ray: many short files on the local engine and on Ray with two simulated nodes. One file is damaged,
and one cannot be opened (another process holds a lease on it). In one run, a node is lost.

speed: seconds of work per second of media, with one worker and one thread. The result has another
key if $PYANNOTE_AV_WEIGHTS is set, because optional weights may then be used.

Writes batch.json. Results of parts that are not run are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import mean

from benchmarks._data import cut_sample
from benchmarks._runner import Results, add, table

SEED = 0
TIMEOUT = 8.0
#: the file that cannot be opened, and the one that is damaged
LEASED, DAMAGED = 42, 7


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "work")
    add(parser, "--only", choices=PARTS, default=list(PARTS))
    parser.add_argument("--files", type=int, default=200, help="files for `ray`")
    parser.add_argument("--kills", type=int, default=10, help="kills of each command")


def cut_sounds(folder: Path, count: int) -> Path:
    """Write audio files of 2 to 4 s; returns the manifest."""
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.data.shard_writer import to_int16
    from pyannote_av.simulation.sample import sample

    rng = random.Random(SEED)
    whole = to_int16(Video().waveform(sample()).numpy()[0])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        length = int(rng.uniform(2, 4) * SAMPLE_RATE)
        start = rng.randrange(len(whole) - length)
        with wave.open(str(folder / f"{i:03d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(whole[start : start + length].astype("<i2").tobytes())
    return write_manifest(folder, "audio", [f"{i:03d}.wav" for i in range(count)])


def write_manifest(folder: Path, column: str, names: list[str]) -> Path:
    path = folder / "list.csv"
    lines = [f"{name.partition('.')[0]},{name}" for name in names]
    path.write_text("\n".join([f"uri,{column}", *lines]) + "\n")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pyannote_av", *map(str, arguments)]


#: what reports measure, in JSON files and in pages
_MEASURED = re.compile(
    rb'"(?:parallel_)?seconds"\s*:\s*\{[^}]*\}|"real_time_factor"\s*:\s*(?:[-+.e\d]+|null)'
)


def digests(into: Path) -> dict[str, str]:
    """Checksums of the outputs, without the times in reports."""
    from pyannote_av.core.atomic import HOUSEKEEPING
    from pyannote_av.core.checksums import digest

    about = {HOUSEKEEPING, "manifest.json"}
    return {
        str(path.relative_to(into)): digest([_MEASURED.sub(b"", path.read_bytes())])
        for path in sorted(into.rglob("*"))
        if path.is_file() and about.isdisjoint(path.parts)
    }


def done_events(into: Path) -> list[tuple[str, float]]:
    """File and time of all files that were done, in order."""
    from pyannote_av.batch.ledger import read_events

    return [
        (one["uri"], datetime.fromisoformat(one["time"]).timestamp())
        for one in read_events(into)
        if one["event"] == "done"
    ]


def killed(arguments: list[object], folder: Path, kills: int) -> dict:
    """Kill a command repeatedly; compare with an undisturbed run."""
    rng = random.Random(SEED)
    whole, into = folder / "whole", folder / "killed"
    for path in (whole, into):
        shutil.rmtree(path, ignore_errors=True)
    since = time.perf_counter()
    subprocess.run(command(*arguments, "--into", whole), check=True, stdout=subprocess.DEVNULL)
    lasts = time.perf_counter() - since
    times = [moment for _, moment in done_events(whole)]
    working = max(times) - min(times)
    moments, progress, ended = [], [], 0
    while len(moments) < kills and ended < 3:
        at_work = len(moments) % 2 == 1
        wait = rng.uniform(0, 2 * working / kills if at_work else lasts - working)
        before = len(done_events(into))
        since = time.perf_counter()
        process = subprocess.Popen(
            command(*arguments, "--into", into),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while at_work and process.poll() is None and len(done_events(into)) == before:
            time.sleep(0.01)
        try:
            process.wait(wait)
            ended += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(round(time.perf_counter() - since, 2))
            progress.append(len({uri for uri, _ in done_events(into)}))
    last = subprocess.run(command(*arguments, "--into", into), stdout=subprocess.DEVNULL)
    expected, found = digests(whole), digests(into)
    counts = Counter(uri for uri, _ in done_events(into))
    return {
        "command": str(arguments[0]),
        "seconds undisturbed": round(lasts, 1),
        "killed after (s)": moments,
        "runs that ended before they were killed": ended,
        "files done at each kill": progress,
        "exit code of the last run": last.returncode,
        "files": len({uri for uri, _ in done_events(whole)}),
        "outputs": len(expected),
        "outputs that are the same": sum(found.get(k) == v for k, v in expected.items()),
        "outputs too many": len(found.keys() - expected.keys()),
        "files done once": sum(n == 1 for n in counts.values()),
        "files done more than once": sum(n > 1 for n in counts.values()),
    }


def kill_runs(given: argparse.Namespace) -> dict:
    """Kill `apply` and `prepare`."""
    sounds = cut_sounds(given.work / "sounds60", 60)
    cut = cut_sample(given.work / "videos", 16)
    videos = write_manifest(given.work / "videos", "video", [path.name for path in cut])
    apply = ["apply", "--manifest", sounds, "--pipeline", "audio"]
    prepare = ["prepare", "--manifest", videos]
    rows = [
        killed(apply, given.work / "kill_apply", given.kills),
        killed(prepare, given.work / "kill_prepare", given.kills),
    ]
    return {"runs": rows}


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """Let others wait when they open a file, as on a disk that does not answer."""
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(path, "rb+") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield


def process_all(manifest: Path, into: Path, engine, tell=None) -> dict:
    """One run over all files, and its speed from the first file that was done to the last."""
    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.ledger import read_record
    from pyannote_av.batch.manifest import read_manifest
    from pyannote_av.batch.run import Limits, process

    shutil.rmtree(into, ignore_errors=True)
    since = time.perf_counter()
    with lease(manifest.with_name(f"{LEASED:03d}.wav")):
        report = process(
            Diarize("audio"),
            read_manifest(manifest),
            into,
            engine,
            Limits(timeout=TIMEOUT, retries=2),
            tell=tell or (lambda job, result, final: None),
        )
    events = done_events(into)
    times, counts = sorted(moment for _, moment in events), Counter(uri for uri, _ in events)
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
        # the first file waits for models to be loaded
        "files per second": round((len(times) - 1) / (times[-1] - times[0]), 2),
    }


def on_two_nodes(manifest: Path, into: Path, lose_after: int | None) -> dict:
    """The same on Ray; one node is removed after some files."""
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
        return process_all(manifest, into, Engine("ray", 2, cluster.address), tell)
    finally:
        ray.shutdown()
        cluster.shutdown()


def engines(given: argparse.Namespace) -> dict:
    """Local processes and Ray on the same files."""
    from pyannote_av.batch.engines import Engine

    if given.files <= LEASED:
        raise ValueError(f"--files must be more than {LEASED}, the number of the leased file")
    work, folder = given.work, given.work / f"sounds{given.files}"
    manifest = cut_sounds(folder, given.files)
    (folder / f"{DAMAGED:03d}.wav").write_bytes(random.Random(SEED).randbytes(20_000))
    runs = {
        "local, 1 worker": process_all(manifest, work / "local1", Engine(workers=1)),
        "local, 2 workers": process_all(manifest, work / "local2", Engine(workers=2)),
        "ray, 2 nodes": on_two_nodes(manifest, work / "ray", None),
        "ray, 2 nodes, one lost": on_two_nodes(manifest, work / "lost", given.files // 2),
    }
    expected = digests(work / "local1")
    for name, into in zip(runs, ("local1", "local2", "ray", "lost"), strict=True):
        found = digests(work / into)
        same = sum(found.get(path) == digest for path, digest in expected.items())
        runs[name]["outputs as those of one worker"] = f"{same} of {len(expected)}"
    return {"runs": runs}


def speed(given: argparse.Namespace) -> dict:
    """Real-time factors on the sample file, by elapsed and by CPU time."""
    from pyannote_av.batch.diarization import Diarize
    from pyannote_av.batch.jobs import Job
    from pyannote_av.batch.preparation import Prepare
    from pyannote_av.core.io import Video
    from pyannote_av.core.workers import single_thread
    from pyannote_av.simulation.sample import sample

    into = given.work / "speed"
    shutil.rmtree(into, ignore_errors=True)
    single_thread()
    duration = Video().get_duration(sample())
    found = {}
    works = {"audio": Diarize("audio"), "late_fusion": Diarize("late_fusion")}
    for name, one in {**works, "prepare": Prepare(into / "store")}.items():
        # the first file includes what is done once in a process
        first, second = (Job(f"{k}", {"video": str(sample())}) for k in range(2))
        (into / name).mkdir(parents=True)
        one.load()
        one.process(first, into / name)
        clock, cpu = time.perf_counter(), time.process_time()
        one.process(second, into / name)
        found[name] = {
            "real-time factor": round((time.perf_counter() - clock) / duration, 3),
            "of the processor": round((time.process_time() - cpu) / duration, 3),
        }
        if name == "late_fusion":
            report = json.loads((into / name / "1.json").read_text())["report"]
            found[name]["components"] = report["components"]
    return found


PARTS = {"kills": kill_runs, "ray": engines, "speed": speed}


def run(given: argparse.Namespace, results: Results) -> None:
    """Run the parts."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for part in given.only:
        found, key = PARTS[part](given), part
        if part == "speed" and os.environ.get("PYANNOTE_AV_WEIGHTS"):
            key = "speed, downloaded weights"
        rows = found.get("runs", found)
        rows = rows if isinstance(rows, list) else [{"what": k, **v} for k, v in rows.items()]
        print(f"\n{key}\n{table(rows)}")
        results.update("batch", key, found)
