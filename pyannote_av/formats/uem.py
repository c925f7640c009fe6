"""UEM: one line per region that is scored, as NIST defines it.

The reader is :func:`pyannote_av.formats.annotations.read_uem`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyannote.core import Segment, Timeline

from pyannote_av.core.atomic import write_text
from pyannote_av.core.text import field_name
from pyannote_av.formats.annotations import read_uem
from pyannote_av.formats.content import Content

__all__ = ["read_uem", "to_uem", "whole_file", "write_uem"]


def to_uem(maps: Timeline | Iterable[Timeline]) -> str:
    """Regions as UEM lines. UEM names cannot hold white space, so it becomes ``_``.

    Parameters
    ----------
    maps : Timeline or iterable of Timeline
        Scored regions of one file or of several, which are named by their `uri`.
    """
    return "".join(
        f"{field_name(one.uri or '<NA>')} 1 {region.start:.3f} {region.end:.3f}\n"
        for one in ([maps] if isinstance(maps, Timeline) else maps)
        for region in one
    )


def whole_file(content: Content) -> Timeline:
    """The whole of a file as one region: from 0 to its end, or to that of the last turn."""
    regions = [Segment(0, content.duration)] if content.duration else []
    return Timeline(regions, uri=content.uri)


def write_uem(maps: Timeline | Iterable[Timeline], path: str | Path) -> Path:
    """Write regions to a UEM file; return its path. See :func:`to_uem`."""
    return write_text(path, to_uem(maps))
