"""Work on many things at once, in processes that can be killed.

A file that hangs a decoder or takes its process with it costs that file, and nothing else: every
job may have a time limit, after which its process is killed and replaced, and jobs that fail are
tried again as often as asked for. No more jobs are handed out than are being worked on, so that
there may be millions of them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Failure:
    """Why there is no result; unlike an exception it survives being sent between processes.

    Attributes
    ----------
    kind : str
        Name of the exception.
    message : str
    expected : bool
        Whether the message alone says enough: what cannot be read, not what is broken in here.
    errno : int, optional
        Of an error of the operating system.
    starting : bool
        The process could not be made ready: no other job will fare better.
    """

    kind: str
    message: str
    expected: bool = False
    errno: int | None = None
    starting: bool = False

    @classmethod
    def of(cls, error: BaseException, starting: bool = False) -> Failure:
        """What an exception says."""
        return cls(
            type(error).__name__,
            str(error),
            isinstance(error, (OSError, ValueError)),
            getattr(error, "errno", None),
            starting,
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind

    @property
    def reason(self) -> str:
        """For users: the message alone where that is enough."""
        return self.message if self.expected and self.message else str(self)


class Attempt(NamedTuple):
    """What became of a job.

    Attributes
    ----------
    job : Any
    number : int
        From 1.
    value : Any
        What the work returned, or a :class:`Failure`.
    seconds : float
        From being handed out.
    final : bool
        False where the job is tried again.
    """

    job: Any
    number: int
    value: Any
    seconds: float
    final: bool

    @property
    def failure(self) -> Failure | None:
        """Why there is no value."""
        return self.value if isinstance(self.value, Failure) else None


class Pool(Protocol):
    """Where work is done: in this process, in others, on other machines.

    Attributes
    ----------
    capacity : int
        How many jobs may be handed out at once.
    """

    capacity: int

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """Hand out a job; `timeout` in seconds from its beginning."""
        ...

    def next(self) -> tuple[int, Any]:
        """Wait for any job: its ticket, and what the work returned or a :class:`Failure`."""
        ...

    def __enter__(self) -> Pool: ...

    def __exit__(self, *exception: object) -> None: ...


def run(
    pool: Pool,
    jobs: Iterable[Any],
    retries: int = 0,
    timeout: float | Callable[[Any], float | None] | None = None,
    tried: Callable[[Any], int] = lambda job: 0,
    started: Callable[[Any, int], Any] = lambda job, number: None,
) -> Iterator[Attempt]:
    """Do jobs as fast as a pool can, one that fails again at once.

    Parameters
    ----------
    pool : Pool
    jobs : iterable
        Read as needed: no faster than the pool works.
    retries : int, optional
        How often a job that failed is tried again.
    timeout : float or callable, optional
        Seconds for each attempt, or a function of the job that gives them.
    tried : callable, optional
        How often a job was tried before: its attempts are counted from there.
    started : callable, optional
        Called with job and number of the attempt when it is handed out.

    Yields
    ------
    attempt : Attempt
        In the order in which they end.
    """
    source, again = iter(jobs), deque()
    flying: dict[int, tuple[Any, int, float]] = {}
    ticket = 0
    while True:
        while len(flying) < pool.capacity:
            try:
                job, number = again.popleft() if again else _numbered(next(source), tried)
            except StopIteration:
                break
            started(job, number)
            limit = timeout(job) if callable(timeout) else timeout
            flying[ticket] = (job, number, perf_counter())
            pool.submit(ticket, job, limit)
            ticket += 1
        if not flying:
            return
        done, value = pool.next()
        job, number, since = flying.pop(done)
        final = not isinstance(value, Failure) or value.starting or number > retries
        if not final:
            again.append((job, number + 1))
        yield Attempt(job, number, value, perf_counter() - since, final)


def _numbered(job: Any, tried: Callable[[Any], int]) -> tuple[Any, int]:
    return job, tried(job) + 1


def open_pool(work: Callable[[Any], Any], workers: int) -> Pool:
    """Pool on this machine.

    Parameters
    ----------
    work : callable
        Of a job. Where it has a method ``load``, that is called once in each process before any
        job, and takes no time of theirs.
    workers : int
        Processes; with 0, work is done in this one, where nothing can be killed: there are no
        time limits then.
    """
    if workers == 0:
        return SerialPool(work)
    return ProcessPool(work, workers)


class Worker:
    """Work as it is done in whichever process: made ready once, and never raising."""

    def __init__(self, work: Callable[[Any], Any]):
        self._work = work
        self._failure: Failure | None = None
        try:
            if load := getattr(work, "load", None):
                load()
        except Exception as error:
            self._failure = Failure.of(error, starting=True)

    def __call__(self, job: Any) -> Any:
        """Result of a job, or a :class:`Failure`."""
        if self._failure is not None:
            return self._failure
        try:
            return self._work(job)
        except Exception as error:
            return Failure.of(error)


class SerialPool:
    """One job after the other, in this process."""

    capacity = 1

    def __init__(self, work: Callable[[Any], Any]):
        self._work = work
        self._worker: Worker | None = None
        self._waiting: deque[tuple[int, Any]] = deque()

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """See :class:`Pool`; there is no time limit."""
        self._waiting.append((ticket, job))

    def next(self) -> tuple[int, Any]:
        """See :class:`Pool`."""
        if self._worker is None:
            self._worker = Worker(self._work)
        ticket, job = self._waiting.popleft()
        return ticket, self._worker(job)

    def __enter__(self) -> SerialPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._worker = None


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
