"""Caching of the steps of pipelines while hyper-parameters are tuned.

The optimizer owns the cache: ``with use(cache):`` makes all pipelines that are called inside, and
that are in training mode, use it. A pipeline in training mode without such a cache, as in
``pyannote-audio optimize``, keeps the results of its steps in memory. Otherwise, nothing is kept.

Results are stored under a checksum of all that they depend on: the content of the media, and the
models, options and hyper-parameters that the step reads. Nothing is kept in mappings of callers.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pyannote.core import Annotation, Segment, SlidingWindowFeature, Timeline

from pyannote_av import __version__
from pyannote_av.core.checksums import digest, fingerprint
from pyannote_av.core.weights import REGISTRY, find

# names under which pyannote's pipelines keep intermediate results in files while they are tuned
_STEPS = ("training_cache/", "cache/")
# steps add the hyper-parameters that they read, and what pyannote derives from them, to their keys;
# the device does not matter
_NOT_IDENTITY = ("_parameters", "_instantiated", "_binarize", "_training", "device", "_device")
_NOT_IDENTITY += ("_cache",)


class Entry(NamedTuple):
    """A cached value.

    Attributes
    ----------
    name : str
        Name of the step.
    seconds : float
        Time that it took to compute.
    value : Any
    """

    name: str
    seconds: float
    value: Any


class Cache(Protocol):
    """Storage of entries by address.

    Attributes
    ----------
    memory : MemoryCache
        For values that are not worth storing elsewhere, such as decoded audio.
    """

    memory: MemoryCache

    def read(self, address: str) -> Entry | None:
        """The entry at an address, if there is one."""
        ...

    def write(self, address: str, entry: Entry) -> None:
        """Store an entry."""
        ...

    def lock(self, address: str) -> AbstractContextManager:
        """Lock that is held while an entry is computed."""
        ...


class MemoryCache:
    """A cache in memory.

    Copies of it, including those in other processes, start empty.

    Parameters
    ----------
    max_bytes : int, optional
        Approximate limit on the total size of values. If it is exceeded, the largest values are
        removed first: decoded audio, which is the quickest to compute again.
    """

    def __init__(self, max_bytes: int = 8 * 2**30):
        self.max_bytes = max_bytes
        self._entries: dict[str, Entry] = {}
        self._sizes: dict[str, int] = {}
        self._writing = Lock()

    def __reduce__(self):
        return MemoryCache, (self.max_bytes,)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def memory(self) -> MemoryCache:
        """The cache itself."""
        return self

    def read(self, address: str) -> Entry | None:
        """See :class:`Cache`."""
        return self._entries.get(address)

    def write(self, address: str, entry: Entry) -> None:
        """See :class:`Cache`."""
        with self._writing:
            self._entries[address], self._sizes[address] = entry, _size(entry.value)
            while sum(self._sizes.values()) > self.max_bytes:
                largest = max(self._sizes, key=self._sizes.__getitem__)
                del self._entries[largest], self._sizes[largest]

    def lock(self, address: str) -> AbstractContextManager:
        """No lock: two threads may compute the same value."""
        return nullcontext()


class Session:
    """Use of a cache by one thread, which accounts for the time that the cache saved.

    Parameters
    ----------
    cache : Cache

    Attributes
    ----------
    borrowed : dict of str to float
        For each address that was read, the seconds that its value had taken to compute. 0 for
        values that were computed in this session.
    waited : float
        Seconds spent waiting for other processes.
    """

    def __init__(self, cache: Cache):
        self.cache = cache
        self.borrowed: dict[str, float] = {}
        self.waited = 0.0
        self._lock: AbstractContextManager | None = None
        # begin of steps that `look_up` did not find, and whether the lock was taken for them
        self._begun: dict[str, float] = {}
        self._locked_by_look_up = False

    def cached(
        self, address: str, name: str, compute: Callable[[], Any], in_memory: bool = False
    ) -> Any:
        """Return the value at an address, or compute and store it.

        Parameters
        ----------
        address : str
            Checksum of everything that the value depends on.
        name : str
            Name of the step.
        compute : callable
        in_memory : bool, optional
            Store the value in memory only.
        """
        cache = self.cache.memory if in_memory else self.cache
        entry = self._read(cache, address)
        if entry is None:
            first = self._acquire(cache, address)
            try:
                # another process may have computed it while this one waited for the lock
                entry = self._read(cache, address)
                if entry is None:
                    begin = perf_counter()
                    value = compute()
                    entry = self._write(cache, address, name, value, perf_counter() - begin)
            finally:
                if first:
                    self._release()
        return entry.value

    def look_up(self, address: str) -> Entry | None:
        """Return the entry at an address. If there is none, the caller is expected to compute it.

        Other processes that look it up wait until it is stored, or until the session is closed.
        """
        entry = self._read(self.cache, address)
        if entry is None and address not in self._begun:
            first = self._acquire(self.cache, address)
            entry = self._read(self.cache, address)
            if entry is None:
                self._begun[address] = perf_counter()
                self._locked_by_look_up |= first
            elif first:
                self._release()
        return entry

    def store(self, address: str, name: str, value: Any) -> None:
        """Store a value that :meth:`look_up` did not find."""
        now = perf_counter()
        self._write(self.cache, address, name, value, now - self._begun.pop(address, now))
        if self._locked_by_look_up and not self._begun:
            self._release()

    def close(self) -> None:
        """Release the lock, so that other processes no longer wait."""
        self._begun.clear()
        self._release()

    def _read(self, cache: Cache, address: str) -> Entry | None:
        entry = cache.read(address)
        if entry is not None:
            self.borrowed.setdefault(address, entry.seconds)
        return entry

    def _write(self, cache: Cache, address: str, name: str, value: Any, seconds: float) -> Entry:
        entry = Entry(name, seconds, value)
        cache.write(address, entry)
        self.borrowed[address] = 0.0
        return entry

    def _acquire(self, cache: Cache, address: str) -> bool:
        """Lock an address, unless another one is locked: its value is then a part of that one."""
        if self._lock is not None:
            return False
        begin = perf_counter()
        lock = cache.lock(address)
        lock.__enter__()
        self._lock = lock
        self.waited += perf_counter() - begin
        return True

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock, self._locked_by_look_up = None, False


_session: ContextVar[Session | None] = ContextVar("pyannote_av_cache", default=None)


@contextmanager
def use(cache: Cache) -> Iterator[Session]:
    """Let pipelines in training mode use a cache, in this thread and inside the ``with`` block.

    Parameters
    ----------
    cache : Cache

    Yields
    ------
    session : Session

    Examples
    --------
    >>> cache = MemoryCache()
    >>> with use(cache):
    ...     pass  # pipeline(file)
    """
    session = Session(cache)
    token = _session.set(session)
    try:
        yield session
    finally:
        _session.reset(token)
        session.close()


def current_session() -> Session | None:
    """Session of the innermost :func:`use`, if any."""
    return _session.get()


class CachedFile(MutableMapping):
    """A file, prepared by a pipeline in training mode, with a cache for steps of pipelines.

    pyannote's own pipelines keep the results of their steps in the mapping, under names that start
    with ``training_cache/`` or ``cache/``. These go to the cache. Everything else stays in the
    mapping.

    Parameters
    ----------
    file : MutableMapping
        Prepared file. It must not belong to the caller of the pipeline.
    session : Session
    media : str
        Checksum of the content of the media.
    pipeline : pyannote.audio.Pipeline
        Pipeline whose models and options these steps depend on.
    """

    def __init__(self, file: MutableMapping, session: Session, media: str, pipeline: Any):
        self._file, self._session, self._media = file, session, media
        self._pipeline, self._identity = pipeline, ""

    def cached(self, name: str, depends_on: Any, compute: Callable[[], Any]) -> Any:
        """See :func:`cached`."""
        return self._session.cached(self._address(name, depends_on), name, compute)

    def of(self, pipeline: Any) -> CachedFile:
        """The same file for one of pyannote's own pipelines."""
        return CachedFile(self._file, self._session, self._media, pipeline)

    def __getitem__(self, name: str) -> Any:
        if not name.startswith(_STEPS):
            return self._file[name]
        entry = self._session.look_up(self._address(name, self._whole_pipeline()))
        if entry is None:
            raise KeyError(name)
        return entry.value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith(_STEPS):
            self._session.store(self._address(name, self._whole_pipeline()), name, value)
        else:
            self._file[name] = value

    def __delitem__(self, name: str) -> None:
        del self._file[name]

    def __iter__(self) -> Iterator[str]:
        # steps that are in the mapping itself may be those of another file or pipeline
        return (name for name in self._file if not name.startswith(_STEPS))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _address(self, name: str, depends_on: Any) -> str:
        return checksum((__version__, self._media, name, depends_on))

    def _whole_pipeline(self) -> str:
        self._identity = self._identity or checksum(self._pipeline)
        return self._identity


