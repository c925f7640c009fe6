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

#: ways to combine the channels of a pair with the mask; see :class:`ModalityMask`
COMBINATIONS = ("mask", "concat", "alter_mask", "alter_concat")


class ModalityMask(nn.Module):
    """Joins two items to a pair, with a mask that depends on the visibility of both faces.

    Parameters
    ----------
    kind : {"learnable", "partial", "handcrafted", "none"}
        "learnable": one learned factor per channel and visibility case. "handcrafted": 0 for
        channels of faces that are not visible, and 1 for all others. "partial": handcrafted for the
        first item of a pair, learnable for the second. "none": 1 for all channels.
    face_channels, audio_channels : int
        Number of channels of one item of the pair. Face channels come first.
    combination : {"mask", "concat", "alter_mask", "alter_concat"}, optional
        "mask": channels of the pair are multiplied by the mask. "concat": the mask is appended to
        them as further channels. With "alter", channels alternate between the items (both faces,
        then both sounds) instead of following each other item by item.

    Attributes
    ----------
    channels : int
        Number of channels of a pair.
    """

    def __init__(
        self,
        kind: Literal["learnable", "partial", "handcrafted", "none"],
        face_channels: int,
        audio_channels: int,
        combination: Literal["mask", "concat", "alter_mask", "alter_concat"] = "mask",
    ):
        super().__init__()
        if combination not in COMBINATIONS:
            known = ", ".join(COMBINATIONS)
            raise ValueError(f"combination must be one of {known}, not {combination!r}")
        width = face_channels + audio_channels
        self.is_appended = combination.endswith("concat")
        self.is_altered = combination.startswith("alter")
        self.channels = (4 if self.is_appended else 2) * width
        order = torch.arange(2 * width).reshape(2, width)
        if self.is_altered:
            parts = order[:, :face_channels], order[:, face_channels:]
            order = torch.cat([part.flatten() for part in parts])
        self.register_buffer("order", order.flatten(), persistent=False)
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

    def join(
        self, a: torch.Tensor, b: torch.Tensor, visible_a: torch.Tensor, visible_b: torch.Tensor
    ) -> torch.Tensor:
        """Join items to pairs.

        Parameters
        ----------
        a, b : (pairs, face_channels + audio_channels, height, width) tensors
        visible_a, visible_b : (pairs,) bool tensors

        Returns
        -------
        pairs : (pairs, channels, height, width) tensor
        """
        pair, mask = torch.cat([a, b], dim=1), self(visible_a, visible_b)[..., None, None]
        parts = [pair, mask.expand_as(pair)] if self.is_appended else [pair * mask]
        if self.is_altered:
            parts = [part[:, self.order] for part in parts]
        return torch.cat(parts, dim=1)


class RelationNetwork(nn.Module):
    """Network that scores, in (0, 1), pairs of maps that are concatenated along channels.

    Parameters
    ----------
    channels : int
        Number of channels of a pair.
    widths, blocks : (int, int), optional
        Width and number of residual blocks of the two stages.
    outputs : int, optional
        Number of outputs of ``classifier``.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, int] = (256, 64),
        blocks: tuple[int, int] = (8, 6),
        outputs: int = 1,
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
            nn.Linear(channels * 2 * 2, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, outputs)
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

    def features(self, pairs: torch.Tensor) -> torch.Tensor:
        """(pairs, channels, height, width) to the input (pairs, features) of the classifier."""
        return self.pool(self.stages(pairs)).flatten(1)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        """(pairs, channels, height, width) to (pairs,)."""
        return self.classifier(self.features(pairs)).squeeze(1).sigmoid()
