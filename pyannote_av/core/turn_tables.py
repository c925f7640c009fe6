"""Turns as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from pyannote.core import Annotation

#: columns of a table of turns
COLUMNS = ("uri", "start", "end", "duration", "speaker", "confidence", "modality")


def turn_rows(
    turns: Annotation, provenance: Mapping[tuple, Mapping[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of :data:`COLUMNS` for each turn.

    Parameters
    ----------
    turns : Annotation
    provenance : mapping of (segment, track) to mapping
        See :class:`~pyannote_av.core.output.AVDiarizeOutput`.
    """
    for segment, track, speaker in turns.itertracks(yield_label=True):
        start, end = round(segment.start, 3), round(segment.end, 3)
        facts = provenance.get((segment, track), {})
        yield (
            turns.uri,
            start,
            end,
            round(end - start, 3),
            speaker,
            facts.get("confidence"),
            facts.get("modality"),
        )


def turn_table(turns: Annotation, provenance: Mapping[tuple, Mapping[str, Any]]) -> pd.DataFrame:
    """Table with one row per turn; see :func:`turn_rows` for parameters.

    Columns are ``uri``, ``start``, ``end`` and ``duration`` (seconds, to the millisecond),
    ``speaker``, ``confidence`` (NaN where unknown) and ``modality`` (None where unknown).
    """
    import pandas as pd

    table = pd.DataFrame(list(turn_rows(turns, provenance)), columns=list(COLUMNS))
    numbers = ("start", "end", "duration", "confidence")
    return table.astype(dict.fromkeys(numbers, "float64"))
