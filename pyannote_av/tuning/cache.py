"""Stages of pipelines that do not depend on what is tuned, kept in a folder for everybody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock

from pyannote_av.core.atomic import check_own_file, own_folder, replacing
from pyannote_av.core.reading import ARRAYS_LIMIT, open_bytes
from pyannote_av.tuning.hashing import checksum
from pyannote_av.tuning.serialization import Entry, from_bytes, to_bytes

logger = logging.getLogger(__name__)

# how pyannote's pipelines and ours call what they keep in files while they are tuned
_STAGES = ("training_cache/", "cache/")
_SUFFIX = ".entry"


class Cache:
    """A folder of entries, addressed by all that they depend on.

    Several processes may use it at once. Nothing is ever removed: delete the folder, or entries in
    it, whenever no process is at work.

    Parameters
    ----------
    folder : str or Path
        Made if need be.

    Raises
    ------
    ValueError
        When a link, or something else that was not written here, is in the place of a lock.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks = own_folder(self.folder / "locks")

    def path(self, address: str) -> Path:
        """Where an entry is, or would be."""
        return self.folder / address[:2] / f"{address}{_SUFFIX}"

    def lock(self, address: str) -> FileLock:
        """Held by who computes an entry, until it is there; gone with its process."""
        return FileLock(check_own_file(self._locks / address[:2]))

    def read(self, address: str) -> Entry | None:
        """The entry, if it is there and whole; that it is not whole is logged."""
        path = self.path(address)
        try:
            with open_bytes(path, ARRAYS_LIMIT) as file:
                return from_bytes(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s): it is computed again", path, error)
            with suppress(OSError):
                path.unlink()
            return None

    def write(self, address: str, entry: Entry) -> None:
        """Keep an entry; that it could not be kept is logged."""
        try:
            path = self.path(address)
            own_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(to_bytes(entry))
        except (OSError, TypeError, ValueError) as error:
            # it is an hour of work at worst, and no reason to lose the others
            logger.warning("%s could not be kept in %s: %s", entry.name, self.folder, error)

    def tidy(self) -> None:
        """Remove what killed processes left half-written; only while no process is at work."""
        for path in self.folder.glob(f"??/.*{_SUFFIX}"):
            if not path.parent.is_symlink():
                path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """Number of entries, and bytes."""
        sizes = [path.stat().st_size for path in self.folder.glob(f"??/*{_SUFFIX}")]
        return len(sizes), sum(sizes)


class CachedFile(MutableMapping):
    """A file of a protocol that keeps stages of pipelines in a cache.

    It is used as any mapping. What is called ``training_cache/...`` goes to the cache, all the rest
    stays in memory, such as the waveform: 230 MB per hour.

    Parameters
    ----------
    content : mapping
        The file.
    cache : Cache
    key : str
        Checksum of the content of the file and of the pipeline.

    Attributes
    ----------
    borrowed : dict of str to float
        Seconds that stages had taken when they were computed, which were used since
        :meth:`settle`; 0 for those that were computed meanwhile.
    waited : float
        Seconds for other processes, since then.
    """

    def __init__(self, content: Mapping[str, Any], cache: Cache, key: str):
        self._content = dict(content)
        self._cache, self._key = cache, key
        # the last one of each name
        self._known: dict[str, tuple[str, Entry]] = {}
        self._begun: dict[str, float] = {}
        self._lock: FileLock | None = None
        self.borrowed: dict[str, float] = {}
        self.waited = 0.0

    def cached(self, name: str, key: Any, compute: Callable[[], Any]) -> Any:
        """See :func:`~pyannote_av.pipelines.caching.cached`."""
        address = self._address(name, key)
        if (known := self._recall(name, address)) is None:
            self._acquire(address)
            try:
                known = self._recall(name, address)
                if known is None:
                    begin = perf_counter()
                    value = compute()
                    known = self._keep(name, address, value, perf_counter() - begin)
            finally:
                self._release()
        return known.value

    def settle(self) -> None:
        """Forget what was borrowed, and what somebody began to compute and gave up."""
        self.borrowed.clear()
        self._begun.clear()
        self.waited = 0.0
        self._release()

    def __getitem__(self, name: str) -> Any:
        if not name.startswith(_STAGES):
            return self._content[name]
        address = self._address(name, None)
        known = self._recall(name, address)
        if known is None and name not in self._begun:
            # whoever asks for what is not there is about to compute it
            self._acquire(address)
            known = self._recall(name, address)
            if known is None:
                self._begun[name] = perf_counter()
            else:
                self._release()
        if known is None:
            raise KeyError(name)
        return known.value

    def __setitem__(self, name: str, value: Any) -> None:
        if not name.startswith(_STAGES):
            self._content[name] = value
            return
        now = perf_counter()
        self._keep(name, self._address(name, None), value, now - self._begun.pop(name, now))
        if not self._begun:
            self._release()

    def __delitem__(self, name: str) -> None:
        del (self._known if name in self._known else self._content)[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._content
        yield from self._known

    def __len__(self) -> int:
        return len(self._content) + len(self._known)

    def _address(self, name: str, key: Any) -> str:
        return checksum((self._key, name, key))

    def _recall(self, name: str, address: str) -> Entry | None:
        """From memory or from the folder"""
        before, entry = self._known.get(name, (None, None))
        if before != address:
            entry = self._cache.read(address)
            if entry is None:
                return None
            self._known[name] = address, entry
        self.borrowed.setdefault(address, entry.seconds)
        return entry

    def _keep(self, name: str, address: str, value: Any, seconds: float) -> Entry:
        entry = Entry(name, seconds, value)
        self._cache.write(address, entry)
        self._known[name] = address, entry
        self.borrowed[address] = 0.0
        return entry

    def _acquire(self, address: str) -> None:
        # one at a time: what is computed on the way to something else is part of it
        if self._lock is None:
            begin = perf_counter()
            self._lock = self._cache.lock(address)
            self._lock.acquire()
            self.waited += perf_counter() - begin

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
