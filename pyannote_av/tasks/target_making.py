"""Make the slots of a chunk, including their corruption in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pyannote_av.core.grid import STEPS
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.models.embedding.voiceprints import HOP, voiceprint, windows_of_speakers
from pyannote_av.tasks.face_augmentation import vary_camera, vary_view
from pyannote_av.tasks.recordings import LabelledFile
from pyannote_av.tasks.target_chunks import (
    UNKNOWN,
    Excerpt,
    Slot,
    by_frame,
    sync_labels,
    visual_labels,
)
from pyannote_av.tasks.target_corruption import (
    Corruption,
    Fate,
    delete,
    fate,
    mix_faces,
    shift,
    varied_voiceprint,
)

#: maximum number of slots from other recordings, and attempts to find a silent face
_DUMMIES, _TRIES = 2, 5
#: similarity of the voiceprints of two recordings above which they may belong to one person. With
#: CAM++ on simulated conversations, it is exceeded by 1 % of the pairs of different persons, and by
#: 85 % of the pairs of the same person
ALIKE = 0.45


@dataclass
class SlotMaker:
    """Makes the slots of a chunk.

    Parameters
    ----------
    voices : ArrayStore
        Speaker embeddings of the recordings, by window.
    corruption : Corruption
    """

    voices: ArrayStore
    corruption: Corruption
    _windows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _prints: dict[str, np.ndarray] = field(default_factory=dict)

    def windows(self, recording: LabelledFile) -> list[np.ndarray]:
        """Windows of each speaker of a recording."""
        if recording.uri not in self._windows:
            length = HOP * len(self.voices[recording.uri])
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
            features = self.voices[recording.uri]
            prints = [voiceprint(features[windows]) for windows in self.windows(recording)]
            nobody = np.zeros((0, features.shape[1]), np.float32)
            self._prints[recording.uri] = np.stack(prints) if prints else nobody
        return self._prints[recording.uri]

    def voiceprint(
        self, recording: LabelledFile, person: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Voiceprint (E,) of a person; zero for those without enough speech."""
        features, windows = self.voices[recording.uri], self.windows(recording)
        if person >= len(windows) or not len(windows[person]):
            return np.zeros(features.shape[1], np.float32)
        if rng.random() >= self.corruption.voice_varied:
            return self._voiceprints(recording)[person]
        others = [own for number, own in enumerate(windows) if number != person]
        others = np.concatenate([np.zeros(0, int), *others])
        return varied_voiceprint(features, windows[person], others, rng)

    def slot(self, chunk: Excerpt, person: int, heard: bool, rng: np.random.Generator) -> Slot:
        """The slot of a person.

        Parameters
        ----------
        chunk : Excerpt
        person : int
        heard : bool
            Whether the chunk has sound. Without sound, only faces are available.
        rng : numpy.random.Generator
        """
        (face, present), speaking = chunk.face(person), chunk.speaking(person)
        known = self.voiceprint(chunk.recording, person, rng)
        frames = shown = by_frame(speaking)
        outcome, genuine = Fate.SPARED, True
        if heard:
            outcome = fate(self.corruption, bool(known.any()), float(present.mean()), rng)
        others = [other for other in chunk.seen if other != person]
        if outcome is Fate.VOICE_DROPPED:
            known = np.zeros_like(known)
        elif outcome is Fate.FACE_DROPPED:
            face, present = chunk.no_face()
        elif outcome is Fate.FACE_SHIFTED:
            then = chunk.at(chunk.start + shift(rng))
            (face, present), genuine = then.face(person), False
            shown = by_frame(then.speaking(person))
        elif outcome is Fate.FACE_SWAPPED and others:
            other = int(rng.choice(others))
            (face, present), genuine = chunk.face(other), False
            shown = by_frame(chunk.speaking(other))
        if genuine and others and rng.random() < self.corruption.face_mixed:
            behind, there = chunk.face(int(rng.choice(others)))
            face = mix_faces(face, behind, present & there, rng)
        face, present = self._filmed(face, present, rng)
        visual = visual_labels(frames, present, genuine)
        sync = sync_labels(frames, shown, present, genuine)
        return Slot(face, present, known, speaking, visual, sync)

    def _filmed(self, face, present, rng) -> tuple[np.ndarray, np.ndarray]:
        """Vary view and camera, and delete frames"""
        if not present.any():
            return face, present
        variations = (
            (self.corruption.views_varied, vary_view),
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
    ) -> list[Slot]:
        """Slots of silent people from other recordings.

        Parameters
        ----------
        recording : LabelledFile
            Recording of the chunk. The voices differ from those of its speakers.
        room : int
            Number of free slots.
        elsewhere : callable
            Draws a chunk of another recording.
        rng : numpy.random.Generator
        """
        slots = []
        for _ in range(rng.binomial(min(room, _DUMMIES), self.corruption.dummies)):
            chunk = elsewhere()
            strangers = self.strangers(recording, chunk.recording)
            if not strangers:
                continue
            known = self.voiceprint(chunk.recording, int(rng.choice(strangers)), rng)
            face, present = chunk.no_face()
            if rng.random() < self.corruption.dummies_seen:
                face, present = _silent_face(chunk, rng)
            face, present = self._filmed(face, present, rng)
            silence = np.zeros(STEPS * chunk.num_frames, bool)
            visual = visual_labels(by_frame(silence), present, genuine=True)
            sync = np.full(chunk.num_frames, UNKNOWN, np.int8)
            slots.append(Slot(face, present, known, silence, visual, sync))
        return slots


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
