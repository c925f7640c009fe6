"""RTTM: one line per turn (https://catalog.ldc.upenn.edu/docs/LDC2004T12/RTTM-format-v13.pdf)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.atomic import write_text
from pyannote_av.core.text import field_name

if TYPE_CHECKING:
    from pyannote.core import Annotation


def to_rttm(annotation: Annotation) -> str:
    """Turns as RTTM lines. RTTM names cannot hold white space, so it becomes ``_``.

    Raises
    ------
    ValueError
        When two speakers would get the same name.
    """
    names: dict[str, object] = {}
    for label in annotation.labels():
        if (other := names.setdefault(field_name(label), label)) != label:
            raise ValueError(
                f"speakers {other!r} and {label!r} of {annotation.uri!r} are both called "
                f"{field_name(label)!r} in RTTM: rename one of them"
            )
    uri = field_name(annotation.uri or "<NA>")
    return "".join(
        f"SPEAKER {uri} 1 {segment.start:.3f} {segment.duration:.3f} <NA> <NA> "
        f"{field_name(label)} <NA> <NA>\n"
        for segment, _, label in annotation.itertracks(yield_label=True)
    )


def write_rttm(annotation: Annotation, path: str | Path) -> Path:
    """Write turns to an RTTM file; return its path."""
    return write_text(path, to_rttm(annotation))
