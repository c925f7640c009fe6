"""Parallel jobs in processes that can be killed.

One bad file never stops the rest, even if it hangs a decoder or crashes its process. Each job may
have a time limit, after which its process is killed and replaced. Jobs that fail can be tried
again. Jobs are read only as processes become free, so there may be millions of them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Protocol

#: modules that pipelines import, which takes about 10 s; see :func:`open_pool`
PIPELINE_IMPORTS = ("pyannote.audio", "cv2")


@dataclass(frozen=True)
class Failure:
    """Reason why a job has no result. Unlike an exception, it can be sent between processes.

    Attributes
    ----------
    kind : str
        Name of the exception.
    message : str
    expected : bool
        Whether the message alone explains the failure, as for a file that cannot be read. False
        for errors that suggest a bug.
    errno : int, optional
        Error number of an operating system error.
    starting : bool
        The process could not be initialised, so all other jobs would fail as well.
    lasting : bool
        Another attempt would fail alike, because a file does not exist.
    """

    kind: str
    message: str
    expected: bool = False
    errno: int | None = None
    starting: bool = False
    lasting: bool = False

    @classmethod
    def of(cls, error: BaseException, starting: bool = False) -> Failure:
        """Failure that describes an exception."""
        return cls(
            type(error).__name__,
            str(error),
            isinstance(error, (OSError, ValueError)),
            getattr(error, "errno", None),
            starting,
            isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind

    @property
    def reason(self) -> str:
        """Reason for users: the message alone if that is enough."""
        return self.message if self.expected and self.message else str(self)


class Attempt(NamedTuple):
    """Result of one attempt at a job.

    Attributes
    ----------
    job : Any
    number : int
        Number of the attempt, from 1.
    value : Any
        Result of the work, or a :class:`Failure`.
    seconds : float
        Time since the job was submitted.
    final : bool
        False if the job will be tried again.
    """

    job: Any
    number: int
    value: Any
    seconds: float
    final: bool

    @property
    def failure(self) -> Failure | None:
        """Reason of the failure, or None."""
        return self.value if isinstance(self.value, Failure) else None


class Pool(Protocol):
    """Place where jobs are done: this process, other processes, or other machines.

    Attributes
    ----------
    capacity : int
        Maximum number of jobs submitted at the same time.
    """

    capacity: int

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """Submit a job; `timeout` is in seconds from its beginning."""
        ...

    def next(self) -> tuple[int, Any]:
        """Wait for any job; return its ticket, and its result or a :class:`Failure`."""
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
    """Do jobs in a pool. Jobs that fail are tried again before new ones are started.

    Parameters
    ----------
    pool : Pool
    jobs : iterable
        Read on demand, no faster than the pool works.
    retries : int, optional
        How often a failed job is tried again.
    timeout : float or callable, optional
        Time limit of each attempt in seconds, or a function of the job that returns it.
    tried : callable, optional
        Function of the job that returns how often it was tried before. Attempts are counted from
        there.
    started : callable, optional
        Called with the job and the number of the attempt when the job is submitted.

    Yields
    ------
    attempt : Attempt
        In the order in which attempts end.
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
        final = not isinstance(value, Failure) or value.starting or value.lasting
        final = final or number > retries
        if not final:
            again.append((job, number + 1))
        yield Attempt(job, number, value, perf_counter() - since, final)


def _numbered(job: Any, tried: Callable[[Any], int]) -> tuple[Any, int]:
    return job, tried(job) + 1


def open_pool(work: Callable[[Any], Any], workers: int, imports: Sequence[str] = ()) -> Pool:
    """Pool on this machine.

    Parameters
    ----------
    work : callable
        Function of a job. If it has a method ``load``, this is called once in each process before
        the first job, and does not count towards time limits.
    workers : int
        Number of processes. With 0, jobs are done in this process, without time limits, because
        it cannot be killed.
    imports : sequence of str, optional
        Modules that are imported once for all processes instead of once in each, where the system
        allows it. They must not use a GPU while they are imported.
    """
    if workers == 0:
        return SerialPool(work)
    return ProcessPool(work, workers, imports)


class Worker:
    """Wrapper of the work in any process: it loads once, and never raises an exception."""

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
    """Does one job after another in this process."""

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


#: how often a pool is restarted if its processes end before they have done a job
_MAX_RESTARTS = 3


class ProcessPool:
    """Processes on this machine, started with the first job.

    Several processes use one thread each. A single process may use as many threads as its
    libraries choose.
    """

    def __init__(self, work: Callable[[Any], Any], workers: int, imports: Sequence[str] = ()):
        self.capacity = workers
        self._work = work
        self._imports = imports
        self._pool: Any = None
        self._flying: dict[Any, tuple[int, Any, float | None]] = {}
        self._restarts = 0

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """See :class:`Pool`."""
        if self._pool is not None and not self._pool.active:
            self._restart()
        if self._pool is None:
            self._pool = _start_processes(self._work, self.capacity, self._imports)
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
                message = f"not finished after {timeout:g} s: the process was killed"
                return ticket, Failure("TimedOut", message, expected=True)
            return ticket, Failure.of(error, starting=isinstance(error, BrokenProcessPool))

    def _restart(self) -> None:
        """Restart the processes after idle ones died or their pipe broke, and resubmit all jobs"""
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


def _start_processes(work: Callable[[Any], Any], workers: int, imports: Sequence[str]) -> Any:
    from multiprocessing import get_context

    from pebble import ProcessPool as Processes

    # Not forked from this process, because the threads and locks of torch and OpenCV do not survive
    # that. A server that has only imported modules can be forked; other systems than Linux have
    # libraries that do not survive even this.
    if imports and sys.platform == "linux":
        context = get_context("forkserver")
        context.set_forkserver_preload(list(imports))
    else:
        context = get_context("spawn")
    # the server has the environment of its start
    arguments = work, workers > 1, dict(os.environ)
    return Processes(workers, initializer=_start, initargs=arguments, context=context)


def single_thread() -> None:
    """Limit libraries to one thread in this process, because other processes run beside it."""
    os.environ.update(OMP_NUM_THREADS="1", OPENCV_FOR_THREADS_NUM="1")
    # libraries that are already imported have read the environment
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def _end_with_parent() -> None:
    """Exit with the parent process; an orphan would wait for jobs forever"""
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


# in a worker process: the work, loaded
_ready: list[Worker] = []


def _start(work: Callable[[Any], Any], shared: bool, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if shared:
        single_thread()
    _ready.append(Worker(work))
    if shared:
        single_thread()  # again, for libraries that were imported by `load`


def _work(job: Any) -> Any:
    return _ready[0](job)
