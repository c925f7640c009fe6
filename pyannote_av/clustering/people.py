"""Embeddings of many voices and faces, and training batches that are composed of them.

Networks that compare frozen embeddings need no recordings to learn from: pairs and recordings are
put together from embeddings of single people. All batches are the same for the same seed and index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from pyannote_av.clustering.counting_batches import collate
from pyannote_av.core.atomic import replacing
from pyannote_av.core.reading import read_npz


class People(NamedTuple):
    """Embeddings of voices and faces. Voices and faces are of different people.

    Attributes
    ----------
    voice : (n, E) float16 array
        Speaker embeddings of windows of speech, of unit length.
    voice_person, voice_room : (n,) int array
        Person who speaks, and room in which the window was recorded. People who are in one
        conversation are in one room.
    face : (m, F) float16 array
        Face embeddings of pictures, of unit length.
    face_person : (m,) int array
        Person in the picture.
    """

    voice: np.ndarray
    voice_person: np.ndarray
    voice_room: np.ndarray
    face: np.ndarray
    face_person: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file."""
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def read(cls, path: str | Path) -> People:
        """Read a file written by :meth:`save`."""
        arrays = read_npz(Path(path))
        return cls(**{name: arrays[name] for name in cls._fields})


class _Cast:
    """Draws people who meet in a room, with their voices and faces"""

    def __init__(self, people: People, mixed: float):
        self.people, self.mixed = people, mixed
        self.rooms: dict[int, dict[int, np.ndarray]] = {}
        for room in np.unique(people.voice_room).tolist():
            here = np.flatnonzero(people.voice_room == room)
            who = people.voice_person[here]
            self.rooms[room] = {p: here[who == p] for p in np.unique(who).tolist()}
        faces = np.unique(people.face_person)
        self.faces = [np.flatnonzero(people.face_person == p) for p in faces]
        self.means = [people.face[rows].mean(axis=0, dtype=np.float32) for rows in self.faces]

    def voices(self, count: int, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
        """Rows of the windows of `count` people in one room, and these people (count,).

        If fewer people are in the room, some are drawn again.
        """
        here = self.rooms[list(self.rooms)[rng.integers(len(self.rooms))]]
        drawn = np.resize(rng.permutation(list(here)), count)
        return [here[person] for person in drawn.tolist()], drawn

    def face_pictures(
        self, count: int, rng: np.random.Generator
    ) -> list[Callable[[int], np.ndarray]]:
        """Functions that draw n pictures (n, F), one function for each of `count` people"""
        drawn = rng.permutation(len(self.faces))
        return [self._pictures(k, rng) for k in np.resize(drawn, count).tolist()]

    def _pictures(self, person: int, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        rows, mean = self.faces[person], self.means[person]
        shift = np.zeros_like(mean)
        if rng.random() < self.mixed:
            other = self.means[rng.integers(len(self.means))]
            share = rng.uniform(0.3, 0.7)
            new = share * mean + (1 - share) * other
            # between two people: the pictures differ as those of the first do
            shift = new * np.linalg.norm(mean) / np.linalg.norm(new) - mean

        def draw(size: int) -> np.ndarray:
            found = self.people.face[rng.choice(rows, size)].astype(np.float32) + shift
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        return draw


@dataclass
class PeopleEpisodes(Dataset):
    """Episodes of AVR-Net: two windows of each of several people. Indexed by number.

    Parameters
    ----------
    people : People
    ways : int
        People in an episode. 20 as published.
    episodes : int
        Episodes in a batch.
    missing : float
        Probability that the face of a window is hidden. 0.5 as published.
    mixed : float
        Probability that a face is that of a new person, between two people.
    blended : float
        Probability that a window also contains another person of the episode, for less than half of
        the time, as windows at turn changes do. 0 as published.
    seed : int

    Notes
    -----
    As published, the windows of a person are from one recording. Here, those of different people
    are from the same room too, because the speakers of one recording have to be told apart. Voices
    are combined with faces at random.
    """

    people: People
    ways: int = 20
    episodes: int = 3
    missing: float = 0.5
    mixed: float = 0.5
    blended: float = 0.0
    seed: int = 0

    def __post_init__(self):
        self._cast = _Cast(self.people, self.mixed)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One batch; see :class:`~pyannote_av.clustering.episodes.Episodes`."""
        rng = np.random.default_rng([self.seed, index])
        drawn = [self._episode(rng) for _ in range(self.episodes)]
        return {name: torch.from_numpy(np.stack([e[name] for e in drawn])) for name in drawn[0]}

    def _episode(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        rows, who = self._cast.voices(self.ways, rng)
        voices = [self.people.voice[rng.choice(own, 2, replace=len(own) < 2)] for own in rows]
        audio = np.stack(voices, axis=1).astype(np.float32)
        others = np.stack([self.people.voice[rng.choice(own, 2)] for own in rows], axis=1)
        others = np.roll(others.astype(np.float32), int(rng.integers(1, self.ways)), axis=1)
        share = rng.uniform(0, 0.5, (2, self.ways)) * (rng.random((2, self.ways)) < self.blended)
        audio += share[..., None].astype(np.float32) * (others - audio)
        faces = [draw(2) for draw in self._cast.face_pictures(self.ways, rng)]
        visible = rng.random((2, self.ways)) >= self.missing
        return {
            "audio": audio / np.linalg.norm(audio, axis=2, keepdims=True),
            "faces": np.stack(faces, axis=1) * visible[..., None].astype(np.float32),
            "visible": visible,
            "speakers": who,
        }


@dataclass
class PeopleRecordings(Dataset):
    """Recordings for CYS-MSD, as sequences of windows. Indexed by number.

    Parameters
    ----------
    people : People
    batch_size : int
        Recordings in a batch.
    speakers : (int, int)
        Least and largest number of speakers.
    windows : (int, int)
        Least and largest number of windows. 1.5 s windows every 0.75 s: 40 in 30 s of speech, 400
        in five minutes.
    missing : float
        Probability that the speaker of a window is not visible.
    listeners : bool
        Whether people who do not speak can be visible, too. The face of a window is the mean of all
        visible faces.
    mixed : float
        See :class:`PeopleEpisodes`.
    seed : int

    Notes
    -----
    Speakers take turns, some more often than others. Windows at turn changes contain two speakers,
    as do windows with overlap. In some recordings nobody is visible, in some those who talk, in
    others all of them.
    """

    people: People
    batch_size: int = 16
    speakers: tuple[int, int] = (1, 8)
    windows: tuple[int, int] = (20, 400)
    missing: float = 0.4
    listeners: bool = True
    mixed: float = 0.5
    seed: int = 0

    #: mean number of windows of a turn, probability that a turn change is inside a window, and that
    #: a window has overlap
    TURN, CHANGE, OVERLAP = 4.0, 0.6, 0.04

    def __post_init__(self):
        self._cast = _Cast(self.people, self.mixed)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One batch; see :class:`~pyannote_av.clustering.counting_batches.CountingBatches`."""
        rng = np.random.default_rng([self.seed, index])
        return collate([self.recording(rng) for _ in range(self.batch_size)])

    def recording(
        self, rng: np.random.Generator, speakers: int | None = None, windows: int | None = None
    ) -> dict[str, np.ndarray]:
        """One recording, with random numbers of speakers and windows unless they are given."""
        if speakers is None:
            speakers = int(rng.integers(*self.speakers, endpoint=True))
        if windows is None:
            windows = int(np.exp(rng.uniform(*np.log(self.windows))))
        who = self._turns(max(windows, 2 * speakers), speakers, rng)
        rows, _ = self._cast.voices(speakers, rng)
        voices = self._draw(rows, who, rng)
        changes = np.flatnonzero(np.diff(who)) + 1
        y = np.eye(speakers, dtype=np.int8)[who]
        # windows at a turn change, and windows with overlap
        for i in changes[rng.random(len(changes)) < self.CHANGE].tolist():
            share = rng.uniform(0, 0.5)
            voices[i] = (1 - share) * voices[i] + share * self._draw(rows, who[i - 1 : i], rng)[0]
        for i in np.flatnonzero(rng.random(len(who)) < self.OVERLAP).tolist():
            other = int(rng.integers(speakers))
            voices[i] += self._draw(rows, np.array([other]), rng)[0]
            y[i, other] = 1
        voices /= np.linalg.norm(voices, axis=1, keepdims=True)
        faces, visible = self._faces(who, speakers, rng)
        return {"speaker_embeddings": voices, "faces": faces, "face_mask": visible, "y": y}

    def _turns(self, windows: int, speakers: int, rng: np.random.Generator) -> np.ndarray:
        """Speaker of each window; everybody speaks in at least two windows"""
        share = rng.dirichlet(np.full(speakers, 1.5)) + 0.02
        who = np.zeros(0, int)
        while len(who) < windows:
            other = np.where(np.arange(speakers) == who[-1], 0, share) if len(who) else share
            if not other.any():
                other = share
            speaker = rng.choice(speakers, p=other / other.sum())
            who = np.append(who, np.full(rng.geometric(1 / self.TURN), speaker))
        who = who[:windows]
        # each speaker without a window gets two adjacent ones
        for speaker in np.setdiff1d(np.arange(speakers), who).tolist():
            frequent = np.flatnonzero(np.bincount(who, minlength=speakers)[who] > 3)
            first = int(rng.choice(frequent)) if len(frequent) else int(rng.integers(windows - 1))
            who[first : first + 2] = speaker
        return who

    def _draw(self, rows: list[np.ndarray], who: np.ndarray, rng) -> np.ndarray:
        """Random windows of speakers"""
        chosen = [rows[k][rng.integers(len(rows[k]))] for k in who.tolist()]
        return self.people.voice[chosen].astype(np.float32)

    def _faces(self, who: np.ndarray, speakers: int, rng) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the visible faces of each window, and whether there are any"""
        everybody, missing = rng.random() < 0.3, 1.0 if rng.random() < 0.2 else self.missing
        shown = np.zeros((len(who), speakers), bool)
        shown[np.arange(len(who)), who] = True
        if self.listeners:
            shown |= rng.random(shown.shape) < (0.9 if everybody else 0.1)
        shown &= rng.random((len(who), 1)) >= missing
        total = np.zeros((len(who), self.people.face.shape[1]), np.float32)
        for one, draw in zip(shown.T, self._cast.face_pictures(speakers, rng), strict=True):
            total[one] += draw(int(one.sum()))
        visible = shown.any(axis=1)
        return total / np.maximum(shown.sum(axis=1, keepdims=True), 1).astype(np.float32), visible
