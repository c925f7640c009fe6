"""Networks that score whether two windows have the same speaker, from voice and face embeddings.

They fuse voice and face in three ways: with the relation network of AVR-Net, or with one of two
methods that AVR-Net is compared with.

References
----------
Arevalo, Solorio, Montes-y-Gómez, González. Gated multimodal units for information fusion. ICLR
2017 (workshop), https://arxiv.org/abs/1702.01992

Wen, Al Ismail, Liu, Raj, Singh. Disjoint mapping network for cross-modal matching of voices and
faces. ICLR 2019, https://arxiv.org/abs/1807.04836

Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild. ACM
Multimedia 2022.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.clustering.pair_scores import score_pairs, square
from pyannote_av.clustering.relation_network import ModalityMask, RelationNetwork
from pyannote_av.core.model import AVModel


class _EmbeddedRelation(AVModel):
    """Base class of networks that compare voice and face embeddings."""

    def __init__(self, voice_dimension, face_dimension, sample_rate, num_channels, task):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("voice_dimension", "face_dimension")

    @property
    def example_input_array(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ten windows of noise, with which Lightning computes shapes."""
        dimensions = self.hparams.voice_dimension, self.hparams.face_dimension
        return tuple(torch.randn(10, d, device=self.device) for d in dimensions)

    def audio_map(self, speaker_embeddings: torch.Tensor) -> torch.Tensor:
        """Scale (windows, voice_dimension) embeddings to the norm of a vector of ones."""
        return self._enter(speaker_embeddings, self.hparams.voice_dimension)

    def face_map(self, faces: torch.Tensor, face_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Scale (windows, face_dimension) embeddings likewise; 0 outside of `face_mask`."""
        if face_mask is not None:
            faces = torch.where(face_mask.bool().unsqueeze(1), faces, 0.0)
        return self._enter(faces, self.hparams.face_dimension)

    def _enter(self, x: torch.Tensor, dimension: int) -> torch.Tensor:
        if x.shape[1:] != (dimension,):
            raise ValueError(f"expected embeddings (windows, {dimension}), not {tuple(x.shape)}")
        return F.normalize(x.to(self.dtype), dim=1) * dimension**0.5

    def relate_in_order(
        self, audio_a, face_a, audio_b, face_b, visible_a, visible_b
    ) -> torch.Tensor:
        """Scores of pairs for each order: (orders, pairs)"""
        raise NotImplementedError

    def relate(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b) -> torch.Tensor:
        """Scores (pairs,) in (0, 1) of pairs of maps; see ``AVRNet.relate``."""
        scores = self.relate_in_order(audio_a, face_a, audio_b, face_b, visible_a, visible_b)
        return scores.mean(dim=0)

    def forward(
        self,
        speaker_embeddings: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score every window with every other.

        Parameters
        ----------
        speaker_embeddings : (windows, voice_dimension) tensor
        faces : (windows, face_dimension) tensor, optional
            Defaults to no visible faces.
        face_mask : (windows,) tensor, optional
            Windows with a face. Defaults to all.

        Returns
        -------
        scores : (windows, windows) tensor
            Symmetric, 1 on the diagonal.
        """
        count = len(speaker_embeddings)
        if faces is None:
            faces = speaker_embeddings.new_zeros(count, self.hparams.face_dimension)
            face_mask = speaker_embeddings.new_zeros(count)
        if face_mask is None:
            face_mask = speaker_embeddings.new_ones(count)
        audio, face = self.audio_map(speaker_embeddings), self.face_map(faces, face_mask)
        return square(score_pairs(self, audio, face, face_mask.bool()), count)


class RelationOfEmbeddings(_EmbeddedRelation):
    """AVR-Net on external embeddings: modality mask and relation network, without backbones.

    This is the variant "Embed" of the paper's ablation, for embeddings that are computed elsewhere.

    Parameters
    ----------
    voice_dimension, face_dimension : int
    mask : {"learnable", "partial", "handcrafted", "none"}, optional
        See :class:`~pyannote_av.clustering.relation_network.ModalityMask`.
    siamese : bool, optional
        Compare pairs in both orders.
    widths, blocks : (int, int), optional
        See :class:`~pyannote_av.clustering.relation_network.RelationNetwork`. The published values
        are (256, 64) and (8, 6), for larger maps.
    combination : {"mask", "concat", "alter_mask", "alter_concat"}, optional
        See :class:`~pyannote_av.clustering.relation_network.ModalityMask`.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``.
    """

    def __init__(
        self,
        voice_dimension: int,
        face_dimension: int,
        mask: Literal["learnable", "partial", "handcrafted", "none"] = "learnable",
        siamese: bool = True,
        widths: tuple[int, int] = (64, 16),
        blocks: tuple[int, int] = (2, 2),
        combination: Literal["mask", "concat", "alter_mask", "alter_concat"] = "mask",
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(voice_dimension, face_dimension, sample_rate, num_channels, task)
        self.save_hyperparameters("mask", "siamese", "widths", "blocks", "combination")
        self.mask = ModalityMask(mask, face_dimension, voice_dimension, combination)
        self.relation = RelationNetwork(self.mask.channels, widths, blocks)

    def relate_in_order(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b):
        """See ``AVRNet.relate_in_order``."""
        a, b = torch.cat([face_a, audio_a], dim=1), torch.cat([face_b, audio_b], dim=1)
        a, b = a[..., None, None], b[..., None, None]
        orders = [self.mask.join(a, b, visible_a, visible_b)]
        if self.hparams.siamese:
            orders.append(self.mask.join(b, a, visible_b, visible_a))
        scores = self.relation(torch.cat(orders))
        return scores.unflatten(0, (len(orders), len(a)))


class FusedEmbeddings(_EmbeddedRelation):
    """Network that fuses voice and face to one vector per window, and compares these vectors.

    Parameters
    ----------
    voice_dimension, face_dimension : int
    fusion : {"gmu", "dimnet"}, optional
        "gmu": a gate computed from both embeddings weights the tanh projections of voice and face
        in each dimension. "dimnet": two networks map voice and face to a common space, where they
        are averaged. If the face is missing, the voice is used alone.
    dimension : int, optional
        Dimension of the fused vector.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``.

    Notes
    -----
    The fusion follows the papers, and AVA-AVD uses these methods as baselines. The comparison of
    fused vectors is our choice: a logistic function of their cosine similarity, with learned slope
    and offset.
    """

    def __init__(
        self,
        voice_dimension: int,
        face_dimension: int,
        fusion: Literal["gmu", "dimnet"] = "gmu",
        dimension: int = 128,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(voice_dimension, face_dimension, sample_rate, num_channels, task)
        self.save_hyperparameters("fusion", "dimension")
        if fusion == "gmu":
            self.acoustic = nn.Sequential(nn.Linear(voice_dimension, dimension), nn.Tanh())
            self.visual = nn.Sequential(nn.Linear(face_dimension, dimension), nn.Tanh())
            self.gate = nn.Linear(voice_dimension + face_dimension, dimension)
        elif fusion == "dimnet":
            self.acoustic = _mapping(voice_dimension, dimension)
            self.visual = _mapping(face_dimension, dimension)
        else:
            raise ValueError(f'fusion must be "gmu" or "dimnet", not {fusion!r}')
        self.slope = nn.Parameter(torch.tensor(5.0))
        self.offset = nn.Parameter(torch.tensor(-2.5))

    def fuse(self, audio: torch.Tensor, face: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Fuse maps to unit vectors (windows, dimension); `visible` is (windows,) bool."""
        with_face = visible.unsqueeze(1)
        acoustic, visual = self.acoustic(audio), self.visual(face)
        if self.hparams.fusion == "gmu":
            gate = self.gate(torch.cat([audio, face], dim=1)).sigmoid()
            visual = torch.where(with_face, visual, 0.0)  # the bias of `visual` is not a face
            fused = gate * visual + (1 - gate) * acoustic
        else:
            acoustic, visual = F.normalize(acoustic, dim=1), F.normalize(visual, dim=1)
            fused = torch.where(with_face, acoustic + visual, acoustic)
        return F.normalize(fused, dim=1)

    def relate_in_order(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b):
        """Scores (1, pairs): the comparison is symmetric, so there is one order."""
        a, b = self.fuse(audio_a, face_a, visible_a), self.fuse(audio_b, face_b, visible_b)
        cosine = (a * b).sum(dim=1)
        return (self.slope * cosine + self.offset).sigmoid().unsqueeze(0)


def _mapping(dimension: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dimension, width), nn.ReLU(), nn.Linear(width, width))


class CalibratedSimilarity(nn.Module):
    """Log-odds that two windows have the same speaker, from cosine similarities.

    A logistic regression on the similarities of voices and faces, with separate parameters for
    pairs of which none, one or both windows have a face. Faces count only if both have one.

    Parameters
    ----------
    slope : float, optional
        Initial slope: before training, the log-odds are ``slope * (similarity - 0.5)``. The
        similarity is that of the voices or, if both faces are visible, the mean of voices and
        faces, as in :class:`~pyannote_av.clustering.similarity_diarization.SimilarityDiarization`.
    """

    def __init__(self, slope: float = 10.0):
        super().__init__()
        self.weight = nn.Parameter(slope * torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]))
        self.bias = nn.Parameter(torch.full((3,), -slope / 2))

    def forward(self, voice, face, visible_a, visible_b) -> torch.Tensor:
        """(pairs,) cosine similarities and (pairs,) visibility of faces to (pairs,) log-odds."""
        case = visible_a.long() + visible_b.long()
        weight, face = self.weight[case], torch.where(case == 2, face, 0.0)
        return weight[:, 0] * voice + weight[:, 1] * face + self.bias[case]


class CorrectedSimilarity(_EmbeddedRelation):
    """Calibrated similarity of voices and faces, corrected by the relation network of AVR-Net.

    The log-odds of the relation network are added to those of :class:`CalibratedSimilarity`. They
    are exactly zero before training. The network therefore starts from what cosine similarity
    knows, and learns only what it has to add.

    Parameters
    ----------
    voice_dimension, face_dimension : int
    mask : {"learnable", "partial", "handcrafted", "none"}, optional
        See :class:`~pyannote_av.clustering.relation_network.ModalityMask`.
    pairs : {"products", "concatenation"}, optional
        Channels of a pair. "products": products and absolute differences of both embeddings, which
        depend little on who the speakers are, so that few training speakers are enough. They are
        the same in both orders. "concatenation": both embeddings, in both orders, as published.
    width : int, optional
        Width of both hidden layers. Maps of embeddings have one pixel, so the convolutions of the
        relation network are linear layers.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``.
    """

    def __init__(
        self,
        voice_dimension: int,
        face_dimension: int,
        mask: Literal["learnable", "partial", "handcrafted", "none"] = "learnable",
        pairs: Literal["products", "concatenation"] = "products",
        width: int = 64,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(voice_dimension, face_dimension, sample_rate, num_channels, task)
        if pairs not in ("products", "concatenation"):
            raise ValueError(f'pairs must be "products" or "concatenation", not {pairs!r}')
        self.save_hyperparameters("mask", "pairs", "width")
        self.similarity = CalibratedSimilarity()
        self.mask = ModalityMask(mask, face_dimension, voice_dimension)
        layers: list[nn.Module] = []
        for size in (2 * (voice_dimension + face_dimension), width):
            layers += [nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        self.correction = nn.Sequential(*layers, nn.Linear(width, 1))
        nn.init.zeros_(self.correction[-1].weight)
        nn.init.zeros_(self.correction[-1].bias)

    def relate_in_order(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b):
        """See ``AVRNet.relate_in_order``. There is one order of products."""
        a, b = torch.cat([face_a, audio_a], dim=1), torch.cat([face_b, audio_b], dim=1)
        if self.hparams.pairs == "products":
            mask = self.mask(visible_a & visible_b, visible_a | visible_b)
            orders = [torch.cat([a * b, (a - b).abs()], dim=1) * mask]
        else:
            orders = [
                torch.cat([a, b], dim=1) * self.mask(visible_a, visible_b),
                torch.cat([b, a], dim=1) * self.mask(visible_b, visible_a),
            ]
        correction = self.correction(torch.cat(orders)).squeeze(1)
        # maps have the norm of a vector of ones
        voice, face = ((x * y).mean(dim=1) for x, y in ((audio_a, audio_b), (face_a, face_b)))
        odds = self.similarity(voice, face, visible_a, visible_b)
        return (odds + correction.unflatten(0, (len(orders), len(a)))).sigmoid()
