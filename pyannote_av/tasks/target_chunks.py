"""Targets and chunks: the target speakers of a model, and their inputs and labels.

Each target is one target speaker, known by a voiceprint, a face, or both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from pyannote_av.core.grid import STEPS
from pyannote_av.data.crop_shard import SIDE
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.recordings import UNKNOWN, LabelledFile


class Faces(Protocol):
    """Source of faces: crops, or the features that a visual encoder computes from them."""

    def like(self) -> np.ndarray:
        """An empty frame: zeros with the shape and type of all frames."""

    def read(self, uri: str, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames (stop - start, ...) of a track, and their presence (stop - start,)."""


class Pictures:
    """Face crops of a store.

    Parameters
    ----------
    store : CropStore
    """

    def __init__(self, store: CropStore):
        self.store = store

    def like(self) -> np.ndarray:
        """A black crop."""
        return np.zeros((SIDE, SIDE), np.uint8)

    def read(self, uri: str, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``CropStore.crops``."""
        return self.store.crops(uri, track, start, stop)


class Presences(Pictures):
    """Presence of faces without their crops: each crop is a single black pixel."""

    def like(self) -> np.ndarray:
        """A black pixel."""
        return np.zeros((1, 1), np.uint8)

    def read(self, uri: str, track: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Black pixels, and the presence of the face."""
        present = self.store.presence(uri, track, start, stop)
        return np.zeros((stop - start, 1, 1), np.uint8), present


@dataclass
class Target:
    """One target of a chunk of T frames.

    Attributes
    ----------
    face : (T, ...) array
    present : (T,) bool array
    voiceprint : (E,) float32 array
        Zero if unknown.
    speaking : (4 T,) bool array
    visual : (T,) int8 array
        Speech as far as the face shows it: -1 where it is absent, or is not this speaker's.
    sync : (T,) int8 array
        See :func:`sync_labels`.
    first_pass : (4 T,) float32 array, optional
        Probability of speech according to the first pass; negative where unknown.
    """

    face: np.ndarray
    present: np.ndarray
    voiceprint: np.ndarray
    speaking: np.ndarray
    visual: np.ndarray
    sync: np.ndarray
    first_pass: np.ndarray | None = None


class Attendance(NamedTuple):
    """Persons of a recording who matter to a chunk, as indices.

    Attributes
    ----------
    speaking : list of int
        Persons who speak in the chunk.
    absent : list of int
        Persons who speak only elsewhere in the recording.
    silent : list of int
        Persons who never speak, but are visible in the chunk.
    """

    speaking: list[int]
    absent: list[int]
    silent: list[int]


@dataclass
class Excerpt:
    """An excerpt of a recording: its speakers and its visible faces, each read once.

    Parameters
    ----------
    recording : LabelledFile
    start, num_frames : int
        The excerpt may extend beyond both ends of the recording.
    faces : Faces
    """

    recording: LabelledFile
    start: int
    num_frames: int
    faces: Faces

    def __post_init__(self):
        self._read: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.start + self.num_frames

    @cached_property
    def activity(self) -> np.ndarray:
        """Who speaks: (4 T, speakers) bool."""
        return self.recording.activity(self.start, self.stop)

    @cached_property
    def visible(self) -> list[int]:
        """Persons whose face is visible."""
        who, _, first, stop = self.recording.faces.T
        return np.unique(who[(first < self.stop) & (stop > self.start)]).tolist()

    @property
    def attendance(self) -> Attendance:
        """Persons who matter to this excerpt."""
        speaks = self.activity.any(axis=0)
        silent = [person for person in self.visible if person >= self.recording.num_speakers]
        return Attendance(np.flatnonzero(speaks).tolist(), np.flatnonzero(~speaks).tolist(), silent)

    def at(self, start: int) -> Excerpt:
        """An excerpt of the same recording and length that starts at another frame."""
        return Excerpt(self.recording, start, self.num_frames, self.faces)

    def speaking(self, person: int) -> np.ndarray:
        """When a person speaks: (4 T,) bool."""
        if person >= self.recording.num_speakers:
            return np.zeros(STEPS * self.num_frames, bool)
        return self.activity[:, person]

    def face(self, person: int) -> tuple[np.ndarray, np.ndarray]:
        """The face of a person, merged from all of its tracks.

        Returns
        -------
        face : (T, ...) array
            Zero where it is not visible.
        present : (T,) bool array
        """
        if person not in self._read:
            self._read[person] = self._face(person)
        return self._read[person]

    def no_face(self) -> tuple[np.ndarray, np.ndarray]:
        """An empty face; see :meth:`face`."""
        like = self.faces.like()
        return np.zeros((self.num_frames, *like.shape), like.dtype), np.zeros(self.num_frames, bool)

    def _face(self, person: int) -> tuple[np.ndarray, np.ndarray]:
        face, present = self.no_face()
        mine = self.recording.faces[self.recording.faces[:, 0] == person]
        for _, track, first, stop in mine.tolist():
            low, high = max(first, self.start), min(stop, self.stop)
            if low >= high:
                continue
            content, visible = self.faces.read(self.recording.uri, track, low, high)
            where = slice(low - self.start, high - self.start)
            # a face that is visible twice, as in a mirror: the first track counts
            new = visible & ~present[where]
            face[where][new] = content[new]
            present[where] |= visible
        return face, present


def choose(who: Attendance, max_targets: int, rng: np.random.Generator) -> list[int]:
    """Persons to make targets of.

    All persons who speak, up to `max_targets`, and a random number of those who do not.

    Parameters
    ----------
    who : Attendance
    max_targets : int
    rng : numpy.random.Generator

    Returns
    -------
    persons : list of int
    """
    chosen = rng.permutation(who.speaking)[:max_targets].astype(int).tolist()
    others = rng.permutation([*who.absent, *who.silent]).astype(int).tolist()
    room = min(len(others), max_targets - len(chosen))
    return chosen + others[: int(rng.integers(room + 1))]


def by_frame(activity: np.ndarray) -> np.ndarray:
    """Speech in at least half of the steps of a frame: (4 T, ...) bool to (T, ...) bool."""
    steps = activity.reshape(len(activity) // STEPS, STEPS, *activity.shape[1:])
    return steps.sum(axis=1) * 2 >= STEPS


def visual_labels(speaking: np.ndarray, present: np.ndarray, genuine: bool) -> np.ndarray:
    """Speech of a target as far as its face shows it.

    Parameters
    ----------
    speaking, present : (T,) bool arrays
        Whether the target's speaker speaks, and whether a face is visible.
    genuine : bool
        Whether this is the target's own face at the right time.

    Returns
    -------
    labels : (T,) int8 array
        1 speaking, 0 not, -1 where there is no genuine face.
    """
    return np.where(present & genuine, speaking, UNKNOWN).astype(np.int8)


def sync_labels(
    speaking: np.ndarray, shown_speaking: np.ndarray, present: np.ndarray, genuine: bool
) -> np.ndarray:
    """Label whether the sound and the face of a target belong together.

    Parameters
    ----------
    speaking : (T,) bool array
        Whether the target's speaker speaks.
    shown_speaking : (T,) bool array
        Whether the visible person speaks at the time from which the face is taken.
    present : (T,) bool array
        Whether a face is visible.
    genuine : bool
        Whether this is the target's own face at the right time.

    Returns
    -------
    labels : (T,) int8 array
        1 where the target's own face is visible and speaks. 0 where the face is another one, or is
        taken from another time, and either speaks. -1 elsewhere, because silence matches any
        silent face.
    """
    labels = np.full(len(present), UNKNOWN, np.int8)
    if genuine:
        labels[present & speaking] = 1
    else:
        labels[present & (speaking | shown_speaking)] = 0
    return labels
