"""Batch work on a Ray cluster. Each actor works on one file at a time, and can be killed.

An actor that hangs is killed. If an actor or its machine is lost, the actor is replaced, and this
counts as one attempt on its file. Ray itself restarts nothing.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from pyannote_av.core.workers import Failure, Worker, single_thread

logger = logging.getLogger(__name__)

# environment variables that are passed to the workers
_PASSED_ON = ("PYANNOTE_AV_WEIGHTS", "PYANNOTE_AV_CACHE", "PYANNOTE_METRICS_ENABLED")
_PASSED_ON += ("HF_HUB_OFFLINE", "HF_HOME")

#: seconds without any running actor after which a warning is logged
_PATIENCE = 60.0
#: maximum number of consecutive actors that die while starting
_MAX_DEATHS = 3


class _Actor:
    """A worker on any machine of the cluster"""

    def __init__(self, work: Callable[[Any], Any], environment: dict[str, str]):
        os.environ.update(environment)
        single_thread()
        self._worker = Worker(work)
        single_thread()

    def ready(self) -> None:
        """Return when the actor has started"""

    def work(self, job: Any) -> Any:
        """Result of a job"""
        return self._worker(job)


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Connect to a cluster.

    Parameters
    ----------
    address : str, optional
        Address of a running cluster; "auto" finds one. If not given, Ray is started on this
        machine.
    workers : int
        Number of CPUs of a Ray instance that is started here.

    Raises
    ------
    ModuleNotFoundError
        If Ray is not installed.
    ConnectionError
        If there is no cluster at the address.
    """
    # do not send usage statistics
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ModuleNotFoundError(
            "the engine ray needs Ray: pip install 'pyannote-av[ray]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    if address is None:
        # "local" also ignores the environment variable that names a cluster
        options = {"address": "local", "num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "on this machine" if address is None else f"at {address!r}"
        raise ConnectionError(f"no Ray {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class _Slot:
    """An actor, its current request, and the deadline of that request"""

    actor: Any
    pending: Any
    ticket: int | None = None
    timeout: float | None = None
    deadline: float | None = None


class RayPool:
    """Actors of the cluster that this process is connected to; see :func:`connected`.

    Parameters
    ----------
    work : callable
        See :func:`~pyannote_av.core.workers.open_pool`.
    workers : int
        Maximum number of actors, with one CPU each.
    gpus : float
        GPUs per actor. With fractions, actors share GPUs.
    """

    def __init__(self, work: Callable[[Any], Any], workers: int, gpus: float = 0.0):
        import ray

        self.capacity = workers
        self._ray, self._work, self._gpus = ray, work, gpus
        self._class = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._waiting: deque[tuple[int, Any, float | None]] = deque()
        self._slots: list[_Slot] = []
        self._deaths = 0

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exception: object) -> None:
        for slot in self._slots:
            self._kill(slot)
        self._slots.clear()

    def submit(self, ticket: int, job: Any, timeout: float | None) -> None:
        """See :class:`~pyannote_av.core.workers.Pool`."""
        self._waiting.append((ticket, job, timeout))
        # start actors only as long as there is work for them
        if len(self._slots) < self.capacity and not any(self._is_free(s) for s in self._slots):
            self._slots.append(self._new())

    def next(self) -> tuple[int, Any]:
        """See :class:`~pyannote_av.core.workers.Pool`."""
        quiet = monotonic()
        while True:
            self._hand_out()
            if (late := self._overdue()) is not None:
                return late
            pending = {slot.pending: slot for slot in self._slots if slot.pending is not None}
            ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=self._patience())
            if ready and (result := self._receive(pending[ready[0]])) is not None:
                return result
            if not ready and monotonic() - quiet >= _PATIENCE:
                self._complain()
                quiet = monotonic()

    def _receive(self, slot: _Slot) -> tuple[int, Any] | None:
        """Result of an actor's request; None if the actor has just started"""
        pending, ticket = slot.pending, slot.ticket
        slot.pending = slot.ticket = slot.deadline = None
        try:
            value = self._ray.get(pending)
        except self._ray.exceptions.RayActorError as error:
            self._replace(slot)
            if ticket is None:
                self._deaths += 1
                if self._deaths > _MAX_DEATHS:
                    return self._give_up(Failure.of(error, starting=True))
                return None
            return ticket, Failure("ProcessDied", _first_line(error), expected=True)
        except self._ray.exceptions.RayError as error:
            # the result cannot be read
            if ticket is None:
                return self._give_up(Failure.of(error, starting=True))
            return ticket, Failure(type(error).__name__, _first_line(error))
        self._deaths = 0
        return None if ticket is None else (ticket, value)

    def _give_up(self, failure: Failure) -> tuple[int, Any] | None:
        """Fail a waiting job, if any, because no actor can be started"""
        return (self._waiting.popleft()[0], failure) if self._waiting else None

    def _overdue(self) -> tuple[int, Any] | None:
        """Fail a job that exceeded its time limit; its actor is killed and replaced"""
        now = monotonic()
        for slot in self._slots:
            if slot.deadline is not None and slot.deadline <= now:
                ticket, timeout = slot.ticket, slot.timeout
                self._replace(slot)
                message = f"not finished after {timeout:g} s: the process was killed"
                return ticket, Failure("TimedOut", message, expected=True)
        return None

    def _patience(self) -> float:
        """Seconds until the next deadline"""
        deadlines = [slot.deadline for slot in self._slots if slot.deadline is not None]
        return max(0.0, min([monotonic() + _PATIENCE, *deadlines]) - monotonic())

    def _complain(self) -> None:
        """Log a warning if no actor could be started"""
        if all(slot.ticket is None for slot in self._slots):
            logger.warning(
                "no worker could be started for %.0f s: %d are needed, with a CPU and %g GPUs "
                "each, and the cluster has %s",
                *(_PATIENCE, self.capacity, self._gpus, self._ray.cluster_resources()),
            )

    @staticmethod
    def _is_free(slot: _Slot) -> bool:
        return slot.pending is None

    def _hand_out(self) -> None:
        for slot in self._slots:
            if self._waiting and self._is_free(slot):
                slot.ticket, job, slot.timeout = self._waiting.popleft()
                slot.pending = slot.actor.work.remote(job)
                slot.deadline = None if slot.timeout is None else monotonic() + slot.timeout

    def _new(self) -> _Slot:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        actor = self._class.remote(self._work, environment)
        return _Slot(actor, actor.ready.remote())

    def _replace(self, slot: _Slot) -> None:
        self._kill(slot)
        fresh = self._new()
        slot.actor, slot.pending = fresh.actor, fresh.pending
        slot.ticket = slot.timeout = slot.deadline = None

    def _kill(self, slot: _Slot) -> None:
        self._ray.kill(slot.actor, no_restart=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
