"""Files and folders that are written safely: whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: folder, in a folder of results, of all that is no result: lock, records, what is being written
HOUSEKEEPING = ".pyannote_av"

# bytes; suffixes that tell writers what to write are shorter
_LONGEST_SUFFIX = 32


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Name to write a file under, which takes the place of `path` when all went well.

    Nobody ever sees half a file.

    Parameters
    ----------
    path : str or Path
        Its folder is created if missing.

    Yields
    ------
    temporary : Path
        In the same folder, with the same suffix; removed when an exception is raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    # short, to fit where a long name just fits; random, so that nobody puts a link there before
    temporary = path.with_name(f".{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path` so that readers see the old file or the whole new one.

    Returns
    -------
    path : Path
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder.

    Parameters
    ----------
    folder : Path
        Created if missing.

    Raises
    ------
    RuntimeError
        When another process writes to it.
    ValueError
        When a link, or something else that was not written here, is at the place of the lock.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    # opening the lock empties it
    path = check_own_file(own_folder(folder / HOUSEKEEPING) / "lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"another process is writing to {folder}: wait for it, or give another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def own_folder(path: Path) -> Path:
    """Create a folder for housekeeping; ValueError where a link or a file has its name."""
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise ValueError(
                f"{path} is a link or a file, where a folder of pyannote-av belongs: move it"
            ) from None
    return path


def check_own_file(path: Path) -> Path:
    """`path`, of a file for housekeeping; ValueError where something else has its name."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is no plain file, where one of pyannote-av belongs: move it")
    return path
