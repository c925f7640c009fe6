"""Folders that appear at once, complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# one of these is in every folder that was written here
_MARKS = ("config.yaml", "model.safetensors")
_NAMED = 3


@contextmanager
def new_folder(into: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Name of a folder to write into, which becomes `into` when all went well.

    Parameters
    ----------
    into : str or Path
        Folders above it are created if missing.
    overwrite : bool, optional
        Replace it where it holds a pipeline or a model, and no file but those that the new folder
        has, too: files get a new version, and none is lost. Whoever wants to replace a folder
        that holds more has to remove the rest.

    Yields
    ------
    temporary : Path
        Next to it; removed when an exception is raised.

    Raises
    ------
    FileExistsError
        When it is there and not empty, and is not to be replaced; when it is a symbolic link.
    """
    into = Path(into).expanduser().absolute()
    _check(into, overwrite)
    token = secrets.token_hex(6)
    temporary, former = (into.parent / f".{token}.{kind}" for kind in ("new", "old"))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # others may have written to it meanwhile
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
    """Raise FileExistsError where something is at the place that is not to be replaced"""
    if into.is_symlink():
        raise FileExistsError(f"{into} is a symbolic link: give the folder that it leads to")
    if not into.exists() or (into.is_dir() and not any(into.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{into} is there already: give another folder, or overwrite it")
    if not any((into / mark).is_file() for mark in _MARKS):
        raise FileExistsError(
            f"{into} is not overwritten: it holds neither {' nor '.join(_MARKS)}, but something "
            "else"
        )


def _files(folder: Path) -> set[str]:
    """All but folders: relative paths of files, links, ... at any depth"""
    found = set()
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found |= {os.path.relpath(os.path.join(root, name), folder) for name in files + links}
    return found


def _swap(new: Path, into: Path, former: Path) -> None:
    """Put a folder in the place of another, which is removed only when that is done"""
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
