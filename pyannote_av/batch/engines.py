"""Execution of batch work: by processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from pyannote_av.core.workers import Pool, open_pool

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Configuration of the workers.

    Attributes
    ----------
    name : {"local", "ray"}
    workers : int
        Number of processes, or of actors in a cluster. 0 runs the work in this process, where it
        cannot be killed after a timeout.
    address : str, optional
        Address of a Ray cluster; "auto" finds one. If not given, Ray is started on this machine.
    gpus : float
        GPUs per actor. With 0.25, four actors share a GPU.

    Raises
    ------
    ValueError
        If these options contradict each other.
    """

    name: str = "local"
    workers: int = 1
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self):
        if self.name not in ENGINES:
            raise ValueError(f"unknown engine {self.name!r}; choose {' or '.join(ENGINES)}")
        if self.name == "ray" and self.workers < 1:
            raise ValueError("Ray needs at least one worker")
        if self.name == "local" and (self.address is not None or self.gpus):
            raise ValueError("an address and shares of GPUs need the engine ray")

    def connected(self) -> AbstractContextManager[None]:
        """Context in which pools must be opened; it connects to the cluster, if any."""
        if self.name == "ray":
            from pyannote_av.batch.on_ray import connected

            return connected(self.address, self.workers)
        return nullcontext()

    def open(self, work: Callable[[Any], Any], imports: Sequence[str] = ()) -> Pool:
        """Open a pool of workers; see :func:`~pyannote_av.core.workers.open_pool`."""
        if self.name == "ray":
            from pyannote_av.batch.on_ray import RayPool

            return RayPool(work, self.workers, self.gpus)
        return open_pool(work, self.workers, imports)

    def without_gpus(self) -> Engine:
        """The same engine without GPUs, for work that needs none."""
        return replace(self, gpus=0.0)
