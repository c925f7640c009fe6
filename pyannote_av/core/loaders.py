"""Loaders that make media paths a column of a ``database.yml`` protocol.

Registered as entry points, so that ``video: clips/{uri}.mp4`` is all a protocol needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class MediaPath:
    """Value of a media column: the path itself, as ``str`` (what pyannote tasks can cache).

    Parameters
    ----------
    path : str or Path
        Path to the media file, as filled in by pyannote.database.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, file: Mapping) -> str:
        if not self.path.is_file():
            raise FileNotFoundError(f"file {file['uri']!r}: no such media file: {self.path}")
        return str(self.path)
