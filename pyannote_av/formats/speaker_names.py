"""Names of speakers: ``SPEAKER_00=Ann,SPEAKER_01=Bob``, a CSV file, or the export of the player."""

from __future__ import annotations

import csv
from pathlib import Path

from pyannote_av.core.reading import ReadError, read_json, read_lines, refusing

# first line of CSV files that is no name
_HEADERS = {"speaker", "label", "old", "from"}


def parse_names(text: str) -> dict[str, str]:
    """Names by label, from a file (``.csv``, ``.tsv``, ``.json``) or from ``LABEL=NAME,...``.

    Parameters
    ----------
    text : str
        Path of a file, or pairs, separated by commas. Names with commas need a file.

    Raises
    ------
    ReadError
        When the file is malformed; the message names file and line.
    ValueError
        When the text is neither the path of a file nor pairs.
    FileNotFoundError
    """
    path = Path(text)
    if path.suffix.lower() in (".csv", ".tsv", ".json") and "=" not in path.stem:
        return read_speaker_names(path)
    names: dict[str, str] = {}
    for pair in text.split(","):
        label, equals, name = (part.strip() for part in pair.partition("="))
        if not (label and equals and name):
            raise ValueError(
                f"{pair.strip()!r} is not LABEL=NAME, as in SPEAKER_00=Ann,SPEAKER_01=Bob "
                "(or give a .csv or .json file)"
            )
        _add(names, label, name, "names")
    return names


def read_speaker_names(path: str | Path) -> dict[str, str]:
    """Names by label, from a file.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.tsv`` with two columns, label and name, with or without a header; or
        ``.json`` with a mapping of labels to names, which may be under the key ``names``, as in
        the export of the player.

    Raises
    ------
    ReadError
        With file and line.
    """
    path = Path(path)
    return _of_json(path) if path.suffix.lower() == ".json" else _of_csv(path)


def _of_json(path: Path) -> dict[str, str]:
    content = read_json(path)
    if isinstance(content, dict) and "names" in content:
        content = content["names"]
    elif isinstance(content, dict) and "diarization" in content:
        raise ReadError(f"{path}: a result without 'names'")
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ReadError(f'{path}: not names such as {{"SPEAKER_00": "Ann"}}')
    return content


def _of_csv(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    with refusing(path):
        lines = list(read_lines(path))
        first = lines[0] if lines else ""
        mark = next((one for one in ("\t", ";") if one in first and "," not in first), ",")
        reader = csv.reader(lines, delimiter=mark)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(field.strip() for field in row):
                continue
            if len(row) != 2:
                raise ReadError(f"{where}: {len(row)} fields where label and name are expected")
            label, name = (field.strip() for field in row)
            if not names and label.lower() in _HEADERS:
                continue
            if not name:
                raise ReadError(f"{where}: {label!r} has no name")
            _add(names, label, name, where)
    return names


def _add(names: dict[str, str], label: str, name: str, where: str) -> None:
    if names.setdefault(label, name) != name:
        raise ReadError(f"{where}: {label!r} is called {names[label]!r} and {name!r}")
