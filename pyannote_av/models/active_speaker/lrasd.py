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

from pyannote_av.models.active_speaker.light import DIMENSION, LightModel
from pyannote_av.models.blocks.separable import (
    ChannelAttention,
    SpectrumBlock,
    VideoBlock,
    initialise,
)


class Decoder(nn.Module):
    """Bidirectional recurrent context, then channel attention."""

    def __init__(self, dimension: int):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(dimension, dimension // 4, batch_first=True, bidirectional=True)
        self.attention = ChannelAttention(dimension // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to (batch, frames, dimension / 2)."""
        return self.attention(self.gru(self.dropout(x))[0])


class LRASD(LightModel):
    """LR-ASD; see :class:`~pyannote_av.models.active_speaker.base.ActiveSpeakerModel`.

    The published score, to which calibration thresholds refer, is the raw logit of "speaking".

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

    video_block: ClassVar = VideoBlock
    spectrum_block: ClassVar = SpectrumBlock
    weight_decay: ClassVar = 0.01

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.fusion = ChannelAttention(2 * DIMENSION)
        self.decoder = Decoder(2 * DIMENSION)
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

    def fuse(self, acoustic: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """See :meth:`LightModel.fuse`."""
        return self.classifier(self.decoder(self.fusion(torch.cat([acoustic, visual], dim=-1))))
