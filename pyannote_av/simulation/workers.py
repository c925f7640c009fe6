"""Making many files at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyannote_av.core.workers import Failure, open_pool
from pyannote_av.core.workers import run as run_jobs


@dataclass
class _Making:
    """What is the same for all files, sent to each process once"""

    make: Callable[..., None]
    arguments: Mapping[str, Any]

    def __call__(self, job: tuple[str, tuple[int, ...]]) -> None:
        uri, seed = job
        self.make(uri=uri, seed=seed, **self.arguments)


def run(
    make: Callable[..., None],
    jobs: Mapping[str, tuple[int, ...]],
    arguments: Mapping[str, Any],
    workers: int,
    progress: bool,
) -> Iterator[tuple[str, Failure | None]]:
    """Make files, one after the other or several at once.

    Parameters
    ----------
    make : callable
        Of a module: given ``uri``, ``seed`` and `arguments`.
    jobs : mapping of uri to seed
    arguments : mapping
        What is the same for all files.
    workers : int
        Processes at work at once; 0 does without other processes.
    progress : bool
        Show a bar.

    Yields
    ------
    uri : str
        In the order in which files are done.
    failure : Failure or None
        Why there is no such file.
    """
    from rich.progress import track

    with open_pool(_Making(make, arguments), workers) as pool:
        attempts = run_jobs(pool, jobs.items())
        for attempt in track(attempts, "simulating", total=len(jobs), disable=not progress):
            yield attempt.job[0], attempt.failure
