"""Clustering of windows by the scores of a relation network, such as AVR-Net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from pyannote_av.clustering.avrnet import FACE_SIZE, WindowComparison
from pyannote_av.clustering.pair_scores import score_pairs
from pyannote_av.clustering.similarity_diarization import SimilarityDiarization
from pyannote_av.clustering.windowed_file import WindowedFile
from pyannote_av.clustering.windows import entry_faces
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.models.loading import ModelReference, load_model
from pyannote_av.vision.identity import FaceEmbedder

# windows per forward pass of the encoders
_BATCH = 16


class RelationDiarization(SimilarityDiarization):
    """Speaker diarization with a network that scores whether two windows have the same speaker.

    Backbones process every window once. Pairs are scored in blocks, in both orders.

    Parameters
    ----------
    relation : str, Path, mapping or Model
        AVR-Net, or a network that compares embeddings of voices and faces; see
        :func:`~pyannote_av.models.loading.load_model`.
    face : {"random", "mean"}, optional
        Face of a window: a random face sample of its track, or the mean of all of them. Defaults to
        "random" for AVR-Net, as published: averaging its feature maps harms it, according to the
        paper. Defaults to "mean" for networks that compare embeddings. `seed` draws the samples.
    block : int, optional
        Pairs per forward pass.
    precision : {"fp32", "bf16"}, optional
        Precision of the comparison of pairs; see
        :class:`~pyannote_av.clustering.fast_relation.PairScorer`.
    others
        See :class:`~pyannote_av.clustering.similarity_diarization.SimilarityDiarization`.

    Hyper-parameters
    ----------------
    threshold : float
        Clusters are not merged below this score.

    References
    ----------
    Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild. ACM
    Multimedia 2022. Windows of 2 s every 0.5 s, one entry per talking face (or one without a face
    if none talks), average linkage. The threshold of the authors' checkpoint is 0.14.

    Notes
    -----
    The authors take speech regions and speaking faces from annotations. Here they come from voice
    activity detection (or the oracle) and active speaker detection. Face crops are squares around
    detected boxes. The authors rotate and scale faces by landmarks.
    """

    def __init__(
        self,
        relation: ModelReference,
        block: int = 512,
        precision: str = "fp32",
        face: Literal["random", "mean"] | None = None,
        **others: Any,
    ):
        super().__init__(**others)
        self.relation = load_model(relation, others.get("token"), others.get("cache_dir"))
        if face not in (None, "random", "mean"):
            raise ValueError(f'face must be "random" or "mean", not {face!r}')
        self.face = face or ("random" if self._has_backbones else "mean")
        self.block, self.precision = block, precision

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given. The threshold is that of the public checkpoint."""
        return {**super().default_parameters(), "threshold": 0.14}

    def to(self, device) -> RelationDiarization:
        """Move all models."""
        self.relation.to(device)
        return super().to(device)

    @property
    def _has_backbones(self) -> bool:
        return isinstance(self.relation, WindowComparison)

    @property
    def face_embedder(self) -> FaceEmbedder | None:
        """The face network of the model if it has one, else the face embedder."""
        return FaceMaps(self.relation) if self._has_backbones else self._embedder

    def similarities(self, windowed: WindowedFile, hook: Callable) -> np.ndarray:
        """Scores of all pairs of entries; see :class:`SimilarityDiarization`."""
        entries, device = windowed.entries, self.relation.device
        faces, visible = entry_faces(
            windowed.windows, entries, windowed.faces.samples, self.face, self.seed
        )
        with torch.inference_mode():
            if self._has_backbones:
                audio, face = self._audio_maps(windowed), self._face_maps(faces, visible)
            else:
                voices = windowed.speaker_embeddings
                if not visible.any():
                    faces = np.zeros((len(entries), self.relation.hparams.face_dimension), "f4")
                audio = self.relation.audio_map(torch.from_numpy(voices).to(device))
                face = self.relation.face_map(torch.from_numpy(faces).to(device))
            scores = score_pairs(
                self.relation,
                audio,
                face,
                torch.from_numpy(visible).to(device),
                torch.from_numpy(entries.window).to(device),
                self.block,
                lambda done, total: hook("relation", None, completed=done, total=total),
                self.precision,
            )
        return scores.float().cpu().numpy()

    def _audio_maps(self, windowed: WindowedFile) -> torch.Tensor:
        """Audio maps of all windows"""
        size = round(self.duration * SAMPLE_RATE)
        sound = windowed.file["waveform"][0].numpy()
        pieces = []
        for start, end in windowed.windows.span:
            first = round(start * SAMPLE_RATE)
            piece = sound[first : max(first + 1, round(end * SAMPLE_RATE))].astype(np.float32)
            # audio of shorter windows is repeated, as in training
            pieces.append(np.resize(piece, size) if len(piece) else np.zeros(size, np.float32))
        waveforms = torch.from_numpy(np.stack(pieces)).unsqueeze(1).to(self.relation.device)
        return torch.cat([self.relation.audio_map(some) for some in waveforms.split(_BATCH)])

    def _face_maps(self, faces: np.ndarray, visible: np.ndarray) -> torch.Tensor:
        """Face maps of all entries; entries without a face get the map of a black image"""
        device = self.relation.device
        nobody = torch.zeros(1, 0, 3, FACE_SIZE, FACE_SIZE, device=device)
        maps = self.relation.face_map(nobody).repeat(len(visible), 1, 1, 1)
        if visible.any():
            pictures = torch.from_numpy(faces[visible]).to(maps)
            maps[torch.from_numpy(visible).to(device)] = pictures
        return maps


class FaceMaps:
    """Face embedder that returns the face maps of AVR-Net.

    Parameters
    ----------
    model : WindowComparison
    """

    name = "avr-net"
    size = FACE_SIZE

    def __init__(self, model: WindowComparison):
        self._model = model

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB to maps (n, 512, 7, 7)."""
        pictures = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).unsqueeze(1)
        with torch.inference_mode():
            return self._model.face_map(pictures.to(self._model.device)).float().cpu().numpy()
