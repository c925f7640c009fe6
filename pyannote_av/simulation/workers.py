"""Making many files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# what a worker process works with, sent once and not with every file
_worker: dict[str, Any] = {}


def run(
    make: Callable[..., None],
    jobs: Mapping[str, tuple[int, ...]],
    arguments: Mapping[str, Any],
    workers: int,
    progress: bool,
) -> Iterator[tuple[str, BaseException | None]]:
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
    error : Exception or None
        Why there is no such file.
    """
    from rich.progress import track

    done = _parallel(make, jobs, arguments, workers) if workers else _serial(make, jobs, arguments)
    yield from track(done, "simulating", total=len(jobs), disable=not progress)


def _serial(make, jobs, arguments):
    for uri, seed in jobs.items():
        try:
            make(uri=uri, seed=seed, **arguments)
        except Exception as error:
            yield uri, error
        else:
            yield uri, None


def _parallel(make, jobs, arguments, workers: int):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # a forked process inherits the locks of threads it does not have
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (make, arguments)) as pool:
        futures = {pool.submit(_work, uri, seed): uri for uri, seed in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.exception()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, which else waits for work forever"""
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _start(make: Callable[..., None], arguments: Mapping[str, Any]) -> None:
    import threading

    import cv2
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(make=make, arguments=arguments)


def _work(uri: str, seed: tuple[int, ...]) -> None:
    _worker["make"](uri=uri, seed=seed, **_worker["arguments"])
