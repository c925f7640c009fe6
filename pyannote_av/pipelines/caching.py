"""What pipelines remember of a file while their hyper-parameters are tuned."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any


def cached(file: MutableMapping, name: str, key: Any, compute: Callable[[], Any]) -> Any:
    """Compute what does not depend on what is tuned, or remember it.

    Parameters
    ----------
    file : mapping
        Keeps the last value under ``training_cache/<name>``, unless it has a method ``cached`` of
        its own, such as :class:`~pyannote_av.tuning.cache.CachedFile`, which keeps all of them.
    name : str
        Of the stage.
    key : Any
        Hyper-parameters and whatever else the value depends on, besides the file and the models:
        strings, numbers, bytes and segments, and tuples of these.
    compute : callable

    Returns
    -------
    value : Any
        Not to be changed: others get the same.
    """
    if hasattr(file, "once"):
        return file.cached(name, key, compute)
    cached = file.get(f"training_cache/{name}")
    if cached is None or cached[0] != key:
        cached = key, compute()
        file[f"training_cache/{name}"] = cached
    return cached[1]
