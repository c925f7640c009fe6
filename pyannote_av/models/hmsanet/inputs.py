"""Check the inputs of HMSA-Net and fill in those that are missing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from pyannote_av.core.grid import FRAMES_PER_WINDOW, SAMPLES_PER_FRAME
from pyannote_av.models.hmsanet.slots import Slots


class Inputs(NamedTuple):
    """Inputs of ``HMSANet.forward``, complete.

    Attributes
    ----------
    waveforms : (batch, samples) tensor
    faces : (batch, slots, frames, dimension) or (batch, slots, frames, height, width) tensor
    present : (batch, slots, frames) bool tensor
        Frames in which the face is present.
    targets : Slots
        Slots that hold a target speaker.
    voiceprints : (batch, slots, dimension) tensor
        Unit vectors; 0 where unknown.
    speaker_features : (batch, windows, dimension) tensor or None
        Unit vectors; 0 where unknown.
    real : (batch, frames) bool tensor
        True for frames that are not padding.
    """

    waveforms: torch.Tensor
    faces: torch.Tensor
    present: torch.Tensor
    targets: Slots
    voiceprints: torch.Tensor
    speaker_features: torch.Tensor | None
    real: torch.Tensor


def complete(
    waveforms: torch.Tensor,
    faces: torch.Tensor | None,
    face_mask: torch.Tensor | None,
    target_mask: torch.Tensor | None,
    voiceprints: torch.Tensor | None,
    speaker_features: torch.Tensor | None,
    frame_mask: torch.Tensor | None,
    visual_dimension: int,
    voiceprint_dimension: int,
) -> Inputs:
    """Check shapes and fill in missing inputs: masks are all true, other inputs are unknown (0).

    Raises
    ------
    ValueError
        When the shapes of the inputs are inconsistent.
    """
    batch, frames = len(waveforms), waveforms.shape[-1] // SAMPLES_PER_FRAME
    given = next((x for x in (faces, voiceprints, target_mask) if x is not None), None)
    count = 1 if given is None else given.shape[1]
    windows = -(-frames // FRAMES_PER_WINDOW)
    cached = () if faces is None or faces.ndim == 5 else (visual_dimension,)
    expected = {
        "faces": (faces, (batch, count, frames, *cached)),
        "face_mask": (face_mask, (batch, count, frames)),
        "target_mask": (target_mask, (batch, count)),
        "voiceprints": (voiceprints, (batch, count, voiceprint_dimension)),
        "speaker_features": (speaker_features, (batch, windows, voiceprint_dimension)),
        "frame_mask": (frame_mask, (batch, frames)),
    }
    for name, (value, shape) in expected.items():
        if value is not None and value.shape[: len(shape)] != shape:
            raise ValueError(
                f"{name} of shape {tuple(value.shape)} do not fit waveforms of shape "
                f"{tuple(waveforms.shape)}: expected {shape}"
                + (" (height, width) after that" if name == "faces" and not cached else "")
            )

    def mask(given: torch.Tensor | None, *shape: int) -> torch.Tensor:
        if given is None:
            return torch.ones(shape, dtype=torch.bool, device=waveforms.device)
        return given.bool()

    real = mask(frame_mask, batch, frames)
    targets = Slots(mask(target_mask, batch, count))
    if faces is None:
        faces = waveforms.new_zeros(batch, count, frames, visual_dimension)
        present = torch.zeros_like(faces[..., 0], dtype=torch.bool)
    else:
        present = mask(face_mask, batch, count, frames)
    present = present & real.unsqueeze(1) & targets.mask.unsqueeze(2)

    if voiceprints is None:
        voiceprints = waveforms.new_zeros(batch, count, voiceprint_dimension)
    voiceprints = torch.where(targets.mask.unsqueeze(2), unit(voiceprints, waveforms), 0.0)
    if speaker_features is not None:
        speaker_features = unit(speaker_features, waveforms)
    return Inputs(waveforms[:, 0], faces, present, targets, voiceprints, speaker_features, real)


def unit(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Normalise vectors to unit norm (0 stays 0) and convert them to the type of `like`."""
    return F.normalize(x.to(like.dtype), dim=-1)
