"""Base class of tasks that learn from speech turns and from the faces of speakers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from pyannote.database import Protocol

from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.recordings import LabelledFile, load_recordings, recording, save_recordings
from pyannote_av.tasks.store_task import StoreTask
from pyannote_av.tasks.track_labels import complete

logger = logging.getLogger(__name__)


class RecordingTask(StoreTask):
    """A task that learns from those recordings of a protocol that are in a store.

    Subclasses implement :meth:`is_ready`, :meth:`is_useful` and :meth:`batches`.

    Parameters
    ----------
    protocol : Protocol
        Its files have ``annotation``, and optionally ``annotated`` and ``face_tracks``. The tracks
        carry the speaker labels of the annotation.
    store : CropStore, str or Path
    others
        As in ``pyannote.audio.core.task.Task``.
    """

    #: what else the task needs besides crops and sound, in words
    NEEDS: ClassVar[str] = ""

    def __init__(self, protocol: Protocol, store: CropStore | str | Path, **others):
        complete(protocol)
        super().__init__(protocol, **others)
        self.store = store if isinstance(store, CropStore) else CropStore(store)

    def is_ready(self, uri: str) -> bool:
        """Whether everything that the task reads of a stored file exists."""
        raise NotImplementedError

    def is_useful(self, one: LabelledFile) -> bool:
        """Whether a file contains anything to learn from."""
        raise NotImplementedError

    def collect(self, files: Iterable[Mapping], subset: str) -> list[LabelledFile]:
        """Turns and faces of the files of a subset; see :class:`StoreTask`."""
        found, missing = [], []
        for file in files:
            uri = file["uri"]
            if uri in self.store and self.is_ready(uri):
                found.append(recording(file, self.store))
            else:
                missing.append(uri)
        if missing:
            logger.warning(
                "%d %s files of %s are left aside (%s): they are not in the store %s, or their "
                "%s are missing or outdated",
                len(missing),
                subset,
                self.protocol.name,
                ", ".join(missing[:5]),
                self.store.folder,
                self.NEEDS,
            )
        if not any(map(self.is_useful, found)):
            raise ValueError(
                f"{self.protocol.name}: nobody speaks, or nothing is annotated, in its {subset} "
                f"files that are in the store {self.store.folder}"
            )
        return found

    def save(self, path: Path, subsets: Mapping[str, list[LabelledFile]]) -> None:
        """See :class:`StoreTask`."""
        save_recordings(path, self.protocol.name, subsets)

    def load(self, path: Path) -> tuple[str, dict[str, list[LabelledFile]]]:
        """See :class:`StoreTask`."""
        return load_recordings(path)

    @property
    def val_monitor(self) -> tuple[str, str]:
        """Name of the value to minimise: ``loss/val``."""
        return "loss/val", "min"
