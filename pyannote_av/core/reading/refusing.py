"""The error of everything that a data file can be wrong by."""

from __future__ import annotations

import csv
import gzip
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyannote_av.core.text import printable

# characters of a message
_MESSAGE = 4000
# whatever content that is not as it should be makes parsers, and those who use it, raise
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
        super().__init__(printable(message))


@contextmanager
def refusing(where: str | Path, what: str = "") -> Iterator[None]:
    """Turn whatever malformed content raises in a block into :class:`ReadError`.

    Parameters
    ----------
    where : str or Path
        Names the file, or its line.
    what : str, optional
        Such as "not a file of face tracks".
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
        return f"not a text file in UTF-8: {error}"
    if isinstance(error, KeyError):
        return f"no {error}"
    return str(error) or type(error).__name__
