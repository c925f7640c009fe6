"""One array per file of a corpus, computed once, and read from disk ever after."""

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
#: arrays kept open at once, each of which is a file descriptor
_OPEN_ARRAYS = 64
#: files after which the manifest is written: what is lost when a process is killed
_OFTEN = 20


@dataclass
class FillReport:
    """What :func:`fill` did.

    Attributes
    ----------
    written, kept : list of str
        Files computed now, and files that were there already.
    failed : dict of str to str
        Why, by uri; the next call tries these again.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class ArrayStore:
    """Arrays by uri, memory-mapped.

    Parameters
    ----------
    folder : str or Path
        What :func:`fill` wrote.

    Attributes
    ----------
    made_by : dict
        What arrays were computed with.

    Raises
    ------
    FileNotFoundError
        When there is none in this folder.
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
    """Compute the arrays that are not yet there.

    Arrays that were made with something else, or from something else, are computed anew. A call
    that was killed goes on where it was; a file that fails does not stop the others.

    Parameters
    ----------
    folder : str or Path
        Created if missing.
    made_by : mapping
        What they are computed with, in words and digests (JSON).
    sources : mapping of str to str
        By uri, a digest of what its array is computed from.
    compute : callable
        uri -> array
    title : str, optional
        Of a progress bar; none unless given.

    Raises
    ------
    RuntimeError
        When another process is writing to the same folder.
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
            logger.warning("%s was made with something else: begun anew", folder)
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
