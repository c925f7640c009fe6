"""Batches of face tracks, read from a store of crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import SAMPLES_PER_FRAME
from pyannote_av.data.crop_shard import SIDE
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.face_augmentation import SNR, lose, mix, turn_head, vary_camera, vary_view
from pyannote_av.tasks.recordings import SILENT, SPEAKING, UNKNOWN
from pyannote_av.tasks.track_labels import Runs


def buckets(
    lengths: np.ndarray, frames_per_batch: int, batch_size: int | None = None
) -> list[np.ndarray]:
    """Batches of items of similar length, the longest first, as in TalkNet and its successors.

    Parameters
    ----------
    lengths : (P,) int
        Frames of the items.
    frames_per_batch : int
        Maximum of the number of items in a batch times the length of the longest one. A single
        item may exceed it.
    batch_size : int, optional
        Maximum number of items in a batch.

    Returns
    -------
    batches : list of (n,) int arrays
        Every item is in exactly one batch.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    while len(order):
        count = max(1, frames_per_batch // int(lengths[order[0]]))
        count = min(count, batch_size or count)
        batches.append(order[:count])
        order = order[count:]
    return batches


@dataclass
class TrackBatches(Dataset):
    """Whole batches by (epoch, index, whether it counts), identical in every process.

    Parameters
    ----------
    store : CropStore
    runs : Runs
        Source of labels, and of the other faces that are visible at the same time.
    pieces : (P,) array of RUN
        The items.
    batches : list of int arrays
        Indices into `pieces`.
    num_faces : int
        Number of faces in an item. The first one is the item's own face. The others are visible
        for at least half of the item. If there are too few, they are repeated (LoCoNet).
    training : bool
        Truncate items to the shortest of their batch, at a random position, and label all faces.
        Otherwise, items are whole and padded, and only their own face is labelled.
    mixing, dubbing, views, turned_heads, cameras, losses : float
        Probabilities of adding a second voice, of replacing the sound by that of another
        recording, which no face speaks, of a varied view, of a turned head, of another camera, and
        of a missing face.
    desync : int
        Maximum number of frames by which the sound of an item is early or late.
    transform : callable, optional
        Changes the (batch, 1, samples) tensor of waveforms.
    seed : int
    """

    store: CropStore
    runs: Runs
    pieces: np.ndarray
    batches: list[np.ndarray]
    num_faces: int = 1
    training: bool = True
    mixing: float = 0.0
    dubbing: float = 0.0
    views: float = 0.0
    turned_heads: float = 0.0
    cameras: float = 0.0
    losses: float = 0.0
    desync: int = 0
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, Any]:
        """One batch.

        Returns
        -------
        batch : dict
            ``X`` AVInput, and ``y`` (batch, faces, frames) int64: 1 speaking, 0 not, -1 not scored.
        """
        epoch, index, counts = key if isinstance(key, tuple) else (0, key, True)
        rng = np.random.default_rng([self.seed, epoch, index])
        pieces = self.pieces[self.batches[index]]
        if self.training:
            pieces = self._truncate(pieces, rng)
        num_frames = int(pieces["length"].max())
        shape = (len(pieces), self.num_faces, num_frames)
        faces = np.zeros((*shape, SIDE, SIDE), np.uint8)
        present = np.zeros(shape, bool)
        labels = np.full(shape, UNKNOWN, np.int64)
        sound = np.zeros((len(pieces), 1, SAMPLES_PER_FRAME * num_frames), np.float32)
        for b, piece in enumerate(pieces):
            for s, track in enumerate(self._faces_of(piece, rng)):
                self._fill(piece, track, rng, faces[b, s], present[b, s], labels[b, s])
            shift = int(rng.integers(-self.desync, self.desync, endpoint=True))
            own = self._sound(piece, shift)
            if rng.random() < self.dubbing:
                other = self._other_sound(piece, pieces, rng)
                own = np.resize(other, len(own)) if len(other) else np.zeros_like(own)
                labels[b][labels[b] == SPEAKING] = SILENT
            if rng.random() < self.mixing:
                own = mix(own, self._other_sound(piece, pieces, rng), rng.uniform(*SNR))
            sound[b, 0, : len(own)] = own
        if not self.training:
            labels[:, 1:] = UNKNOWN
        if not counts:
            labels[:] = UNKNOWN
        waveforms = torch.from_numpy(sound)
        if self.transform is not None:
            waveforms = self.transform(waveforms)
        X = AVInput(waveforms, torch.from_numpy(faces), torch.from_numpy(present))
        return {"X": X, "y": torch.from_numpy(labels)}

    def _truncate(self, pieces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pieces, shortest = pieces.copy(), pieces["length"].min()
        shift = rng.integers(0, pieces["length"] - shortest, endpoint=True)
        pieces["start"] += shift
        pieces["offset"] += shift
        pieces["length"] = shortest
        return pieces

    def _sound(self, piece: np.void, shift: int = 0) -> np.ndarray:
        start = int(piece["start"]) + shift
        uri = self.runs.uris[piece["file"]]
        return self.store.waveform(uri, start, start + int(piece["length"]))

    def _other_sound(
        self, piece: np.void, pieces: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Sound of another recording: from a track of the batch if possible, else from any track"""
        for candidates in (pieces, self.pieces):
            others = candidates[candidates["file"] != piece["file"]]
            if len(others):
                return self._sound(rng.choice(others))
        return np.zeros(0, np.float32)

    def _faces_of(self, piece: np.void, rng: np.random.Generator) -> list[int]:
        """The item's own track, and the tracks that provide context"""
        own = int(piece["track"])
        if self.num_faces == 1:
            return [own]
        rows = self.runs.in_file(int(piece["file"]))
        first, last = piece["start"], piece["start"] + piece["length"]
        shared = np.minimum(rows["start"] + rows["length"], last) - np.maximum(rows["start"], first)
        overlap: dict[int, int] = {}
        for track, frames in zip(rows["track"].tolist(), shared.tolist(), strict=True):
            if track != own and frames > 0:
                overlap[track] = overlap.get(track, 0) + frames
        others = [track for track, frames in overlap.items() if 2 * frames >= piece["length"]]
        if self.training:
            others = rng.permutation(others).astype(int).tolist()
        else:
            others.sort(key=lambda track: -overlap[track])
        others = (others or [own])[: self.num_faces - 1]
        return [own, *(others[i % len(others)] for i in range(self.num_faces - 1))]

    def _fill(self, piece, track, rng, faces, present, labels) -> None:
        """Write one face: (T, 112, 112) crops, (T,) presence, (T,) labels"""
        length, start = int(piece["length"]), int(piece["start"])
        uri = self.runs.uris[piece["file"]]
        crops, visible = self.store.crops(uri, track, start, start + length)
        rows = self.runs.in_file(int(piece["file"]))
        for row in rows[rows["track"] == track]:
            low = max(start, int(row["start"]))
            high = min(start + length, int(row["start"] + row["length"]))
            if low < high:
                known = self.runs.of(row, low - int(row["start"]), high - int(row["start"]))
                labels[low - start : high - start] = known
        if rng.random() < self.views:
            crops = vary_view(crops, rng)
        if rng.random() < self.turned_heads:
            crops = turn_head(crops, rng)
        if rng.random() < self.cameras:
            crops = vary_camera(crops, rng)
        if rng.random() < self.losses:
            visible = lose(visible, rng)
        faces[:length] = crops
        present[:length] = visible
        labels[:length][~visible] = UNKNOWN
