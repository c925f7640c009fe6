"""AVR-Net: do two windows have the same speaker, by voice and by face where there is one?

References
----------
Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild.
ACM Multimedia 2022. https://github.com/zcxu-eric/AVA-AVD
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.clustering.iresnet import FaceMap
from pyannote_av.clustering.pairs import score_pairs, square
from pyannote_av.clustering.relation import ModalityMask, RelationNetwork
from pyannote_av.clustering.speaker_map import WINDOW, SpeakerMap, SpeakerSpectrum
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import AVModel

#: width and height of pictures, in pixels
FACE_SIZE = 112

# height and width of what is compared
_SIZES = {"feature": 7, "embedding": 1, "raw": FACE_SIZE}


class AVRNet(AVModel):
    """Score in (0, 1) of two windows of 2 s having the same speaker.

    Each window has a sound and, where its speaker is visible, pictures of a face. Two networks that
    have learned to tell speakers and faces apart, and are frozen here, turn them into maps, once
    for each window; the relation network then compares the maps of pairs of windows.

    Pairs can be scored in blocks of any size::

        audio, face = model.audio_map(waveforms), model.face_map(faces, face_mask)
        visible = face_mask.any(dim=1)
        scores = model.relate(audio[a], face[a], audio[b], face[b], visible[a], visible[b])

    Parameters
    ----------
    mask : {"learnable", "partial", "handcrafted", "none"}, optional
        How the relation network is told which of the two faces are visible; see
        :class:`~pyannote_av.clustering.relation.ModalityMask`.
    fusion : {"feature", "embedding", "raw"}, optional
        What is compared: maps, their means, or spectra and pictures themselves.
    siamese : bool, optional
        Compare pairs in both orders, with the same weights.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.

    Notes
    -----
    ``acoustic`` and ``visual`` do not learn, nor do the statistics of their normalisation, unless
    ``unfreeze_by_name`` wakes them.

    The defaults are the published network. The paper's ablation names the other variants. Of these,
    "partial" is in the authors' code; "embedding", "raw" and what is not siamese are our reading:
    the same network compares whatever it is given, brought to the same size.
    """

    def __init__(
        self,
        mask: Literal["learnable", "partial", "handcrafted", "none"] = "learnable",
        fusion: Literal["feature", "embedding", "raw"] = "feature",
        siamese: bool = True,
        sample_rate: int = SAMPLE_RATE,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"AVRNet is defined for 16 kHz audio, not {sample_rate} Hz")
        self.save_hyperparameters("mask", "fusion", "siamese")
        self._size = _SIZES[fusion]
        self.spectrum = SpeakerSpectrum(sample_rate)
        if fusion == "raw":
            self.acoustic, self.visual = nn.Identity(), nn.Identity()
            channels = 3, 1
        else:
            self.acoustic, self.visual = SpeakerMap(), FaceMap()
            channels = self.visual.dimension, self.acoustic.dimension
        self.acoustic_norm = nn.BatchNorm2d(channels[1])
        self.mask = ModalityMask(mask, *channels)
        self.relation = RelationNetwork(2 * sum(channels))
        for branch in (self.acoustic, self.visual):
            branch.requires_grad_(False)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> AVRNet:
        """Read a checkpoint of the authors; see ``importers.import_checkpoint``."""
        from pyannote_av.models.importers import import_checkpoint

        return import_checkpoint(path, cls)

    @staticmethod
    def rename(name: str) -> str | None:
        """Our name of a tensor in the authors' checkpoints; None when it is not one of them."""
        if match := re.fullmatch(r"(audio|video)_encoder\.layer(\d)\.(\d+)\.(.+)", name):
            branch, stage, block, tensor = match.groups()
            tensor = _rename_block(tensor, _BLOCKS[branch])
            branch = {"audio": "acoustic", "video": "visual"}[branch]
            return tensor and f"{branch}.stages.{int(stage) - 1}.{block}.{tensor}"
        return _rename_block(name, _PARTS)

    @property
    def example_input_array(self) -> dict[str, torch.Tensor]:
        """Two windows of noise: what Lightning measures shapes with for its summary."""
        waveforms = torch.randn(2, 1, round(WINDOW * SAMPLE_RATE), device=self.device)
        faces = torch.randint(256, (2, 1, 3, FACE_SIZE, FACE_SIZE), device=self.device)
        return {"waveforms": waveforms, "faces": faces.byte()}

    def train(self, mode: bool = True) -> AVRNet:
        """As usual, except that what is frozen stays in evaluation mode."""
        super().train(mode)
        for branch in (self.acoustic, self.visual):
            branch.train(mode and any(p.requires_grad for p in branch.parameters()))
        return self

    def _resize(self, maps: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(maps, self._size)

    def audio_map(self, waveforms: torch.Tensor) -> torch.Tensor:
        """What there is to compare of sounds.

        Parameters
        ----------
        waveforms : (windows, 1, samples) tensor
            16 kHz, typically of 2 s; shorter ones are repeated until they last 2 s.

        Returns
        -------
        maps : (windows, 256, 7, 7) tensor
            Of other size for other variants.
        """
        spectra = self.spectrum(waveforms[:, 0]).unsqueeze(1)
        return self.acoustic_norm(self._resize(self.acoustic(spectra)))

    def face_map(self, faces: torch.Tensor, face_mask: torch.Tensor | None = None) -> torch.Tensor:
        """What there is to compare of faces.

        Parameters
        ----------
        faces : (windows, pictures, 3, 112, 112) tensor
            Aligned, RGB in [0, 255].
        face_mask : (windows, pictures) tensor, optional
            Which pictures there are. Pixels of others are never read.

        Returns
        -------
        maps : (windows, 512, 7, 7) tensor
            Means over pictures; that of a black picture for windows without. Of other size for
            other variants.
        """
        if faces.shape[2:] != (3, FACE_SIZE, FACE_SIZE):
            expected = f"(windows, pictures, 3, {FACE_SIZE}, {FACE_SIZE})"
            raise ValueError(f"faces are {expected}, not {tuple(faces.shape)}")
        if face_mask is None:
            face_mask = torch.ones(faces.shape[:2], device=faces.device)
        present = face_mask.bool()
        black = faces.new_zeros(1, *faces.shape[2:])
        pictures = torch.cat([faces[present], black]).to(self.acoustic_norm.weight.dtype)
        maps = self._resize(self.visual(pictures / 127.5 - 1.0))
        count = present.sum(dim=1)[:, None, None, None]
        total = maps.new_zeros(len(faces), *maps.shape[1:])
        total = total.index_add(0, present.nonzero()[:, 0], maps[:-1])
        return torch.where(count > 0, total / count.clamp_min(1), maps[-1:])

    def relate_in_order(
        self,
        audio_a: torch.Tensor,
        face_a: torch.Tensor,
        audio_b: torch.Tensor,
        face_b: torch.Tensor,
        visible_a: torch.Tensor,
        visible_b: torch.Tensor,
    ) -> torch.Tensor:
        """Scores of pairs as in :meth:`relate`, by order: what training compares with the truth.

        Returns
        -------
        scores : (orders, pairs) tensor
            Of (a, b) and (b, a); of (a, b) alone when not siamese.
        """
        a, b = torch.cat([face_a, audio_a], dim=1), torch.cat([face_b, audio_b], dim=1)
        orders = [torch.cat([a, b], dim=1) * self.mask(visible_a, visible_b)[..., None, None]]
        if self.hparams.siamese:
            orders.append(
                torch.cat([b, a], dim=1) * self.mask(visible_b, visible_a)[..., None, None]
            )
        # together, for normalisation to see both orders
        return self.relation(torch.cat(orders)).unflatten(0, (len(orders), len(a)))

    def relate(
        self,
        audio_a: torch.Tensor,
        face_a: torch.Tensor,
        audio_b: torch.Tensor,
        face_b: torch.Tensor,
        visible_a: torch.Tensor,
        visible_b: torch.Tensor,
    ) -> torch.Tensor:
        """Scores of pairs.

        Parameters
        ----------
        audio_a, audio_b : (pairs, 256, 7, 7) tensors
            From :meth:`audio_map`.
        face_a, face_b : (pairs, 512, 7, 7) tensors
            From :meth:`face_map`, also where nobody is visible.
        visible_a, visible_b : (pairs,) bool tensors
            Where there is a face.

        Returns
        -------
        scores : (pairs,) tensor
            In (0, 1), high for the same speaker; mean over both orders.
        """
        scores = self.relate_in_order(audio_a, face_a, audio_b, face_b, visible_a, visible_b)
        return scores.mean(dim=0)

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score every window with every other.

        Parameters
        ----------
        waveforms : (windows, 1, samples) tensor
            See :meth:`audio_map`.
        faces : (windows, pictures, 3, 112, 112) tensor, optional
            See :meth:`face_map`. Without, nobody is visible.
        face_mask : (windows, pictures) tensor, optional
            Which pictures there are.

        Returns
        -------
        scores : (windows, windows) tensor
            Symmetric, 1 on the diagonal.
        """
        count = len(waveforms)
        if faces is None:
            faces = waveforms.new_zeros(count, 0, 3, FACE_SIZE, FACE_SIZE)
        if face_mask is None:
            face_mask = torch.ones(faces.shape[:2], device=faces.device)
        visible = face_mask.bool().any(dim=1)
        audio, face = self.audio_map(waveforms), self.face_map(faces, face_mask)
        return square(score_pairs(self, audio, face, visible), count)


# names of tensors by what the authors' begin with; of blocks of the two branches, and of the rest
_BLOCKS = {
    "audio": {f"conv{i}": f"conv{i}" for i in (1, 2)}
    | {f"bn{i}": f"norm{i}" for i in (1, 2)}
    | {"se.fc": "excitation.gate", "downsample": "shortcut"},
    "video": {
        name: f"residual.{i}"
        for i, name in enumerate(("bn1", "conv1", "bn2", "prelu", "conv2", "bn3"))
    }
    | {"downsample": "shortcut"},
}
_PARTS = {
    "audio_encoder.torchfb.0.flipped_filter": "spectrum.emphasis",
    "audio_encoder.torchfb.1": "spectrum.mel",
    "audio_encoder.conv1": "acoustic.stem.0",
    "audio_encoder.bn1": "acoustic.stem.2",
    "video_encoder.conv1": "visual.stem.0",
    "video_encoder.bn1": "visual.stem.1",
    "video_encoder.prelu": "visual.stem.2",
    "video_encoder.bn2": "visual.norm",
    "relation_layer.bna": "acoustic_norm",
    "relation_layer.layer1": "relation.stages.0",
    "relation_layer.layer2": "relation.stages.1",
    "relation_layer.fc": "relation.classifier",
    "relation_layer.task_token.weight": "mask.learned",
}


def _rename_block(name: str, table: dict[str, str]) -> str | None:
    for theirs, ours in table.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return None
