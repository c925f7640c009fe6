"""Loaders that make paths of media and of face tracks columns of a ``database.yml`` protocol.

Registered as entry points, so that ``video: clips/{uri}.mp4`` and ``face_tracks: tracks/{uri}.npz``
are all a protocol needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class MediaPath:
    """Value of such a column: the path itself, as ``str`` (what pyannote tasks can cache).

    Parameters
    ----------
    path : str or Path
        Path to the file, as filled in by pyannote.database.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, file: Mapping) -> str:
        if not self.path.is_file():
            raise FileNotFoundError(f"file {file['uri']!r}: no such file: {self.path}")
        return str(self.path)
