"""Encoders and base class that Light-ASD and LR-ASD share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel, Heads
from pyannote_av.models.blocks.mfcc import MFCC

#: feature dimension of both encoders
DIMENSION = 128


def annealed(epoch: int) -> float:
    """Temperature of Light-ASD's training loss: from 1.3 down to 0.5, by 0.02 per epoch."""
    return max(0.5, 1.3 - 0.02 * epoch)


class VisualEncoder(nn.Module):
    """Grey face crops to one 128-d feature per crop.

    Parameters
    ----------
    block : class
        ``VideoBlock`` or ``TwoPathVideoBlock``.
    """

    def __init__(self, block: type[nn.Module]):
        super().__init__()
        self.block1 = block(1, 32, stride=2)
        self.block2 = block(32, 64)
        self.block3 = block(64, DIMENSION)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """(batch, frames, 112, 112) in [0, 255] to (batch, frames, 128)."""
        batch, num_frames, height, width = faces.shape
        x = (faces / 255 - 0.4161) / 0.1688
        x = x.reshape(batch * num_frames, 1, height, width)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.pool(self.block1(x, num_frames))
        x = self.pool(self.block2(x, num_frames))
        x = self.block3(x, num_frames)
        return x.amax(dim=(2, 3)).reshape(batch, num_frames, DIMENSION)


class AcousticEncoder(nn.Module):
    """MFCC at 100 Hz to one 128-d feature per video frame.

    Parameters
    ----------
    block : class
        ``SpectrumBlock`` or ``TwoPathSpectrumBlock``.
    """

    def __init__(self, block: type[nn.Module]):
        super().__init__()
        self.block1 = block(1, 32)
        self.block2 = block(32, 64)
        self.block3 = block(64, DIMENSION)
        self.pool = nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, 13) to (batch, frames, 128)."""
        x = mfcc.transpose(1, 2).unsqueeze(1)
        x = self.pool(self.block1(x))
        x = self.pool(self.block2(x))
        x = self.block3(x)
        return x.mean(dim=2).transpose(1, 2)


class LightModel(ActiveSpeakerModel):
    """Network of two light encoders, which can run separately, and a recurrent decoder.

    Subclasses define ``video_block``, ``spectrum_block``, ``decoder`` and :meth:`fuse`.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the networks are defined for 16 kHz mono.
    """

    loss_weights: ClassVar = {"fused": 1.0, "visual": 0.5}
    video_block: ClassVar[type[nn.Module]]
    spectrum_block: ClassVar[type[nn.Module]]

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.spectrum = MFCC(sample_rate)
        self.acoustic = AcousticEncoder(self.spectrum_block)
        self.visual = VisualEncoder(self.video_block)
        self.classifier = nn.Linear(DIMENSION, 2)
        self.visual_classifier = nn.Linear(DIMENSION, 2)

    def acoustic_features(self, mfcc: torch.Tensor) -> torch.Tensor:
        """MFCC (n, 4 x frames, 13) to features (n, frames, 128)."""
        return self.acoustic(mfcc)

    def visual_features(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (..., frames, 112, 112) in [0, 255] to features (..., frames, 128)."""
        *leading, num_frames, height, width = faces.shape
        features = self.visual(faces.reshape(-1, num_frames, height, width))
        return features.reshape(*leading, num_frames, DIMENSION)

    def fuse(self, acoustic: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Features of both branches, (n, frames, 128) each, to logits (n, frames, 2)."""
        raise NotImplementedError

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """See :meth:`ActiveSpeakerModel.heads`; spectra are MFCC with 13 coefficients."""
        acoustic, visual = self.acoustic_features(spectra), self.visual_features(faces)
        return Heads(
            self.fuse(acoustic, visual),
            visual=self.visual_classifier(visual),
            acoustic_features=acoustic,
            visual_features=visual,
        )
