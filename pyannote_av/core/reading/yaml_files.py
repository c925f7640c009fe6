"""YAML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyannote_av.core.reading.limits import DEPTH_LIMIT, YAML_LIMIT, YAML_NUMBER, YAML_VALUES
from pyannote_av.core.reading.refusing import ReadError, refusing
from pyannote_av.core.reading.text import read_text

_OF_NUMBERS = set("0123456789+-.:_")


def read_yaml(path: str | Path, limit: int = YAML_LIMIT) -> Any:
    """Content of a YAML file; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path, limit), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Content of YAML: plain values, lists and mappings.

    Parameters
    ----------
    text : str
    where : str
        Names what it is the text of.

    Raises
    ------
    ReadError
        Names the line of what is no YAML; or when there are more than :data:`YAML_VALUES` values,
        repetitions by alias included, more than :data:`DEPTH_LIMIT` levels, or a value that is part
        of itself.
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
    """Raise ReadError for YAML whose content would be too large, too deep, or without an end"""
    import yaml

    sizes: dict[str, int] = {}
    # anchor and number of values of the lists and mappings that are not yet at their end
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
