"""Paths of outputs, and checks of whether they may be replaced.

Only outputs of this package are replaced or removed. A file counts as such an output if it has the
digest in its record. A file that the user has changed or replaced does not. A folder counts
if its ``index.json`` has the recorded digest, and the folder holds nothing but the files listed
there. Paths in records are untrusted: they must stay inside the folder of results, and outside of
the housekeeping folder.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pyannote_av.core.atomic import HOUSEKEEPING
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.reading import ReadError, inside, read_json

_INDEX = "index.json"


class ForeignFileError(FileExistsError):
    """A file of other origin has the path of an output; the message names it."""


def place_of(into: Path, output: str) -> Path:
    """Final path of an output.

    Parameters
    ----------
    into : Path
        Folder of results.
    output : str
        Path relative to `into`.

    Raises
    ------
    ReadError
        If the path is outside of `into`, directly or through a link, or in the housekeeping folder.
    """
    path = inside(into, output)
    real, root = path.resolve(), into.resolve()
    if real == root or real.is_relative_to(root / HOUSEKEEPING):
        raise ReadError(f"{path} cannot be an output")
    # compare without case, as some file systems do
    if any(part.casefold() == HOUSEKEEPING for part in Path(output).parts):
        raise ReadError(f"{path} cannot be an output")
    return path


def ignores_case(into: Path) -> bool:
    """Whether the disk of a folder of results treats ``a`` and ``A`` as one name."""
    return (into / HOUSEKEEPING.upper()).exists()


def output_digest(path: Path) -> str:
    """Digest of an output file, or of the index of a folder, which has checksums of its files.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or a link in its place.
    """
    file = path / _INDEX if path.is_dir() and not path.is_symlink() else path
    if file.is_symlink() or not file.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such output", str(file))
    return sha256_of(file)


def replaceable(path: Path, recorded: str | None, overwrite: bool = False) -> str | None:
    """Digest of an existing output that may be replaced; None if nothing exists at that path.

    Parameters
    ----------
    path : Path
    recorded : str or None
        Digest according to the record; None if no record mentions the path.
    overwrite : bool, optional
        Allow to replace any plain file. Folders and links are never replaced.

    Raises
    ------
    ForeignFileError
        If the output was not written by this package, or was changed since.
    OSError
        If the name is too long for the file system.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        parent = next(one for one in path.parents if one.exists())
        raise ForeignFileError(
            f"{parent} is a file, where a folder of outputs is needed: move it"
        ) from None
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise ForeignFileError(
            f"{path} is neither a file nor a folder, but something else, such as a link: move it"
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
            f"{path} exists and was not written by pyannote-av: move it, or use --overwrite"
        )
    raise ForeignFileError(
        f"{path} was changed after pyannote-av wrote it: move it, or use --overwrite"
    )


def _is_ours(folder: Path, recorded: str | None) -> bool:
    """Whether a folder holds only files of its index; without a record, also a complete shard"""
    index = folder / _INDEX
    if index.is_symlink() or not index.is_file():
        return False
    if recorded is not None and sha256_of(index) != recorded:
        return False
    try:
        listed = set(read_json(index)["sha256"])
    except (ValueError, LookupError, TypeError):
        listed = set()
    # imported only for folders, because it takes a second
    from pyannote_av.data.crop_shard import ARRAYS

    if recorded is None and not listed.issuperset(ARRAYS):
        return False
    with os.scandir(folder) as entries:
        return all(
            entry.name in {_INDEX, *listed} and entry.is_file(follow_symlinks=False)
            for entry in entries
        )
