"""Resumable downloads with checksums and safe unpacking."""

from __future__ import annotations

import logging
import lzma
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.reading import ReadError, check_name, read_lines

logger = logging.getLogger(__name__)

_BLOCK = 1 << 18
# limit of the unpacked size in bytes; for large archives, limit relative to the archive size
_UNPACKED, _RATIO = 1 << 30, 100
# errors raised by damaged or encrypted archives
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_DAMAGED += (EOFError, ValueError, RuntimeError, NotImplementedError)
#: file with the checksums of downloads that have no published checksum
LOCK = "SHA256SUMS"


@dataclass(frozen=True)
class Download:
    """One file to download.

    Attributes
    ----------
    url : str
    path : str
        Target path, relative to the folder of the corpus.
    sha256 : str, optional
        Expected checksum. If it is None, the checksum of the first download is recorded, and later
        downloads must match it.
    unpack : bool
        Whether the file is an archive, to be unpacked in its folder.
    """

    url: str
    path: str
    sha256: str | None = None
    unpack: bool = False


def _transfer(url: str, partial: Path, timeout: float) -> None:
    """Download the rest of `partial`"""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # already complete
            return
        raise
    with answer:
        if answer.status != 206:
            have = 0  # the server starts over
        length = answer.headers.get("Content-Length")
        with open(partial, "ab" if have else "wb") as file:
            shutil.copyfileobj(answer, file, _BLOCK)
        if length is not None and partial.stat().st_size < have + int(length):
            raise ConnectionError(f"{url}: the connection ended early")


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    timeout: float = 60,
    tries: int = 3,
    pause: float = 1.0,
) -> str:
    """Download a file unless it exists, and return its SHA-256.

    A partial download is kept next to the file (``.part``) and resumed by the next call.

    Raises
    ------
    ConnectionError
        If the server cannot be reached or stops responding.
    ValueError
        If the downloaded or existing file does not match the checksum.
    """
    if path.is_file():
        found = sha256_of(path)
        if sha256 is not None and found != sha256:
            raise ValueError(
                f"{path} has sha256 {found}, not the expected {sha256}: remove it to download it "
                f"again from {url}"
            )
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    for attempt in range(1, tries + 1):
        try:
            _transfer(url, partial, timeout)
            break
        except OSError as error:
            gone = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == tries or gone:
                raise ConnectionError(f"could not download {url} to {path}: {error}") from error
            logger.warning("%s: %s; trying again", url, error)
            time.sleep(pause * attempt)
    found = sha256_of(partial)
    if sha256 is not None and found != sha256:
        partial.unlink()
        raise ValueError(f"{url} has sha256 {found}, not the expected {sha256}: not kept")
    partial.replace(path)
    return found


def _check_size(sizes: Iterable[int], most: int) -> None:
    """Raise ValueError if the unpacked files exceed the size limit"""
    total = 0
    for size in sizes:
        total += size
        if total > most:
            raise ValueError(f"it unpacks to more than {most:,} bytes")


def unpack(archive: Path, into: Path) -> None:
    """Unpack a ``.zip`` or ``.tar`` (any compression) without writing outside `into`.

    Raises
    ------
    ValueError
        If the archive is corrupt, or too large when unpacked. No unpacked file is kept.
    """
    most = max(_UNPACKED, _RATIO * archive.stat().st_size)
    temporary = into / f".{archive.name}.unpacked"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                _check_size((member.file_size for member in file.infolist()), most)
                file.extractall(temporary)  # removes ".." and absolute paths
        else:
            with tarfile.open(archive) as file:
                _check_size((member.size for member in file), most)
                file.extractall(temporary, filter="data")
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                target = into / path.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    except (*_DAMAGED, OSError) as error:
        raise ReadError(
            f"{archive} is not an intact archive ({error}): remove it and download it again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_lock(folder: Path) -> dict[str, str]:
    return checksums(folder / LOCK) if (folder / LOCK).is_file() else {}


def get(
    downloads: Iterable[Download], folder: Path, workers: int = 4
) -> tuple[list[Path], dict[str, str]]:
    """Download files in parallel. A failed download does not stop the others.

    Returns
    -------
    paths : list of Path
        Files that are now present.
    failed : dict of url to reason
    """
    from pyannote_av.core.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    lock, paths, failed = _read_lock(folder), [], {}

    def one(download: Download) -> str:
        # file names may come from downloaded lists
        path = folder / check_name(download.path)
        expected = download.sha256 or lock.get(download.path)
        found = fetch(download.url, path, expected)
        done = path.with_name(f".{path.name}.done")
        if download.unpack and not done.exists():
            unpack(path, path.parent)
            done.touch()
        return found

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(one, download): download for download in downloads}
        for future in as_completed(futures):
            download = futures[future]
            try:
                found = future.result()
            except (OSError, ValueError) as error:
                failed[download.url] = str(error)
                continue
            paths.append(folder / download.path)
            if download.sha256 is None and lock.get(download.path) != found:
                lock[download.path] = found
                lines = [f"{digest}  {name}\n" for name, digest in sorted(lock.items())]
                write_text(folder / LOCK, "".join(lines))
    return sorted(paths), failed


def checksums(path: Path) -> dict[str, str]:
    """Read a file of lines ``SHA256  PATH``. Returns checksums by path; errors name the line."""
    found = {}
    for number, line in enumerate(read_lines(path), start=1):
        if len(fields := line.split(maxsplit=1)) != 2:
            raise ReadError(f"{path}, line {number}: not SHA256  PATH: {line.strip()!r}")
        found[fields[1].strip()] = fields[0]
    return found
