"""Tables of text and CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text


def aligned(rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Rows as text: the first `left` columns set left, the others right, floats to 2 digits."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(value) for value in column) for column in zip(*text, strict=True)]
    return "\n".join(
        "  ".join(
            value.ljust(width) if i < left else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in text
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def plain(value: Any) -> Any:
    """Floats to 6 digits, NaN, which JSON lacks, as None; containers likewise."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Flat rows of one kind as a CSV file with a header."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(rows))
    return write_text(path, text.getvalue())
