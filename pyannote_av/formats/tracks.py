"""Face tracks of several files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyannote_av.core.tracks import FaceTracks

_SUFFIXES = (".npz", ".tracks.npz", ".json", ".json.gz", ".csv", ".csv.gz")


def read_tracks(path: Path, uris: Sequence[str]) -> dict[str, FaceTracks]:
    """Read face tracks from a file, or from a folder of files.

    Parameters
    ----------
    path : Path
        A file, which is that of the first of `uris`, or a folder with ``URI.npz``,
        ``URI.tracks.npz``, ``URI.json[.gz]`` or ``URI.csv[.gz]`` for each of them.
    uris : sequence of str

    Raises
    ------
    FileNotFoundError
        When the folder has no face tracks of a file.
    """
    if not path.is_dir():
        return {uri: FaceTracks.read(path) for uri in uris[:1]}
    found = {}
    for uri in uris:
        files = [path / f"{uri}{one}" for one in _SUFFIXES if (path / f"{uri}{one}").is_file()]
        if not files:
            raise FileNotFoundError(f"no face tracks of {uri!r} in {path} ({', '.join(_SUFFIXES)})")
        found[uri] = FaceTracks.read(files[0])
    return found