def cached(file: Mapping, name: str, depends_on: Any, compute: Callable[[], Any]) -> Any:
    """Compute a step of a pipeline, or return its cached value while the pipeline is tuned.

    Parameters
    ----------
    file : mapping
        Prepared by the pipeline. The value may depend on its media.
    name : str
        Name of the step.
    depends_on : Any
        Everything else that the value depends on: models, options, hyper-parameters, results of
        other steps; see :func:`checksum`.
    compute : callable
        Computes the value.

    Returns
    -------
    value : Any
        It may be shared: callers must not modify it.
    """
    if isinstance(file, CachedFile):
        return file.cached(name, depends_on, compute)
    return compute()


def for_pipeline(file: Mapping, pipeline: Any) -> Mapping:
    """A prepared file for one of pyannote's own pipelines, whose steps are cached too.

    Parameters
    ----------
    file : mapping
        Prepared by a pipeline of this package.
    pipeline : pyannote.audio.Pipeline
        Pipelines without a true ``HALF_PRECISION`` get the sound at full precision.
    """
    prepared = file.of(pipeline) if isinstance(file, CachedFile) else file
    sound = prepared.get("waveform")
    if sound is None or getattr(pipeline, "HALF_PRECISION", False) or sound.dtype != torch.half:
        return prepared
    return ChainMap({"waveform": sound.float()}, prepared)


