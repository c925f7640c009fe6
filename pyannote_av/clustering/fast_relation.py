"""Fast inference of the relation network on many pairs of few windows, with the same scores.

It is several times as fast as the network itself:

* The first convolutions and the modality mask are linear. The contribution of each window to these
  convolutions is computed once instead of once per pair, for both positions in a pair and for both
  visibilities of the other window.
* Normalisation is folded into convolutions, and tensors are in channels-last format.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from pyannote_av.clustering.relation_network import ModalityMask, RelationNetwork

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PairScorer:
    """Scores pairs of a fixed set of items.

    Parameters
    ----------
    mask : ModalityMask
    relation : RelationNetwork
    items : (n, channels, height, width) tensor
        Face and audio maps, concatenated along channels.
    visible : (n,) bool tensor
        Items with a face.
    siamese : bool
        Average the scores of both orders.
    precision : {"fp32", "bf16"}, optional
        Precision of the network. bf16 is twice as fast on processors that support it, and changes
        scores of trained networks by about .001.
    """

    def __init__(
        self,
        mask: ModalityMask,
        relation: RelationNetwork,
        items: torch.Tensor,
        visible: torch.Tensor,
        siamese: bool,
        precision: Literal["fp32", "bf16"] = "fp32",
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self._type, self._siamese = PRECISIONS[precision], siamese
        self._visible = visible.long()
        relation = deepcopy(relation).eval()
        for module in relation.modules():
            if isinstance(module, Bottleneck):
                _fold(module)
        entry: Bottleneck = relation.stages[0][0]
        inner = entry.conv1, entry.downsample[0]
        self._heads = [self._contributions(conv, mask, items) for conv in inner]
        self._rest = relation.to(self._type).to(memory_format=torch.channels_last)

    def _contributions(
        self, conv: nn.Conv2d, mask: ModalityMask, items: torch.Tensor
    ) -> torch.Tensor:
        """Contributions of items to `conv`: (2 positions, 2 visibilities of the other, n, ...)"""
        channels, weight = items.shape[1], torch.empty_like(conv.weight)
        # weights in the order of the items, and of the mask if it is appended to them
        for part in range(0, weight.shape[1], 2 * channels):
            weight[:, mask.order + part] = conv.weight[:, part : part + 2 * channels]
        found = []
        for place in (0, 1):
            own = slice(place * channels, (place + 1) * channels)
            for other in (0, 1):
                others = torch.full_like(self._visible, other)
                order = (self._visible, others) if place == 0 else (others, self._visible)
                factor = mask(*order)
                # what belongs to the pair is added to its first item
                constant = conv.bias.expand(len(items), -1)
                if mask.is_appended:
                    constant = constant + factor @ weight[:, 2 * channels :, 0, 0].T
                    factor = torch.ones_like(factor)
                factor = factor[:, own, None, None]
                part = torch.cat(
                    [
                        nn.functional.conv2d(
                            (x * f).contiguous(memory_format=torch.channels_last),
                            weight[:, own],
                            stride=conv.stride,
                        )
                        for x, f in zip(items.split(64), factor.split(64), strict=True)
                    ]
                )
                if place == 0:
                    part = part + constant[..., None, None]
                found.append(part.to(self._type))
        return torch.stack(found).unflatten(0, (2, 2))

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Score pairs, given by item indices (pairs,) and (pairs,): (pairs,) float32."""
        orders = [(first, second), (second, first)] if self._siamese else [(first, second)]
        a, b = (torch.cat([order[k] for order in orders]) for k in (0, 1))
        visible_a, visible_b = self._visible[a], self._visible[b]
        inner, shortcut = (head[0, visible_b, a] + head[1, visible_a, b] for head in self._heads)
        stage, entry = self._rest.stages, self._rest.stages[0][0]
        x = entry.relu(inner.contiguous(memory_format=torch.channels_last))
        x = entry.conv3(entry.relu(entry.conv2(x)))
        x = entry.relu(x + shortcut)
        x = stage[1](stage[0][1:](x))
        x = self._rest.classifier(self._rest.pool(x).flatten(1))
        return x.squeeze(1).float().sigmoid().unflatten(0, (len(orders), len(first))).mean(dim=0)


def _fold(block: Bottleneck) -> None:
    """Fold the normalisation of a block into its convolutions, in place"""
    for k in (1, 2, 3):
        conv, norm = getattr(block, f"conv{k}"), getattr(block, f"bn{k}")
        setattr(block, f"conv{k}", fuse_conv_bn_eval(conv, norm))
        setattr(block, f"bn{k}", nn.Identity())
    if block.downsample is not None:
        block.downsample = nn.Sequential(fuse_conv_bn_eval(*block.downsample))
