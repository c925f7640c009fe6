"""Dense inter-speaker attention (DISA) of HMSA-Net, and baselines to compare it with.

Each module passes information between target speakers, frame by frame. All but
:class:`FixedTargets` share their weights across speakers, and so accept any number of speakers in
any order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.models.blocks.conformer import LockedDropout
from pyannote_av.models.blocks.window_attention import MASKED
from pyannote_av.models.hmsanet.inputs import Targets


class DISA(nn.Module):
    """Attention from each target speaker to a bank of all others, within `reach` frames.

    The bank always contains a learned "nobody", so that a single speaker also has a key to attend
    to.

    Parameters
    ----------
    width : int
    num_heads : int
    reach : int, optional
        Frames on either side that attention to the others covers.
    dropout : float, optional
    """

    def __init__(self, width: int, num_heads: int, reach: int = 0, dropout: float = 0.1):
        super().__init__()
        self.num_heads, self.reach = num_heads, reach
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.nobody = nn.Parameter(torch.randn(2, num_heads, width // num_heads) * 0.02)
        self.output = nn.Linear(width, width)
        self.dropout = LockedDropout(dropout)

    def bank(self, x: torch.Tensor) -> torch.Tensor:
        """Gather frames t - reach ... t + reach of all speakers at frame t.

        (batch, frames, targets, ...) to (batch, frames, span x targets, ...).
        """
        if not self.reach:
            return x
        num_frames, reach = x.shape[1], self.reach
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (reach, reach))
        return torch.cat([x[:, i : i + num_frames] for i in range(2 * reach + 1)], dim=2)

    def forward(
        self, z: torch.Tensor, targets: Targets, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Let each speaker attend to the others.

        Parameters
        ----------
        z : (n, frames, width) tensor
            Features of the n target speakers.
        targets : Targets
            These target speakers.
        mask : (batch, frames) bool tensor
            True for frames that are not padding.

        Returns
        -------
        z : (n, frames, width) tensor
        weights : (batch, frames, heads, targets, 1 + span x targets) tensor
            Attention weights: to "nobody", then to speakers 0, 1, ... at frames t - reach, ...,
            t + reach.
        """
        x = self.norm(z)
        # (batch, frames, targets, ...) from here on
        q = targets.unpack(self.query(x)).transpose(1, 2)
        q = q.unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
        q = q * q.shape[-1] ** -0.5
        bank = self.bank(targets.unpack(self.key_value(x)).transpose(1, 2))
        key, value = bank.unflatten(-1, (2, self.num_heads, -1)).unbind(3)
        no_key, no_value = self.nobody.to(q.dtype)

        valid = self.bank(mask.unsqueeze(-1) & targets.mask.unsqueeze(1))[:, :, None, None]
        oneself = torch.eye(targets.shape[1], dtype=torch.bool, device=z.device)
        other = ~oneself.repeat(1, 2 * self.reach + 1)
        scores = torch.where(valid & other, q @ key.permute(0, 1, 3, 4, 2), MASKED)
        weights = torch.cat([q @ no_key.unsqueeze(-1), scores], dim=-1).softmax(dim=-1).to(q.dtype)
        read = weights[..., :1] * no_value.unsqueeze(1) + weights[..., 1:] @ value.transpose(2, 3)
        read = self.output(targets.pack(read.permute(0, 3, 1, 2, 4).flatten(3)))
        return z + self.dropout(read), weights


class MeanOfOthers(nn.Module):
    """Add the mean of all other speakers, instead of attention to them.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)

    def forward(
        self, z: torch.Tensor, targets: Targets, mask: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """See :meth:`DISA.forward`; the attention weights are None."""
        x = targets.unpack(self.norm(z))
        others = (targets.mask.sum(dim=1) - 1).clamp_min(1)[:, None, None, None]
        mean = (x.sum(dim=1, keepdim=True) - x) / others
        return z + self.output(targets.pack(mean)), None


class Alone(nn.Module):
    """No exchange of information between speakers."""

    def forward(
        self, z: torch.Tensor, targets: Targets, mask: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """See :meth:`DISA.forward`; the attention weights are None."""
        return z, None


class FixedTargets(nn.Module):
    """Concatenation of a fixed number of speakers in one vector, as in networks before DISA.

    The order of speakers matters, so training must shuffle them. Empty places hold a learned
    "nobody".

    Parameters
    ----------
    width : int
    max_targets : int
        Largest number of speakers.

    References
    ----------
    He et al., Interspeech 2022 (baseline of MISP2022), where the number is 6.
    """

    def __init__(self, width: int, max_targets: int):
        super().__init__()
        self.max_targets = max_targets
        self.nobody = nn.Parameter(torch.zeros(width))
        self.join = nn.Linear(max_targets * width, width)
        self.split = nn.Linear(width, max_targets * width)

    def forward(self, z: torch.Tensor, targets: Targets) -> torch.Tensor:
        """(n, frames, width) for n target speakers to (batch, frames, width).

        Raises
        ------
        ValueError
            When there are more than `max_targets` speakers.
        """
        count = targets.shape[1]
        if count > self.max_targets:
            raise ValueError(
                f"{count} speakers, but the decoder has places for {self.max_targets}: "
                'decoder="disa" has no such limit'
            )
        z = torch.where(targets.mask[:, :, None, None], targets.unpack(z), self.nobody)
        empty = self.nobody.expand(len(z), self.max_targets - count, z.shape[2], -1)
        return self.join(torch.cat([z, empty], dim=1).transpose(1, 2).flatten(2))

    def separate(self, joint: torch.Tensor, targets: Targets) -> torch.Tensor:
        """(batch, frames, width) to (n, frames, width)."""
        apart = self.split(joint).unflatten(-1, (self.max_targets, -1)).transpose(1, 2)
        return targets.pack(apart[:, : targets.shape[1]])
