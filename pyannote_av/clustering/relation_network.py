"""Relation network that compares pairs of maps, with a mask for visible faces.

References
----------
Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild.
ACM Multimedia 2022. https://github.com/zcxu-eric/AVA-AVD (BSD-3-Clause)

Sung, Yang, Zhang, Xiang, Torr, Hospedales. Learning to compare: relation network for few-shot
learning. CVPR 2018.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck


class ModalityMask(nn.Module):
    """Factors for the channels of a pair, which depend on the visibility of both faces.

    Parameters
    ----------
    kind : {"learnable", "partial", "handcrafted", "none"}
        "learnable": one learned factor per channel and visibility case. "handcrafted": 0 for
        channels of faces that are not visible, and 1 for all others. "partial": handcrafted for the
        first item of a pair, learnable for the second. "none": 1 for all channels.
    face_channels, audio_channels : int
        Number of channels of one item of the pair. Face channels come first.
    """

    def __init__(
        self,
        kind: Literal["learnable", "partial", "handcrafted", "none"],
        face_channels: int,
        audio_channels: int,
    ):
        super().__init__()
        width = face_channels + audio_channels
        num_fixed = {"learnable": 0, "partial": width, "handcrafted": 2 * width, "none": 2 * width}
        table = torch.ones(4, 2, width)
        if kind != "none":
            # visibility of the first and the second item in each of the four cases
            visible = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
            table[..., :face_channels] = visible.unsqueeze(2)
        table = table.flatten(1)[:, : num_fixed[kind]]
        self.register_buffer("fixed", table, persistent=False)
        self.learned = nn.Parameter(torch.ones(4, 2 * width - num_fixed[kind]))

    def forward(self, visible_a: torch.Tensor, visible_b: torch.Tensor) -> torch.Tensor:
        """(pairs,) and (pairs,) bool tensors to (pairs, channels) factors."""
        case = 2 * visible_a.long() + visible_b.long()
        return torch.cat([self.fixed, self.learned], dim=1)[case]


class RelationNetwork(nn.Module):
    """Network that scores, in (0, 1), pairs of maps that are concatenated along channels.

    Parameters
    ----------
    channels : int
        Number of channels of a pair.
    widths, blocks : (int, int), optional
        Width and number of residual blocks of the two stages.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, int] = (256, 64),
        blocks: tuple[int, int] = (8, 6),
    ):
        super().__init__()
        stages = []
        for width, num_blocks in zip(widths, blocks, strict=True):
            stages.append(self._stage(channels, width, num_blocks))
            channels = Bottleneck.expansion * width
        self.stages = nn.Sequential(*stages)
        # no effect for maps of 7 x 7
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 2 * 2, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, width: int, num_blocks: int) -> nn.Sequential:
        channels = Bottleneck.expansion * width
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=2, bias=False), nn.BatchNorm2d(channels)
        )
        first = Bottleneck(in_channels, width, stride=2, downsample=shortcut)
        return nn.Sequential(first, *(Bottleneck(channels, width) for _ in range(num_blocks - 1)))

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        """(pairs, channels, height, width) to (pairs,)."""
        features = self.pool(self.stages(pairs)).flatten(1)
        return self.classifier(features).squeeze(1).sigmoid()
