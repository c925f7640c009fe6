"""Training and validation batches for target speakers, read from a store of crops and sound.

Each target speaker of a chunk occupies one target of the model; see
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
from pyannote_av.models.embedding.voiceprints import (
    HOP,
    num_windows,
    voiceprint,
    windows_of_speakers,
)
from pyannote_av.tasks.face_augmentation import mix, turn_head, vary_camera, vary_view
from pyannote_av.tasks.first_pass import NOBODY, FirstPass
from pyannote_av.tasks.recordings import UNKNOWN, LabelledFile
from pyannote_av.tasks.target_chunks import (
    Excerpt,
    Faces,
    Target,
    by_frame,
    choose,
    sync_labels,
    visual_labels,
)
from pyannote_av.tasks.target_corruption import (
    Corruption,
    Fate,
    coloured,
    delete,
    fate,
    mix_faces,
    mix_features,
    shift,
    varied_voiceprint,
)

#: signal-to-noise ratio, in dB, of a chunk over the recording mixed into it
_SNR = (0.0, 15.0)

_INPUTS = ("waveforms", "faces", "face_mask", "target_mask", "voiceprints", "speaker_features")
#: further inputs, if there is a first pass
_FIRST_PASS = ("first_pass", "num_speaking")
#: inputs that are not those of a target
_SHARED = ("waveforms", "speaker_features", "num_speaking")
_LABELS = ("y", "acoustic", "visual", "sync")

#: maximum number of targets from other recordings, and attempts to find a silent face
_DUMMIES, _TRIES = 2, 5
#: similarity of the voiceprints of two recordings above which they may belong to one person. With
#: CAM++ on simulated conversations, it is exceeded by 1 % of the pairs of different persons, and by
#: 85 % of the pairs of the same person
ALIKE = 0.45


@dataclass
class TargetMaker:
    """Makes the targets of a chunk.

    Parameters
    ----------
    speaker_embeddings : ArrayStore
        Speaker embeddings of the recordings, by window.
    corruption : Corruption
    first_pass : FirstPass, optional
        First pass of the recordings.
    """

    speaker_embeddings: ArrayStore
    corruption: Corruption
    first_pass: FirstPass | None = None
    _windows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _prints: dict[str, np.ndarray] = field(default_factory=dict)

    def windows(self, recording: LabelledFile) -> list[np.ndarray]:
        """Windows of each speaker of a recording."""
        if recording.uri not in self._windows:
            length = HOP * len(self.speaker_embeddings[recording.uri])
            self._windows[recording.uri] = windows_of_speakers(recording.activity(0, length))
        return self._windows[recording.uri]

    def strangers(self, recording: LabelledFile, other: LabelledFile) -> list[int]:
        """Speakers of another recording whose voice resembles no speaker of this one.

        Protocols need not identify speakers across files: the same people may meet repeatedly.
        """
        known, others = (self._voiceprints(one) for one in (recording, other))
        likeness = (others @ known.T).max(axis=1, initial=0)
        return np.flatnonzero(others.any(axis=1) & (likeness < ALIKE)).tolist()

    def _voiceprints(self, recording: LabelledFile) -> np.ndarray:
        """(speakers, E) voiceprints computed from all speech of each speaker"""
        if recording.uri not in self._prints:
            features = self.speaker_embeddings[recording.uri]
            prints = [voiceprint(features[windows]) for windows in self.windows(recording)]
            nobody = np.zeros((0, features.shape[1]), np.float32)
            self._prints[recording.uri] = np.stack(prints) if prints else nobody
        return self._prints[recording.uri]

    def voiceprint(
        self, recording: LabelledFile, person: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Voiceprint (E,) of a person; zero for those without enough speech."""
        features, windows = self.speaker_embeddings[recording.uri], self.windows(recording)
        if person >= len(windows) or not len(windows[person]):
            return np.zeros(features.shape[1], np.float32)
        if rng.random() >= self.corruption.voice_varied:
            return self._voiceprints(recording)[person]
        others = [own for number, own in enumerate(windows) if number != person]
        others = np.concatenate([np.zeros(0, int), *others])
        return varied_voiceprint(features, windows[person], others, rng)

    def target(
        self, chunk: Excerpt, person: int, audible: bool, rng: np.random.Generator
    ) -> Target:
        """The target of a person.

        Parameters
        ----------
        chunk : Excerpt
        person : int
        audible : bool
            Whether the chunk has sound. Without sound, only faces are available.
        rng : numpy.random.Generator
        """
        (face, present), speaking = chunk.face(person), chunk.speaking(person)
        known = self.voiceprint(chunk.recording, person, rng)
        frames = shown_speaking = by_frame(speaking)
        outcome, genuine = Fate.SPARED, True
        if audible:
            outcome = fate(self.corruption, bool(known.any()), float(present.mean()), rng)
        others = [other for other in chunk.visible if other != person]
        if outcome is Fate.VOICE_DROPPED:
            known = np.zeros_like(known)
        elif outcome is Fate.FACE_DROPPED:
            face, present = chunk.no_face()
        elif outcome is Fate.FACE_SHIFTED:
            then = chunk.at(chunk.start + shift(rng))
            (face, present), genuine = then.face(person), False
            shown_speaking = by_frame(then.speaking(person))
        elif outcome is Fate.FACE_SWAPPED and others:
            other = int(rng.choice(others))
            (face, present), genuine = chunk.face(other), False
            shown_speaking = by_frame(chunk.speaking(other))
        if genuine and others and rng.random() < self.corruption.face_mixed:
            behind, there = chunk.face(int(rng.choice(others)))
            face = mix_faces(face, behind, present & there, rng)
        face, present = self._filmed(face, present, rng)
        visual = visual_labels(frames, present, genuine)
        sync = sync_labels(frames, shown_speaking, present, genuine)
        first_pass = None
        if self.first_pass is not None:
            voiced = outcome is not Fate.VOICE_DROPPED and known.any()
            first_pass = self.first_pass.speaker(chunk, person if voiced else NOBODY)
        return Target(face, present, known, speaking, visual, sync, first_pass)

    def _filmed(self, face, present, rng) -> tuple[np.ndarray, np.ndarray]:
        """Vary view and camera, turn the head, and delete frames"""
        if not present.any():
            return face, present
        variations = (
            (self.corruption.views_varied, vary_view),
            (self.corruption.heads_turned, turn_head),
            (self.corruption.cameras_varied, vary_camera),
        )
        for probability, vary in variations:
            if face.dtype == np.uint8 and rng.random() < probability:
                # use a separate generator: the number of draws depends on the size of the crops,
                # which are single pixels when crops are not used
                own = np.random.default_rng(rng.integers(2**32))
                face = vary(face, own) if face.shape[-1] > 1 else face
        if rng.random() < self.corruption.frames_deleted:
            present = delete(present, rng)
        return face, present

    def dummies(
        self,
        recording: LabelledFile,
        room: int,
        elsewhere: Callable[[], Excerpt],
        rng: np.random.Generator,
    ) -> list[Target]:
        """Targets of silent people from other recordings.

        Parameters
        ----------
        recording : LabelledFile
            Recording of the chunk. The voices differ from those of its speakers.
        room : int
            Number of targets that may still be added.
        elsewhere : callable
            Draws a chunk of another recording.
        rng : numpy.random.Generator
        """
        targets = []
        for _ in range(rng.binomial(min(room, _DUMMIES), self.corruption.dummies)):
            chunk = elsewhere()
            strangers = self.strangers(recording, chunk.recording)
            if not strangers:
                continue
            known = self.voiceprint(chunk.recording, int(rng.choice(strangers)), rng)
            face, present = chunk.no_face()
            if rng.random() < self.corruption.dummies_visible:
                face, present = _silent_face(chunk, rng)
            face, present = self._filmed(face, present, rng)
            silence = np.zeros(STEPS * chunk.num_frames, bool)
            visual = visual_labels(by_frame(silence), present, genuine=True)
            sync = np.full(chunk.num_frames, UNKNOWN, np.int8)
            # the first pass knows them from elsewhere in the recording
            first_pass = None if self.first_pass is None else silence.astype(np.float32)
            targets.append(Target(face, present, known, silence, visual, sync, first_pass))
        return targets


