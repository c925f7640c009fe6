"""Decode fused features of target speakers into speech activity at 100 Hz."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyannote_av.models.blocks.conformer import Conformer
from pyannote_av.models.hmsanet.disa import DISA, Alone, FixedTargets, MeanOfOthers
from pyannote_av.models.hmsanet.inputs import Targets


class TargetDecoder(nn.Module):
    """Layers that alternate between attention across target speakers and attention over time.

    Parameters
    ----------
    kind : {"disa", "mean", "none", "fixed"}
        How speakers exchange information; see :mod:`pyannote_av.models.hmsanet.disa`.
    width : int
    detail_dimension : int
        Dimension of the acoustic features at 100 Hz.
    num_layers : int
    reach : int
        See :class:`~pyannote_av.models.hmsanet.disa.DISA`.
    max_targets : int
        See :class:`~pyannote_av.models.hmsanet.disa.FixedTargets`.
    num_heads, dropout
        Parameters of attention.
    **conformer
        Other parameters of the Conformer blocks.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        detail_dimension: int,
        num_layers: int,
        reach: int,
        max_targets: int,
        num_heads: int,
        dropout: float,
        **conformer: Any,
    ):
        super().__init__()
        exchanges = {
            "disa": lambda: DISA(width, num_heads, reach, dropout),
            "mean": lambda: MeanOfOthers(width),
            "none": Alone,
            "fixed": Alone,
        }
        self.places = FixedTargets(width, max_targets) if kind == "fixed" else None
        self.exchanges = nn.ModuleList(exchanges[kind]() for _ in range(num_layers))
        self.layers = nn.ModuleList(
            Conformer(width, num_heads=num_heads, dropout=dropout, **conformer)
            for _ in range(num_layers)
        )
        self.from_context = nn.Linear(width, width // 4)
        self.from_detail = nn.Linear(detail_dimension, width // 4, bias=False)
        self.head = nn.Linear(width // 4, 1)

    def forward(
        self,
        z: torch.Tensor,
        detail: torch.Tensor,
        targets: Targets,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Compute logits of speech.

        Parameters
        ----------
        z : (n, frames, width) tensor
            Fused features of the n target speakers.
        detail : (n, frames, 4, detail_dimension) tensor
            Acoustic features at 100 Hz.
        targets : Targets
            These target speakers.
        mask : (batch, frames) bool tensor
            True for frames that are not padding.

        Returns
        -------
        logits : (n, 4 x frames) tensor
        weights : list of (batch, frames, heads, targets, keys) tensor
            Attention weights of each layer. Empty unless `kind` is "disa".
        """
        frames = targets.each(mask) if self.places is None else mask
        if self.places is not None:
            z = self.places(z, targets)
        weights = []
        for exchange, layer in zip(self.exchanges, self.layers, strict=True):
            z, attention = exchange(z, targets, mask)
            z = layer(z, frames)
            weights += [] if attention is None else [attention]
        if self.places is not None:
            z = self.places.separate(z, targets)
        hidden = self.from_context(z).unsqueeze(2) + self.from_detail(detail)
        return self.head(hidden.relu()).flatten(1), weights
