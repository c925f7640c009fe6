"""Readers of untrusted data files, with bounded memory and time.

Limits are numbers of bytes after decompression. All readers raise :class:`ReadError`, with a
reason, for content that they refuse. Errors of the file system (FileNotFoundError,
PermissionError, IsADirectoryError) are raised unchanged.
"""

from __future__ import annotations

import ast
import codecs
import csv
import gc
import gzip
import io
import json
import logging
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pyannote_av.core.paths import lies_within
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

#: maximum bytes of a text file such as a configuration, a list, a record or an index
TEXT_LIMIT = 16 * 2**20
#: maximum bytes of a YAML file; Python's parser reads 100 kB per second
YAML_LIMIT = 2**20
#: maximum number of values in a YAML file, counting every repetition by an alias
YAML_VALUES = 100_000
#: maximum characters of a number in YAML; parsing a base 60 number 1:1:1:... takes quadratic time
YAML_NUMBER = 1000
#: maximum bytes and lines of RTTM, UEM and LAB files; a week has 600,000 seconds
ANNOTATION_LIMIT, ANNOTATION_LINES = 128 * 2**20, 1_000_000
#: maximum bytes of face tracks as text, and lines of CSV: enough for a day of a few faces; use
#: ``.npz`` for more
TRACKS_LIMIT, TRACKS_LINES = 512 * 2**20, 10_000_000
#: maximum number of values in a JSON file; a value takes up to 100 bytes of memory
JSON_VALUES = 50_000_000
#: maximum bytes of an index that this package writes: enough for a store of a week of ten faces
INDEX_LIMIT = 128 * 2**20
#: maximum bytes of arrays; a week of ten faces at 25 Hz takes 13 GB as text and 3 GB as arrays
ARRAYS_LIMIT = 4 * 2**30
#: bytes to which any archive or ``.gz`` may unpack, and the maximum ratio for larger results;
#: face tracks unpack to 2 to 20 times their size
UNPACKED, UNPACKED_RATIO = 256 * 2**20, 200
#: maximum characters of a line, and number of lines of other texts
LINE_LIMIT, LINES = 2**20, 1_000_000
#: maximum depth of nested lists and mappings
DEPTH_LIMIT = 100


# maximum characters of an error message
_MESSAGE = 4000
# exceptions that malformed content causes in parsers and in the code that uses the content
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # RecursionError, and archives with passwords
    MemoryError,
    EOFError,
    SyntaxError,
    gzip.BadGzipFile,
    tokenize.TokenError,
    zlib.error,
    csv.Error,
    struct.error,
    zipfile.BadZipFile,
)


class ReadError(ValueError):
    """A data file cannot be used; the message names the file and says why"""

    def __init__(self, message: str):
        if len(message) > _MESSAGE:
            message = f"{message[: _MESSAGE - 100]} [...] {message[-100:]}"
        # names of files may hold line feeds
        super().__init__(printable(message, one_line=True))


