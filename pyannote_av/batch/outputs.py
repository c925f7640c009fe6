"""TrialSchedule of outputs: what is there, and whether it may be replaced.

Nothing that was not written here is replaced or removed. A record says what was written: a file is
ours if it has the digest that was recorded, so that a file that somebody has changed, or put there
instead, is not. A folder is ours if its ``index.json`` has the recorded digest, and it holds
nothing but what that lists. Names in records are those of somebody else: they must stay inside the
folder of results, and outside of its housekeeping.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pyannote_av.core.atomic import HOUSEKEEPING
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.reading import ReadError, inside, read_json
from pyannote_av.data.crop_shard import ARRAYS

_INDEX = "index.json"


class ForeignFileError(FileExistsError):
    """Something that was not written here is at the place of an output; the message names it."""


def place_of(into: Path, output: str) -> Path:
    """Where an output belongs.

    Parameters
    ----------
    into : Path
        Folder of results.
    output : str
        Relative to it.

    Raises
    ------
    ReadError
        When that is outside of the folder, also by way of a link, or in its housekeeping.
    """
    path = inside(into, output)
    real, root = path.resolve(), into.resolve()
    if real == root or real.is_relative_to(root / HOUSEKEEPING):
        raise ReadError(f"{path} cannot be an output")
    # file systems that do not tell upper from lower case
    if any(part.casefold() == HOUSEKEEPING for part in Path(output).parts):
        raise ReadError(f"{path} cannot be an output")
    return path


def output_digest(path: Path) -> str:
    """Of an output: of a file, or of the index of a folder, which has checksums of the rest.

    Raises
    ------
    FileNotFoundError
        Where there is no such file or folder, or a link in its place.
    """
    file = path / _INDEX if path.is_dir() and not path.is_symlink() else path
    if file.is_symlink() or not file.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such output", str(file))
    return sha256_of(file)


def replaceable(path: Path, recorded: str | None, overwrite: bool = False) -> str | None:
    """Digest of what is at the place of an output, and may be replaced; None if nothing is.

    Parameters
    ----------
    path : Path
    recorded : str or None
        Digest that it should have; None where no record claims it.
    overwrite : bool, optional
        Any plain file may be replaced; folders and links never are.

    Raises
    ------
    ForeignFileError
        When it was not written here, or has been changed since.
    OSError
        When the name is too long for the file system.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return None
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise ForeignFileError(
            f"{path} is neither a file nor a folder, but a link or such: move it"
        )
    if path.is_dir():
        if not _is_ours(path, recorded):
            raise ForeignFileError(
                f"{path} is a folder with content that was not written by pyannote-av: move it"
            )
        return output_digest(path)
    found = sha256_of(path)
    if overwrite or found == recorded:
        return found
    if recorded is None:
        raise ForeignFileError(
            f"{path} is there and was not written by pyannote-av: move it, or use --overwrite"
        )
    raise ForeignFileError(
        f"{path} was changed after pyannote-av wrote it: move it, or use --overwrite"
    )


def _is_ours(folder: Path, recorded: str | None) -> bool:
    """Whether a folder holds nothing but what its index lists; without a record, of a store"""
    index = folder / _INDEX
    if index.is_symlink() or not index.is_file():
        return False
    if recorded is not None and sha256_of(index) != recorded:
        return False
    try:
        listed = set(read_json(index)["sha256"])
    except (ValueError, LookupError, TypeError):
        listed = set()
    if recorded is None and not listed.issuperset(ARRAYS):
        return False
    with os.scandir(folder) as entries:
        return all(
            entry.name in {_INDEX, *listed} and entry.is_file(follow_symlinks=False)
            for entry in entries
        )
