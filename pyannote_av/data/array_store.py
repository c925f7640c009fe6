"""Store of one array per file of a corpus, computed once and read from disk afterwards."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.core.reading import INDEX_LIMIT, ReadError, inside, read_json, read_npy

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
#: maximum number of arrays kept open, each of which uses a file descriptor
_OPEN_ARRAYS = 64
#: the manifest is written after this many files; a killed process loses no more than that
_OFTEN = 20


@dataclass
class FillReport:
    """Result of :func:`fill`.

    Attributes
    ----------
    written, kept : list of str
        Files whose arrays were computed now, and files whose arrays already existed.
    failed : dict of str to str
        Reason of each failure, by uri. The next call tries these files again.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def open_arrays(folder: str | Path, what: str, function: str) -> ArrayStore:
    """Open the arrays of a folder.

    Parameters
    ----------
    folder : str or Path
    what, function : str
        What the arrays are, and which function writes them, for the message if there are none.

    Returns
    -------
    arrays : ArrayStore

    Raises
    ------
    FileNotFoundError
        If the folder holds no arrays.
    """
    try:
        return ArrayStore(folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there are no {what} in {folder}: write them with {function}"
        ) from None


class ArrayStore:
    """Arrays by uri, memory-mapped.

    Parameters
    ----------
    folder : str or Path
        Folder written by :func:`fill`.

    Attributes
    ----------
    made_by : dict
        What the arrays were computed with.

    Raises
    ------
    FileNotFoundError
        If the folder holds no arrays.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        manifest = _manifest(self.folder)
        if manifest is None:
            raise FileNotFoundError(f"there are no arrays in {self.folder}")
        self.made_by: dict[str, Any] = manifest["made_by"]
        self._sources: dict[str, str] = manifest["files"]
        self._open: OrderedDict[str, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._sources))

    def __contains__(self, uri: str) -> bool:
        return uri in self._sources

    def source(self, uri: str) -> str:
        """Digest of what the array of a file was computed from."""
        return self._sources[uri]

    def __getitem__(self, uri: str) -> np.ndarray:
        """Array of one file."""
        if uri not in self._open:
            if uri not in self:
                raise KeyError(f"{uri!r} is not in {self.folder}")
            path = _path(self.folder, uri)
            try:
                self._open[uri] = read_npy(inside(self.folder, path.name), mmap_mode="r")
            except ReadError as error:
                raise ReadError(f"{error}: delete it") from error
            if len(self._open) > _OPEN_ARRAYS:
                self._open.popitem(last=False)
        self._open.move_to_end(uri)
        return self._open[uri]


def _path(folder: Path, uri: str) -> Path:
    return folder / f"{quote(uri, safe=' ')}.npy"


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / _MANIFEST
    try:
        manifest = read_json(path, INDEX_LIMIT)
        if isinstance(manifest["made_by"], dict) and isinstance(manifest["files"], dict):
            return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise ReadError(f"{path} is damaged: delete it")


def fill(
    folder: str | Path,
    made_by: Mapping[str, Any],
    sources: Mapping[str, str],
    compute: Callable[[str], np.ndarray],
    title: str | None = None,
) -> FillReport:
    """Compute the missing arrays of a folder.

    Arrays that were computed with another `made_by`, or from other sources, are computed again. An
    interrupted call can be repeated and resumes. A file that fails does not stop the others.

    Parameters
    ----------
    folder : str or Path
        Created if missing.
    made_by : mapping
        What the arrays are computed with: names and digests (JSON).
    sources : mapping of str to str
        For each uri, a digest of what its array is computed from.
    compute : callable
        uri -> array
    title : str, optional
        Title of a progress bar. No bar is shown if not given.

    Raises
    ------
    RuntimeError
        If another process is writing to the same folder.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _fill(folder, dict(made_by), sources, compute, title)
    except Timeout:
        raise RuntimeError(f"another process is writing to {folder}") from None


def _fill(folder, made_by, sources, compute, title) -> FillReport:
    from rich.progress import track

    report, manifest = FillReport(), _manifest(folder)
    if manifest is None or manifest["made_by"] != made_by:
        if manifest is not None:
            logger.warning("%s was made with other settings: started afresh", folder)
        manifest = {"made_by": made_by, "files": {}}
    known = manifest["files"]

    def save() -> None:
        write_text(folder / _MANIFEST, json.dumps(manifest, indent=0) + "\n")

    save()
    try:
        for uri, source in track(sources.items(), title or "", disable=title is None):
            if known.get(uri) == source and _path(folder, uri).is_file():
                report.kept.append(uri)
                continue
            known.pop(uri, None)
            try:
                array = compute(uri)
            except Exception as error:
                report.failed[uri] = f"{type(error).__name__}: {error}"
                logger.warning("%s: %s", uri, report.failed[uri])
                continue
            with replacing(_path(folder, uri)) as temporary:
                np.save(temporary, array)
            known[uri] = source
            report.written.append(uri)
            if len(report.written) % _OFTEN == 0:
                save()
    finally:
        save()
    return report
