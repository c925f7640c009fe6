"""Memory of the process"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def release_freed() -> None:
    """Give memory that is free, but still held by the C library, back to the operating system.

    Small arrays that are kept, between large ones that are freed, leave gaps that grow with the
    length of a file. Does nothing where the C library is not that of GNU.
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
