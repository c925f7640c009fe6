"""What a batch of sound and faces looks like to pyannote's training machinery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(eq=False)
class AVInput:
    """What ``batch["X"]`` holds: waveforms and the faces seen meanwhile.

    It can be indexed, counted, moved and pinned like the tensor that pyannote expects there, and
    ``model(AVInput(waveforms, faces, face_mask))`` is ``model(waveforms, faces, face_mask)``.

    Parameters
    ----------
    waveforms : (batch, 1, samples) tensor
    faces : (batch, slots, frames, height, width) tensor, optional
        Grey pictures in [0, 255]. Or (batch, slots, frames, dimension): what a visual encoder made
        of them.
    face_mask : (batch, slots, frames) tensor, optional
        Where faces are present.
    target_mask : (batch, slots) tensor, optional
        Which slots are somebody, and not there to make items of a batch alike.
    voiceprints : (batch, slots, dimension) tensor, optional
        Of the speakers that slots stand for; zero where unknown.
    speaker_features : (batch, windows, dimension) tensor, optional
        Voiceprints of short windows: which voice is heard when.

    Raises
    ------
    ValueError
        When they disagree about how many items there are.
    """

    waveforms: torch.Tensor
    faces: torch.Tensor | None = None
    face_mask: torch.Tensor | None = None
    target_mask: torch.Tensor | None = None
    voiceprints: torch.Tensor | None = None
    speaker_features: torch.Tensor | None = None

    def __post_init__(self):
        for name, value in self.present().items():
            if len(value) != len(self.waveforms):
                raise ValueError(f"{len(value)} {name} for {len(self.waveforms)} waveforms")
        if self.face_mask is not None and self.faces is None:
            raise ValueError("face_mask without faces")

    def present(self) -> dict[str, torch.Tensor]:
        """All that there is, by name: keywords of the ``forward`` of models."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> AVInput:
        return AVInput(**{name: change(value) for name, value in self.present().items()})

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, items: Any) -> AVInput:
        """Some of the items; a single index keeps the batch axis, a tensor would drop it."""
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
        """Where the tensors are."""
        return self.waveforms.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the waveforms; faces typically are uint8."""
        return self.waveforms.dtype

    def to(self, *args: Any, **kwargs: Any) -> AVInput:
        """Move or convert all that there is, as ``tensor.to`` does."""
        return self._each(lambda value: value.to(*args, **kwargs))

    def cpu(self) -> AVInput:
        """On the CPU."""
        return self.to("cpu")

    def pin_memory(self, device: Any = None) -> AVInput:
        """In memory that is quick to copy to a GPU; called by torch's data loaders."""
        return self._each(lambda value: value.pin_memory())
