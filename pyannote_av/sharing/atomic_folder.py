"""Atomic creation of folders."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# every folder written by this package holds one of these
_MARKS = ("config.yaml", "model.safetensors")
_NAMED = 3


@contextmanager
def new_folder(into: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, which is renamed to `into` if no exception is raised.

    Parameters
    ----------
    into : str or Path
        Parent folders are created if missing.
    overwrite : bool, optional
        Replace an existing folder. It must hold a pipeline or a model, and no files that the new
        folder lacks, so that no file is lost. Other files must be removed first.

    Yields
    ------
    temporary : Path
        Located next to `into`. Removed if an exception is raised.

    Raises
    ------
    FileExistsError
        If `into` is a symbolic link, or has content that must not be replaced.
    """
    into = Path(into).expanduser().absolute()
    _check(into, overwrite)
    token = secrets.token_hex(6)
    temporary, former = (into.parent / f".{token}.{kind}" for kind in ("new", "old"))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # check again: another process may have written to it meanwhile
        _check(into, overwrite)
        if lost := sorted(_files(into) - _files(temporary)):
            more = f", and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            raise FileExistsError(
                f"{into} is not overwritten: the new folder has no {', '.join(lost[:_NAMED])}"
                f"{more}. Move them away, or give another folder"
            )
        _swap(temporary, into, former)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(into: Path, overwrite: bool) -> None:
    """Raise FileExistsError if the existing content must not be replaced"""
    if into.is_symlink():
        raise FileExistsError(f"{into} is a symbolic link: give the folder that it leads to")
    if not into.exists() or (into.is_dir() and not any(into.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{into} already exists: give another folder, or overwrite it")
    if not any((into / mark).is_file() for mark in _MARKS):
        raise FileExistsError(
            f"{into} is not overwritten: it holds neither {' nor '.join(_MARKS)}, but something "
            "else"
        )


def _files(folder: Path) -> set[str]:
    """Relative paths of all files and links, at any depth"""
    found = set()
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found |= {os.path.relpath(os.path.join(root, name), folder) for name in files + links}
    return found


def _swap(new: Path, into: Path, former: Path) -> None:
    """Replace a folder by another one, and remove the old one only after that"""
    if not into.exists():
        os.replace(new, into)
        return
    os.replace(into, former)
    try:
        os.replace(new, into)
    except BaseException:
        os.replace(former, into)
        raise
    shutil.rmtree(former, ignore_errors=True)
