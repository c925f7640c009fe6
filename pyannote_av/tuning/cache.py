"""A folder that caches the steps of pipelines, for several processes and studies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from filelock import FileLock
from pyannote.core import Annotation
from pyannote.pipeline import Pipeline

from pyannote_av.core import caching
from pyannote_av.core.atomic import check_own_file, own_folder, replacing
from pyannote_av.core.caching import Entry, MemoryCache
from pyannote_av.core.io import Video
from pyannote_av.core.pipeline import MediaMixin
from pyannote_av.core.reading import ARRAYS_LIMIT, open_bytes
from pyannote_av.tuning.hashing import file_checksum
from pyannote_av.tuning.serialization import from_bytes, to_bytes

logger = logging.getLogger(__name__)

_SUFFIX = ".entry"


class Cache:
    """A cache in a folder; see :class:`pyannote_av.core.caching.Cache`.

    Several processes may use it at once. A process also keeps the entries that it has read or
    written in memory. Entries are never removed from the folder. You may delete the folder, or
    entries in it, while no process is running.

    Parameters
    ----------
    folder : str or Path
        Created if needed.

    Attributes
    ----------
    memory : MemoryCache

    Raises
    ------
    ValueError
        When a link, or a file of other origin, is in the place of a lock.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.memory = MemoryCache()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks = own_folder(self.folder / "locks")

    def path(self, address: str) -> Path:
        """Path of an entry, which may not exist yet."""
        return self.folder / address[:2] / f"{address}{_SUFFIX}"

    def lock(self, address: str) -> FileLock:
        """Lock that is held while an entry is computed; it is released if its process dies."""
        return FileLock(check_own_file(self._locks / address[:2]))

    def read(self, address: str) -> Entry | None:
        """The entry at an address, if there is one. A damaged entry is logged and removed."""
        if (known := self.memory.read(address)) is not None:
            return known
        path = self.path(address)
        try:
            with open_bytes(path, ARRAYS_LIMIT) as file:
                entry = from_bytes(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s): it is computed again", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        self.memory.write(address, entry)
        return entry

    def write(self, address: str, entry: Entry) -> None:
        """Store an entry. If it cannot be written to the folder, this is logged."""
        self.memory.write(address, entry)
        try:
            path = self.path(address)
            own_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(to_bytes(entry))
        except (OSError, TypeError, ValueError) as error:
            # the entry only saves time, so tuning continues without it
            logger.warning("%s could not be kept in %s: %s", entry.name, self.folder, error)

    def tidy(self) -> None:
        """Remove incomplete files of killed processes; call it only while no process is running."""
        for path in self.folder.glob(f"??/.*{_SUFFIX}"):
            if not path.parent.is_symlink():
                path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """Number of entries, and bytes."""
        sizes = [path.stat().st_size for path in self.folder.glob(f"??/*{_SUFFIX}")]
        return len(sizes), sum(sizes)


class Processed(NamedTuple):
    """Result of a pipeline on a file.

    Attributes
    ----------
    hypothesis : Annotation
    seconds : float
        Processing time as if nothing had been cached, and no other process had been waited for.
    duration : float
        Duration of the file, in seconds.
    """

    hypothesis: Annotation
    seconds: float
    duration: float


def process(pipeline: Pipeline, file: Mapping[str, Any], cache: caching.Cache) -> Processed:
    """Process a file with a pipeline in training mode whose steps are cached.

    Parameters
    ----------
    pipeline : Pipeline
        A pipeline of this package, or one of pyannote's without preprocessors.
    file : mapping
        File of a protocol. It is not changed.
    cache : Cache

    Raises
    ------
    RuntimeError
        If the pipeline fails, with the name of the file.
    """
    with caching.use(cache) as session:
        begin = perf_counter()
        try:
            if isinstance(pipeline, MediaMixin):
                output = pipeline(file)
            else:
                # pyannote's own pipelines store the results of their steps in the file
                media = file_checksum(file)
                output = pipeline(caching.CachedFile(dict(file), session, media, pipeline))
        except Exception as error:
            message = f"file {file['uri']!r}: {type(error).__name__}: {error}"
            raise RuntimeError(message) from error
        seconds = perf_counter() - begin - session.waited + sum(session.borrowed.values())
    hypothesis = getattr(output, "speaker_diarization", output)
    return Processed(hypothesis, seconds, Video().get_duration(file))
