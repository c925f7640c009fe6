"""What all active speaker detection networks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import AVModel

#: what a network sees where there is no face: mid grey, the value of crops that reach over the
#: border of the picture
ABSENT = 110


class Heads(NamedTuple):
    """What a network says: logits of the classes "silent" and "speaking", (..., frames, 2) each.

    Attributes
    ----------
    fused : tensor
        From sound and picture: the answer.
    acoustic, visual : tensor or None
        Heads that only training reads, where they keep each branch informative by itself.
    acoustic_features, visual_features : (..., frames, 128) tensor or None
        What the two encoders give, before either has seen the other.
    """

    fused: torch.Tensor
    acoustic: torch.Tensor | None = None
    visual: torch.Tensor | None = None
    acoustic_features: torch.Tensor | None = None
    visual_features: torch.Tensor | None = None


class ActiveSpeakerModel(AVModel):
    """Does this face speak the speech that is heard? One score per face and video frame.

    A subclass has a module ``spectrum`` (waveforms to MFCC or log-mel at 100 Hz) and a method
    :meth:`heads`. Everything else is here: any number of faces, faces that come and go, sound that
    ends early.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the networks are defined for 16 kHz mono.

    Notes
    -----
    Faces lie on a grid of 25 pictures per second that starts with the audio. Audio that ends
    before the pictures do is continued by digital silence: nobody speaks there. (Published code
    repeats the beginning instead, which moves speech to where there is none.)

    A face is scored from the first to the last frame it is present in, as if nothing else
    existed, so padding in time or in the number of faces changes nothing.
    """

    #: Weight of each head in the training loss, as published.
    loss_weights: ClassVar[dict[str, float]] = {"fused": 1.0}
    #: Learning rate of the first epoch, its factor per epoch, and weight decay, as published.
    learning_rate: ClassVar[float] = 1e-3
    learning_rate_decay: ClassVar[float] = 0.95
    weight_decay: ClassVar[float] = 0.0
    #: Faces that are looked at together in training.
    num_slots: ClassVar[int] = 1

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        if sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"{type(self).__name__} is defined for 16 kHz audio, not {sample_rate} Hz"
            )

    @classmethod
    def from_checkpoint(cls, path: str | Path):
        """Read a checkpoint of the authors; see ``importers.import_checkpoint``."""
        from pyannote_av.models.importers import import_checkpoint

        return import_checkpoint(path, cls)

    @staticmethod
    def rename(name: str) -> str | None:
        """Our name of a tensor in the authors' checkpoints; None when it is not one of them."""
        raise NotImplementedError

    @staticmethod
    def temperature(epoch: int) -> float:
        """What logits are divided by in the training loss of an epoch, counted from 0."""
        return 1.0

    def configure_optimizers(self):
        """Adam (AdamW where weights decay) with a learning rate that decays by the epoch."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.learning_rate_decay)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """Faces that are present throughout, each with the sound of the same time.

        Parameters
        ----------
        spectra : (n, 4 x frames, coefficients) tensor
            What ``spectrum`` makes of the sound.
        faces : (n, frames, 112, 112) tensor
            Grey pictures in [0, 255], of any type.

        Returns
        -------
        heads : Heads of (n, frames, ...) tensors
        """
        raise NotImplementedError

    def predict(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
    ) -> Heads:
        """All heads for all faces; see :meth:`forward`.

        Returns
        -------
        heads : Heads of (batch, slots, frames, ...) tensors
            0 outside of the time a face is present from first to last.
        """
        if faces is None:
            raise ValueError(f"{type(self).__name__} scores faces: there is no score without them")
        if faces.ndim == 4:
            faces = faces.unsqueeze(1)
            face_mask = face_mask.unsqueeze(1) if face_mask is not None else None
        if face_mask is None:
            face_mask = torch.ones(faces.shape[:3], dtype=torch.bool, device=faces.device)
        spectra = self.spectrum(waveforms[:, 0], num_frames=4 * faces.shape[2])
        return self._predict(spectra, faces, face_mask.bool())

    def _predict(self, spectra, faces, present) -> Heads:
        """Each face by itself; networks that compare faces do otherwise."""
        *shape, _, _ = faces.shape
        found: dict[str, torch.Tensor] = {}
        for (first, last), item, slot in spans(present):
            seen = present[item, slot, first:last, None, None]
            pictures = torch.where(seen, faces[item, slot, first:last], ABSENT)
            heads = self.heads(spectra[item, 4 * first : 4 * last], pictures)
            frames = torch.arange(first, last, device=faces.device)[None]
            where = (item[:, None], slot[:, None], frames)
            for name, values in heads._asdict().items():
                if values is not None:
                    whole = found.get(name)
                    whole = values.new_zeros(*shape, values.shape[-1]) if whole is None else whole
                    found[name] = whole.index_put(where, values)
        return Heads(**found) if found else Heads(spectra.new_zeros(*shape, 2))

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score faces.

        Parameters
        ----------
        waveforms : (batch, 1, samples) tensor
            16 kHz, in [-1, 1]; the first sample is heard when the first picture is shown.
        faces : (batch, slots, frames, 112, 112) or (batch, frames, 112, 112) tensor
            Grey pictures in [0, 255], typically uint8; without slots, one face each.
        face_mask : (batch, slots, frames) or (batch, frames) tensor, optional
            Where faces are present. Pixels elsewhere are never read.

        Returns
        -------
        scores : (batch, frames, slots) tensor
            Log-odds of speaking (logit of "speaking" minus logit of "silent"), 0 outside of the
            time a face is present from first to last.

        Raises
        ------
        ValueError
            Without faces: the networks have no audio-only path.
        """
        fused = self.predict(waveforms, faces, face_mask).fused
        return (fused[..., 1] - fused[..., 0]).transpose(1, 2)


def spans(
    present: torch.Tensor,
) -> Iterator[tuple[tuple[int, int], torch.Tensor, torch.Tensor]]:
    """Group faces by the stretch of time they are present in.

    Parameters
    ----------
    present : (batch, slots, frames) bool tensor

    Yields
    ------
    span : (int, int)
        First frame and one past the last.
    item, slot : (n,) int tensors
        The faces present from the first to the last frame of that span, perhaps with gaps.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for b, faces in enumerate(present.cpu().numpy()):
        for s, seen in enumerate(faces):
            frames = seen.nonzero()[0]
            if len(frames):
                groups.setdefault((int(frames[0]), int(frames[-1]) + 1), []).append((b, s))
    for span, members in groups.items():
        item, slot = torch.tensor(members, device=present.device).unbind(1)
        yield span, item, slot
