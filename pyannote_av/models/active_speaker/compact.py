"""Compact active speaker network that can be trained on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pyannote_av.models.active_speaker.light import annealed
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.models.blocks.compact_face import CompactEncoder


class CompactASD(LRASD):
    """LR-ASD with the visual encoder of compact HMSA-Net, on crops of half the width and height.

    Weights of the encoder can be shared: it is ``visual`` in this network and ``visual.encoder`` in
    HMSA-Net.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.

    Notes
    -----
    The shipped weights were trained with the temperature of Light-ASD's loss, which LR-ASD does not
    have, so it stays part of this network.
    """

    temperature = staticmethod(annealed)

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.visual = CompactEncoder()

    @staticmethod
    def rename(name: str) -> str | None:
        """Return None for all names: no other authors publish checkpoints of this network."""
        return None

    def visual_features(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (..., frames, 112, 112) in [0, 255] to features (..., frames, 128)."""
        *leading, num_frames, height, width = faces.shape
        faces = faces.reshape(-1, num_frames, height, width)
        pictures = F.avg_pool2d(faces.to(self.classifier.weight.dtype), 2)
        return self.visual(pictures).reshape(*leading, num_frames, CompactEncoder.dimension)
