"""Multi-stage optimization: stages as data, and what runs them."""

from pyannote_av.training.runner import optimize
from pyannote_av.training.stages import Stage, end_to_end, multi_stage, read_stages, write_stages

__all__ = ["Stage", "end_to_end", "multi_stage", "optimize", "read_stages", "write_stages"]
