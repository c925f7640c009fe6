"""Checksums of pipelines with their weights, and of files with their media."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyannote.pipeline import Pipeline

from pyannote_av import __version__
from pyannote_av.core.caching import checksum

# keys of a file whose paths stand for the content of media
_MEDIA = ("audio", "video", "face_tracks")
# keys with the name and the reference of a file, which pipelines do not read
_NOT_CONTENT = ("uri", "annotation", "annotated", "database", "subset", "scope", "pipeline_kwargs")


def file_checksum(file: Mapping[str, Any]) -> str:
    """Checksum of everything in a file that a pipeline may read, without its name and reference.

    Raises
    ------
    FileNotFoundError
        When a media file does not exist.
    """
    return checksum({k: _media(file, k) for k in file if k not in _NOT_CONTENT and "/" not in k})


def reference_checksum(file: Mapping[str, Any]) -> str:
    """Checksum of the reference of a file."""
    return checksum([file.get(name) for name in ("annotation", "annotated", "pipeline_kwargs")])


def pipeline_checksum(pipeline: Pipeline) -> str:
    """Checksum of the classes, options, weights and versions of a newly loaded pipeline."""
    return checksum([__version__, pipeline])


def _media(file: Mapping[str, Any], key: str) -> Any:
    value = file[key]
    if key not in _MEDIA or not isinstance(value, (str, Path)):
        return value
    if not Path(value).is_file():
        raise FileNotFoundError(f"file {file.get('uri')!r}: there is no {key} {value}")
    return Path(value)
