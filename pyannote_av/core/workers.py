"""Work on many things at once, in processes that can be killed.

A file that hangs a decoder or takes its process with it costs that file, and nothing else: every
job may have a time limit, after which its process is killed and replaced, and jobs that fail are
tried again as often as asked for. No more jobs are handed out than are being worked on, so that
there may be millions of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
    from pyannote_av.core.processes import ProcessPool

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
