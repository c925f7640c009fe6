"""Manifests: lists of files in CSV format, with a header.

::

    uri,video,audio,num_speakers
    monday,media/monday.mp4,,2
    tuesday,media/tuesday.mkv,media/tuesday.wav,

Paths are relative to the manifest. ``uri``, and ``video`` or ``audio``, are required.
``num_speakers``, ``min_speakers``, ``max_speakers`` and ``audio_track`` (see
:class:`pyannote_av.Video`) are optional, and may be empty.
"""

from __future__ import annotations

import csv
from pathlib import Path
from urllib.parse import quote

from pyannote_av.batch.jobs import Job
from pyannote_av.core.files import MediaError, check_audio_track

MEDIA = ("video", "audio")
NUMBERS = ("num_speakers", "min_speakers", "max_speakers")
COLUMNS = ("uri", *MEDIA, *NUMBERS, "audio_track")
#: limit in bytes for names, which leaves room for suffixes
_LONGEST = 200


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
        raise FileNotFoundError(f"no such file: {path}")
    jobs: list[Job] = []
    lines: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(path, reader.fieldnames)
            for row in reader:
                job = _job(row, path.parent, f"{path}, line {reader.line_num}")
                before = lines.setdefault(job.name, reader.line_num)
                if before != reader.line_num:
                    raise ValueError(
                        f"{path}, line {reader.line_num}, column uri: {job.name!r} is in line "
                        f"{before} already"
                    )
                jobs.append(job)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from error
    if not jobs:
        raise ValueError(f"{path} has a header, but no files")
    return jobs


def _check_header(path: Path, header: list[str] | None) -> None:
    columns = list(header or ())
    where = f"{path}, line 1"
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(f"{where}: no column is called {unknown[0]!r}; {', '.join(COLUMNS)} are")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{where}: column {twice[0]} is there twice")
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
    if options.get("min_speakers", 1) > options.get("max_speakers", options.get("min_speakers", 1)):
        raise ValueError(f"{where}, column min_speakers: more than max_speakers")
    columns = {}
    if row.get("audio_track"):
        try:
            columns["audio_track"] = check_audio_track(row["audio_track"])
        except MediaError as error:
            raise ValueError(f"{where}, column audio_track: {error}") from error
    return Job(check_name(row["uri"], f"{where}, column uri"), media, options, columns)


def _number(text: str, where: str, column: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{where}, column {column}: {text!r} is no number of speakers")
    return int(text)


def check_name(name: str, where: str) -> str:
    """Return a valid file name; raise ValueError, which mentions `where`, for an invalid one."""
    if not name or name.startswith(".") or ".." in name or any(c in name for c in "/\\\0\n\r"):
        raise ValueError(
            f"{where}: {name!r} cannot be a name: it must not be empty, start with '.', nor "
            "contain '..', '/', '\\' or line breaks"
        )
    if len(quote(name, safe=" ")) > _LONGEST:
        raise ValueError(f"{where}: {name[:20]!r}... is longer than {_LONGEST} bytes")
    return name
