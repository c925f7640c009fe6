"""Parquet: the table of CSV, with types; needs pyarrow (``pip install 'pyannote-av[parquet]'``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import replacing
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import (
    ANNOTATION_LIMIT,
    ANNOTATION_LINES,
    ReadError,
    open_regular,
    refusing,
)
from pyannote_av.core.turn_tables import COLUMNS, turn_table
from pyannote_av.formats.content import Content
from pyannote_av.formats.csv import check_columns, turns_of_rows


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ModuleNotFoundError(
            "Parquet files need pyarrow: pip install 'pyannote-av[parquet]'"
        ) from error
    return parquet


def write_parquet(output: Any, path: str | Path) -> Path:
    """Write turns to a Parquet file; return its path.

    Parameters
    ----------
    output : AVDiarizeOutput, Annotation or Content
    path : str or Path

    Raises
    ------
    ModuleNotFoundError
        Without pyarrow.
    """
    _parquet()
    content = Content.of(output)
    table = turn_table(content.speaker_diarization, content.provenance)
    with replacing(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow", index=False)
    return Path(path)


def read_parquet(path: str | Path) -> dict[str | None, Content]:
    """Turns of a Parquet file, by uri; columns are those of :func:`~.csv.read_csv`.

    Raises
    ------
    ReadError
        When the file is damaged or too long, lacks a column, or has a malformed value.
    ModuleNotFoundError
        Without pyarrow.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    return turns_of_rows(_rows(path, _parquet()), path.name.split(".")[0])


def _rows(path: Path, parquet: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    # errors of pyarrow derive from ValueError, OSError or NotImplementedError
    with open_regular(path) as binary, refusing(path, "not a Parquet file of turns"):
        try:
            file = parquet.ParquetFile(binary)
            metadata, names = file.metadata, file.schema_arrow.names
            sizes = [
                metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)
            ]
            if metadata.num_rows > ANNOTATION_LINES or sum(sizes) > ANNOTATION_LIMIT:
                raise ReadError(
                    f"{path} is too long: {ANNOTATION_LINES:,} rows are read at most, and "
                    f"{ANNOTATION_LIMIT:,} bytes"
                )
            check_columns(names, str(path))
            rows = file.read([name for name in COLUMNS if name in names]).to_pylist()
        except (OSError, NotImplementedError) as error:
            raise ReadError(f"{path}: not a Parquet file of turns ({error})") from error
    for number, row in enumerate(rows):
        yield f"{path}, row {number}", row
