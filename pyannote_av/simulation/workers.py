"""Generation of many files in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyannote_av.core.workers import Failure, open_pool
from pyannote_av.core.workers import run as run_jobs


@dataclass
class _Making:
    """Function and common arguments of all files, sent to each process once"""

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
    """Generate files, sequentially or in parallel.

    Parameters
    ----------
    make : callable
        Module-level function with arguments ``uri``, ``seed`` and `arguments`.
    jobs : mapping of uri to seed
    arguments : mapping
        Arguments that are the same for all files.
    workers : int
        Number of parallel processes; 0 uses only this process.
    progress : bool
        Whether to show a progress bar.

    Yields
    ------
    uri : str
        Files are yielded as they are finished.
    failure : Failure or None
        Reason why the file was not generated.
    """
    from rich.progress import track

    with open_pool(_Making(make, arguments), workers) as pool:
        attempts = run_jobs(pool, jobs.items())
        for attempt in track(attempts, "simulating", total=len(jobs), disable=not progress):
            yield attempt.job[0], attempt.failure
