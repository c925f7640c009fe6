"""Windows are clustered by what a network says of every two of them: AVR-Net and its kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pyannote_av.clustering.avrnet import FACE_SIZE, AVRNet
from pyannote_av.clustering.pairs import score_pairs
from pyannote_av.clustering.scene import Scene
from pyannote_av.clustering.similarity_diarization import SimilarityDiarization
from pyannote_av.clustering.windows import entry_faces
from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.models.loading import ModelReference, load_model
from pyannote_av.vision.identity import FaceEmbedder

# windows that are encoded at once
_BATCH = 16


class RelationDiarization(SimilarityDiarization):
    """Who spoke when, by a network that was trained to tell whether two windows are one speaker's.

    Backbones look at every window once; pairs are scored in blocks, in both orders.

    Parameters
    ----------
    relation : str, Path, mapping or Model
        AVR-Net, or a network that compares embeddings of voices and faces; see
        :func:`~pyannote_av.models.loading.load_model`.
    block : int, optional
        Pairs that are scored at once.
    precision : {"fp32", "bf16"}, optional
        Of the comparison of pairs; see :class:`~pyannote_av.clustering.fast.PairScorer`.
    others
        See :class:`~pyannote_av.clustering.similarity_diarization.SimilarityDiarization`.

    Hyper-parameters
    ----------------
    threshold : float
        Score below which clusters are not joined.

    References
    ----------
    Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild. ACM
    Multimedia 2022. Windows of 2 s every 0.5 s, one entry for each face that talks or else one
    without, average linkage; the threshold of the authors' checkpoint is 0.14.

    Notes
    -----
    The authors know where speech is, and whose faces speak, from annotations. Here a voice
    activity detector (or the oracle) and an active speaker detector say so. Faces are squares on
    a detector's box, where the authors turn and scale them by landmarks.
    """

    def __init__(
        self, relation: ModelReference, block: int = 512, precision: str = "fp32", **others: Any
    ):
        super().__init__(**others)
        self.relation = load_model(relation, others.get("token"), others.get("cache_dir"))
        self.block, self.precision = block, precision

    def default_parameters(self) -> dict[str, Any]:
        """Parameters used when none are given; the threshold is that of the public checkpoint."""
        return {**super().default_parameters(), "threshold": 0.14}

    def to(self, device) -> RelationDiarization:
        """Move all models."""
        self.relation.to(device)
        return super().to(device)

    @property
    def _has_backbones(self) -> bool:
        return isinstance(self.relation, AVRNet)

    @property
    def face_embedder(self) -> FaceEmbedder | None:
        """The face network of the model where it has one."""
        return FaceMaps(self.relation) if self._has_backbones else self._embedder

    def similarities(self, scene: Scene, hook: Callable) -> np.ndarray:
        """Scores of every two entries; see :class:`SimilarityDiarization`."""
        entries, device = scene.entries, self.relation.device
        faces, visible = entry_faces(scene.windows, entries, scene.seen.looks)
        with torch.inference_mode():
            if self._has_backbones:
                audio, face = self._audio_maps(scene), self._face_maps(faces, visible)
            else:
                voices = scene.voices
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

    def _audio_maps(self, scene: Scene) -> torch.Tensor:
        """Maps of the sound of every window"""
        size = round(self.duration * SAMPLE_RATE)
        sound = scene.file["waveform"][0].numpy()
        pieces = []
        for start, end in scene.windows.span:
            first = round(start * SAMPLE_RATE)
            heard = sound[first : max(first + 1, round(end * SAMPLE_RATE))]
            # that of shorter windows is repeated, as in training
            pieces.append(np.resize(heard, size) if len(heard) else np.zeros(size, np.float32))
        waveforms = torch.from_numpy(np.stack(pieces)).unsqueeze(1).to(self.relation.device)
        return torch.cat([self.relation.audio_map(some) for some in waveforms.split(_BATCH)])

    def _face_maps(self, faces: np.ndarray, visible: np.ndarray) -> torch.Tensor:
        """Maps of faces, and that of a black picture for entries without"""
        device = self.relation.device
        nobody = torch.zeros(1, 0, 3, FACE_SIZE, FACE_SIZE, device=device)
        maps = self.relation.face_map(nobody).repeat(len(visible), 1, 1, 1)
        if visible.any():
            seen = torch.from_numpy(faces[visible]).to(maps)
            maps[torch.from_numpy(visible).to(device)] = seen
        return maps


class FaceMaps:
    """The face network of AVR-Net as a face embedder: maps are averaged over looks.

    Parameters
    ----------
    model : AVRNet
    """

    name = "avr-net"
    size = FACE_SIZE

    def __init__(self, model: AVRNet):
        self._model = model

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB to maps (n, 512, 7, 7)."""
        pictures = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).unsqueeze(1)
        with torch.inference_mode():
            return self._model.face_map(pictures.to(self._model.device)).float().cpu().numpy()
