"""Text and CSV tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text


def aligned(rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Rows as aligned text: the first `left` columns left, the others right, floats to 2 digits."""
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
    """Round floats to 6 digits, and replace NaN and infinity by None; containers recursively."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write flat rows with the same keys as a CSV file with a header."""
    import pandas as pd

    # as objects, because a column of integers with a gap would become one of floats
    table = pd.DataFrame(plain(rows), dtype=object)
    return write_text(path, table.to_csv(index=False, lineterminator="\n"))
