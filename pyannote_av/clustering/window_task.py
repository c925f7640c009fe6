"""Base class of tasks that train on windows of speech."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import torch
from pyannote.database import Protocol

from pyannote_av.clustering.labelled_windows import EmbeddedWindows, WindowReader, label_windows
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.face_embeddings import FaceEmbeddings
from pyannote_av.data.speaker_embeddings import read_speaker_embeddings
from pyannote_av.tasks.recordings import LabelledFile
from pyannote_av.tasks.store_task import RecordingTask

logger = logging.getLogger(__name__)


class WindowTask(RecordingTask):
    """Base class of tasks whose batches consist of windows of a protocol's files.

    Subclasses implement :meth:`batches`.

    Parameters
    ----------
    protocol : Protocol
        Its files have ``annotation``, and optionally ``annotated`` and ``face_tracks``. Face tracks
        have the same labels as the speakers of the annotation.
    store : CropStore, str or Path
    speaker_embeddings, face_embeddings : str or Path, optional
        Folders written by ``build_speaker_embeddings`` and ``build_face_embeddings``. Default to
        the default folders of these functions. Without face embeddings, no face is visible.
    step : float
        Step between windows, in seconds.
    others
        As in ``pyannote.audio.core.task.Task``.
    """

    FORMER_PARAMS: ClassVar = {"voices": "speaker_embeddings", "identities": "face_embeddings"}
    NEEDS = "speaker embeddings or face embeddings"

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        speaker_embeddings: str | Path | None,
        face_embeddings: str | Path | None,
        step: float,
        **others,
    ):
        super().__init__(protocol, store, **others)
        self.step = step
        self.reader = self._reader(speaker_embeddings, face_embeddings)

    def _reader(self, speaker_embeddings, face_embeddings) -> WindowReader:
        try:
            faces = FaceEmbeddings(self.store, face_embeddings)
        except FileNotFoundError:
            if face_embeddings is not None:
                raise
            faces = None
            logger.warning(
                "%s has no face embeddings: no face is used in training; see build_face_embeddings",
                self.store.folder,
            )
        voices = read_speaker_embeddings(self.store, speaker_embeddings)
        return EmbeddedWindows(self.store, voices, faces)

    def implied_hparams(self) -> dict[str, int]:
        """Dimensions of embeddings; see :class:`~pyannote_av.tasks.store_task.StoreTask`."""
        return self.reader.dimensions

    def is_ready(self, uri: str) -> bool:
        """Whether the audio and face inputs of a file are available."""
        return self.reader.is_ready(uri)

    def is_useful(self, one: LabelledFile) -> bool:
        """Whether a file has speech."""
        return len(label_windows(one, self.duration, self.step).windows) > 0

    def _log(self, name: str, value: torch.Tensor, batch_size: int) -> None:
        self.model.log(
            name,
            value,
            on_step=False,
            on_epoch=True,
            logger=True,
            sync_dist=True,
            # losses of training steps are already means over the batch
            batch_size=1 if name == "loss/train" else batch_size,
        )
