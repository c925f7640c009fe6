"""LR-ASD: lightweight and robust active speaker detection.

References
----------
Liao, Duan, Feng, Zhao, Yang, Chen, Chen. LR-ASD: Lightweight and Robust Network for Active Speaker
Detection. IJCV 2025. https://github.com/Junhua-Liao/LR-ASD (MIT)
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import nn

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel, Heads
from pyannote_av.models.blocks.mfcc import MFCC
from pyannote_av.models.blocks.separable import (
    ChannelAttention,
    SpectrumBlock,
    VideoBlock,
    initialise,
)

_DIMENSION = 128


class VisualEncoder(nn.Module):
    """Grey pictures of a face to one 128-d feature per picture; sees 9 pictures to either side."""

    def __init__(self):
        super().__init__()
        self.block1 = VideoBlock(1, 32, stride=2)
        self.block2 = VideoBlock(32, 64)
        self.block3 = VideoBlock(64, _DIMENSION)
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
        return x.amax(dim=(2, 3)).reshape(batch, num_frames, _DIMENSION)


class AcousticEncoder(nn.Module):
    """MFCC at 100 Hz to one 128-d feature per video frame."""

    def __init__(self):
        super().__init__()
        self.block1 = SpectrumBlock(1, 32)
        self.block2 = SpectrumBlock(32, 64)
        self.block3 = SpectrumBlock(64, _DIMENSION)
        self.pool = nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, 13) to (batch, frames, 128)."""
        x = mfcc.transpose(1, 2).unsqueeze(1)
        x = self.pool(self.block1(x))
        x = self.pool(self.block2(x))
        x = self.block3(x)
        return x.mean(dim=2).transpose(1, 2)


class Decoder(nn.Module):
    """Context from both directions of time."""

    def __init__(self, dimension: int):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(dimension, dimension // 4, batch_first=True, bidirectional=True)
        self.attention = ChannelAttention(dimension // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to (batch, frames, dimension / 2)."""
        return self.attention(self.gru(self.dropout(x))[0])


class LRASD(ActiveSpeakerModel):
    """LR-ASD; see :class:`~pyannote_av.models.active_speaker.base.ActiveSpeakerModel`.

    Its published score, for which thresholds are given, is the raw logit of "speaking".

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

    loss_weights: ClassVar = {"fused": 1.0, "visual": 0.5}
    weight_decay: ClassVar = 0.01

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.spectrum = MFCC(sample_rate)
        self.acoustic = AcousticEncoder()
        self.visual = VisualEncoder()
        self.fusion = ChannelAttention(2 * _DIMENSION)
        self.decoder = Decoder(2 * _DIMENSION)
        self.classifier = nn.Linear(_DIMENSION, 2)
        self.visual_classifier = nn.Linear(_DIMENSION, 2)
        initialise(self)

    @staticmethod
    def rename(name: str) -> str | None:
        """See :meth:`ActiveSpeakerModel.rename`."""
        if match := re.fullmatch(
            r"model\.(visual|audio)Encoder\.block(\d)\.([smt])_(norm_)?(\d)\.(\w+)", name
        ):
            encoder, block, axis, norm, stage, tensor = match.groups()
            encoder = {"visual": "visual", "audio": "acoustic"}[encoder]
            axis = {"s": "spatial", "m": "spectral", "t": "temporal"}[axis]
            layer = 1 if norm else 0
            return f"{encoder}.block{block}.{axis}.{int(stage) - 1}.{layer}.{tensor}"
        if match := re.fullmatch(r"model\.detector\.gru_(forward|backward)\.(\w+)", name):
            return f"decoder.gru.{match[2]}{ {'forward': '', 'backward': '_reverse'}[match[1]] }"
        if match := re.fullmatch(
            r"model\.(fusion|detector\.attention)\.(attention|bn)\.(\w+)", name
        ):
            where = {"fusion": "fusion", "detector.attention": "decoder.attention"}[match[1]]
            return f"{where}.gate.{ {'attention': 0, 'bn': 1}[match[2]] }.{match[3]}"
        if match := re.fullmatch(r"loss(AV|V)\.FC\.(\w+)", name):
            return f"{ {'AV': 'classifier', 'V': 'visual_classifier'}[match[1]] }.{match[2]}"
        return None

    @staticmethod
    def temperature(epoch: int) -> float:
        """Annealed from 1.3 by 0.02 an epoch, as published, down to 0.5."""
        return max(0.5, 1.3 - 0.02 * epoch)

    def acoustic_features(self, mfcc: torch.Tensor) -> torch.Tensor:
        """MFCC (n, 4 x frames, 13) to features (n, frames, 128)."""
        return self.acoustic(mfcc)

    def visual_features(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (..., frames, 112, 112) in [0, 255] to features (..., frames, 128)."""
        *leading, num_frames, height, width = faces.shape
        features = self.visual(faces.reshape(-1, num_frames, height, width))
        return features.reshape(*leading, num_frames, _DIMENSION)

    def fuse(self, acoustic: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Features of both branches, (n, frames, 128) each, to logits (n, frames, 2)."""
        return self.classifier(self.decoder(self.fusion(torch.cat([acoustic, visual], dim=-1))))

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """See :meth:`ActiveSpeakerModel.heads`; spectra are MFCC with 13 coefficients."""
        acoustic, visual = self.acoustic_features(spectra), self.visual_features(faces)
        return Heads(
            self.fuse(acoustic, visual),
            visual=self.visual_classifier(visual),
            acoustic_features=acoustic,
            visual_features=visual,
        )
