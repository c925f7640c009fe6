"""ONNX export of speaker embedding networks: CAM++."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.export import Dim

from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.sharing.export.graph import Graph, convert

# minimum length of the input: 0.1 s
_SHORTEST = 1600


class _Features(nn.Module):
    """``CAMPPlus.frame_features``"""

    def __init__(self, model: CAMPPlus):
        super().__init__()
        self.model = model

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.model.frame_features(waveforms)


class _Pool(nn.Module):
    """``CAMPPlus.pool`` for weights at the rate of the features"""

    def __init__(self, model: CAMPPlus):
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # merge speakers into the batch axis: their number is dynamic
        of_each = features.unsqueeze(1).expand(-1, weights.shape[1], -1, -1).flatten(0, 1)
        statistics = self.model._pool(of_each, weights.flatten(0, 1))
        embeddings = self.model.xvector["dense"](statistics).unflatten(0, weights.shape[:2])
        too_short = (weights > 0).sum(dim=-1, keepdim=True) < self.model.MIN_FRAMES
        return torch.where(too_short, torch.nan, embeddings)


def campplus(model: CAMPPlus) -> list[Graph]:
    """Graphs of CAM++: ``frame_features`` of waveforms, and ``pool`` for speaker embeddings.

    The weights of ``pool`` have the same frames as the features, one every 20 ms.
    """

    def sounds(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = sizes["batch"], 1, sizes["samples"]
        return {"waveforms": 0.1 * torch.randn(shape, generator=generator)}

    def active(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        b, s, t = sizes["batch"], sizes["speakers"], sizes["frames"]
        features = torch.randn(b, model.xvector["dense"].linear.in_channels // 2, t)
        weights = (torch.rand(b, s, t, generator=generator) > 0.4).float()
        weights[0, 0] = 0.0  # a silent speaker
        return {"features": features, "weights": weights}

    batch, speakers, frames = (
        Dim("batch", max=4096),
        Dim("speakers", max=4096),
        Dim("frames", min=2, max=2**20),
    )
    samples = {"waveforms": {0: batch, 2: Dim("samples", min=_SHORTEST, max=2**26)}}
    axes = {"features": {0: batch, 2: frames}, "weights": {0: batch, 1: speakers, 2: frames}}
    generator = torch.Generator()
    return [
        Graph(
            "frame_features",
            model.frame_features,
            sounds,
            [{"batch": 1, "samples": _SHORTEST}, {"batch": 3, "samples": 51234}],
            lambda: convert(
                _Features(model),
                sounds({"batch": 2, "samples": 40000}, generator),
                ["features"],
                samples,
            ),
        ),
        Graph(
            "pool",
            model.pool,
            active,
            [
                {"batch": 1, "speakers": 1, "frames": 5},
                {"batch": 2, "speakers": 4, "frames": 171},
            ],
            lambda: convert(
                _Pool(model),
                active({"batch": 2, "speakers": 3, "frames": 40}, generator),
                ["embeddings"],
                axes,
            ),
        ),
    ]
