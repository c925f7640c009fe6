"""An active speaker network that learns on a CPU: LR-ASD with another visual encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.models.blocks.compact_face import CompactEncoder


class CompactASD(LRASD):
    """LR-ASD whose visual encoder is that of compact HMSA-Net, on pictures of half the size.

    The encoder may serve both: as ``visual`` here, as ``visual.encoder`` there.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.visual = CompactEncoder()

    @staticmethod
    def rename(name: str) -> str | None:
        """There are no checkpoints of authors other than ours."""
        return None

    def visual_features(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (..., frames, 112, 112) in [0, 255] to features (..., frames, 128)."""
        *leading, num_frames, height, width = faces.shape
        faces = faces.reshape(-1, num_frames, height, width)
        pictures = F.avg_pool2d(faces.to(self.classifier.weight.dtype), 2)
        return self.visual(pictures).reshape(*leading, num_frames, CompactEncoder.dimension)
