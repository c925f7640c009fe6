"""JSON."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyannote_av.core.reading.limits import DEPTH_LIMIT, JSON_VALUES, TEXT_LIMIT
from pyannote_av.core.reading.refusing import ReadError, refusing
from pyannote_av.core.reading.text import read_text


def read_json(path: str | Path, limit: int = TEXT_LIMIT, nan: bool = False) -> Any:
    """Content of a JSON file, ``.gz`` or not; see :func:`parse_json`."""
    return parse_json(read_text(path, limit), str(path), nan)


def parse_json(text: str, where: str, nan: bool = False) -> Any:
    """Content of JSON.

    Parameters
    ----------
    text : str
    where : str
        Names what it is the text of.
    nan : bool, optional
        Let NaN and infinities through.

    Raises
    ------
    ReadError
        Names the line of what is no JSON; or when there are more than :data:`JSON_VALUES` values,
        or more than :data:`DEPTH_LIMIT` levels.
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
    """Leave out the search for cycles, of which JSON has none, and which takes most of the time"""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def _check_depth(content: Any, where: str) -> None:
    """Raise ReadError where recursion over the content could fail later on"""
    level, depth = [content], 0
    while level := [one for one in level if isinstance(one, (list, dict))]:
        depth += 1
        if depth > DEPTH_LIMIT:
            raise ReadError(f"{where}: nested more than {DEPTH_LIMIT} levels deep")
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]
