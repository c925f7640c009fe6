"""Protocols of pyannote.database, with error messages that list the available protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import (
    ReadError,
    check_name,
    encoding_of,
    open_bytes,
    read_lines,
    read_yaml,
    refusing,
)
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    from pyannote.database import Protocol

SUBSETS = ("train", "development", "test")
# maximum number of files that a database.yml may require, directly or indirectly
_REQUIREMENTS = 100


def open_protocol(name: str, database: str | Path | None = None) -> Protocol:
    """A protocol by its name.

    Parameters
    ----------
    name : str
        Such as ``AVA-AVD.SpeakerDiarization.Clips``.
    database : str or Path, optional
        A ``database.yml`` to load first. By default, only the files that pyannote.database finds
        are used: those in the working directory, in the home directory, and in
        ``PYANNOTE_DATABASE_CONFIG``.

    Raises
    ------
    ValueError
        When there is no such protocol (the message lists the available ones), or when `database`
        is not a valid list of protocols.
    FileNotFoundError
        When `database` does not exist.
    """
    import warnings

    from pyannote.database import registry

    if database is not None:
        database = Path(database)
        if not database.is_file():
            raise FileNotFoundError(no_such_file(database))
        _check_database(database, set())
        # also report content that pyannote.database does not understand
        with refusing(database, "no list of protocols"), warnings.catch_warnings():
            # the database.yml in the working directory may define the same protocol
            warnings.filterwarnings("ignore", "Replacing existing")
            registry.load_database(database)
    if name.count(".") != 2:
        raise ValueError(f"{name!r} is not a protocol: names read DATABASE.TASK.PROTOCOL")
    try:
        return registry.get_protocol(name)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        known = ", ".join(sorted(registry))
        advice = (
            f"choose from {known}" if known else "give --database or set PYANNOTE_DATABASE_CONFIG"
        )
        raise ReadError(f"no protocol {name!r}; {advice}") from error


def _check_database(path: Path, visited: set[Path]) -> None:
    """Raise ReadError for content that is unsafe for pyannote.database; required files included"""
    path = path.expanduser().resolve()
    if path in visited:
        return
    visited.add(path)
    if len(visited) > _REQUIREMENTS:
        raise ReadError(f"{path}: more than {_REQUIREMENTS} files require one another")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ReadError(f"{path} is not a list of protocols: expected a mapping of keys to values")
    for keys, text in _texts(content):
        if printable(text, one_line=True) != text:
            raise ReadError(f"{path}: {text!r} has characters that cannot be shown")
        if keys and keys[-1] == "uri":
            _check_list(path, text)
        # templates are filled in with str.format: refuse widths, which can exhaust the memory, and
        # attributes
        with refusing(path, f"{text!r} is not a template of a path"):
            for _, field, width, conversion in Formatter().parse(text):
                if field is not None and (width or conversion or not field.isidentifier()):
                    raise ValueError("there is more than a name in braces")
    required = content.get("Requirements") or []
    for one in required if isinstance(required, list) else [required]:
        if not isinstance(one, str):
            raise ReadError(f"{path}: Requirements are paths, not {one!r}")
        _check_database(path.parent / one, visited)


def _check_list(path: Path, name: str) -> None:
    """Raise ReadError for a list of files with names that lead out of their folder"""
    listed = Path(name).expanduser()
    # the places where pyannote.database looks
    found = next((one for one in (listed, path.parent / listed) if one.is_file()), None)
    if found is None:
        return
    with open_bytes(found) as file:
        if encoding_of(file.read(4)) != "utf-8":
            raise ReadError(
                f"{found} begins with a byte order mark, which pyannote.database takes for a part "
                "of the first name: save it as UTF-8 without it"
            )
    for number, line in enumerate(read_lines(found), start=1):
        if line.strip():
            try:
                check_name(line.strip())
            except ReadError as error:
                raise ReadError(f"{found}, line {number}: {error}") from error


def _texts(content: Any, keys: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Yield (path of keys, text) for all text in a configuration, including the keys"""
    if isinstance(content, str):
        yield keys, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _texts(key)
            yield from _texts(value, (*keys, key))
    elif isinstance(content, (list, tuple, set)):
        for one in content:
            yield from _texts(one, keys)


def files_of(
    name: str, subsets: Sequence[str] = (), database: str | Path | None = None
) -> dict[str, list[Mapping[str, Any]]]:
    """Files of a protocol by subset.

    Parameters
    ----------
    name, database
        See :func:`open_protocol`.
    subsets : sequence of str, optional
        Defaults to all subsets of the protocol.

    Raises
    ------
    ValueError
        When there is no such protocol or subset, or a file is listed twice.
    """
    if unknown := [subset for subset in subsets if subset not in SUBSETS]:
        raise ValueError(f"no subset {unknown[0]!r}; choose from {', '.join(SUBSETS)}")
    protocol = open_protocol(name, database)
    found: dict[str, list[Mapping[str, Any]]] = {}
    subset_of: dict[str, str] = {}
    for subset in subsets or SUBSETS:
        files = _files_of_subset(protocol, name, subset)
        if files is None:
            if subsets:
                raise ValueError(f"{name} has no subset {subset!r}")
            continue
        found[subset] = files
        for file in files:
            uri = check_name(file["uri"])
            if uri in subset_of:
                raise ValueError(f"{name}: {uri!r} is in {subset_of[uri]} and again in {subset}")
            subset_of[uri] = subset
    if not subset_of:
        raise ValueError(f"{name} has no files")
    return found


def _files_of_subset(protocol: Protocol, name: str, subset: str) -> list[Mapping[str, Any]] | None:
    """Files of a subset; None if there is no such subset"""
    if not hasattr(protocol, subset):
        return None
    with refusing(f"{name}, subset {subset}"):
        try:
            # blank lines of lists are no files
            return [file for file in getattr(protocol, subset)() if file["uri"]]
        except NotImplementedError:
            return None
