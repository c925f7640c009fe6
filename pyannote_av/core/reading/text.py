"""Text and bytes, ``.gz`` or not."""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pyannote_av.core.reading.limits import LINE_LIMIT, LINES, TEXT_LIMIT, UNPACKED, UNPACKED_RATIO
from pyannote_av.core.reading.refusing import ReadError, refusing

#: bytes that are read at once
BLOCK = 2**20


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a file as it is; pipes and devices, which may never end, raise :class:`ReadError`."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ReadError(f"{path} is not a regular file")
    return open(path, "rb")  # raises IsADirectoryError


def unpacked(file: IO[bytes]) -> int:
    """Bytes that a compressed file may unpack to, by its size."""
    return max(UNPACKED, UNPACKED_RATIO * os.fstat(file.fileno()).st_size)


class _Bounded(io.RawIOBase):
    """What a file holds, decompressed where its name ends in ``.gz``, up to a limit"""

    def __init__(self, path: Path, limit: int):
        super().__init__()
        self._path, self._limit, self._count = path, limit, 0
        self._raw = self._file = open_regular(path)
        if path.suffix.lower() == ".gz":
            self._file = gzip.GzipFile(fileobj=self._raw)
            self._limit = min(limit, unpacked(self._raw))
        else:
            self._check(os.fstat(self._raw.fileno()).st_size)

    def _check(self, size: int) -> None:
        if size > self._limit:
            self.close()
            raise ReadError(f"{self._path} is too long: {self._limit:,} bytes are read at most")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with refusing(self._path, "damaged"):
            content = self._file.read(min(len(buffer), BLOCK))
        self._count += len(content)
        self._check(self._count)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        # the constructor may have raised
        if not self.closed and hasattr(self, "_raw"):
            self._raw.close()
        super().close()


def open_bytes(path: str | Path, limit: int = TEXT_LIMIT) -> IO[bytes]:
    """Open a file, ``.gz`` or not; reading beyond the limit raises :class:`ReadError`."""
    return io.BufferedReader(_Bounded(Path(path), limit), BLOCK)


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """Text of a file in UTF-8, ``.gz`` or not.

    Raises
    ------
    ReadError
        When it is longer than `limit`, or not text.
    """
    with open_bytes(path, limit) as file, refusing(path):
        return file.read().decode("utf-8")


def read_lines(path: str | Path, limit: int = TEXT_LIMIT, lines: int = LINES) -> Iterator[str]:
    """Lines of a file in UTF-8, ``.gz`` or not, with their ends.

    Parameters
    ----------
    path : str or Path
    limit, lines : int, optional
        Bytes and lines at most.

    Raises
    ------
    ReadError
        When there are more, a line is longer than :data:`LINE_LIMIT`, or has a NUL character.
    """
    # newline="": of quoted fields of CSV, the ends of lines are content
    with io.TextIOWrapper(open_bytes(path, limit), "utf-8", newline="") as file, refusing(path):
        number = 0
        while line := file.readline(LINE_LIMIT + 1):
            number += 1
            if number > lines:
                raise ReadError(f"{path} is too long: {lines:,} lines are read at most")
            if len(line) > LINE_LIMIT:
                raise ReadError(f"{path}, line {number}: longer than {LINE_LIMIT:,} characters")
            if "\0" in line:
                raise ReadError(f"{path}, line {number}: a NUL character, not a text file")
            yield line
