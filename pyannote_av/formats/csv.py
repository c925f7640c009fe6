"""CSV: a table with one row per turn, see :meth:`pyannote_av.AVDiarizeOutput.to_pandas`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyannote.core import Annotation, Segment

from pyannote_av.core.atomic import write_text
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import (
    ANNOTATION_LIMIT,
    ANNOTATION_LINES,
    ReadError,
    decimal,
    read_lines,
    refusing,
)
from pyannote_av.core.turn_tables import COLUMNS, turn_rows
from pyannote_av.formats.content import Content
from pyannote_av.formats.lines import check_times

MODALITIES = ("audio", "video", "audio+video")


def to_csv(output: Any) -> str:
    """Turns as CSV with a header. Unknown values are empty.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation or Content
    """
    content, text = Content.of(output), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(turn_rows(content.speaker_diarization, content.provenance))
    return text.getvalue()


def write_csv(output: Any, path: str | Path) -> Path:
    """Write turns to a CSV file; return its path. See :func:`to_csv`."""
    return write_text(path, to_csv(output))


def read_csv(path: str | Path) -> dict[str | None, Content]:
    """Turns of a CSV file, by uri.

    Columns may be in any order, and others are ignored. ``start`` and ``speaker`` are needed, and
    ``end`` or ``duration``. Without a column ``uri``, the name of the file is used.

    Raises
    ------
    ReadError
        With file and line, when a column is missing or a value is malformed.
    """
    return turns_of_rows(_rows(Path(path)), Path(path).name.split(".")[0])


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("FILE, line N", row) for each row"""
    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    with refusing(path):
        reader = csv.reader(read_lines(path, ANNOTATION_LIMIT, ANNOTATION_LINES))
        header = next(reader, [])
        check_columns(header, f"{path}, line 1")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise ReadError(f"{where}: {len(row)} fields where {len(header)} are expected")
            yield where, dict(zip(header, row, strict=True))


def check_columns(names: Iterable[str], where: str) -> None:
    """Raise ReadError if a table lacks the columns that a turn needs."""
    names = list(names)
    missing = [name for name in ("start", "speaker") if name not in names]
    if not {"end", "duration"} & set(names):
        missing.append("end")
    if missing:
        there = ", ".join(map(repr, names[:10])) or "nothing"
        raise ReadError(f"{where}: no column {missing[0]!r}, but {there}")


def turns_of_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]], name: str
) -> dict[str | None, Content]:
    """Turns of the rows of a table, by uri.

    Parameters
    ----------
    rows : iterable of (str, mapping)
        Place of the row, for error messages, and its values: text or numbers. None, NaN and empty
        values mean "unknown".
    name : str
        uri of rows without one.

    Raises
    ------
    ReadError
        When a value is malformed.
    """
    found: dict[str | None, Content] = {}
    for where, row in rows:
        start = _number(row, "start", where)
        end = _number(row, "end", where)
        if end is None and (duration := _number(row, "duration", where)) is not None:
            end = None if start is None else round(start + duration, 9)
        if start is None or end is None:
            raise ReadError(f"{where}: {'start' if start is None else 'end'} is empty")
        start, end = check_times(where, start, end)
        uri = row.get("uri")
        uri = str(uri) if isinstance(uri, str) and uri else name
        content = found.setdefault(uri, Content(Annotation(uri=uri)))
        segment, track = Segment(start, end), f"{len(content.speaker_diarization):09}"
        if not segment:
            continue
        # names are taken as they are, the empty one included
        speaker = row["speaker"]
        if not isinstance(speaker, str):
            raise ReadError(f"{where}: a speaker is called {speaker!r}")
        track = _free(content.speaker_diarization, segment, track)
        content.speaker_diarization[segment, track] = speaker
        facts = {"confidence": _number(row, "confidence", where), "modality": row.get("modality")}
        if facts["modality"] in MODALITIES:
            content.provenance[segment, track] = facts
        elif facts["confidence"] is not None:
            content.provenance[segment, track] = {"confidence": facts["confidence"]}
    return found or {name: Content(Annotation(uri=name))}


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None or value == "" or value != value:
        return None
    try:
        return decimal(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError) as error:
        raise ReadError(f"{where}: {name} is {value!r}, not a number") from error


def _free(turns: Annotation, segment: Segment, track: str) -> str:
    return track if not turns.has_track(segment, track) else turns.new_track(segment, track)
