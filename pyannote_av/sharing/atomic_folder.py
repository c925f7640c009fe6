"""Folders that appear at once, complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# one of these is in every folder that was written here
_MARKS = ("config.yaml", "model.safetensors")


@contextmanager
def new_folder(into: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Name of a folder to write into, which becomes `into` when all went well.

    Parameters
    ----------
    into : str or Path
        Folders above it are created if missing.
    overwrite : bool, optional
        Replace it where it holds a pipeline or a model.

    Yields
    ------
    temporary : Path
        Next to it; removed when an exception is raised.

    Raises
    ------
    FileExistsError
        When it is there and not empty, and is not to be replaced.
    """
    into = Path(into).expanduser().absolute()
    if into.is_file() or (into.is_dir() and any(into.iterdir())):
        if not overwrite:
            raise FileExistsError(f"{into} is there already: give another folder, or overwrite it")
        if not any((into / mark).is_file() for mark in _MARKS):
            raise FileExistsError(
                f"{into} is not overwritten: it holds neither {' nor '.join(_MARKS)}, but "
                "something else"
            )
    temporary, former = (into.parent / f".{into.name}.{os.getpid()}.{k}" for k in ("new", "old"))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if into.exists():
            os.replace(into, former)
        os.replace(temporary, into)
    finally:
        for folder in (temporary, former):
            shutil.rmtree(folder, ignore_errors=True)
