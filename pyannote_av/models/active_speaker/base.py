"""Base class of all active speaker detection networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import AVModel

#: Grey level of frames without a face. Crops that extend beyond the image border are padded with
#: the same value.
ABSENT = 110


class Heads(NamedTuple):
    """Outputs of a network: logits of "silent" and "speaking", (..., frames, 2) each.

    Attributes
    ----------
    fused : tensor
        Logits from audio and video: the final output.
    acoustic, visual : tensor or None
        Logits of auxiliary heads. Their training losses keep each branch informative by itself.
    acoustic_features, visual_features : (..., frames, 128) tensor or None
        Output of the two encoders, before fusion.
    """

    fused: torch.Tensor
    acoustic: torch.Tensor | None = None
    visual: torch.Tensor | None = None
    acoustic_features: torch.Tensor | None = None
    visual_features: torch.Tensor | None = None


class ActiveSpeakerModel(AVModel):
    """Network that gives one speaking score per face and video frame.

    A subclass provides a module ``spectrum`` (waveforms to MFCC or log-mel at 100 Hz) and a method
    :meth:`heads`. This class handles any number of faces, faces that are present in some frames
    only, and audio that is shorter than the video.

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the networks are defined for 16 kHz mono.

    Notes
    -----
    Faces are sampled at 25 frames per second, starting with the audio. Audio that ends before the
    video is padded with digital silence. (The published code repeats the beginning of the audio
    instead, which puts speech into frames where there is none.)

    Each face is scored by itself, from the first to the last frame in which it is present.
    Padding, in time or in the number of faces, therefore does not affect scores.
    """

    #: Weight of each head in the training loss, as published.
    loss_weights: ClassVar[dict[str, float]] = {"fused": 1.0}
    #: Learning rate of the first epoch, its factor per epoch, and weight decay, as published.
    learning_rate: ClassVar[float] = 1e-3
    learning_rate_decay: ClassVar[float] = 0.95
    weight_decay: ClassVar[float] = 0.0
    #: Number of faces that are scored together in training.
    num_faces: ClassVar[int] = 1

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        if sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"{type(self).__name__} is defined for 16 kHz audio, not {sample_rate} Hz"
            )

    @classmethod
    def from_checkpoint(cls, path: str | Path):
        """Read a checkpoint published by the authors; see ``importers.import_checkpoint``."""
        from pyannote_av.models.importers import import_checkpoint

        return import_checkpoint(path, cls)

    @staticmethod
    def rename(name: str) -> str | None:
        """Map the name of a tensor in the authors' checkpoints to ours; None if it is unknown."""
        raise NotImplementedError

    @staticmethod
    def temperature(epoch: int) -> float:
        """Divisor of the logits in the training loss of an epoch, counted from 0."""
        return 1.0

    def configure_optimizers(self):
        """Adam (AdamW if there is weight decay) with a learning rate that decays every epoch."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.learning_rate_decay)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """Score faces that are present in all frames, each with the audio of the same frames.

        Parameters
        ----------
        spectra : (n, 4 x frames, coefficients) tensor
            Output of ``spectrum``.
        faces : (n, frames, 112, 112) tensor
            Grey face crops in [0, 255], of any type.

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
        """Compute all heads for all faces; see :meth:`forward`.

        Returns
        -------
        heads : Heads of (batch, faces, frames, ...) tensors
            0 before the first and after the last frame in which a face is present.
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
        """Score each face by itself. Networks that compare faces override this method."""
        *shape, _, _ = faces.shape
        found: dict[str, torch.Tensor] = {}
        for (first, last), item, face in spans(present):
            visible = present[item, face, first:last, None, None]
            pictures = torch.where(visible, faces[item, face, first:last], ABSENT)
            heads = self.heads(spectra[item, 4 * first : 4 * last], pictures)
            frames = torch.arange(first, last, device=faces.device)[None]
            where = (item[:, None], face[:, None], frames)
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
            16 kHz audio in [-1, 1] that starts together with the first video frame.
        faces : (batch, faces, frames, 112, 112) or (batch, frames, 112, 112) tensor
            Grey face crops in [0, 255], typically uint8. Without that axis, one face per item.
        face_mask : (batch, faces, frames) or (batch, frames) tensor, optional
            Frames in which the face is present. Pixels of other frames are ignored.

        Returns
        -------
        scores : (batch, frames, faces) tensor
            Log-odds of speaking (logit of "speaking" minus logit of "silent"); 0 before the first
            and after the last frame in which a face is present.

        Raises
        ------
        ValueError
            When there are no faces: the networks cannot score audio alone.
        """
        fused = self.predict(waveforms, faces, face_mask).fused
        return (fused[..., 1] - fused[..., 0]).transpose(1, 2)


def spans(
    present: torch.Tensor,
) -> Iterator[tuple[tuple[int, int], torch.Tensor, torch.Tensor]]:
    """Group faces by their first and last frame.

    Parameters
    ----------
    present : (batch, faces, frames) bool tensor

    Yields
    ------
    span : (int, int)
        First frame, and one past the last.
    item, face : (n,) int tensors
        Faces whose first and last frames are those of the span. There may be gaps in between.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for b, faces in enumerate(present.cpu().numpy()):
        for s, visible in enumerate(faces):
            frames = visible.nonzero()[0]
            if len(frames):
                groups.setdefault((int(frames[0]), int(frames[-1]) + 1), []).append((b, s))
    for span, members in groups.items():
        item, face = torch.tensor(members, device=present.device).unbind(1)
        yield span, item, face
