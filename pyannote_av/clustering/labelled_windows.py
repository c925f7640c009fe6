"""Windows of speech of a protocol's files: who speaks in them, and what is heard and seen there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pyannote.core import Segment, Timeline

from pyannote_av.clustering.identities import Identities
from pyannote_av.clustering.windows import UNSEEN, Entries, Windows, cut_windows, entry_faces
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE, STEP_RATE
from pyannote_av.core.tracks import FaceSamples
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.data.crop_store import CropStore
from pyannote_av.models.embedding.voiceprints import stretch_voices
from pyannote_av.tasks.recordings import LabelledFile

#: share of a window that somebody speaks, to be among its speakers
ACTIVE = 0.5


class LabelledWindows(NamedTuple):
    """Windows of the speech of a file.

    Attributes
    ----------
    recording : LabelledFile
    windows : Windows
    active : (n, speakers) bool array
        Who speaks for half of a window at least.
    """

    recording: LabelledFile
    windows: Windows
    active: np.ndarray


def label_windows(recording: LabelledFile, duration: float, step: float) -> LabelledWindows:
    """Cut what is annotated as speech into windows, as a pipeline that knows where speech is does.

    Parameters
    ----------
    recording : LabelledFile
    duration, step : float
        Of windows and between them, in seconds.
    """
    spoken = Timeline(Segment(*turn) for turn in recording.turns[:, 1:] / STEP_RATE)
    annotated = Timeline(Segment(*region) for region in recording.regions / FRAME_RATE)
    windows = cut_windows(spoken.support().crop(annotated), duration, step)
    share = np.zeros((len(windows), recording.num_speakers))
    start, end = windows.span.T
    for speaker, first, last in recording.turns.tolist():
        shared = np.minimum(end, last / STEP_RATE) - np.maximum(start, first / STEP_RATE)
        share[:, speaker] += np.clip(shared, 0, None)
    return LabelledWindows(recording, windows, share >= ACTIVE * (end - start)[:, None])


class WindowReader(Protocol):
    """What is heard in windows, and what the people look like that are seen there.

    Attributes
    ----------
    dimensions : dict of str to int
        Of embeddings, by the hyper-parameters of models that are called so.
    """

    dimensions: dict[str, int]

    def heard(self, uri: str, windows: Windows) -> np.ndarray:
        """(n, ...) array: embeddings, or sound."""
        ...

    def looks(self, uri: str) -> FaceSamples:
        """All there are of a file: embeddings, or pictures."""
        ...

    def is_ready(self, uri: str) -> bool:
        """Whether that of a file is there."""
        ...


@dataclass
class EmbeddedWindows:
    """Reads embeddings of voices and faces.

    Parameters
    ----------
    store : CropStore
    voices : ArrayStore
        See :func:`~pyannote_av.data.voices.build_voices`.
    identities : Identities, optional
        Without, nobody is seen.
    """

    store: CropStore
    voices: ArrayStore
    identities: Identities | None
    # of all files: a store keeps but some of its files open, and these are small (0.5 kB a look)
    _looks: dict[str, FaceSamples] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_looks": {}}

    @property
    def dimensions(self) -> dict[str, int]:
        """Of voices, and of faces where there are any."""
        found = {"voice_dimension": self.voices[next(iter(self.voices))].shape[1]}
        if self.identities is not None and self.identities.dimension:
            found["face_dimension"] = self.identities.dimension
        return found

    def heard(self, uri: str, windows: Windows) -> np.ndarray:
        """(n, E) embeddings of unit length, 0 in digital silence."""
        return stretch_voices(self.voices[uri], windows.span)

    def looks(self, uri: str) -> FaceSamples:
        """Embeddings (m, F)."""
        if self.identities is None:
            return FaceSamples.none()
        if uri not in self._looks:
            self._looks[uri] = self.identities[uri]
        return self._looks[uri]

    def is_ready(self, uri: str) -> bool:
        """Whether voices and faces are those of what is in the store."""
        digest = self.store[uri].index["sha256"]["waveform.npy"]
        heard = uri in self.voices and self.voices.source(uri) == digest
        return heard and (self.identities is None or uri in self.identities)


@dataclass
class MediaWindows:
    """Reads sound and pictures.

    Parameters
    ----------
    store : CropStore
    duration : float
        Seconds of sound; that of shorter windows is repeated.
    """

    store: CropStore
    duration: float
    dimensions: ClassVar[dict[str, int]] = {}

    def heard(self, uri: str, windows: Windows) -> np.ndarray:
        """(n, 1, samples) sound at 16 kHz."""
        size = round(self.duration * SAMPLE_RATE)
        sound = np.zeros((len(windows), 1, size), np.float32)
        for row, (start, end) in zip(sound, windows.span, strict=True):
            first, last = int(np.floor(start * FRAME_RATE)), int(np.ceil(end * FRAME_RATE))
            heard = self.store.waveform(uri, first, max(last, first + 1))
            skipped = round((start - first / FRAME_RATE) * SAMPLE_RATE)
            heard = heard[skipped : skipped + max(1, round((end - start) * SAMPLE_RATE))]
            row[0] = np.resize(heard, size)
        return sound

    def looks(self, uri: str) -> FaceSamples:
        """Pictures (m, 112, 112, 3)."""
        return self.store[uri].looks

    def is_ready(self, uri: str) -> bool:
        """Always."""
        return True


def faces_of(
    looks: FaceSamples, labelled: LabelledWindows, rows: np.ndarray, person: int
) -> tuple[np.ndarray, np.ndarray]:
    """What one person looks like in some of the windows of a file.

    Returns
    -------
    faces : (len(rows), ...) float32 array
        Mean of looks at the tracks of that person that are in the picture meanwhile.
    visible : (len(rows),) bool array
    """
    some = Windows(labelled.windows.span[rows], labelled.windows.own[rows])
    track = np.full(len(rows), UNSEEN)
    for whose, number, first, last in labelled.recording.faces.tolist():
        if whose == person:
            middle = some.own.mean(axis=1) * FRAME_RATE
            track[(first <= middle) & (middle < last)] = number
    return entry_faces(some, Entries(np.arange(len(rows)), track), looks)
