"""Training: configurations, stages and the code that runs them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyannote_av.training.config import TrainingConfig
    from pyannote_av.training.from_config import train
    from pyannote_av.training.runner import optimize
    from pyannote_av.training.stages import Stage, end_to_end, multi_stage

# imported on first use: a configuration can be read without torch
_PUBLIC = {
    "Stage": "stages",
    "TrainingConfig": "config",
    "end_to_end": "stages",
    "multi_stage": "stages",
    "optimize": "runner",
    "train": "from_config",
}

__all__ = ["Stage", "TrainingConfig", "end_to_end", "multi_stage", "optimize", "train"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pyannote_av.training' has no attribute {name!r}")
    return getattr(import_module(f"pyannote_av.training.{_PUBLIC[name]}"), name)
