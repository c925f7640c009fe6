"""Inputs of HMSA-Net: check them, fill in those that are missing, and pack target speakers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from pyannote_av.core.grid import FRAMES_PER_WINDOW, SAMPLES_PER_FRAME, STEPS


class Targets:
    """Target speakers of a batch, packed into rows, so that padding costs no computation.

    The items of a batch may have different numbers of target speakers, and are padded to the
    largest one.

    Parameters
    ----------
    mask : (batch, targets) bool tensor
        True for target speakers, False for padding.
    """

    def __init__(self, mask: torch.Tensor):
        self.mask = mask
        self.shape = mask.shape
        rows = mask.flatten().nonzero().squeeze(1)
        # without padding, no rows have to be moved
        self._rows = rows if len(rows) < mask.numel() else None
        self._items = rows.div(mask.shape[1], rounding_mode="floor")

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, targets, ...) to (n, ...), where n is the number of target speakers."""
        x = x.flatten(0, 1)
        return x if self._rows is None else x.index_select(0, self._rows)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) to (batch, targets, ...), with 0 in padding."""
        if self._rows is not None:
            dense = x.new_zeros(self.mask.numel(), *x.shape[1:])
            x = dense.index_copy(0, self._rows, x)
        return x.unflatten(0, self.shape)

    def each(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) to (n, ...): repeat each item for each of its target speakers."""
        return x.index_select(0, self._items)


class Inputs(NamedTuple):
    """Inputs of ``HMSANet.forward``, complete.

    Attributes
    ----------
    waveforms : (batch, samples) tensor
    faces : (batch, targets, frames, dimension) or (batch, targets, frames, height, width) tensor
    present : (batch, targets, frames) bool tensor
        Frames in which the face is present.
    targets : Targets
        The target speakers of each item.
    voiceprints : (batch, targets, dimension) tensor
        Unit vectors; 0 where unknown.
    speaker_features : (batch, windows, dimension) tensor or None
        Unit vectors; 0 where unknown.
    first_pass : (batch, targets, 4 x frames) tensor
        Probability of speech according to a first pass; -1 where unknown.
    num_speaking : (batch, 4 x frames, 3) tensor
        Probability that nobody, one person, and two or more speak; 0 where unknown.
    real : (batch, frames) bool tensor
        True for frames that are not padding.
    """

    waveforms: torch.Tensor
    faces: torch.Tensor
    present: torch.Tensor
    targets: Targets
    voiceprints: torch.Tensor
    speaker_features: torch.Tensor | None
    first_pass: torch.Tensor
    num_speaking: torch.Tensor
    real: torch.Tensor


#: bound of the probabilities of a first pass
_CERTAIN = 0.01
#: dimension of :func:`first_pass_features`
FIRST_PASS_DIMENSION = 5


def first_pass_features(first_pass: torch.Tensor, num_speaking: torch.Tensor) -> torch.Tensor:
    """Output of a first pass over the sound as features of each target.

    Parameters
    ----------
    first_pass : (batch, targets, 4 x frames) tensor
        Probability of speech; negative where unknown.
    num_speaking : (batch, 4 x frames, 3) tensor
        Probability that nobody, one person, and two or more speak; zero where unknown.

    Returns
    -------
    features : (batch, targets, frames, 4, 5) tensor
        Log-odds of speech (0 where unknown), whether they are known, and `num_speaking`.
    """
    known = (first_pass >= 0).to(first_pass.dtype)
    bounded = first_pass.clamp(_CERTAIN, 1 - _CERTAIN)
    log_odds = (bounded.log() - (-bounded).log1p()) * known
    number = num_speaking.unsqueeze(1).expand(*first_pass.shape, 3)
    features = torch.cat([torch.stack([log_odds, known], dim=-1), number], dim=-1)
    return features.unflatten(2, (-1, STEPS))


def complete(
    waveforms: torch.Tensor,
    faces: torch.Tensor | None,
    face_mask: torch.Tensor | None,
    target_mask: torch.Tensor | None,
    voiceprints: torch.Tensor | None,
    speaker_features: torch.Tensor | None,
    frame_mask: torch.Tensor | None,
    first_pass: torch.Tensor | None,
    num_speaking: torch.Tensor | None,
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
        "first_pass": (first_pass, (batch, count, STEPS * frames)),
        "num_speaking": (num_speaking, (batch, STEPS * frames, 3)),
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
    targets = Targets(mask(target_mask, batch, count))
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
    if first_pass is None:
        first_pass = waveforms.new_full((batch, count, STEPS * frames), -1.0)
    if num_speaking is None:
        num_speaking = waveforms.new_zeros(batch, STEPS * frames, 3)
    return Inputs(
        waveforms[:, 0],
        faces,
        present,
        targets,
        voiceprints,
        speaker_features,
        first_pass.to(waveforms.dtype),
        num_speaking.to(waveforms.dtype),
        real,
    )


def unit(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Normalise vectors to unit norm (0 stays 0) and convert them to the type of `like`."""
    return F.normalize(x.to(like.dtype), dim=-1)
