"""Caching of intermediate results of a file while hyper-parameters are tuned."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any


def cached(file: MutableMapping, name: str, key: Any, compute: Callable[[], Any]) -> Any:
    """Return a cached value, or compute and cache it.

    Parameters
    ----------
    file : mapping
        The last value is stored under ``training_cache/<name>``. A file with its own method
        ``cached``, such as :class:`~pyannote_av.tuning.cache.CachedFile`, stores all values.
    name : str
        Name of the stage.
    key : Any
        Hyper-parameters and everything else the value depends on, except the file and the models.
        Strings, numbers, bytes and segments, and tuples of these.
    compute : callable
        Computes the value.

    Returns
    -------
    value : Any
        It is shared: callers must not modify it.
    """
    if hasattr(file, "cached"):
        return file.cached(name, key, compute)
    cached = file.get(f"training_cache/{name}")
    if cached is None or cached[0] != key:
        cached = key, compute()
        file[f"training_cache/{name}"] = cached
    return cached[1]
