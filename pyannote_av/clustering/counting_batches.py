"""Batches of recordings, each a set of windows, for training of speaker counting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pyannote_av.clustering.labelled_windows import EmbeddedWindows, LabelledWindows
from pyannote_av.clustering.windows import all_faces
from pyannote_av.tasks.recordings import UNKNOWN

#: minimum share of a recording that an excerpt has, and its minimum number of windows
_SHORTEST, _FEWEST = 0.25, 8


@dataclass
class CountingBatches(Dataset):
    """Batches of recordings, indexed by (epoch, index, counts). The same key gives the same batch.

    Parameters
    ----------
    files : sequence of LabelledWindows
    reader : EmbeddedWindows
    batch_size : int
    training : bool
        Shuffle and augment recordings.
    excerpt : float
        Probability that a recording is replaced by an excerpt.
    left_out : float
        Probability that some speakers of a recording are left out.
    mirrored : float
        Probability that the signs of random dimensions of all voice and face embeddings are
        flipped. This creates new people with the same mutual similarities.
    seed : int
    """

    files: Sequence[LabelledWindows]
    reader: EmbeddedWindows
    batch_size: int
    training: bool
    excerpt: float = 0.0
    left_out: float = 0.0
    mirrored: float = 0.0
    seed: int = 0
    # cached embeddings of recordings: 0.2 MB for two minutes
    _known: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

    def __len__(self) -> int:
        return max(1, -(-len(self.files) // self.batch_size))

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, torch.Tensor]:
        """One batch.

        Returns
        -------
        batch : dict
            ``speaker_embeddings`` and ``faces`` (batch, windows, dimension), ``face_mask`` and
            ``window_mask`` (batch, windows), and ``y`` (batch, windows, speakers) int: 1 where
            active, 0 where not, -1 for padding.
        """
        epoch, index, counts = key if isinstance(key, tuple) else (0, key, True)
        rng = np.random.default_rng([self.seed, epoch, index])
        order = np.arange(len(self.files))
        if self.training:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        some = order[index * self.batch_size : (index + 1) * self.batch_size]
        items = [self._item(int(i), rng) for i in some]
        batch = collate(items)
        if not counts:
            batch["y"][:] = UNKNOWN
        return batch

    def _item(self, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        one = self.files[number]
        if number not in self._known:
            voices = self.reader.audio(one.recording.uri, one.windows)
            faces, visible = all_faces(one.windows, self.reader.face_samples(one.recording.uri))
            self._known[number] = voices, faces, visible
        voices, faces, visible = self._known[number]
        kept = np.ones(len(voices), bool)
        if self.training:
            kept = self._kept(one.active, rng)
            if rng.random() < self.mirrored:
                voices, faces = (
                    x * rng.choice(np.float32([-1, 1]), x.shape[1]) for x in (voices, faces)
                )
        y = one.active[kept].astype(np.int8)
        return {
            "speaker_embeddings": voices[kept],
            "faces": faces[kept],
            "face_mask": visible[kept],
            "y": y,
        }

    def _kept(self, active: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Windows of a recording that are kept after augmentation"""
        kept = np.ones(len(active), bool)
        if rng.random() < self.excerpt and len(active) > _FEWEST:
            length = max(_FEWEST, int(len(active) * rng.uniform(_SHORTEST, 1)))
            first = int(rng.integers(len(active) - length, endpoint=True))
            kept[:first] = kept[first + length :] = False
        if active.shape[1] > 1 and rng.random() < self.left_out:
            number = int(rng.integers(1, active.shape[1]))
            out = rng.choice(active.shape[1], number, replace=False)
            without = kept & ~active[:, out].any(axis=1)
            if without.sum() >= _FEWEST:
                kept = without
        return kept


def collate(items: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Collate items, padded to the largest numbers of windows and speakers."""
    windows = max(len(item["y"]) for item in items)
    speakers = max(1, *(item["y"].shape[1] for item in items))
    batch = {}
    for name, value in items[0].items():
        width = (speakers,) if name == "y" else value.shape[1:]
        batch[name] = np.zeros((len(items), windows, *width), value.dtype)
        for row, item in zip(batch[name], items, strict=True):
            part = item[name]
            row[(slice(len(part)), *(slice(n) for n in part.shape[1:]))] = part
    real = np.arange(windows) < np.array([len(item["y"]) for item in items])[:, None]
    batch["y"][~real] = UNKNOWN
    batch["window_mask"] = real
    return {name: torch.from_numpy(value) for name, value in batch.items()}