@contextmanager
def refusing(where: str | Path, what: str = "") -> Iterator[None]:
    """Turn exceptions caused by malformed content in a ``with`` block into :class:`ReadError`.

    Parameters
    ----------
    where : str or Path
        Name of the file, perhaps with a line, for the message.
    what : str, optional
        Description of the problem, such as "not a file of face tracks".
    """
    try:
        yield
    except ReadError:
        raise
    except _MALFORMED as error:
        reason = _reason(error)
        raise ReadError(f"{where}: {f'{what} ({reason})' if what else reason}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, UnicodeDecodeError):
        return f"not a text file in UTF-8 or UTF-16: {error}"
    if isinstance(error, KeyError):
        return f"no {error}"
    return " ".join(str(error).split()) or type(error).__name__


#: number of bytes read at once
BLOCK = 2**20


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file; raises :class:`ReadError` for pipes and devices, which may never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ReadError(f"{path} is not a regular file")
    return open(path, "rb")  # raises IsADirectoryError


def unpacked(file: IO[bytes]) -> int:
    """Maximum number of bytes to which a compressed file of this size may unpack."""
    return max(UNPACKED, UNPACKED_RATIO * os.fstat(file.fileno()).st_size)


class _Bounded(io.RawIOBase):
    """Content of a file, decompressed if its name ends in ``.gz``, up to a limit"""

    def __init__(self, path: Path, limit: int):
        super().__init__()
        self._path, self._limit, self._count = path, limit, 0
        self._raw = self._file = open_regular(path)
        if path.suffix.lower() == ".gz":
            self._file = gzip.GzipFile(fileobj=self._raw)
            self._limit = min(limit, unpacked(self._raw))
        else:
            self._check(os.fstat(self._raw.fileno()).st_size)

    def _check(self, size: int) -> None:
        if size > self._limit:
            self.close()
            raise ReadError(f"{self._path} is too long: {self._limit:,} bytes are read at most")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with refusing(self._path, "damaged"):
            content = self._file.read(min(len(buffer), BLOCK))
        self._count += len(content)
        self._check(self._count)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        # the constructor may have raised
        if not self.closed and hasattr(self, "_raw"):
            self._raw.close()
        super().close()


def open_bytes(path: str | Path, limit: int = TEXT_LIMIT) -> IO[bytes]:
    """Open a plain or ``.gz`` file; reading beyond the limit raises :class:`ReadError`."""
    return io.BufferedReader(_Bounded(Path(path), limit), BLOCK)


# byte order marks; the mark of UTF-32 begins with that of UTF-16
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(begin: bytes) -> str:
    """Encoding of a text that begins with these four bytes; UTF-8 without a byte order mark."""
    return next((name for mark, name in _MARKS.items() if begin.startswith(mark)), "utf-8")


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """Read a text file, plain or ``.gz``, in UTF-8, or in UTF-16 with a byte order mark.

    Raises
    ------
    ReadError
        When the file is longer than `limit`, or is in another encoding.
    """
    with open_bytes(path, limit) as file, refusing(path):
        content = file.read()
        try:
            return content.decode(encoding := encoding_of(content[:4]))
        except UnicodeDecodeError as error:
            if not encoding.startswith("utf-8"):
                raise
            number = content.count(b"\n", 0, error.start) + 1
            raise ReadError(_not_utf8(path, number, content[error.start])) from error


def read_lines(
    path: str | Path,
    limit: int = TEXT_LIMIT,
    lines: int = LINES,
    foreign: Literal["refuse", "guess", "keep"] = "refuse",
) -> Iterator[str]:
    """Iterate over the lines of a text file, plain or ``.gz``, including their line ends.

    The text is in UTF-8, or in UTF-16 with a byte order mark. Byte order marks are removed.

    Parameters
    ----------
    path : str or Path
    limit, lines : int, optional
        Maximum number of bytes and of lines.
    foreign : {"refuse", "guess", "keep"}, optional
        What to do with lines that are not valid UTF-8: refuse them; read them as Windows-1252, the
        encoding of Western Europe, and log a warning; or keep their bytes as names of files do
        (``surrogateescape``).

    Raises
    ------
    ReadError
        When a limit is exceeded, a line is longer than :data:`LINE_LIMIT`, has a NUL character, or
        is in another encoding. The message names the line.
    """
    with open_bytes(path, limit) as binary:
        encoding = encoding_of(binary.peek(4)[:4])
        # newline="", because line ends inside quoted CSV fields are content
        with (
            io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline="") as file,
            refusing(path),
        ):
            number, guessed = 0, []
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                if number > lines:
                    raise ReadError(f"{path} is too long: {lines:,} lines are read at most")
                if len(line) > LINE_LIMIT:
                    raise ReadError(f"{path}, line {number}: longer than {LINE_LIMIT:,} characters")
                if "\0" in line:
                    raise ReadError(
                        f"{path}, line {number}: a NUL character, not a text file (or in UTF-16 "
                        "without a byte order mark: save it as UTF-8)"
                    )
                if foreign != "keep" and (byte := foreign_byte(line)):
                    if foreign == "refuse":
                        raise ReadError(_not_utf8(path, number, byte))
                    guessed.append(number)
                    line = _guess(line)
                # files that were joined have marks in the middle
                yield line.removeprefix("\ufeff")
            if guessed:
                logger.warning(
                    "%s: %d lines are not UTF-8 and were read as Windows-1252 (first: line %d)",
                    printable(str(path), one_line=True),
                    len(guessed),
                    guessed[0],
                )


