"""Training and validation batches for target speakers, read from a store of crops and sound.

Each target speaker of a chunk occupies one slot of the model; see
:mod:`pyannote_av.tasks.target_chunks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import STEPS
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.data.crop_store import CropStore
from pyannote_av.models.embedding.voiceprints import HOP, num_windows
from pyannote_av.tasks.face_augmentation import mix
from pyannote_av.tasks.recordings import LabelledFile
from pyannote_av.tasks.target_chunks import UNKNOWN, Excerpt, Faces, Slot, by_frame, choose
from pyannote_av.tasks.target_corruption import Corruption, coloured, mix_features
from pyannote_av.tasks.target_making import SlotMaker

#: signal-to-noise ratio, in dB, of a chunk over the recording mixed into it
_SNR = (0.0, 15.0)

_INPUTS = ("waveforms", "faces", "face_mask", "target_mask", "voiceprints", "speaker_features")
_LABELS = ("y", "acoustic", "visual", "sync")


def fixed_chunks(recordings: list[LabelledFile], num_frames: int) -> np.ndarray:
    """Adjacent chunks: (n, 2) array of recording index and first frame.

    They start at multiples of 4 frames, and may extend beyond annotated regions.
    """
    step = max(HOP, num_frames // HOP * HOP)
    rows = [
        (number, start)
        for number, recording in enumerate(recordings)
        for first, stop in recording.regions.tolist()
        for start in range(first // HOP * HOP, stop, step)
    ]
    return np.array(rows, np.int64).reshape(-1, 2)


@dataclass
class SlotBatches(Dataset):
    """Whole batches by (epoch, index, whether it counts), identical in every process.

    Parameters
    ----------
    store : CropStore
    recordings : list of LabelledFile
    voices : ArrayStore
        Speaker embeddings of the recordings, by window.
    faces : Faces
    num_frames : int
        Frames in a chunk.
    batch_size : int
    max_slots : int
        Maximum number of slots of a chunk in training.
    chunks : (n, 2) int array, optional
        Recording index and first frame of each chunk. Batches hold these chunks in order, with a
        slot for each speaker of the recording and for every other visible person. If not given,
        chunks are drawn at random, for training.
    corruption : Corruption
    transform : callable, optional
        Changes the (batch, 1, samples) tensor of waveforms.
    seed : int
    """

    store: CropStore
    recordings: list[LabelledFile]
    voices: ArrayStore
    faces: Faces
    num_frames: int
    batch_size: int
    max_slots: int
    chunks: np.ndarray | None = None
    corruption: Corruption = field(default_factory=Corruption.none)
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    seed: int = 0

    def __post_init__(self):
        rows = [
            (number, first, stop)
            for number, recording in enumerate(self.recordings)
            for first, stop in recording.regions.tolist()
        ]
        self._regions = np.array(rows, np.int64).reshape(-1, 3)
        self._ends = np.cumsum(self._regions[:, 2] - self._regions[:, 1])
        self._alone = len(np.unique(self._regions[:, 0])) == 1
        self._maker = SlotMaker(self.voices, self.corruption)

    def __len__(self) -> int:
        """Number of batches in an epoch: about as many frames as are annotated."""
        count = self._ends[-1] / self.num_frames if self.chunks is None else len(self.chunks)
        return max(1, int(np.ceil(count / self.batch_size)))

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, Any]:
        """One batch.

        Returns
        -------
        batch : dict
            ``X`` AVInput; ``y`` (batch, 4 T, slots) int8: 1 speaking, 0 not, -1 not scored; and
            (batch, slots, T) int8 ``acoustic``, ``visual`` and ``sync``. The first two label
            speech where the voice or the face is available. ``sync`` labels whether voice and face
            belong together.
        """
        epoch, index, counts = key if isinstance(key, tuple) else (0, key, True)
        rng = np.random.default_rng([self.seed, epoch, index])
        if self.chunks is None:
            chunks = [self._draw(rng) for _ in range(self.batch_size)]
        else:
            some = self.chunks[index * self.batch_size : (index + 1) * self.batch_size]
            chunks = [self._chunk(*row) for row in some.tolist()]
        batch = collate([self._item(chunk, rng) for chunk in chunks])
        if self.transform is not None:
            batch["X"].waveforms = self.transform(batch["X"].waveforms)
        if not counts:
            for name in _LABELS:
                batch[name][:] = UNKNOWN
        return batch

    def _chunk(self, number: int, start: int) -> Excerpt:
        return Excerpt(self.recordings[number], start, self.num_frames, self.faces)

    def _draw(self, rng: np.random.Generator) -> Excerpt:
        """A random chunk that starts in an annotated region"""
        region = int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))
        number, first, stop = self._regions[region].tolist()
        low = -(-first // HOP)
        high = max(low, (stop - self.num_frames) // HOP)
        return self._chunk(number, HOP * int(rng.integers(low, high + 1)))

    def _elsewhere(self, chunk: Excerpt, rng: np.random.Generator) -> Excerpt:
        """A random chunk of another recording"""
        while True:
            other = self._draw(rng)
            if other.recording.uri != chunk.recording.uri:
                return other

    def _sound(self, chunk: Excerpt) -> np.ndarray:
        return self.store.waveform(chunk.recording.uri, chunk.start, chunk.stop)

    def _features(self, chunk: Excerpt) -> np.ndarray:
        """(L, E) speaker features of a chunk; zero after the end of the recording"""
        count, first = num_windows(chunk.num_frames), chunk.start // HOP
        found = self.voices[chunk.recording.uri][first : first + count]
        features = np.zeros((count, found.shape[1]), np.float32)
        features[: len(found)] = found
        return features

    def _item(self, chunk: Excerpt, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Inputs and labels of one chunk, as unbatched arrays"""
        training, who = self.chunks is None, chunk.attendance
        persons = choose(who, self.max_slots, rng) if training else sorted(chain(*who))
        heard = rng.random() >= self.corruption.sound_dropped
        slots = [self._maker.slot(chunk, person, heard, rng) for person in persons]
        if not self._alone:
            elsewhere = partial(self._elsewhere, chunk, rng)
            room = max(0, self.max_slots - len(slots))
            slots += self._maker.dummies(chunk.recording, room, elsewhere, rng)
        # a slot without voiceprint and face identifies nobody
        slots = [slot for slot in slots if slot.voiceprint.any() or slot.present.any()]
        if training:
            slots = [slots[i] for i in rng.permutation(len(slots))]
        sound, features = self._sound(chunk), self._features(chunk)
        if not heard:
            sound, features = np.zeros_like(sound), np.zeros_like(features)
        elif not self._alone and rng.random() < self.corruption.sound_mixed:
            other, snr = self._elsewhere(chunk, rng), rng.uniform(*_SNR)
            strangers = self._maker.strangers(chunk.recording, other.recording)
            if set(other.attendance.speaking) <= set(strangers):
                sound = mix(sound, self._sound(other), snr)
                features = mix_features(features, self._features(other), snr)
        if rng.random() < self.corruption.sound_coloured:
            sound = coloured(sound, rng)
        nobody = Slot(*chunk.no_face(), features[0], *_no_labels(chunk.num_frames))
        annotated = chunk.recording.annotated(chunk.start, chunk.stop)
        item = {
            "waveforms": sound[None],
            "speaker_features": features,
            **_stacked(slots, nobody, annotated, heard),
        }
        if rng.random() < self.corruption.voices_mirrored:
            signs = rng.choice(np.float32([-1, 1]), features.shape[1])
            item["speaker_features"] = item["speaker_features"] * signs
            item["voiceprints"] = item["voiceprints"] * signs
        return item


