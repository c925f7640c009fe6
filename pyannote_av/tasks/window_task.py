"""What tasks have in common that learn from windows of speech."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pyannote.database import Protocol

from pyannote_av.core.crop_store import CropStore
from pyannote_av.tasks.identities import Identities
from pyannote_av.tasks.labelled_windows import EmbeddedWindows, WindowReader, label_windows
from pyannote_av.tasks.recordings import LabelledFile, load_recordings, recording, save_recordings
from pyannote_av.tasks.store_task import StoreTask
from pyannote_av.tasks.track_labels import complete
from pyannote_av.tasks.voices import read_voices

logger = logging.getLogger(__name__)


class WindowTask(StoreTask):
    """A task whose batches are of windows of a protocol's files.

    Subclasses implement :meth:`batches`.

    Parameters
    ----------
    protocol : Protocol
        Its files have ``annotation``, and perhaps ``annotated`` and ``face_tracks`` that are
        called as the speakers of the annotation.
    store : CropStore, str or Path
    voices, identities : str or Path, optional
        Folders that ``build_voices`` and ``build_identities`` wrote. Default to where they do;
        without identities, nobody is seen.
    step : float
        Seconds from one window to the next.
    others
        As in ``pyannote.audio.core.task.Task``.
    """

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        voices: str | Path | None,
        identities: str | Path | None,
        step: float,
        **others,
    ):
        complete(protocol)
        super().__init__(protocol, **others)
        self.store = store if isinstance(store, CropStore) else CropStore(store)
        self.step = step
        self.reader = self._reader(voices, identities)

    def _reader(self, voices, identities) -> WindowReader:
        try:
            faces = Identities(self.store, identities)
        except FileNotFoundError:
            if identities is not None:
                raise
            faces = None
            logger.warning(
                "%s has no identities: nobody is seen in training; see build_identities",
                self.store.folder,
            )
        return EmbeddedWindows(self.store, read_voices(self.store, voices), faces)

    def collect(self, files: Iterable[Mapping], subset: str) -> list[LabelledFile]:
        """Turns and faces of the files of a subset; see :class:`StoreTask`."""
        found, missing = [], []
        for file in files:
            uri = file["uri"]
            if uri in self.store and self.reader.is_ready(uri):
                found.append(recording(file, self.store))
            else:
                missing.append(uri)
        if missing:
            logger.warning(
                "%d %s files of %s are left aside (%s): they are not in the store %s, or their "
                "voices or identities are missing or outdated",
                len(missing),
                subset,
                self.protocol.name,
                ", ".join(missing[:5]),
                self.store.folder,
            )
        if not any(len(label_windows(one, self.duration, self.step).windows) for one in found):
            raise ValueError(
                f"{self.protocol.name}: nobody speaks in its {subset} files, as far as they are "
                f"in the store {self.store.folder}"
            )
        return found

    def save(self, path: Path, subsets: Mapping[str, list[LabelledFile]]) -> None:
        """See :class:`StoreTask`."""
        save_recordings(path, self.protocol.name, subsets)

    def load(self, path: Path) -> tuple[str, dict[str, list[LabelledFile]]]:
        """See :class:`StoreTask`."""
        return load_recordings(path)

    def _log(self, name: str, value: torch.Tensor, batch_size: int) -> None:
        self.model.log(
            name,
            value,
            on_step=False,
            on_epoch=True,
            logger=True,
            sync_dist=name.startswith("loss/val"),
            batch_size=batch_size,
        )

    @property
    def val_monitor(self) -> tuple[str, str]:
        """Name of what to minimise: ``loss/val``."""
        return "loss/val", "min"
