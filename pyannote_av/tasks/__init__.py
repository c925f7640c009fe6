"""Training tasks for the files of a pyannote.database protocol."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyannote_av.tasks.active_speaker_detection import ActiveSpeakerDetection
    from pyannote_av.tasks.target_speaker_segmentation import TargetSpeakerSegmentation

__all__ = ["ActiveSpeakerDetection", "TargetSpeakerSegmentation"]

# imported on first use, so that training for one task does not load the other one
_MODULES = {
    "ActiveSpeakerDetection": "pyannote_av.tasks.active_speaker_detection",
    "TargetSpeakerSegmentation": "pyannote_av.tasks.target_speaker_segmentation",
}


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