def _no_labels(num_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames = np.full(num_frames, UNKNOWN, np.int8)
    return np.zeros(STEPS * num_frames, bool), frames, frames


def _stacked(
    slots: list[Slot], nobody: Slot, annotated: np.ndarray, heard: bool
) -> dict[str, np.ndarray]:
    """Arrays of all slots of a chunk; `nobody` provides shapes when there are no slots"""

    def stack(name: str) -> np.ndarray:
        return np.stack([getattr(slot, name) for slot in [*slots, nobody]])[: len(slots)]

    present, voiceprints, speaking = stack("present"), stack("voiceprint"), stack("speaking")
    # without sound, speech is scored only where the face is visible
    scored = annotated & (present | heard)
    known = voiceprints.any(axis=1, keepdims=True)
    labels = {
        "y": np.where(scored.repeat(STEPS, axis=1), speaking, UNKNOWN),
        "acoustic": np.where(annotated & known & heard, by_frame(speaking.T).T, UNKNOWN),
        "visual": np.where(annotated, stack("visual"), UNKNOWN),
        "sync": np.where(annotated & heard, stack("sync"), UNKNOWN),
    }
    return {
        "faces": stack("face"),
        "face_mask": present,
        "target_mask": np.ones(len(slots), bool),
        "voiceprints": voiceprints,
        **{name: label.astype(np.int8) for name, label in labels.items()},
    }


def collate(items: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Stack items into a batch, padded to the largest number of slots."""
    num_slots = max(1, *(len(item["target_mask"]) for item in items))
    batch = {}
    for name in (*_INPUTS, *_LABELS):
        arrays = [item[name] for item in items]
        if name in ("waveforms", "speaker_features"):
            batch[name] = torch.from_numpy(np.stack(arrays))
            continue
        shape = (len(items), num_slots, *arrays[0].shape[1:])
        padded = np.full(shape, UNKNOWN if name in _LABELS else 0, arrays[0].dtype)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        batch[name] = torch.from_numpy(padded)
    labels = {name: batch[name] for name in _LABELS}
    labels["y"] = labels["y"].transpose(1, 2).contiguous()
    return {"X": AVInput(**{name: batch[name] for name in _INPUTS}), **labels}