def _not_utf8(path: str | Path, line: int, byte: int) -> str:
    return f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}): save the file as UTF-8"


def foreign_byte(text: str) -> int | None:
    """First byte that could not be decoded, which Python keeps as half of a character; or None."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return ord(text[error.start]) & 0xFF
    return None


def _guess(line: str) -> str:
    content = line.encode("utf-8", "surrogateescape")
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:  # five bytes are not assigned
        return content.decode("latin-1")


#: maximum absolute value of a time, in seconds: eleven days, longer than any recording
LONGEST = 1e6


def decimal(text: str) -> float:
    """Parse a finite number in ASCII digits; raises ValueError for anything else, including NaN."""
    if not text.isascii() or "_" in text or not math.isfinite(value := float(text)):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def whole(value: Any, low: int, high: int, what: str) -> int:
    """Return `value` if it is an int from `low` to `high`; otherwise raise ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {value!r}, but must be a whole number from {low} to {high}")
    return value


def check_name(name: Any) -> str:
    """Return `name` if it is a relative path that stays inside its folder.

    Raises
    ------
    ReadError
        When it is empty or absolute, or has a part ``..`` or a NUL character.
    """
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else []
    above = not parts or parts[0] in ("", ".") or ".." in parts
    if above or "\0" in name or Path(name).anchor:
        raise ReadError(f"{name!r} is not the name of a file in a folder")
    return name


def inside(folder: Path, name: str) -> Path:
    """Path of a file in a folder, from an untrusted name.

    Raises
    ------
    ReadError
        When the name, or a link on its path, leads out of the folder.
    """
    path = folder / check_name(name)
    if not lies_within(path, folder):
        raise ReadError(f"{path} leads out of {folder}")
    return path


def read_json(path: str | Path, limit: int = TEXT_LIMIT, nan: bool = False) -> Any:
    """Content of a JSON file, plain or ``.gz``; see :func:`parse_json`."""
    return parse_json(read_text(path, limit), str(path), nan)


def parse_json(text: str, where: str, nan: bool = False) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text : str
    where : str
        Name of the source, for error messages.
    nan : bool, optional
        Accept NaN and infinities.

    Raises
    ------
    ReadError
        When the text is not valid JSON (the message names the line), or has more than
        :data:`JSON_VALUES` values or more than :data:`DEPTH_LIMIT` levels.
    """
    # a mapping takes as much memory as four numbers
    if text.count(",") + text.count("[") + 4 * text.count("{") > JSON_VALUES:
        raise ReadError(f"{where} holds more than {JSON_VALUES:,} values: too many for JSON")
    finite = {} if nan else {"parse_constant": _finite, "parse_float": _finite}
    with refusing(where):
        try:
            with _no_collection():
                content = json.loads(text, **finite)
        except json.JSONDecodeError as error:
            raise ReadError(f"{where}, line {error.lineno}: {error.msg}") from error
        _check_depth(content, where)
    return content


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable garbage collection, which takes most of the parsing time; JSON has no cycles"""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_depth(content: Any, where: str) -> None:
    """Raise ReadError for content that is nested too deeply for recursive functions"""
    level, depth = [content], 0
    while level := [one for one in level if isinstance(one, (list, dict))]:
        depth += 1
        if depth > DEPTH_LIMIT:
            raise ReadError(f"{where}: nested more than {DEPTH_LIMIT} levels deep")
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]


_OF_NUMBERS = set("0123456789+-.:_")


