"""Conversion of cache entries to bytes and back. Reading an entry executes no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pyannote.core import Annotation, Segment, SlidingWindow, SlidingWindowFeature, Timeline
from safetensors.numpy import load, save

from pyannote_av.clustering.windowed_file import ScoredFaces
from pyannote_av.core.caching import Entry
from pyannote_av.core.reading import parse_json
from pyannote_av.core.tracks import FaceSamples, FaceTracks, PictureStats
from pyannote_av.fusion.targets import FaceFeatures
from pyannote_av.pipelines.speaking_scores import SpeakingScores

_TREE = "tree"
_CHECKSUM = 32  # bytes

#: named tuples and dataclasses that entries may hold
_RECORDS = {
    cls.__name__: cls
    for cls in (FaceTracks, PictureStats, FaceSamples, ScoredFaces, SpeakingScores, FaceFeatures)
}


def to_bytes(entry: Entry) -> bytes:
    """Write an entry.

    Raises
    ------
    TypeError
        When it contains a type that entries cannot hold.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps([entry.name, entry.seconds, _take_apart(entry.value, arrays)])
    arrays[_TREE] = np.frombuffer(text.encode(), np.uint8)
    content = save(arrays)
    return hashlib.sha256(content).digest() + content


def from_bytes(content: bytes) -> Entry:
    """Read an entry.

    Raises
    ------
    ValueError
        When it is damaged, incomplete, or not an entry.
    """
    checksum, content = content[:_CHECKSUM], content[_CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError("it is damaged")
    try:
        arrays = load(content)
        text = arrays.pop(_TREE).tobytes().decode("utf-8")
        name, seconds, tree = parse_json(text, "the entry", nan=True)
        return Entry(name, seconds, _put_together(tree, arrays))
    except Exception as error:  # content of another version may raise anything
        raise ValueError(f"it was written by another version ({error})") from error


def _take_apart(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree of plain values, which refers to arrays"""

    def inner(one: Any) -> Any:
        return _take_apart(one, arrays)

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[str(len(arrays))] = np.ascontiguousarray(value)
        return ["array", str(len(arrays) - 1), list(value.shape)]
    if isinstance(value, np.generic):
        return ["scalar", inner(np.asarray(value).reshape(1))]
    if isinstance(value, SlidingWindow):
        return ["window", value.duration, value.step, value.start, value.end]
    if isinstance(value, SlidingWindowFeature):
        return ["feature", *map(inner, (value.data, value.sliding_window, value.labels))]
    if isinstance(value, Segment):
        return ["segment", value.start, value.end]
    if isinstance(value, Timeline):
        return ["timeline", value.uri, [[one.start, one.end] for one in value]]
    if isinstance(value, Annotation):
        turns = [inner(list(turn)) for turn in value.itertracks(yield_label=True)]
        return ["annotation", value.uri, turns]
    kind = type(value).__name__
    if _RECORDS.get(kind) is type(value):
        names = [one.name for one in fields(value)] if is_dataclass(value) else value._fields
        return ["record", kind, {name: inner(getattr(value, name)) for name in names}]
    if type(value) in (list, tuple):
        return [kind, [inner(one) for one in value]]
    if isinstance(value, dict):
        return ["dict", [[inner(key), inner(one)] for key, one in value.items()]]
    raise TypeError(f"{type(value).__name__} cannot be cached")


def _put_together(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value that :func:`_take_apart` converted"""

    def inner(one: Any) -> Any:
        return _put_together(one, arrays)

    if not isinstance(tree, list):
        return tree
    kind, *content = tree
    return _READERS[kind](inner, arrays, *content)


def _annotation(inner: Callable, arrays: Any, uri: str | None, turns: list) -> Annotation:
    made = Annotation(uri=uri)
    for segment, track, label in map(inner, turns):
        made[segment, track] = label
    return made


_READERS: dict[str, Callable] = {
    # copied, because values must be writable; removed, because a crafted entry that refers to an
    # array many times would take many times its memory
    "array": lambda inner, arrays, name, shape: arrays.pop(name).reshape(shape).copy(),
    "scalar": lambda inner, arrays, one: inner(one)[0],
    "window": lambda inner, arrays, *ends: SlidingWindow(*ends),
    "feature": lambda inner, arrays, *parts: SlidingWindowFeature(*map(inner, parts)),
    "segment": lambda inner, arrays, *ends: Segment(*ends),
    "timeline": lambda inner, arrays, uri, spans: Timeline([Segment(*s) for s in spans], uri=uri),
    "annotation": _annotation,
    "record": lambda inner, arrays, kind, parts: _RECORDS[kind](
        **{name: inner(one) for name, one in parts.items()}
    ),
    "list": lambda inner, arrays, parts: [inner(one) for one in parts],
    "tuple": lambda inner, arrays, parts: tuple(inner(one) for one in parts),
    "dict": lambda inner, arrays, parts: {inner(key): inner(one) for key, one in parts},
}
