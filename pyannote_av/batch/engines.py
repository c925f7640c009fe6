"""Where work is done: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from pyannote_av.core.workers import Pool, open_pool

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """What work is done by.

    Attributes
    ----------
    name : {"local", "ray"}
    workers : int
        Processes, or actors of a cluster. 0: in this process, where nothing can be killed.
    address : str, optional
        Of a Ray cluster; "auto" finds one. Without, Ray is started on this machine.
    gpus : float
        Of each actor: 0.25 lets four share one.

    Raises
    ------
    ValueError
        When these do not go together.
    """

    name: str = "local"
    workers: int = 1
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self):
        if self.name not in ENGINES:
            raise ValueError(f"no engine is called {self.name!r}: {' and '.join(ENGINES)} are")
        if self.name == "ray" and self.workers < 1:
            raise ValueError("Ray needs one worker or more")
        if self.name == "local" and (self.address is not None or self.gpus):
            raise ValueError("an address, and shares of GPUs, are for the engine ray")

    def connected(self) -> AbstractContextManager[None]:
        """What pools have to be opened within."""
        if self.name == "ray":
            from pyannote_av.batch.on_ray import connected

            return connected(self.address, self.workers)
        return nullcontext()

    def open(self, work: Callable[[Any], Any]) -> Pool:
        """A pool that does some work; see :func:`~pyannote_av.core.workers.open_pool`."""
        if self.name == "ray":
            from pyannote_av.batch.on_ray import RayPool

            return RayPool(work, self.workers, self.gpus)
        return open_pool(work, self.workers)

    def without_gpus(self) -> Engine:
        """The same, for work that needs none."""
        return replace(self, gpus=0.0)
