"""Format of serialized outputs: its name, its version, and its lists of turns. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyannote.core import Annotation

#: values of ``format`` and ``version`` in what ``AVDiarizeOutput.serialize`` returns
FORMAT, VERSION = "pyannote_av diarization", 1


def list_turns(annotation: Annotation) -> list[dict[str, Any]]:
    """Turns as mappings with ``start``, ``end`` (rounded to milliseconds) and ``speaker``."""
    return [
        {"start": round(turn.start, 3), "end": round(turn.end, 3), "speaker": speaker}
        for turn, _, speaker in annotation.itertracks(yield_label=True)
    ]
