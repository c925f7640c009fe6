"""Checksums of what results depend on: pipelines with their weights, files with their media."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyannote.pipeline import Pipeline

from pyannote_av import __version__
from pyannote_av.core.caching import checksum

# what a path stands for in files of protocols
_MEDIA = ("audio", "video", "face_tracks")
# says how a file is called and judged, not what is in it
_NOT_CONTENT = ("uri", "annotation", "annotated", "database", "subset", "scope", "pipeline_kwargs")


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
