"""Training: configurations, stages and the code that runs them."""

from pyannote_av.training.config import TrainingConfig
from pyannote_av.training.runner import optimize
from pyannote_av.training.stages import Stage, end_to_end, multi_stage
from pyannote_av.training.train import train

__all__ = ["Stage", "TrainingConfig", "end_to_end", "multi_stage", "optimize", "train"]
