"""Manifests: lists of files in CSV format, with a header.

::

    uri,video,audio,num_speakers
    monday,media/monday.mp4,,2
    tuesday,media/tuesday.mkv,media/tuesday.wav,

Paths are relative to the manifest. ``uri``, and ``video`` or ``audio``, are required.
``num_speakers``, ``min_speakers``, ``max_speakers`` and ``audio_track`` (see
:class:`pyannote_av.Video`) are optional, and may be empty. The text is in UTF-8, or in UTF-16 with
a byte order mark. Semicolons or tabs may replace commas. A ``/`` in a uri creates subfolders for
outputs.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pyannote_av.batch.jobs import Job
from pyannote_av.core.counts import number_of_speakers, speaker_bounds
from pyannote_av.core.files import MediaError, check_audio_track
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import read_lines

MEDIA = ("video", "audio")
NUMBERS = ("num_speakers", "min_speakers", "max_speakers")
COLUMNS = ("uri", *MEDIA, *NUMBERS, "audio_track")
#: limit in bytes for names of files and folders, which leaves room for suffixes
_LONGEST = 248


def read_manifest(path: str | Path) -> list[Job]:
    """Read the files of a manifest.

    Does not check whether media exist.

    Raises
    ------
    ValueError
        If the manifest is invalid or has duplicate names, with the file, line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(no_such_file(path))
    jobs: list[Job] = []
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        job = _job(row, path.parent, f"{path}, line {number}")
        before = lines.setdefault(job.name, number)
        if before != number:
            raise ValueError(
                f"{path}, line {number}, column uri: {job.name!r} is already in line {before}"
            )
        jobs.append(job)
    if not jobs:
        raise ValueError(f"{path} has a header, but no files")
    return jobs


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Yield the number of the line, and the row by column, for each row that is not empty"""
    text = read_lines(path)
    header = next(text, "")
    # all column names are known, so only the right separator finds them
    columns, separator = [], ","
    for separator in ",;\t":
        columns = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        if set(columns) <= {*COLUMNS}:
            break
    else:
        columns, separator = [name.strip() for name in header.split(",")], ","
    _check_header(path, columns)
    reader = csv.DictReader(chain([header], text), columns, delimiter=separator, strict=True)
    try:
        for row in reader:
            # spreadsheets add rows of empty fields
            if reader.line_num > 1 and any(row.values()):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from error


def _check_header(path: Path, columns: list[str]) -> None:
    where = f"{path}, line 1"
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(
            f"{where}: unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}"
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{where}: column {twice[0]} is listed twice")
    if "uri" not in columns or not set(columns) & set(MEDIA):
        raise ValueError(f"{where}: a header with uri, and video or audio, is needed")


def _job(row: dict, folder: Path, where: str) -> Job:
    if row.get(None):
        raise ValueError(f"{where}: more fields than the header has")
    row = {name: (value or "").strip() for name, value in row.items()}
    media = {kind: str(folder / row[kind]) for kind in MEDIA if row.get(kind)}
    if not media:
        raise ValueError(f"{where}: neither video nor audio")
    options = {name: _number(row[name], where, name) for name in NUMBERS if row.get(name)}
    try:
        speaker_bounds(**options)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    columns = {}
    if row.get("audio_track"):
        try:
            columns["audio_track"] = check_audio_track(row["audio_track"])
        except MediaError as error:
            raise ValueError(f"{where}, column audio_track: {error}") from error
    return Job(check_name(row["uri"], f"{where}, column uri"), media, options, columns)


def _number(text: str, where: str, column: str) -> int:
    try:
        return number_of_speakers(text, column)
    except ValueError as error:
        raise ValueError(f"{where}, column {error}") from error


def check_name(name: str, where: str) -> str:
    """Return a name of outputs if it is valid; raise ValueError, which mentions `where`, if not.

    A name may contain folders, separated by ``/``.
    """
    parts = name.split("/")
    for part in parts:
        if not part.strip() or part.startswith(".") or ".." in part or {*part} & {*"\\\0\n\r"}:
            raise ValueError(
                f"{where}: {name!r} cannot be a name: it and its folders must not be empty, start "
                "with '.', nor contain '..', '\\' or line breaks"
            )
        if len(os.fsencode(part)) > _LONGEST:
            raise ValueError(f"{where}: {part[:20]!r}... is longer than {_LONGEST} bytes")
    return name
