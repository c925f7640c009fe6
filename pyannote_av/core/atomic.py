"""Write to a temporary name, then rename: nobody ever sees half a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Name to write a file under, which takes the place of `path` when all went well.

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
    mine = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.stem}.{mine}{path.suffix}")
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
