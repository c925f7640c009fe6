"""JSON output: speakers, turns with confidence and deciding modality, face tracks, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.atomic import write_text

if TYPE_CHECKING:
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput


def write_json(output: DiarizeOutput, path: str | Path) -> Path:
    """Write the result of ``output.serialize()`` to a JSON file; return its path."""
    return write_text(path, json.dumps(output.serialize(), allow_nan=False) + "\n")
