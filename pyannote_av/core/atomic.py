"""Safe writing: files are replaced atomically, folders are locked by one process at a time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: subfolder of a results folder for everything else: lock, records, unfinished files
HOUSEKEEPING = ".pyannote_av"

# bytes; the suffixes by which writers choose a format are shorter
_LONGEST_SUFFIX = 32


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to a temporary file, which replaces `path` on success.

    Readers never see a partly written file.

    Parameters
    ----------
    path : str or Path
        Its folder is created if missing.

    Yields
    ------
    temporary : Path
        Path in the same folder, with the same suffix. It is removed if an exception is raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    # short, so that it fits where `path` fits; random, so that nobody can place a link there first
    temporary = path.with_name(f".{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path` atomically: readers see either the old file or the new one.

    Returns
    -------
    path : Path
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, so that no other process writes to it.

    Parameters
    ----------
    folder : Path
        Created if missing.

    Raises
    ------
    RuntimeError
        When another process holds the lock.
    ValueError
        When the path of the lock is taken by a link or by anything but a plain file.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    # opening the lock file truncates it
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
    """Create a housekeeping folder; raises ValueError if the path is a link or a file."""
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise ValueError(
                f"{path} is a link or a file, where a folder of pyannote-av belongs: move it"
            ) from None
    return path


def check_own_file(path: Path) -> Path:
    """Return `path` of a housekeeping file; raises ValueError if it is anything but a file."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is not a plain file, where one of pyannote-av belongs: move it")
    return path
