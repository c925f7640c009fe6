"""RTTM: one line per turn (https://catalog.ldc.upenn.edu/docs/LDC2004T12/RTTM-format-v13.pdf)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.atomic import write_text
from pyannote_av.core.text import field_name
from pyannote_av.formats.lines import written_names

if TYPE_CHECKING:
    from pyannote.core import Annotation


def to_rttm(annotation: Annotation) -> str:
    """Turns as RTTM lines. RTTM names cannot hold white space, so it becomes ``_``.

    Raises
    ------
    ValueError
        When two speakers would get the same name.
    """
    names = written_names(annotation.labels(), "RTTM", annotation.uri, field_name)
    uri = field_name(annotation.uri or "<NA>")
    return "".join(
        f"SPEAKER {uri} 1 {segment.start:.3f} {segment.duration:.3f} <NA> <NA> "
        f"{names[label]} <NA> <NA>\n"
        for segment, _, label in annotation.itertracks(yield_label=True)
    )


def write_rttm(annotation: Annotation, path: str | Path) -> Path:
    """Write turns to an RTTM file; return its path."""
    return write_text(path, to_rttm(annotation))
