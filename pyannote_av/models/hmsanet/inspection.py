"""Inspect HMSA-Net: gates, audio-visual synchrony, and attention between speakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.hmsanet.model import HMSAOutput

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gates(output: HMSAOutput, face_mask: torch.Tensor) -> torch.Tensor:
    """Openness of the gates; 0 where the face is absent.

    Parameters
    ----------
    output : HMSAOutput
        Output of a network whose fusion is "cgima".
    face_mask : (batch, targets, frames) tensor

    Returns
    -------
    gates : (batch, targets, frames, 2) tensor
        Mean over heads: how much audio takes from video [0], and video from audio [1].
    """
    if output.gate_logits is None:
        raise ValueError('no gates: the fusion of this network is not "cgima"')
    return output.gate_logits.sigmoid().mean(dim=-1) * face_mask.unsqueeze(-1)


def attention_to(output: HMSAOutput, layer: int = -1) -> torch.Tensor:
    """Attention of each speaker to the others.

    Parameters
    ----------
    output : HMSAOutput
        Output of a network whose decoder is "disa".
    layer : int, optional
        Index of the DISA layer.

    Returns
    -------
    attention : (batch, frames, targets, 1 + targets) tensor
        From each speaker to "nobody" and to speakers 0, 1, ...; mean over heads, sum over the
        attended frames.
    """
    if not output.attention:
        raise ValueError('no attention: the decoder of this network is not "disa"')
    weights = output.attention[layer].mean(dim=2)
    targets = weights.shape[-2]
    others = weights[..., 1:].unflatten(-1, (-1, targets)).sum(dim=-2)
    return torch.cat([weights[..., :1], others], dim=-1)


def plot_inspection(
    output: HMSAOutput,
    face_mask: torch.Tensor | None = None,
    item: int = 0,
    names: list[str] | None = None,
) -> Figure:
    """Plot activities, gates, synchrony and attention of one item of a batch.

    Parameters
    ----------
    output : HMSAOutput
    face_mask : (batch, targets, frames) tensor, optional
        Frames in which the face is present.
    item : int, optional
        Index of the item in the batch.
    names : list of str, optional
        Names of the speakers.

    Returns
    -------
    figure : matplotlib.figure.Figure
        One row per speaker. The left column shows the posterior of speech, gates and synchrony;
        the right column shows attention to the others. Panels of a network without gates or
        attention stay empty.
    """
    from matplotlib.figure import Figure

    targets, num_frames = output.fused_logits.shape[1:]
    names = names or [f"speaker {k}" for k in range(targets)]
    if face_mask is None:
        face_mask = torch.ones_like(output.fused_logits)
    activity = _array(output.logits.sigmoid()[item])
    time, fine = (np.arange(rate * num_frames) / (rate * FRAME_RATE) for rate in (1, 4))
    opening = None if output.gate_logits is None else _array(gates(output, face_mask)[item])
    attention = _array(attention_to(output)[item]) if output.attention else None

    figure = Figure(figsize=(14, 1 + 1.6 * targets), layout="constrained")
    axes = figure.subplots(targets, 2, squeeze=False, sharex=True)
    for k, (left, right) in enumerate(axes):
        left.fill_between(fine, activity[k], color="0.8", label="speaks")
        if opening is not None:
            left.plot(time, opening[k, :, 0], label="gate: sound from picture")
            left.plot(time, opening[k, :, 1], label="gate: picture from sound")
            visible = _array(face_mask[item, k]) > 0
            confidence = np.where(visible, _array(output.confidence[item, k]), np.nan)
            left.plot(time, confidence, color="k", linewidth=0.8, label="synchrony")
        left.set(ylim=(-0.05, 1.05), ylabel=names[k])
        if attention is not None:
            extent = (0, num_frames / FRAME_RATE, targets + 0.5, -0.5)
            right.imshow(
                attention[:, k].T, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="Greys"
            )
            right.set_yticks(range(targets + 1), ["nobody", *names])
            right.grid(False)
    axes[0, 0].legend(loc="upper right", fontsize="x-small")
    axes[0, 1].set_title("attention to others")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    return figure


def _array(x: torch.Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
