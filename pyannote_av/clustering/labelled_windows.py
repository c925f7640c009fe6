"""Labelled windows of speech of a protocol's files, and readers of their inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from pyannote.core import Segment, Timeline

from pyannote_av.clustering.windows import NO_FACE, Entries, Windows, cut_windows, entry_faces
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE, STEP_RATE
from pyannote_av.core.tracks import FaceSamples
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.face_embeddings import FaceEmbeddings
from pyannote_av.models.embedding.voiceprints import segment_embeddings
from pyannote_av.tasks.recordings import LabelledFile

#: minimum share of a window in which a speaker is active, to be one of its speakers
ACTIVE = 0.5


class LabelledWindows(NamedTuple):
    """Windows of speech of a file, with their speakers.

    Attributes
    ----------
    recording : LabelledFile
    windows : Windows
    active : (n, speakers) bool array
        Speakers who are active for at least half of a window.
    """

    recording: LabelledFile
    windows: Windows
    active: np.ndarray


def label_windows(recording: LabelledFile, duration: float, step: float) -> LabelledWindows:
    """Cut annotated speech into windows, as a pipeline with oracle speech regions does.

    Parameters
    ----------
    recording : LabelledFile
    duration, step : float
        Duration of windows, and step between them, in seconds.
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
    """Reader of the audio inputs of windows, and of face samples.

    Attributes
    ----------
    dimensions : dict of str to int
        Dimensions of embeddings, by the name of the corresponding hyper-parameter of models.
    """

    dimensions: dict[str, int]

    def audio(self, uri: str, windows: Windows) -> np.ndarray:
        """Audio inputs of windows, (n, ...): speaker embeddings or waveforms."""
        ...

    def face_samples(self, uri: str) -> FaceSamples:
        """All face samples of a file: embeddings or images."""
        ...

    def is_ready(self, uri: str) -> bool:
        """Whether the inputs of a file are available."""
        ...


@dataclass
class EmbeddedWindows:
    """Reads voice and face embeddings.

    Parameters
    ----------
    store : CropStore
    speaker_embeddings : ArrayStore
        See :func:`~pyannote_av.data.speaker_embeddings.build_speaker_embeddings`.
    face_embeddings : FaceEmbeddings, optional
        Face embeddings. Without them, no face is visible.
    """

    store: CropStore
    speaker_embeddings: ArrayStore
    face_embeddings: FaceEmbeddings | None
    # cache for all files, because a store keeps only some files open; 0.5 kB per sample
    _face_samples: dict[str, FaceSamples] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_face_samples": {}}

    @property
    def dimensions(self) -> dict[str, int]:
        """Dimensions of voice embeddings and, if there are any, of face embeddings."""
        first = next(iter(self.speaker_embeddings))
        found = {"voice_dimension": self.speaker_embeddings[first].shape[1]}
        if self.face_embeddings is not None and self.face_embeddings.dimension:
            found["face_dimension"] = self.face_embeddings.dimension
        return found

    def audio(self, uri: str, windows: Windows) -> np.ndarray:
        """Unit-length speaker embeddings (n, E), 0 in digital silence."""
        return segment_embeddings(self.speaker_embeddings[uri], windows.span)

    def face_samples(self, uri: str) -> FaceSamples:
        """Face samples as embeddings (m, F)."""
        if self.face_embeddings is None:
            return FaceSamples.none()
        if uri not in self._face_samples:
            self._face_samples[uri] = self.face_embeddings[uri]
        return self._face_samples[uri]

    def is_ready(self, uri: str) -> bool:
        """Whether embeddings of a file exist and match the content of the store."""
        digest = self.store[uri].index["sha256"]["waveform.npy"]
        embedded = uri in self.speaker_embeddings and self.speaker_embeddings.source(uri) == digest
        return embedded and (self.face_embeddings is None or uri in self.face_embeddings)


@dataclass
class MediaWindows:
    """Reads waveforms and face images.

    Parameters
    ----------
    store : CropStore
    duration : float
        Duration of waveforms, in seconds. Waveforms of shorter windows are repeated.
    """

    store: CropStore
    duration: float
    dimensions: ClassVar[dict[str, int]] = {}

    def audio(self, uri: str, windows: Windows) -> np.ndarray:
        """Waveforms (n, 1, samples) at 16 kHz."""
        size = round(self.duration * SAMPLE_RATE)
        sound = np.zeros((len(windows), 1, size), np.float32)
        for row, (start, end) in zip(sound, windows.span, strict=True):
            first, last = int(np.floor(start * FRAME_RATE)), int(np.ceil(end * FRAME_RATE))
            samples = self.store.waveform(uri, first, max(last, first + 1))
            skipped = round((start - first / FRAME_RATE) * SAMPLE_RATE)
            samples = samples[skipped : skipped + max(1, round((end - start) * SAMPLE_RATE))]
            row[0] = np.resize(samples, size)
        return sound

    def face_samples(self, uri: str) -> FaceSamples:
        """Face samples as images (m, 112, 112, 3)."""
        return self.store[uri].face_samples

    def is_ready(self, uri: str) -> bool:
        """Always True."""
        return True


def faces_of(
    face_samples: FaceSamples,
    labelled: LabelledWindows,
    rows: np.ndarray,
    person: int,
    pick: Literal["mean", "random"] = "mean",
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Face features of one person in some windows of a file.

    Parameters
    ----------
    face_samples : FaceSamples
    labelled : LabelledWindows
    rows : (r,) int array
        Windows.
    person : int
    pick, seed : optional
        See :func:`~pyannote_av.clustering.windows.entry_faces`.

    Returns
    -------
    faces : (r, ...) float32 array
        From the face samples of the track of this person that is visible in each window.
    visible : (r,) bool array
        Windows with a face sample of this person.
    """
    some = Windows(labelled.windows.span[rows], labelled.windows.own[rows])
    track = np.full(len(rows), NO_FACE)
    for whose, number, first, last in labelled.recording.faces.tolist():
        if whose == person:
            middle = some.own.mean(axis=1) * FRAME_RATE
            track[(first <= middle) & (middle < last)] = number
    return entry_faces(some, Entries(np.arange(len(rows)), track), face_samples, pick, seed)
