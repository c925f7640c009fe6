"""Arrays: ``.npz`` and ``.npy``, never of Python objects."""

from __future__ import annotations

import ast
import math
import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pyannote_av.core.reading.limits import ARRAYS_LIMIT
from pyannote_av.core.reading.refusing import ReadError, refusing
from pyannote_av.core.reading.text import BLOCK, open_regular, unpacked

if TYPE_CHECKING:
    import numpy as np

# numpy itself refuses longer ones
_ARRAY_HEADER = 10_000


def read_npz(
    path: str | Path, names: Iterable[str] = (), limit: int = ARRAYS_LIMIT
) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file, by name.

    Nothing is allocated before the sizes of all of them are known, and nothing but what their
    headers announce is read.

    Parameters
    ----------
    path : str or Path
    names : iterable of str, optional
        Arrays that have to be there, among others.
    limit : int, optional
        Bytes of all arrays.

    Raises
    ------
    ReadError
        When it is no such file, it is damaged, an array is missing, larger than the limit or of
        Python objects, or the file unpacks to more than an archive of its size may.
    """
    path = Path(path)
    with open_regular(path) as file, refusing(path, "damaged"):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ReadError(f"{path}: not a file of arrays ({error})") from error
        with archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            most = min(limit, unpacked(file))
            if total > most:
                raise ReadError(f"{path} unpacks to {total:,} bytes: {most:,} are read at most")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                where = f"{path}, array {name!r}"
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ReadError(f"{where}: compressed in a way that numpy does not use")
                with archive.open(member) as content:
                    arrays[name] = _read_array(content, member.file_size, where)
    if missing := [name for name in names if name not in arrays]:
        raise ReadError(f"{path} has no array {missing[0]!r}")
    return arrays


def read_npy(path: str | Path, mmap_mode: str | None = None) -> np.ndarray:
    """Array of a ``.npy`` file.

    Parameters
    ----------
    path : str or Path
    mmap_mode : {"r"}, optional
        Map the file instead of reading it.

    Raises
    ------
    ReadError
        When it is no such file, is damaged or of Python objects, or, where it is read, larger than
        :data:`ARRAYS_LIMIT`.
    """
    import numpy as np

    path = Path(path)
    with open_regular(path) as file, refusing(path, "damaged"):
        size = os.fstat(file.fileno()).st_size
        if mmap_mode is None:
            if size > ARRAYS_LIMIT:
                raise ReadError(f"{path} has {size:,} bytes: {ARRAYS_LIMIT:,} are read at most")
            return _read_array(file, size, str(path))
        dtype, shape, order = _array_header(file, size, str(path))
        if not math.prod(shape):  # nothing can be mapped
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, mmap_mode, file.tell(), shape, order)


def check_array(
    array: np.ndarray, kinds: str, shape: tuple[int | None, ...], what: str
) -> np.ndarray:
    """`array` if it is of one of some kinds (``dtype.kind``) and of a shape; None is any length.

    Raises
    ------
    ValueError
        Naming what it is.
    """
    same = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not same or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if one is None else str(one) for one in shape)
        raise ValueError(f"{what}: {array.dtype} {array.shape} where ({wanted}) is expected")
    return array


def _array_header(file: IO[bytes], size: int, where: str) -> tuple[np.dtype, tuple[int, ...], str]:
    """Type, shape and order of an array of `size` bytes, header included"""
    import numpy as np

    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ReadError(f"{where} is damaged: it does not begin as arrays do")
    form = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if length > _ARRAY_HEADER:
        raise ReadError(f"{where} is damaged: its header has {length:,} bytes")
    with refusing(where, "is damaged"):
        text = file.read(length).decode("utf-8" if start[6] == 3 else "latin-1")
        header = ast.literal_eval(text.strip())
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        shape, fortran = header["shape"], header["fortran_order"]
    if dtype.hasobject:
        raise ReadError(f"{where} holds Python objects, which are never read")
    whole = isinstance(shape, tuple) and all(type(one) is int and one >= 0 for one in shape)
    # types of no width would let any number of elements into no bytes
    if not whole or not dtype.itemsize or not isinstance(fortran, bool):
        raise ReadError(f"{where} is damaged: {dtype} {shape}")
    expected, found = math.prod(shape) * dtype.itemsize, size - 8 - struct.calcsize(form) - length
    if expected != found:
        raise ReadError(f"{where} is damaged: {found:,} bytes where {expected:,} are announced")
    return dtype, shape, "F" if fortran else "C"


def _read_array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Array of `size` bytes, header included"""
    import numpy as np

    dtype, shape, order = _array_header(file, size, where)
    content = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    done = 0
    while done < len(content):
        block = file.read(min(BLOCK, len(content) - done))
        if not block:
            raise ReadError(f"{where} is damaged: it ends after {done:,} bytes")
        content[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return content.view(dtype).reshape(shape, order=order)
