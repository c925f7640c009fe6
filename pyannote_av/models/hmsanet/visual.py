"""Visual branch of HMSA-Net: frame-level features of the faces of target speakers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.models.active_speaker.base import spans
from pyannote_av.models.active_speaker.light import DIMENSION, VisualEncoder
from pyannote_av.models.blocks.compact_face import CompactEncoder
from pyannote_av.models.blocks.conformer import Conformer
from pyannote_av.models.blocks.separable import VideoBlock, initialise
from pyannote_av.models.blocks.visual_frontend import REACH, PictureEncoder, normalise


class ResNetEncoder(nn.Module):
    """ResNet18 on single images, after a convolution over five consecutive ones."""

    dimension = 512

    def __init__(self):
        super().__init__()
        self.pictures = PictureEncoder()

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """(batch, frames, height, width) in [0, 255] to (batch, frames, 512)."""
        shape = faces.shape
        windows = F.pad(normalise(faces), (0, 0, 0, 0, REACH, REACH)).unfold(1, 2 * REACH + 1, 1)
        windows = windows.movedim(-1, 2).flatten(0, 1)
        return self.pictures(windows).unflatten(0, shape[:2])


class LightEncoder(VisualEncoder):
    """Visual encoder of LR-ASD. It can load the public weights."""

    dimension = DIMENSION

    def __init__(self):
        super().__init__(VideoBlock)
        initialise(self)


def _hold(pictures: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Fill gaps in a face track by repeating the last crop, so that they show no motion.

    `pictures` has shape (n, frames, height, width). `present` has shape (n, frames), and is true at
    the first frame.
    """
    frames = torch.arange(present.shape[1], device=present.device)
    last = torch.where(present, frames, 0).cummax(dim=1).values
    return pictures[torch.arange(len(pictures), device=present.device)[:, None], last]


ENCODERS = {"compact": CompactEncoder, "lrasd": LightEncoder, "resnet": ResNetEncoder}


class TargetVisual(nn.Module):
    """Visual branch: face crops to visual features of each target speaker.

    Parameters
    ----------
    encoder : {"compact", "lrasd", "resnet"}
        Visual encoder.
    face_size : int
        Width and height in pixels to which face crops are downsampled first.
    width : int
        Dimension of the output.
    num_layers : int
        Number of Conformer blocks.
    **conformer
        Parameters of the Conformer blocks.
    """

    def __init__(self, encoder: str, face_size: int, width: int, num_layers: int, **conformer: Any):
        super().__init__()
        self.face_size = face_size
        self.encoder = ENCODERS[encoder]()
        dimension = self.encoder.dimension
        self.project = nn.Sequential(nn.LayerNorm(dimension), nn.Linear(dimension, width))
        self.absent = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(Conformer(width, **conformer) for _ in range(num_layers))
        self.head = nn.Linear(width, 1)

    def encode(self, faces: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Encode each face from the first to the last frame in which it is present.

        Parameters
        ----------
        faces : (batch, targets, frames, height, width) tensor
            Grey face crops in [0, 255].
        present : (batch, targets, frames) bool tensor
            Frames in which the face is present. Pixels of other frames are ignored.

        Returns
        -------
        features : (batch, targets, frames, dimension) tensor
            0 where the face is absent.
        """
        parameter = next(self.encoder.parameters())
        features = parameter.new_zeros(*present.shape, self.encoder.dimension)
        size = (self.face_size, self.face_size)
        for (first, last), item, target in spans(present):
            visible = present[item, target, first:last]
            pictures = _hold(faces[item, target, first:last], visible)
            pictures = F.adaptive_avg_pool2d(pictures.to(parameter.dtype), size)
            found = self.encoder(pictures) * visible.unsqueeze(-1)
            frames = torch.arange(first, last, device=faces.device)
            where = (item[:, None], target[:, None], frames)
            features = features.index_put(where, found.to(features.dtype))
        return features

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute visual features of each target speaker.

        Parameters
        ----------
        features : (n, frames, dimension) tensor
            Output of :meth:`encode`.
        present, mask : (n, frames) bool tensor
            Frames in which the face is present, and frames that are not padding.

        Returns
        -------
        features : (n, frames, width) tensor
        moments : (n, frames, width) tensor
            The same before the Conformer blocks.
        """
        present = present.unsqueeze(-1)
        features = torch.where(present, features, 0.0).to(self.absent.dtype)
        x = moments = torch.where(present, self.project(features), self.absent)
        for layer in self.layers:
            x = layer(x, mask)
        return x, moments
