"""Tuning: what the cache and a second process save, and what is lost when it is killed.

    python benchmarks/tuning.py --database database.yml --protocol DATABASE.TASK.PROTOCOL
        [--pipeline audio] [--subset development] [--files 9] [--trials 60] [--seeds 5] [--kills 10]
        [--freeze NAME] [--parts speed quality ...] [--into benchmarks/results/tuning.json]

Runs `pyannote-av optimize` as users do, with one thread per process. Four things are measured:

- how much faster the second trial is than the first one, which fills the cache;
- how much sooner two processes are done than one, from the start of the command to its end, and
  how much sooner two studies that know nothing of each other are done at once than in turn: no two
  processes can gain more on a machine;
- the best error rate after all trials with one process and with two, for several seeds;
- whether a study that is killed (-9) at a random moment, and begun again, ends with the trials of
  one that was not, for one process and for two in turn: nothing lost, nothing done twice. Moments
  are drawn from the whole run, which is mostly its first pass, and again from among trials.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from pyannote_av.core.atomic import write_text
from pyannote_av.core.protocols import files_of
from pyannote_av.formats.annotations import read_reference

COMMAND = "import typer; from pyannote_av.cli.optimize import command; typer.run(command)"
PROTOCOL = "Tuning.SpeakerDiarization.Some"


def some_files(given: argparse.Namespace, folder: Path) -> Path:
    """database.yml of the first files of a protocol"""
    files = files_of(given.protocol, [given.subset], given.database)[given.subset][: given.files]
    columns = {}
    for file in files:
        uri = file["uri"]
        with open(folder / f"{uri}.rttm", "w") as rttm:
            file["annotation"].write_rttm(rttm)
        lines = [f"{uri} 1 {one.start:.3f} {one.end:.3f}\n" for one in file["annotated"]]
        (folder / f"{uri}.uem").write_text("".join(lines))
        for name in ("audio", "video", "face_tracks"):
            if isinstance(path := file.get(name), (str, Path)):
                suffix = Path(path).suffix
                (folder / f"{uri}{suffix}").symlink_to(Path(path).resolve())
                columns[name] = "{uri}" + suffix
    (folder / "list.txt").write_text("".join(f"{file['uri']}\n" for file in files))
    entries = {"uri": "list.txt", "annotation": "{uri}.rttm", "annotated": "{uri}.uem", **columns}
    subset = {"Some": {"scope": "file", "development": entries}}
    path = folder / "database.yml"
    content = {"Protocols": {"Tuning": {"SpeakerDiarization": subset}}}
    path.write_text(yaml.safe_dump(content))
    read_reference(folder)  # what was written can be read
    return path


class Studies:
    """Starts the command."""

    def __init__(self, given: argparse.Namespace, database: Path):
        self._given, self._database = given, database

    def begin(self, into: Path, processes: int, trials: int, *options: object) -> subprocess.Popen:
        command = [sys.executable, "-c", COMMAND, self._given.pipeline, PROTOCOL, "--into", into]
        command += ["--database", self._database, "--trials", trials, "--processes", processes]
        command += [part for name in self._given.freeze for part in ("--freeze", name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYANNOTE_METRICS_ENABLED": "0"}
        return subprocess.Popen(
            [str(one) for one in (*command, *options)], env=environment, stdout=subprocess.DEVNULL
        )

    def run(self, *arguments: object) -> float:
        """Seconds from beginning to end"""
        start = time.perf_counter()
        process = self.begin(*arguments)
        if process.wait():
            raise RuntimeError(f"the command ended with {process.returncode}")
        return time.perf_counter() - start


def content(into: Path) -> dict:
    return json.loads((into / "trials.json").read_text())


def tried(into: Path) -> list:
    return [
        [one[k] for k in ("trial", "state", "values", "params")] for one in content(into)["trials"]
    ]


def ended(into: Path) -> dict[int, str]:
    """When trials ended that did, by number, as the journal has it"""
    journal = into / "study.journal"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    logs = [json.loads(line) for line in lines]
    recorded = [one["datetime_complete"] for one in logs if one["op_code"] == 4]
    return dict(enumerate(recorded))


def entries(cache: Path) -> dict[str, int]:
    """When entries of a cache were written"""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("??/*.entry")}


def speed(studies: Studies, folder: Path, given: argparse.Namespace) -> dict:
    found = {}
    for processes in (1, 2):
        into = folder / f"speed-{processes}"
        found[processes] = studies.run(into, processes, given.trials)
    rows = content(folder / "speed-1")["trials"]
    # what two processes that have nothing to do with each other gain on this machine
    start = time.perf_counter()
    for process in [studies.begin(folder / f"apart-{k}", 1, given.trials) for k in range(2)]:
        if process.wait():
            raise RuntimeError(f"the command ended with {process.returncode}")
    apart = time.perf_counter() - start
    return {
        "first trial": rows[0]["seconds"],
        "second trial": rows[1]["seconds"],
        "second trial faster by": round(rows[0]["seconds"] / rows[1]["seconds"], 1),
        "median of later trials": float(np.median([one["seconds"] for one in rows[1:]])),
        "seconds with 1 process": round(found[1], 1),
        "seconds with 2 processes": round(found[2], 1),
        "2 processes faster by": round(found[1] / found[2], 2),
        "2 studies at once faster by": round(2 * found[1] / apart, 2),
        "cache": content(folder / "speed-1")["cache"],
    }


def quality(studies: Studies, folder: Path, given: argparse.Namespace) -> dict:
    """With one cache"""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    for seed in range(given.seeds):
        for processes, values in rates.items():
            into = folder / f"quality-{seed}-{processes}"
            options = ("--seed", seed, "--cache", folder / "cache")
            studies.run(into, int(processes), given.trials, *options)
            values.append(content(into)["best"]["values"][0])
    difference = np.subtract(rates["2"], rates["1"])
    return {
        "best with 1 process": rates["1"],
        "best with 2 processes": rates["2"],
        "mean difference": float(difference.mean()),
        "deviation over seeds": float(np.std(rates["1"])),
    }


def kills(studies: Studies, folder: Path, given: argparse.Namespace) -> dict:
    """At moments drawn from the whole run, whose cache is empty at first"""
    rng = np.random.default_rng(0)
    lasts = {p: studies.run(folder / f"whole-{p}", p, given.trials) for p in (1, 2)}
    found = []
    for k in range(given.kills):
        processes = 1 + k % 2
        moment = float(rng.uniform(0, lasts[processes]))
        process = studies.begin(folder / f"killed-{k}", processes, given.trials)
        time.sleep(moment)
        found.append(kill(studies, folder, k, process, given.trials))
    return summary(found)


def late_kills(studies: Studies, folder: Path, given: argparse.Namespace) -> dict:
    """Among trials: most of a short run is its first pass, which others here are killed in"""
    rng = np.random.default_rng(0)
    cache = ("--cache", folder / "cache")
    for processes in (1, 2):
        studies.run(folder / f"whole-{processes}", processes, given.trials, *cache)
    found = []
    for k in range(given.kills):
        into, number = folder / f"killed-{k}", int(rng.integers(1, given.trials - 1))
        process = studies.begin(into, 1 + k % 2, given.trials, *cache)
        while process.poll() is None and len(ended(into)) < number:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.2)))  # anywhere in a trial
        found.append(kill(studies, folder, k, process, given.trials, *cache))
    return summary(found)


def kill(
    studies: Studies, folder: Path, k: int, process: subprocess.Popen, trials: int, *options: object
) -> dict:
    """Kill a study, begin it again, and compare it with the one that was not killed"""
    process.send_signal(signal.SIGKILL)
    in_time = process.wait() == -signal.SIGKILL
    time.sleep(1)  # processes that it had begun notice, and end
    processes, into = 1 + k % 2, folder / f"killed-{k}"
    cache = Path(options[1]) if options else into / "cache"
    before, kept = ended(into), entries(cache)
    studies.run(into, processes, trials, *options)
    after, now = ended(into), entries(cache)
    return {
        "processes": processes,
        "killed in time": in_time,
        "trials ended by then": len(before),
        "entries written by then": len(kept),
        "same trials": tried(into) == tried(folder / f"whole-{processes}"),
        "trials lost": len(before.items() - after.items()),
        "trials done twice": len(after) - trials,
        "entries written twice": len(kept.items() - now.items()),
    }


def summary(found: list[dict]) -> dict:
    twice = ("trials done twice", "entries written twice")
    return {
        "killed in time": sum(one["killed in time"] for one in found),
        "killed with trials ended": sum(one["trials ended by then"] > 0 for one in found),
        "same": sum(one["same trials"] for one in found),
        "lost": sum(one["trials lost"] for one in found),
        "done twice": sum(one[name] for one in found for name in twice),
        "kills": found,
    }


PARTS = {"speed": speed, "quality": quality, "kills": kills, "late_kills": late_kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--protocol", required=True)
    parser.add_argument("--subset", default="development")
    parser.add_argument("--pipeline", default="audio")
    parser.add_argument("--freeze", action="append", default=[])
    parser.add_argument("--files", type=int, default=9)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--into", type=Path, default=Path("benchmarks/results/tuning.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    found = json.loads(given.into.read_text()) if given.into.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in given.parts:
            load = os.getloadavg()
            one = argparse.Namespace(**vars(given))
            if "kills" in part:
                one.files = min(given.files, 3)
                one.trials = given.trials // (4 if part == "kills" else 2)
            (folder / part).mkdir()
            studies = Studies(one, some_files(one, folder / part))
            about = {"pipeline": one.pipeline, "protocol": one.protocol, "freeze": one.freeze}
            about |= {"files": one.files, "trials": one.trials, "processors": os.cpu_count()}
            measured = PARTS[part](studies, folder / part, one)
            found[part] = {**about, "load before": load, **measured, "load after": os.getloadavg()}
            print(json.dumps(found[part], indent=1))
            write_text(given.into, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
