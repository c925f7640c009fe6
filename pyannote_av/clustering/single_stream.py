"""Single stream with classification: the network that AVR-Net's relation is compared with.

References
----------
Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild.
ACM Multimedia 2022, table 3 ("Single").
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.clustering.avrnet import WindowComparison
from pyannote_av.clustering.relation_network import RelationNetwork
from pyannote_av.core.grid import SAMPLE_RATE

# items per forward pass when all items of a file are embedded
_BATCH = 64


class SingleStream(WindowComparison):
    """Network that embeds each window by itself, and is trained to classify its speaker.

    Backbones and layers are those of :class:`~pyannote_av.clustering.avrnet.AVRNet`, but they see
    one item instead of a pair. The score of a pair is the cosine similarity of the features before
    the classifier, which are never negative.

    Parameters
    ----------
    num_speakers : int, optional
        Number of outputs. There may be more than speakers in training.
    fusion : {"feature", "embedding", "raw"}, optional
        See :class:`~pyannote_av.clustering.avrnet.AVRNet`.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``. The network is defined for 16 kHz mono.

    Notes
    -----
    The paper names this variant and does not describe it; this is our interpretation.
    """

    def __init__(
        self,
        num_speakers: int = 2000,
        fusion: Literal["feature", "embedding", "raw"] = "feature",
        sample_rate: int = SAMPLE_RATE,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(fusion, sample_rate, num_channels, task)
        self.save_hyperparameters("num_speakers", "fusion")
        channels = sum(self.channels)
        #: factors for the channels of an item, without and with a face
        self.visibility = nn.Parameter(torch.ones(2, channels))
        self.stream = RelationNetwork(channels, outputs=num_speakers)

    def embed(self, audio: torch.Tensor, face: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Features of items (items, 64), from their maps and (items,) visibility."""
        items = torch.cat([face, audio], dim=1) * self.visibility[visible.long()][..., None, None]
        return self.stream.classifier[:-1](self.stream.features(items))

    def classify(
        self, audio: torch.Tensor, face: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Logits of speakers (items, num_speakers)."""
        return self.stream.classifier[-1](self.embed(audio, face, visible))

    def embed_all(
        self, audio: torch.Tensor, face: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Unit-length features of all items of a file (items, 64), computed in blocks."""
        blocks = zip(audio.split(_BATCH), face.split(_BATCH), visible.split(_BATCH), strict=True)
        return torch.cat([F.normalize(self.embed(*block), dim=1) for block in blocks])

    def relate_in_order(
        self, audio_a, face_a, audio_b, face_b, visible_a, visible_b
    ) -> torch.Tensor:
        """Scores (1, pairs): the comparison is symmetric, so there is one order."""
        a, b = self.embed(audio_a, face_a, visible_a), self.embed(audio_b, face_b, visible_b)
        return F.cosine_similarity(a, b).unsqueeze(0)
