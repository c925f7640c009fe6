"""Work in processes that can be killed: nothing that a job does harms another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyannote_av.core.workers import Failure, open_pool, run


class Odd(Exception):
    """Survives no pickling."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def work(job):
    """Does what it is told to."""
    kind, _, more = str(job).partition(" ")
    if kind == "hang":
        time.sleep(600)
    elif kind == "exit":
        os._exit(7)
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "odd":
        raise Odd(1, 2)
    elif kind == "missing":
        raise FileNotFoundError(f"no such file: {more}")
    elif kind == "once":
        # succeeds when it is tried again
        if not Path(more).exists():
            Path(more).touch()
            raise ValueError("not yet")
    elif kind == "pid":
        return os.getpid()
    elif kind == "threads":
        import cv2
        import torch

        return torch.get_num_threads(), cv2.getNumThreads()
    return job


class Unready:
    """Work that cannot begin."""

    def load(self):
        raise FileNotFoundError("no weights")

    def __call__(self, job):
        return job


def do(jobs, workers=1, **options):
    with open_pool(work, workers) as pool:
        return {attempt.job: attempt.value for attempt in run(pool, jobs, **options)}


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_is_done_once(workers):
    jobs = [f"job {i}" for i in range(20)]
    assert do(jobs, workers) == {job: job for job in jobs}


def test_work_is_done_in_other_processes_of_one_thread_each():
    assert do(["pid"])["pid"] != os.getpid()
    assert do(["pid"], workers=0)["pid"] == os.getpid()
    assert do(["threads"], workers=2)["threads"] == (1, 1)


def test_what_hangs_dies_or_fails_harms_nobody_else():
    good = [f"job {i}" for i in range(4)]
    start = time.monotonic()
    found = do(["hang", good[0], "exit", good[1], "kill", good[2], "odd", good[3]], 2, timeout=1.5)
    assert time.monotonic() - start < 60
    assert all(found[job] == job for job in good)
    assert str(found["hang"]) == "TimedOut: not finished after 1.5 s: the process was killed"
    assert found["exit"].message == "the process that worked on it died (exit code 7)"
    assert found["kill"].message == "the process that worked on it died (killed by signal 9)"
    assert str(found["odd"]) == "Odd: 1 and 2"


@pytest.mark.parametrize("workers", [0, 1])
def test_failures_say_what_users_can_know(workers):
    found = do(["missing x.mp4", "odd"], workers)
    assert found["missing x.mp4"].reason == "no such file: x.mp4"
    assert found["odd"].reason == "Odd: 1 and 2"


def test_what_failed_is_tried_again(tmp_path):
    jobs = [f"once {tmp_path / 'a'}", "odd", "fine"]
    with open_pool(work, 0) as pool:
        attempts = [
            (attempt.job.split()[0], attempt.number, attempt.failure is None, attempt.final)
            for attempt in run(pool, jobs, retries=2)
        ]
    assert attempts == [
        ("once", 1, False, False),
        ("once", 2, True, True),
        *[("odd", number, False, number == 3) for number in (1, 2, 3)],
        ("fine", 1, True, True),
    ]


def test_attempts_before_count():
    with open_pool(work, 0) as pool:
        (attempt,) = run(pool, ["odd"], retries=2, tried=lambda job: 2)
    assert attempt.number == 3
    assert attempt.final


def test_jobs_are_read_as_they_are_needed():
    read, handed_out = [], []

    def jobs():
        for i in range(30):
            read.append(i)
            yield f"job {i}"

    with open_pool(work, 2) as pool:
        started = lambda job, number: handed_out.append(job)  # noqa: E731
        for done, _ in enumerate(run(pool, jobs(), started=started), start=1):
            assert len(read) <= done + 2
    assert len(handed_out) == 30


@pytest.mark.parametrize("workers", [0, 1])
def test_work_that_cannot_begin(workers):
    with open_pool(Unready(), workers) as pool:
        attempts = list(run(pool, ["one"], retries=5))
    assert attempts[0].value == Failure(
        "FileNotFoundError", "no weights", True, None, True, lasting=True
    )
    assert len(attempts) == 1


def test_idle_processes_may_be_killed():
    """By a system short of memory, say"""
    pids = []
    with open_pool(work, 1) as pool:
        for attempt in run(pool, ["pid", "pid", "pid"]):
            pids.append(attempt.value)
            os.kill(attempt.value, signal.SIGKILL)
            time.sleep(0.3)
    assert all(isinstance(pid, int) for pid in pids)
    assert len(set(pids)) == 3


KILLED = """
import sys
from test_workers import work
from pyannote_av.core.workers import open_pool, run
if __name__ == "__main__":
    with open_pool(work, 1) as pool:
        for attempt in run(pool, ["pid", "hang"]):
            print(attempt.value, flush=True)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path):
    (tmp_path / "script.py").write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        worker = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


IMPORTS = """
import os, sys
from pyannote_av.core.workers import open_pool, run


class Imported:
    def load(self):
        self.before = "colorsys" in sys.modules

    def __call__(self, job):
        return self.before, os.environ["OF_THIS_TEST"]


if __name__ == "__main__":
    for value in ("one", "two"):  # the server was started in the environment of the first
        os.environ["OF_THIS_TEST"] = value
        with open_pool(Imported(), 2, ("colorsys",)) as pool:
            print({attempt.value for attempt in run(pool, range(4))})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from a server on Linux")
def test_modules_are_imported_before_processes_start(tmp_path):
    (tmp_path / "script.py").write_text(IMPORTS)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["{(True, 'one')}", "{(True, 'two')}", ""]
