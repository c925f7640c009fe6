"""Work that other threads do at the same time"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

#: items that are processed at once, at most: each takes memory
_MOST = 8
_POLL = 0.1  # seconds after which a thread looks whether it is still needed
_END = object()


def ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Iterate over items that another thread takes from an iterator in advance

    Parameters
    ----------
    items : iterable
        Used in the other thread only. An exception that it raises is raised here.
    count : int
        Maximum number of items in advance.
    """
    taken: Queue = Queue(count)
    stopped = Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                return taken.put(item, timeout=_POLL)
            except Full:
                continue

    def take() -> None:
        end: Any = (_END, None)
        try:
            for item in items:
                put((None, item))
                if stopped.is_set():
                    break
        except BaseException as error:
            end = _END, error
        put(end)

    thread = Thread(target=take, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            end, item = taken.get()
            if end is not _END:
                yield item
            elif item is not None:
                raise item
            else:
                return
    finally:
        stopped.set()
        thread.join()


def on_all_cores(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device | None = None
) -> Iterator[Result]:
    """Apply a function that runs a network on the CPU to several items at once, in their order

    As many threads as PyTorch uses for one operator, but at most eight, each process an item of
    their own. They share the threads for operators: up to eight cores, each has one. Networks
    whose operators are small gain nothing from several threads for one operator. Until the end,
    PyTorch uses this share in other threads that begin, too.

    Parameters
    ----------
    function : callable
        An exception that it raises is raised here.
    items : iterable
        Few items are taken in advance.
    device : torch.device, optional
        Device of the network. On other devices than the CPU, items are processed one by one.
    """
    import torch

    count = torch.get_num_threads()
    if count == 1 or (device is not None and device.type != "cpu"):
        yield from map(function, items)
        return

    at_once = min(count, _MOST)

    def share() -> None:
        torch.get_num_threads()  # the first call in a thread would undo the next line
        torch.set_num_threads(count // at_once)

    waiting: deque[Future] = deque()
    try:
        with ThreadPoolExecutor(at_once, "cores", share) as threads:
            try:
                for item in items:
                    waiting.append(threads.submit(function, item))
                    if len(waiting) > at_once:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for one in waiting:
                    one.cancel()
    finally:
        # what a thread sets for itself also holds for threads that begin later
        torch.set_num_threads(count)


class Background:
    """Functions that run in one other thread, in order

    Parameters
    ----------
    limit : float
        Maximum total size of what waits.
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "background")
        self._waiting: deque[tuple[float, Future]] = deque()

    def submit(self, size: float, function: Callable, *arguments: Any) -> None:
        """Run a function later. An exception of an earlier one may be raised here."""
        self._waiting.append((size, self._thread.submit(function, *arguments)))
        while sum(size for size, _ in self._waiting) > self._limit:
            self._waiting.popleft()[1].result()

    def finish(self) -> None:
        """Wait until all functions have run, and raise the first of their exceptions"""
        while self._waiting:
            self._waiting.popleft()[1].result()

    def close(self) -> None:
        """End the thread, and drop what waits"""
        self._thread.shutdown(cancel_futures=True)
