"""Batches of waveforms and faces, for pyannote's training code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(eq=False)
class AVInput:
    """Value of ``batch["X"]``: waveforms, and the faces visible at the same time.

    It supports indexing, ``len``, ``to`` and ``pin_memory`` like the tensor that pyannote expects.
    ``model(AVInput(waveforms, faces, face_mask))`` is the same as
    ``model(waveforms, faces, face_mask)``.

    Parameters
    ----------
    waveforms : (batch, 1, samples) tensor
    faces : (batch, targets, frames, height, width) tensor, optional
        Grey crops in [0, 255]. Or visual features of shape (batch, targets, frames, dimension).
    face_mask : (batch, targets, frames) tensor, optional
        Where faces are present.
    target_mask : (batch, targets) tensor, optional
        True for target speakers, False for padding.
    voiceprints : (batch, targets, dimension) tensor, optional
        Speaker embedding of each target; zero where unknown.
    speaker_features : (batch, windows, dimension) tensor, optional
        Speaker embeddings of short windows.
    first_pass : (batch, targets, 4 x frames) tensor, optional
        Probability of speech of each target according to a first pass over the sound; negative
        where unknown.
    num_speaking : (batch, 4 x frames, 3) tensor, optional
        Probability that nobody, one person, and two or more speak; zero where unknown.

    Raises
    ------
    ValueError
        When the tensors differ in batch size.
    """

    waveforms: torch.Tensor
    faces: torch.Tensor | None = None
    face_mask: torch.Tensor | None = None
    target_mask: torch.Tensor | None = None
    voiceprints: torch.Tensor | None = None
    speaker_features: torch.Tensor | None = None
    first_pass: torch.Tensor | None = None
    num_speaking: torch.Tensor | None = None

    def __post_init__(self):
        for name, value in self.present().items():
            if len(value) != len(self.waveforms):
                raise ValueError(f"{len(value)} {name} for {len(self.waveforms)} waveforms")
        if self.face_mask is not None and self.faces is None:
            raise ValueError("face_mask without faces")

    def present(self) -> dict[str, torch.Tensor]:
        """Tensors that are not None, by name: keyword arguments of the ``forward`` of models."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> AVInput:
        return AVInput(**{name: change(value) for name, value in self.present().items()})

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, items: Any) -> AVInput:
        """Select items. Unlike in a tensor, a single index keeps the batch axis."""
        if isinstance(items, int):
            items = range(len(self))[items]
            items = slice(items, items + 1)
        return self._each(lambda value: value[items])

    @property
    def shape(self) -> torch.Size:
        """Shape of the waveforms, (batch, 1, samples)."""
        return self.waveforms.shape

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.waveforms.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the waveforms. Faces are usually uint8."""
        return self.waveforms.dtype

    def to(self, *args: Any, **kwargs: Any) -> AVInput:
        """Move or convert all tensors, as ``tensor.to`` does."""
        return self._each(lambda value: value.to(*args, **kwargs))

    def cpu(self) -> AVInput:
        """Move all tensors to the CPU."""
        return self.to("cpu")

    def pin_memory(self, device: Any = None) -> AVInput:
        """Copy all tensors to pinned memory; called by torch's data loaders."""
        return self._each(lambda value: value.pin_memory())