def media_checksum(file: Mapping[str, Any]) -> str:
    """Checksum of the content of the media of a file, whatever the names of the files.

    Parameters
    ----------
    file : mapping
        As returned by :meth:`pyannote_av.Video.validate_file`.
    """
    media = {name: value for name, value in file.items() if name != "uri"}
    return checksum({k: Path(v) if k in ("audio", "video") else v for k, v in media.items()})


def checksum(value: Any) -> str:
    """SHA-256 of a value, which is the same for equal values in all processes.

    Parameters
    ----------
    value : Any
        Plain values and containers of them, arrays, tensors, segments, timelines, annotations,
        dataclasses, networks, and objects of pyannote and of this package. A ``Path`` stands for
        the content of the file. Of other objects, only the class is taken into account.
    """
    return digest(_blocks(value, ()))


def _blocks(value: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    """Bytes that represent a value. `above` are the objects that contain it."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.generic)):
        yield f"{type(value).__name__} {value!r};".encode()
        return
    if id(value) in above:
        yield b"above;"
        return
    above = (*above, id(value))
    cls = type(value)
    yield f"{cls.__module__}.{cls.__qualname__}(".encode()
    for part in _parts(value):
        if isinstance(part, bytes):
            yield part
        else:
            yield from _blocks(part, above)
    yield b");"


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray):
        yield f"{value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes() if value.dtype != object else value.tolist()
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
    elif isinstance(value, torch.nn.Module):
        yield dict(getattr(value, "hparams", {}))
        yield _weights(value)
    elif isinstance(value, Path):
        yield _fingerprint(value) if value.is_file() else str(value)
    elif isinstance(value, Segment):
        yield from (value.start, value.end)
    elif isinstance(value, Timeline):
        yield from value
    elif isinstance(value, Annotation):
        yield from value.itertracks(yield_label=True)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from (key, value[key])
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, (set, frozenset)):
        yield from sorted(value, key=repr)
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))
    elif type(value).__module__.startswith("pyannote"):
        yield from _of_object(value)


def _of_object(value: Any) -> Iterator[Any]:
    """Attributes, and the weights if an object that cannot be inspected holds them."""
    for name, one in sorted(getattr(value, "__dict__", {}).items()):
        # cached properties follow from the other attributes, and exist only after their first use
        is_derived = isinstance(getattr(type(value), name, None), cached_property)
        if name not in _NOT_IDENTITY and not is_derived:
            yield from (name, one)
    name = getattr(value, "name", None)
    if isinstance(name, str) and name in REGISTRY:
        yield find(name)


_known_weights: WeakKeyDictionary[torch.nn.Module, tuple[tuple, str]] = WeakKeyDictionary()


def _weights(model: torch.nn.Module) -> str:
    """Checksum of the weights of a network. It is computed again only if they were changed."""
    tensors = chain(model.parameters(), model.buffers())
    try:
        versions = tuple((one.data_ptr(), one._version) for one in tensors)
    except RuntimeError:  # tensors made in inference mode have no version
        return checksum(dict(model.state_dict()))
    before, found = _known_weights.get(model, (None, ""))
    if before != versions:
        found = checksum(dict(model.state_dict()))
        _known_weights[model] = versions, found
    return found


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return _known_fingerprint(str(path.absolute()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _known_fingerprint(path: str, size: int, modified: int) -> str:
    """Fingerprint of a file. It is computed again if its size or modification time changes."""
    return fingerprint(path)


def _size(value: Any) -> int:
    """Approximate number of bytes of a value."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.nbytes
    if isinstance(value, SlidingWindowFeature):
        return value.data.nbytes
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    if is_dataclass(value):
        return sum(_size(getattr(value, field.name)) for field in fields(value))
    return 64
