"""Checksums of what results depend on: pipelines with their weights, files with their media."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyannote.core import Annotation, Segment, Timeline
from pyannote.pipeline import Pipeline

from pyannote_av import __version__
from pyannote_av.core.checksums import digest, fingerprint
from pyannote_av.core.weights import REGISTRY, find

# what a path stands for in files of protocols
_MEDIA = ("audio", "video", "face_tracks")
# says how a file is called and judged, not what is in it
_NOT_CONTENT = ("uri", "annotation", "annotated", "database", "subset", "scope", "pipeline_kwargs")
# hyper-parameters are in the keys of entries; where networks run does not matter
_NOT_IDENTITY = ("_parameters", "_instantiated", "_training", "device", "_device")


def checksum(value: Any) -> str:
    """SHA-256 of what is in a value: equal for equal values in all processes.

    Parameters
    ----------
    value : Any
        Plain values and containers of them, arrays, tensors, segments, timelines, annotations,
        dataclasses, networks, and objects of pyannote and of this package. A ``Path`` stands for
        the content of the file. Of other objects only the class is taken into account.
    """
    return digest(_blocks(value, ()))


def file_checksum(file: Mapping[str, Any]) -> str:
    """Of what a pipeline may read of a file, not of how it is called, nor of its reference.

    Raises
    ------
    FileNotFoundError
        When one of its media is not there.
    """
    return checksum({k: _media(file, k) for k in file if k not in _NOT_CONTENT and "/" not in k})


def reference_checksum(file: Mapping[str, Any]) -> str:
    """Of what a file is judged by."""
    return checksum([file.get(name) for name in ("annotation", "annotated", "pipeline_kwargs")])


def pipeline_checksum(pipeline: Pipeline) -> str:
    """Of the classes, options and weights of a pipeline that was just loaded, and its versions."""
    return checksum([__version__, pipeline])


def _media(file: Mapping[str, Any], key: str) -> Any:
    value = file[key]
    if key not in _MEDIA or not isinstance(value, (str, Path)):
        return value
    if not Path(value).is_file():
        raise FileNotFoundError(f"file {file.get('uri')!r}: there is no {key} {value}")
    return Path(value)


def _blocks(value: Any, above: tuple[int, ...]) -> Iterator[bytes]:
    """Bytes that stand for a value; `above` are the objects that it is part of."""
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
        yield dict(value.state_dict())
    elif isinstance(value, Path):
        yield fingerprint(value) if value.is_file() else str(value)
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
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))
    elif type(value).__module__.startswith("pyannote"):
        yield from _of_object(value)


def _of_object(value: Any) -> Iterator[Any]:
    """Attributes; and the weights, where they are behind something that cannot be looked into."""
    for name, one in sorted(getattr(value, "__dict__", {}).items()):
        if name not in _NOT_IDENTITY:
            yield from (name, one)
    name = getattr(value, "name", None)
    if isinstance(name, str) and name in REGISTRY:
        yield find(name)
