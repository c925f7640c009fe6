"""AVR-Net: scores whether two windows have the same speaker, by voice and by visible faces.

References
----------
Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild.
ACM Multimedia 2022. https://github.com/zcxu-eric/AVA-AVD
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.clustering.iresnet import FaceMap
from pyannote_av.clustering.pair_scores import score_pairs, square
from pyannote_av.clustering.relation_network import ModalityMask, RelationNetwork
from pyannote_av.clustering.speaker_map import WINDOW, SpeakerMap, SpeakerSpectrum
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.model import AVModel

#: width and height of face crops, in pixels
FACE_SIZE = 112

# height and width of the compared maps
_SIZES = {"feature": 7, "embedding": 1, "raw": FACE_SIZE}


class WindowComparison(AVModel):
    """Base class of networks that turn voices and faces into maps, and compare windows.

    Subclasses implement :meth:`relate_in_order`.

    Parameters
    ----------
    fusion : {"feature", "embedding", "raw"}
    sample_rate, num_channels, task
        As in :class:`AVRNet`.

    Attributes
    ----------
    channels : (int, int)
        Number of channels of a face map and of an audio map.
    """

    def __init__(self, fusion, sample_rate, num_channels, task):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        name = type(self).__name__
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"{name} is defined for 16 kHz audio, not {sample_rate} Hz")
        self._size = _SIZES[fusion]
        self.spectrum = SpeakerSpectrum(sample_rate)
        if fusion == "raw":
            self.acoustic, self.visual = nn.Identity(), nn.Identity()
            self.channels = 3, 1
        else:
            self.acoustic, self.visual = SpeakerMap(), FaceMap()
            self.channels = self.visual.dimension, self.acoustic.dimension
        self.acoustic_norm = nn.BatchNorm2d(self.channels[1])
        for branch in (self.acoustic, self.visual):
            branch.requires_grad_(False)
            # in training mode, the statistics of its normalisation would change
            branch.eval()

    @property
    def example_input_array(self) -> dict[str, torch.Tensor]:
        """Two windows of noise, with which Lightning computes the shapes in its summary."""
        waveforms = torch.randn(2, 1, round(WINDOW * SAMPLE_RATE), device=self.device)
        faces = torch.randint(256, (2, 1, 3, FACE_SIZE, FACE_SIZE), device=self.device)
        return {"waveforms": waveforms, "faces": faces.byte()}

    def train(self, mode: bool = True) -> WindowComparison:
        """Set the training mode. Frozen branches stay in evaluation mode."""
        super().train(mode)
        for branch in (self.acoustic, self.visual):
            branch.train(mode and any(p.requires_grad for p in branch.parameters()))
        return self

    def _resize(self, maps: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(maps, self._size)

    def audio_map(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the audio maps of windows.

        Parameters
        ----------
        waveforms : (windows, 1, samples) tensor
            Audio at 16 kHz, typically 2 s. Shorter waveforms are repeated to fill 2 s.

        Returns
        -------
        maps : (windows, 256, 7, 7) tensor
            Other variants have other sizes.
        """
        spectra = self.spectrum(waveforms[:, 0]).unsqueeze(1)
        return self.acoustic_norm(self._resize(self.acoustic(spectra)))

    def face_map(self, faces: torch.Tensor, face_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the face maps of windows.

        Parameters
        ----------
        faces : (windows, pictures, 3, 112, 112) tensor
            Aligned face crops, RGB in [0, 255].
        face_mask : (windows, pictures) tensor, optional
            Valid crops. Pixels of other crops are never read. Defaults to all.

        Returns
        -------
        maps : (windows, 512, 7, 7) tensor
            Mean over the crops of each window. Windows without a face get the map of a black crop.
            Other variants have other sizes.
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
        """Scores of pairs as in :meth:`relate`, but separately for each order, for training.

        Returns
        -------
        scores : (orders, pairs) tensor
        """
        raise NotImplementedError

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
            From :meth:`face_map`, also for windows without a face.
        visible_a, visible_b : (pairs,) bool tensors
            Windows with a face.

        Returns
        -------
        scores : (pairs,) tensor
            In (0, 1), high for the same speaker. Mean over both orders.
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
            See :meth:`face_map`. Defaults to no visible faces.
        face_mask : (windows, pictures) tensor, optional
            Valid crops. Defaults to all.

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


class AVRNet(WindowComparison):
    """Network that scores, in (0, 1), whether two windows of 2 s have the same speaker.

    Each window has audio and, if its speaker is visible, face crops. Two frozen networks, trained
    for speaker and face recognition, turn them into maps, once per window. The relation network
    then compares the maps of pairs of windows.

    Pairs can be scored in blocks of any size::

        audio, face = model.audio_map(waveforms), model.face_map(faces, face_mask)
        visible = face_mask.any(dim=1)
        scores = model.relate(audio[a], face[a], audio[b], face[b], visible[a], visible[b])

    Parameters
    ----------
    mask : {"learnable", "partial", "handcrafted", "none"}, optional
        How the visibility of the two faces enters the relation network; see
        :class:`~pyannote_av.clustering.relation_network.ModalityMask`.
    fusion : {"feature", "embedding", "raw"}, optional
        Compared inputs: maps ("feature"), means of maps ("embedding"), or spectra and face crops
        ("raw").
    siamese : bool, optional
        Compare pairs in both orders, with the same weights.
    combination : {"mask", "concat", "alter_mask", "alter_concat"}, optional
        How the mask is combined with a pair; see
        :class:`~pyannote_av.clustering.relation_network.ModalityMask`.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``. The network is defined for 16 kHz mono.

    Notes
    -----
    ``acoustic`` and ``visual`` are frozen, including the statistics of their normalisation, until
    ``unfreeze_by_name`` is called on them. :meth:`from_backbones` loads pretrained ones.

    The defaults are the published network. The other variants come from the ablation of the paper
    (table 3). Among these, "partial" is in the authors' code. The others are our interpretation,
    because the paper only names them: with "embedding" and "raw", the same relation network
    compares other inputs, resized to one size; see `combination` and
    :class:`~pyannote_av.clustering.single_stream.SingleStream` for the rest.
    """

    def __init__(
        self,
        mask: Literal["learnable", "partial", "handcrafted", "none"] = "learnable",
        fusion: Literal["feature", "embedding", "raw"] = "feature",
        siamese: bool = True,
        combination: Literal["mask", "concat", "alter_mask", "alter_concat"] = "mask",
        sample_rate: int = SAMPLE_RATE,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(fusion, sample_rate, num_channels, task)
        self.save_hyperparameters("mask", "fusion", "siamese", "combination")
        self.mask = ModalityMask(mask, *self.channels, combination)
        self.relation = RelationNetwork(self.mask.channels)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> AVRNet:
        """Load a checkpoint of the authors; see ``importers.import_checkpoint``."""
        from pyannote_av.models.importers import import_checkpoint

        return import_checkpoint(path, cls)

    @classmethod
    def from_backbones(
        cls, audio: str | Path, faces: str | Path, trust: bool = False, **hparams: Any
    ) -> AVRNet:
        """Build a network with pretrained backbones, and random weights elsewhere.

        Parameters
        ----------
        audio : str or Path
            Checkpoint of a ResNet34 with squeeze and excitation for speaker recognition, such as
            the authors' ``backbone_audio.pth``.
        faces : str or Path
            Checkpoint of an IResNet50 for face recognition, such as ``backbone_faces.pth``.
        trust : bool, optional
            See :func:`~pyannote_av.models.importers.import_checkpoint`.
        **hparams
            Hyper-parameters of the network.

        Returns
        -------
        model : AVRNet
            In evaluation mode, with frozen backbones.

        Raises
        ------
        ValueError
            When a tensor of a backbone is missing or of another shape. Tensors beyond the feature
            maps, such as embedding layers, are ignored.
        """
        from pyannote_av.models.importers import import_part

        model = cls(**hparams)
        import_part(audio, model, "acoustic", "audio_encoder.", trust)
        import_part(faces, model, "visual", "video_encoder.", trust)
        return model.eval()

    @staticmethod
    def rename(name: str) -> str | None:
        """Map a tensor name of the authors' checkpoints to ours; None if there is no equivalent."""
        if match := re.fullmatch(r"(audio|video)_encoder\.layer(\d)\.(\d+)\.(.+)", name):
            branch, stage, block, tensor = match.groups()
            tensor = _rename_block(tensor, _BLOCKS[branch])
            branch = {"audio": "acoustic", "video": "visual"}[branch]
            return tensor and f"{branch}.stages.{int(stage) - 1}.{block}.{tensor}"
        return _rename_block(name, _PARTS)

    def relate_in_order(
        self,
        audio_a: torch.Tensor,
        face_a: torch.Tensor,
        audio_b: torch.Tensor,
        face_b: torch.Tensor,
        visible_a: torch.Tensor,
        visible_b: torch.Tensor,
    ) -> torch.Tensor:
        """See :meth:`WindowComparison.relate_in_order`: (a, b), and (b, a) if siamese."""
        a, b = torch.cat([face_a, audio_a], dim=1), torch.cat([face_b, audio_b], dim=1)
        orders = [self.mask.join(a, b, visible_a, visible_b)]
        if self.hparams.siamese:
            orders.append(self.mask.join(b, a, visible_b, visible_a))
        # one batch, so that batch normalisation uses both orders
        return self.relation(torch.cat(orders)).unflatten(0, (len(orders), len(a)))


# our tensor names by prefix of the authors' names: in the blocks of both branches, and elsewhere
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
