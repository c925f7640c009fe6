"""Processes of this machine that do work; use ``open_pool`` of :mod:`pyannote_av.core.workers`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pyannote_av.core.workers import Failure, Worker

#: how often a pool is started anew whose processes end before they have done anything
_MAX_RESTARTS = 3


class ProcessPool:
    """Processes of this machine, started when there is something to do.

    Several have one thread each; one alone may have as many as libraries like.
    """

    def __init__(self, work: Callable[[Any], Any], workers: int):
        self.capacity = workers
        self._work = work
        self._pool: Any = None
        self._flying: dict[Any, tuple[int, Any, float | None]] = {}
        self._restarts = 0

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """See :class:`Pool`."""
        if self._pool is not None and not self._pool.active:
            self._restart()
        if self._pool is None:
            self._pool = _start_processes(self._work, self.capacity)
        future = self._pool.schedule(_work, args=(job,), timeout=timeout)
        self._flying[future] = (ticket, job, timeout)

    def next(self) -> tuple[int, Any]:
        """See :class:`Pool`."""
        from pebble import ProcessExpired

        while True:
            future = next(iter(wait(self._flying, return_when=FIRST_COMPLETED).done))
            error = future.exception()
            if isinstance(error, BrokenProcessPool) and self._restarts < _MAX_RESTARTS:
                self._restart()
                continue
            ticket, _, timeout = self._flying.pop(future)
            if error is None:
                self._restarts = 0
                return ticket, future.result()
            if isinstance(error, ProcessExpired):
                return ticket, Failure("ProcessDied", _cause(error.exitcode), expected=True)
            if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
                message = f"not done after {timeout:g} s: the process was killed"
                return ticket, Failure("TimedOut", message, expected=True)
            return ticket, Failure.of(error, starting=isinstance(error, BrokenProcessPool))

    def _restart(self) -> None:
        """Start anew where processes ended that had no job, or their pipe is damaged"""
        self._restarts += 1
        waiting = list(self._flying.values())
        self._flying.clear()
        self._stop()
        for entry in waiting:
            self.submit(*entry)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._flying.clear()
        self._stop()


def _cause(code: int | None) -> str:
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"the process that worked on it died ({how})"


def _start_processes(work: Callable[[Any], Any], workers: int) -> Any:
    from multiprocessing import get_context

    from pebble import ProcessPool as Processes

    # not forked: threads of torch and OpenCV, and the locks they hold, do not survive that
    arguments = (work, workers > 1)
    return Processes(workers, initializer=_start, initargs=arguments, context=get_context("spawn"))


def single_thread() -> None:
    """Let libraries use one thread in this process: others are at work beside it."""
    os.environ.update(OMP_NUM_THREADS="1", OPENCV_FOR_THREADS_NUM="1")
    # those already there have read the environment
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, which else waits for work forever"""
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


# of a worker process: work that is ready
_ready: list[Worker] = []


def _start(work: Callable[[Any], Any], shared: bool) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if shared:
        single_thread()
    _ready.append(Worker(work))
    if shared:
        single_thread()  # of what was loaded meanwhile, too


def _work(job: Any) -> Any:
    return _ready[0](job)
