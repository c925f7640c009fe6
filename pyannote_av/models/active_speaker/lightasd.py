"""Light-ASD: a light weight model for active speaker detection.

References
----------
Liao, Duan, Feng, Zhao, Yang, Chen. A Light Weight Model for Active Speaker Detection. CVPR 2023.
https://github.com/Junhua-Liao/Light-ASD (MIT)
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import nn

from pyannote_av.models.active_speaker.light import DIMENSION, LightModel, annealed
from pyannote_av.models.blocks.separable import (
    TwoPathSpectrumBlock,
    TwoPathVideoBlock,
    initialise,
)


class Decoder(nn.Module):
    """A forward recurrent layer (past context), then a backward one (future context)."""

    def __init__(self, dimension: int):
        super().__init__()
        self.past = nn.GRU(dimension, dimension, batch_first=True)
        self.future = nn.GRU(dimension, dimension, batch_first=True)
        self.activation = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to the same shape."""
        x = self.activation(self.past(x)[0])
        return self.activation(self.future(x.flip(1))[0].flip(1))


class LightASD(LightModel):
    """Light-ASD; see :class:`~pyannote_av.models.active_speaker.base.ActiveSpeakerModel`.

    The published score, to which calibration thresholds refer, is the raw logit of "speaking".

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

    video_block: ClassVar = TwoPathVideoBlock
    spectrum_block: ClassVar = TwoPathSpectrumBlock
    temperature = staticmethod(annealed)

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.decoder = Decoder(DIMENSION)
        initialise(self)

    @staticmethod
    def rename(name: str) -> str | None:
        """See :meth:`ActiveSpeakerModel.rename`."""
        if match := re.fullmatch(
            r"model\.(visual|audio)Encoder\.block(\d)\.(bn_)?(s|m|t|last)(?:_([35]))?\.(\w+)", name
        ):
            encoder, block, norm, axis, kernel, tensor = match.groups()
            encoder = {"visual": "visual", "audio": "acoustic"}[encoder]
            axis = {"s": "spatial", "m": "spectral", "t": "temporal", "last": "mix"}[axis]
            path = {"3": "0.", "5": "1.", None: ""}[kernel]
            return f"{encoder}.block{block}.{axis}.{path}{1 if norm else 0}.{tensor}"
        if match := re.fullmatch(r"model\.GRU\.gru_(forward|backward)\.(\w+)", name):
            return f"decoder.{ {'forward': 'past', 'backward': 'future'}[match[1]] }.{match[2]}"
        if match := re.fullmatch(r"loss(AV|V)\.FC\.(\w+)", name):
            return f"{ {'AV': 'classifier', 'V': 'visual_classifier'}[match[1]] }.{match[2]}"
        return None

    def fuse(self, acoustic: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """See :meth:`LightModel.fuse`."""
        return self.classifier(self.decoder(acoustic + visual))
