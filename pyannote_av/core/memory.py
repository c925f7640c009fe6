"""Memory of the process."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def release_freed() -> None:
    """Give memory that is free, but still held by the C library, back to the operating system.

    Memory that lies between arrays in use stays with the process after it is freed. During a long
    file, such gaps add up. Only the GNU C library is supported; elsewhere, nothing happens.

    References
    ----------
    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
