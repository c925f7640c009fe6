"""A face with the audio of the same time: the input of active speaker scorers."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from pyannote_av.models.active_speaker.motion import mouth_motion


class _Face(NamedTuple):
    waveform: torch.Tensor
    crops: np.ndarray
    present: np.ndarray


class Face(_Face):
    """A face with its audio: arguments of an active speaker scorer.

    Attributes
    ----------
    waveform : (1, n) tensor
        16 kHz audio of the T crops, n = 640 T.
    crops : (T, 112, 112) uint8
        25 Hz grey face crops. Their content is undefined where the face is absent.
    present : (T,) bool
    """

    @cached_property
    def motion(self) -> np.ndarray:
        """(T, 17) float array, computed once.

        See :func:`~pyannote_av.models.active_speaker.motion.mouth_motion`.
        """
        return mouth_motion(self.crops, self.present)