def _silent_face(chunk: Excerpt, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random face of the recording of a chunk while silent; empty if none is found"""
    faces = chunk.recording.faces
    for _ in range(_TRIES if len(faces) else 0):
        person, _, first, stop = rng.choice(faces).tolist()
        start = int(rng.integers(first, max(first, stop - chunk.num_frames) + 1))
        then = chunk.at(start)
        if not then.speaking(person).any():
            return then.face(person)
    return chunk.no_face()


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
class TargetBatches(Dataset):
    """Whole batches by (epoch, index, whether it counts), identical in every process.

    Parameters
    ----------
    store : CropStore
    recordings : list of LabelledFile
    speaker_embeddings : ArrayStore
        Speaker embeddings of the recordings, by window.
    faces : Faces
    num_frames : int
        Frames in a chunk.
    batch_size : int
    max_targets : int
        Maximum number of targets of a chunk in training.
    chunks : (n, 2) int array, optional
        Recording index and first frame of each chunk. Batches hold these chunks in order, with a
        target for each speaker of the recording and for every other visible person. If not given,
        chunks are drawn at random, for training.
    corruption : Corruption
    transform : callable, optional
        Changes the (batch, 1, samples) tensor of waveforms.
    seed : int
    first_pass : FirstPass, optional
        Its output is added to the inputs.
    """

    store: CropStore
    recordings: list[LabelledFile]
    speaker_embeddings: ArrayStore
    faces: Faces
    num_frames: int
    batch_size: int
    max_targets: int
    chunks: np.ndarray | None = None
    corruption: Corruption = field(default_factory=Corruption.none)
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    seed: int = 0
    first_pass: FirstPass | None = None

    def __post_init__(self):
        rows = [
            (number, first, stop)
            for number, recording in enumerate(self.recordings)
            for first, stop in recording.regions.tolist()
        ]
        self._regions = np.array(rows, np.int64).reshape(-1, 3)
        self._ends = np.cumsum(self._regions[:, 2] - self._regions[:, 1])
        self._alone = len(np.unique(self._regions[:, 0])) == 1
        self._maker = TargetMaker(self.speaker_embeddings, self.corruption, self.first_pass)

    def __len__(self) -> int:
        """Number of batches in an epoch: about as many frames as are annotated."""
        count = self._ends[-1] / self.num_frames if self.chunks is None else len(self.chunks)
        return max(1, int(np.ceil(count / self.batch_size)))

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, Any]:
        """One batch.

        Returns
        -------
        batch : dict
            ``X`` AVInput; ``y`` (batch, 4 T, targets) int8: 1 speaking, 0 not, -1 not scored; and
            (batch, targets, T) int8 ``acoustic``, ``visual`` and ``sync``. The first two label
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
        found = self.speaker_embeddings[chunk.recording.uri][first : first + count]
        features = np.zeros((count, found.shape[1]), np.float32)
        features[: len(found)] = found
        return features

    def _item(self, chunk: Excerpt, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Inputs and labels of one chunk, as unbatched arrays"""
        training, who = self.chunks is None, chunk.attendance
        persons = choose(who, self.max_targets, rng) if training else sorted(chain(*who))
        audible = rng.random() >= self.corruption.sound_dropped
        targets = [self._maker.target(chunk, person, audible, rng) for person in persons]
        if not self._alone:
            elsewhere = partial(self._elsewhere, chunk, rng)
            room = max(0, self.max_targets - len(targets))
            targets += self._maker.dummies(chunk.recording, room, elsewhere, rng)
        # a target without voiceprint and face identifies nobody
        targets = [target for target in targets if target.voiceprint.any() or target.present.any()]
        if training:
            targets = [targets[i] for i in rng.permutation(len(targets))]
        sound, features = self._sound(chunk), self._features(chunk)
        unchanged = audible
        if not audible:
            sound, features = np.zeros_like(sound), np.zeros_like(features)
        elif not self._alone and rng.random() < self.corruption.sound_mixed:
            other, snr = self._elsewhere(chunk, rng), rng.uniform(*_SNR)
            strangers = self._maker.strangers(chunk.recording, other.recording)
            if set(other.attendance.speaking) <= set(strangers):
                sound = mix(sound, self._sound(other), snr)
                features = mix_features(features, self._features(other), snr)
                unchanged = False
        if rng.random() < self.corruption.sound_coloured:
            sound = coloured(sound, rng)
        nobody = Target(*chunk.no_face(), features[0], *_no_labels(chunk.num_frames))
        if self.first_pass is not None:
            nobody.first_pass = self.first_pass.speaker(chunk, NOBODY)
        annotated = chunk.recording.annotated(chunk.start, chunk.stop)
        item = {
            "waveforms": sound[None],
            "speaker_features": features,
            **_stacked(targets, nobody, annotated, audible),
        }
        if self.first_pass is not None:
            known = unchanged and rng.random() >= self.corruption.first_pass_dropped
            if known and len(targets) > 1 and rng.random() < self.corruption.first_pass_swapped:
                one, other = rng.permutation(len(targets))[:2]
                item["first_pass"][[one, other]] = item["first_pass"][[other, one]]
            item["num_speaking"] = self.first_pass.number(chunk)
            if not known:
                item["first_pass"][:] = UNKNOWN
                item["num_speaking"][:] = 0
        if rng.random() < self.corruption.voices_mirrored:
            signs = rng.choice(np.float32([-1, 1]), features.shape[1])
            item["speaker_features"] = item["speaker_features"] * signs
            item["voiceprints"] = item["voiceprints"] * signs
        return item


def _no_labels(num_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frames = np.full(num_frames, UNKNOWN, np.int8)
    return np.zeros(STEPS * num_frames, bool), frames, frames


def _stacked(
    targets: list[Target], nobody: Target, annotated: np.ndarray, audible: bool
) -> dict[str, np.ndarray]:
    """Arrays of all targets of a chunk; `nobody` provides shapes when there are no targets"""

    def stack(name: str) -> np.ndarray:
        return np.stack([getattr(target, name) for target in [*targets, nobody]])[: len(targets)]

    present, voiceprints, speaking = stack("present"), stack("voiceprint"), stack("speaking")
    # without sound, speech is scored only where the face is visible
    scored = annotated & (present | audible)
    known = voiceprints.any(axis=1, keepdims=True)
    labels = {
        "y": np.where(scored.repeat(STEPS, axis=1), speaking, UNKNOWN),
        "acoustic": np.where(annotated & known & audible, by_frame(speaking.T).T, UNKNOWN),
        "visual": np.where(annotated, stack("visual"), UNKNOWN),
        "sync": np.where(annotated & audible, stack("sync"), UNKNOWN),
    }
    first_pass = {} if nobody.first_pass is None else {"first_pass": stack("first_pass")}
    return {
        **first_pass,
        "faces": stack("face"),
        "face_mask": present,
        "target_mask": np.ones(len(targets), bool),
        "voiceprints": voiceprints,
        **{name: label.astype(np.int8) for name, label in labels.items()},
    }


def collate(items: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Stack items into a batch, padded to the largest number of targets."""
    num_targets = max(1, *(len(item["target_mask"]) for item in items))
    batch, inputs = {}, [*_INPUTS, *(name for name in _FIRST_PASS if name in items[0])]
    for name in (*inputs, *_LABELS):
        arrays = [item[name] for item in items]
        if name in _SHARED:
            batch[name] = torch.from_numpy(np.stack(arrays))
            continue
        shape = (len(items), num_targets, *arrays[0].shape[1:])
        padded = np.full(shape, UNKNOWN if name in _LABELS else 0, arrays[0].dtype)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        batch[name] = torch.from_numpy(padded)
    labels = {name: batch[name] for name in _LABELS}
    labels["y"] = labels["y"].transpose(1, 2).contiguous()
    return {"X": AVInput(**{name: batch[name] for name in inputs}), **labels}
