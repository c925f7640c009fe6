"""Protocols of pyannote.database, opened with errors that say what there is instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyannote.database import Protocol

SUBSETS = ("train", "development", "test")


def open_protocol(name: str, database: str | Path | None = None) -> Protocol:
    """A protocol by its name.

    Parameters
    ----------
    name : str
        Such as ``AVA-AVD.SpeakerDiarization.Clips``.
    database : str or Path, optional
        A ``database.yml`` to load first. Without, those that pyannote.database finds: of the
        working directory, of the home, and of ``PYANNOTE_DATABASE_CONFIG``.

    Raises
    ------
    ValueError
        When there is no such protocol, naming those that there are.
    FileNotFoundError
        When there is no such `database`.
    """
    import warnings

    import yaml
    from pyannote.database import registry

    if database is not None:
        database = Path(database)
        if not database.is_file():
            raise FileNotFoundError(f"no such file: {database}")
        try:
            with warnings.catch_warnings():
                # that of the working directory may have the same protocol, for another folder
                warnings.filterwarnings("ignore", "Replacing existing")
                registry.load_database(database)
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            raise ValueError(f"{database} is no list of protocols: {error}") from error
    if name.count(".") != 2:
        raise ValueError(f"{name!r} is no protocol: names read DATABASE.TASK.PROTOCOL")
    try:
        return registry.get_protocol(name)
    except (ValueError, KeyError, AttributeError) as error:
        there = (
            ", ".join(sorted(registry)) or "none: give --database, or set PYANNOTE_DATABASE_CONFIG"
        )
        raise ValueError(f"no protocol {name!r}; there is {there}") from error


def files_of(
    name: str, subsets: Sequence[str] = (), database: str | Path | None = None
) -> dict[str, list[Mapping[str, Any]]]:
    """Files of a protocol by subset.

    Parameters
    ----------
    name, database
        See :func:`open_protocol`.
    subsets : sequence of str, optional
        All that there are unless given.

    Raises
    ------
    ValueError
        When there is no such protocol or subset, or a file is listed twice.
    """
    if unknown := [subset for subset in subsets if subset not in SUBSETS]:
        raise ValueError(f"no subset {unknown[0]!r}; there is {', '.join(SUBSETS)}")
    protocol = open_protocol(name, database)
    found: dict[str, list[Mapping[str, Any]]] = {}
    seen: dict[str, str] = {}
    for subset in subsets or SUBSETS:
        try:
            found[subset] = list(getattr(protocol, subset)())
        except (AttributeError, NotImplementedError) as error:
            if subsets:
                raise ValueError(f"{name} has no subset {subset!r}") from error
            continue
        for file in found[subset]:
            uri = file["uri"]
            if uri in seen:
                raise ValueError(f"{name}: {uri!r} is in {seen[uri]} and again in {subset}")
            seen[uri] = subset
    if not seen:
        raise ValueError(f"{name} has no files")
    return found