def read_yaml(path: str | Path, limit: int = YAML_LIMIT) -> Any:
    """Content of a YAML file; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path, limit), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML that consists of plain values, lists and mappings.

    Parameters
    ----------
    text : str
    where : str
        Name of the source, for error messages.

    Raises
    ------
    ReadError
        When the text is not valid YAML (the message names the line), or has more than
        :data:`YAML_VALUES` values, counting repetitions by aliases, more than
        :data:`DEPTH_LIMIT` levels, or a value that contains itself.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with refusing(where, "not valid YAML"):
        try:
            _check_events(yaml.parse(text, Loader=loader), where)
            return yaml.load(text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            raise ReadError(f"{where}{line}: not valid YAML ({error.problem})") from error
        except yaml.YAMLError as error:
            raise ReadError(f"{where}: not valid YAML ({error})") from error


def _check_events(events: Iterable[Any], where: str) -> None:
    """Raise ReadError for YAML whose content is too large, too deep, or infinite"""
    import yaml

    sizes: dict[str, int] = {}
    # anchor and number of values of each list and mapping that is still open
    parts: list[tuple[str | None, list[int]]] = [(None, [0])]
    for event in events:
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            parts.append((anchor, [1]))
            if len(parts) > DEPTH_LIMIT:
                raise ReadError(f"{where}: nested more than {DEPTH_LIMIT} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == one for one, _ in parts):
                line = event.start_mark.line + 1
                raise ReadError(f"{where}, line {line}: {anchor!r} is part of itself")
            size = sizes.get(anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if len(event.value) > YAML_NUMBER and _OF_NUMBERS.issuperset(event.value):
                raise ReadError(
                    f"{where}, line {event.start_mark.line + 1}: not valid YAML (a number of more "
                    f"than {YAML_NUMBER:,} characters)"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, (size,) = parts.pop()
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        total = parts[-1][1]
        total[0] += size
        if total[0] > YAML_VALUES:
            raise ReadError(
                f"{where} holds more than {YAML_VALUES:,} values, repetitions by alias included"
            )


# maximum length of an array header, as in numpy
_ARRAY_HEADER = 10_000


def read_npz(
    path: str | Path, names: Iterable[str] = (), limit: int = ARRAYS_LIMIT
) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file, by name.

    The total size is checked before memory is allocated, and each array must have exactly the
    size that its header announces.

    Parameters
    ----------
    path : str or Path
    names : iterable of str, optional
        Arrays that must be in the file. It may hold others.
    limit : int, optional
        Maximum number of bytes of all arrays.

    Raises
    ------
    ReadError
        When the file is not a valid ``.npz`` file, lacks an array, holds Python objects, or
        unpacks to more than `limit` or to more than an archive of its size may.
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
                if member.header_offset < 0:
                    raise ReadError(f"{where}: begins before the file")
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
        When the file is not a valid ``.npy`` file or holds Python objects, or when it is larger
        than :data:`ARRAYS_LIMIT` and is not mapped.
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
        if not math.prod(shape):  # an empty array cannot be mapped
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, mmap_mode, file.tell(), shape, order)


def check_array(
    array: np.ndarray, kinds: str, shape: tuple[int | None, ...], what: str
) -> np.ndarray:
    """Return `array` if its ``dtype.kind`` is in `kinds` and it has `shape`; None is any length.

    Raises
    ------
    ValueError
        With the actual type and shape.
    """
    same = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not same or array.dtype.kind not in kinds:
        wanted = ", ".join("any" if one is None else str(one) for one in shape)
        raise ValueError(f"{what}: {array.dtype} {array.shape} where ({wanted}) is expected")
    return array


def _array_header(file: IO[bytes], size: int, where: str) -> tuple[np.dtype, tuple[int, ...], str]:
    """Type, shape and memory order of an array of `size` bytes, including its header"""
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
    # with a type of zero width, any number of elements would fit into zero bytes
    if not whole or not dtype.itemsize or not isinstance(fortran, bool):
        raise ReadError(f"{where} is damaged: {dtype} {shape}")
    expected, found = math.prod(shape) * dtype.itemsize, size - 8 - struct.calcsize(form) - length
    if expected != found:
        raise ReadError(f"{where} is damaged: {found:,} bytes where {expected:,} are announced")
    return dtype, shape, "F" if fortran else "C"


def _read_array(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Read an array of `size` bytes, including its header"""
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
