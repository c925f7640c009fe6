"""Training episodes: two windows of each of several different speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from pyannote_av.clustering.labelled_windows import LabelledWindows, WindowReader, faces_of
from pyannote_av.clustering.windows import Windows


class Speaker(NamedTuple):
    """Windows with this speaker only: index of the person, and rows of windows, by file."""

    name: str
    person: dict[int, int]
    rows: dict[int, np.ndarray]


def find_speakers(files: Sequence[LabelledWindows], across: bool) -> list[Speaker]:
    """Find speakers with at least two windows of non-overlapping speech.

    Parameters
    ----------
    files : sequence of LabelledWindows
    across : bool
        Whether a label refers to the same person in all files. If False, labels are valid within
        one file only.
    """
    speakers: dict[Any, Speaker] = {}
    for number, one in enumerate(files):
        alone = one.active & (one.active.sum(axis=1, keepdims=True) == 1)
        for person, name in enumerate(one.recording.persons[: one.recording.num_speakers]):
            rows = np.flatnonzero(alone[:, person])
            if len(rows):
                key = name if across else (number, name)
                found = speakers.setdefault(key, Speaker(name, {}, {}))
                found.person[number], found.rows[number] = person, rows
    return [one for one in speakers.values() if sum(map(len, one.rows.values())) > 1]


@dataclass
class Episodes(Dataset):
    """Batches of episodes, indexed by (epoch, index, counts). The same key gives the same batch.

    Parameters
    ----------
    files : sequence of LabelledWindows
    reader : WindowReader
    across : bool
        See :func:`find_speakers`. If True, the two windows of a speaker can come from different
        recordings.
    ways : int
        Speakers per episode.
    per_recording : int
        Maximum number of speakers per recording in an episode, if there are enough recordings. 1
        as published.
    videos : sequence of int
        Index of the video that each file is a clip of. Where labels are valid in one file only, an
        episode has speakers of one clip of a video, because the speakers of two may be the same
        people.
    episodes : int
        Episodes per batch.
    missing : float
        Probability that a face is hidden.
    pick : {"mean", "random"}
        Face of a window; see :func:`~pyannote_av.clustering.windows.entry_faces`.
    varied : bool
        Mirror and blur face crops, each with probability 0.5.
    length : int
        Batches per epoch.
    seed : int

    Raises
    ------
    ValueError
        If there are fewer than two speakers.
    """

    files: Sequence[LabelledWindows]
    reader: WindowReader
    across: bool
    ways: int
    per_recording: int
    videos: Sequence[int]
    episodes: int
    missing: float
    pick: str
    varied: bool
    length: int
    seed: int = 0

    def __post_init__(self):
        self.speakers = find_speakers(self.files, self.across)
        if len(self.speakers) < 2:
            raise ValueError("fewer than two speakers have two windows in which only they speak")
        first = np.array([min(one.rows) for one in self.speakers])
        # speakers of the clips of each video
        video = first if self.across else np.asarray(self.videos)[first]
        self._there = [
            [np.flatnonzero(first == clip) for clip in np.unique(first[video == one])]
            for one in np.unique(video)
        ]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, torch.Tensor]:
        """One batch.

        Returns
        -------
        batch : dict
            ``audio`` and ``faces`` (episodes, 2, ways, ...) and ``visible`` (episodes, 2, ways)
            of support and query windows; ``speakers`` (episodes, ways), the index of each speaker;
            ``counts``.
        """
        epoch, index, counts = key if isinstance(key, tuple) else (0, key, True)
        rng = np.random.default_rng([self.seed, epoch, index])
        drawn = [self._episode(rng) for _ in range(self.episodes)]
        batch = {name: torch.from_numpy(np.stack([e[name] for e in drawn])) for name in drawn[0]}
        return {**batch, "counts": torch.tensor(bool(counts))}

    def _cast(self, rng: np.random.Generator) -> list[int]:
        """Draw the speakers of an episode, from a clip of each video, in random order"""
        cast: list[int] = []
        waiting = [
            rng.permutation(clips[rng.integers(len(clips)) if len(clips) > 1 else 0]).tolist()
            for clips in self._there
        ]
        waiting = [waiting[i] for i in rng.permutation(len(waiting))]
        while len(cast) < self.ways and waiting:
            for there in waiting:
                cast += there[: self.per_recording]
            waiting = [there[self.per_recording :] for there in waiting]
            waiting = [there for there in waiting if there]
        # repeat speakers if there are too few
        return (cast * self.ways)[: self.ways]

    def _episode(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        audio, faces, visible, cast = [], [], [], self._cast(rng)
        for number in cast:
            for one in zip(*self._two(self.speakers[number], rng), strict=True):
                audio.append(one[0])
                faces.append(one[1])
                visible.append(one[2])
        shape = (self.ways, 2)
        stacked = {
            "audio": np.stack(audio),
            "faces": np.stack(faces),
            "visible": np.array(visible),
        }
        parts = {k: np.swapaxes(v.reshape(*shape, *v.shape[1:]), 0, 1) for k, v in stacked.items()}
        return {**parts, "speakers": np.array(cast)}

    def _two(self, speaker: Speaker, rng: np.random.Generator):
        """Audio, faces and visibility of two windows of a speaker"""
        places = [(file, row) for file, rows in speaker.rows.items() for row in rows.tolist()]
        pair = [places[i] for i in rng.choice(len(places), 2, replace=False)]
        found = [self._one(speaker, file, row, rng) for file, row in pair]
        return tuple(zip(*found, strict=True))

    def _one(self, speaker: Speaker, file: int, row: int, rng: np.random.Generator):
        labelled, rows = self.files[file], np.array([row])
        uri, windows = labelled.recording.uri, labelled.windows
        audio = self.reader.audio(uri, Windows(windows.span[rows], windows.own[rows]))[0]
        face, visible = faces_of(
            self.reader.face_samples(uri), labelled, rows, speaker.person[file], self.pick, rng
        )
        visible = bool(visible[0]) and rng.random() >= self.missing
        face = face[0] if visible else np.zeros_like(face[0])
        if visible and self.varied and face.ndim == 3:
            face = _varied(face, rng)
        return audio, face, visible


def _varied(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomly mirror and blur an image (H, W, 3)"""
    from cv2 import GaussianBlur

    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    if rng.random() < 0.5:
        picture = GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.0))
    return picture
