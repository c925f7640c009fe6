"""pyannote_av: audio-visual speaker diarization with pyannote.audio.

>>> from pyannote_av import Pipeline                     # doctest: +SKIP
>>> pipeline = Pipeline.from_pretrained("hmsanet")   # doctest: +SKIP
>>> output = pipeline("interview.mp4")                   # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# pyannote.audio sends usage metrics unless they are disabled before its first import.
# Disable them by default, because users process videos of faces; an explicit setting is kept.
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pyannote_av.core.io import Video
    from pyannote_av.core.model import AVModel, Model
    from pyannote_av.core.output import AVDiarizeOutput, Report
    from pyannote_av.core.pipeline import Pipeline
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.fusion.words import assign_speakers

# Public names are imported on first use, so that `import pyannote_av` is fast and does not load
# torch.
_PUBLIC = {
    "AVDiarizeOutput": "pyannote_av.core.output",
    "AVModel": "pyannote_av.core.model",
    "FaceTracks": "pyannote_av.core.tracks",
    "Model": "pyannote_av.core.model",
    "Pipeline": "pyannote_av.core.pipeline",
    "Report": "pyannote_av.core.output",
    "Video": "pyannote_av.core.io",
    "assign_speakers": "pyannote_av.fusion.words",
}

__all__ = [
    "AVDiarizeOutput",
    "AVModel",
    "FaceTracks",
    "Model",
    "Pipeline",
    "Report",
    "Video",
    "__version__",
    "assign_speakers",
]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'pyannote_av' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
