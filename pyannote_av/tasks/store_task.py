"""Base classes of tasks: labels of a protocol are collected once, batches are read from a store."""

from __future__ import annotations

import inspect
import json
import logging
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import mkstemp
from typing import Any, ClassVar

import numpy as np
from pyannote.audio.core.task import Task
from pyannote.core import Segment, Timeline
from pyannote.database import Protocol
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pyannote_av.core.atomic import write_text
from pyannote_av.core.checksums import digest, fingerprint
from pyannote_av.core.reading import read_text
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.recordings import LabelledFile, load_recordings, recording, save_recordings

logger = logging.getLogger(__name__)

SUBSETS = ("train", "development")


def content_of(protocol: Protocol, store: CropStore, subsets: Iterable[str]) -> str:
    """Digest of the labels of a protocol's files and of their content in a store."""

    def parts() -> Iterator[bytes]:
        for subset in subsets:
            for file in getattr(protocol, subset)():
                uri = str(file["uri"])
                yield f"{subset}/{uri}".encode()
                if (annotation := file.get("annotation")) is not None:
                    yield repr(list(annotation.itertracks(yield_label=True))).encode()
                if (annotated := file.get("annotated")) is not None:
                    yield repr(list(annotated)).encode()
                yield _tracks_of(file.get("face_tracks"))
                if uri in store:
                    yield repr(sorted(store[uri].index["sha256"].items())).encode()

    return digest(parts())


def _tracks_of(tracks: Any) -> bytes:
    if tracks is None:
        return b""
    if not isinstance(tracks, FaceTracks):
        return fingerprint(tracks).encode()
    return json.dumps(tracks.to_dict(), sort_keys=True).encode()


class BatchOrder(DistributedSampler):
    """Order of batches in each process.

    Yields (epoch, index of the batch, whether it counts). If the batches do not divide evenly
    among processes, some are repeated without counting: every batch counts once per epoch, and
    every process makes the same number of steps.

    Parameters
    ----------
    num_batches : int
    num_replicas, rank : int
        Number of processes, and index of this one.
    shuffle : bool
        Shuffle every epoch, in the same way in all processes.
    seed : int
    """

    def __init__(
        self, num_batches: int, num_replicas: int, rank: int, shuffle: bool, seed: int = 0
    ):
        super().__init__(range(num_batches), num_replicas, rank, shuffle=shuffle, seed=seed)

    def __iter__(self) -> Iterator[tuple[int, int, bool]]:
        count = len(self.dataset)
        order = np.arange(count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        for position in range(self.rank, self.total_size, self.num_replicas):
            yield self.epoch, int(order[position % count]), position < count


def _audio(file: Mapping[str, Any]) -> str:
    return file["video"]


def _scope(file: Mapping[str, Any]) -> str:
    return "file"


def _annotated(file: Mapping[str, Any]) -> Timeline:
    return Timeline([Segment(0.0, float("inf"))], uri=file["uri"])


def complete(protocol: Protocol) -> None:
    """Add the keys that pyannote requires of all files, if a protocol does not provide them.

    The audio is that of the video. Speaker labels are local to the file. The whole file counts as
    annotated, without an end, because measuring its duration would require decoding it.
    """
    known = set(next(protocol.train()))
    for key, value in {"audio": _audio, "scope": _scope, "annotated": _annotated}.items():
        if key not in known:
            protocol.preprocessors[key] = value


class StoreTask(Task):
    """A task that collects the labels of a protocol once, and afterwards reads only from a store.

    Subclasses implement :meth:`collect`, :meth:`save`, :meth:`load` and :meth:`batches`.
    """

    # whether the cache is a temporary file
    _temporary = False
    #: whether some parameters get no gradient in some steps, which distributed training must know
    SPARSE: ClassVar[bool] = False
    #: current names of parameters by former name, under which configurations may hold them
    FORMER_PARAMS: ClassVar[Mapping[str, str]] = {}
    #: methods that the trained models need, and the parameters that these methods must accept
    TRAINS: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def implied_hparams(self) -> dict[str, int]:
        """Hyper-parameters of models that follow from the content of the store, by name."""
        return {}

    def check_model(self, model: Any) -> None:
        """Raise ValueError for models that this task does not train."""
        for name, parameters in self.TRAINS.items():
            method = getattr(model, name, None)
            known = inspect.signature(method).parameters if callable(method) else {}
            if not callable(method) or not set(parameters) <= set(known):
                raise ValueError(
                    f"{type(self).__name__} does not train {type(model).__name__}: it has no "
                    f"{name}({', '.join(parameters)})"
                )

    def collect(self, files: Iterable[Mapping], subset: str) -> Any:
        """Labels of the files of a subset, in the format of the subclass.

        Raises
        ------
        ValueError
            If there is nothing to train on.
        """
        raise NotImplementedError

    def save(self, path: Path, subsets: Mapping[str, Any]) -> None:
        """Write the collected labels by subset, with the name of the protocol."""
        raise NotImplementedError

    def load(self, path: Path) -> tuple[str, dict[str, Any]]:
        """Name of a protocol, and its collected labels by subset."""
        raise NotImplementedError

    def batches(self, subset: str) -> Dataset:
        """Whole batches of "train" or "development" files by (epoch, index, whether it counts)."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Collect the labels of the protocol once, in the main process.

        A cache is used again as long as the content of the protocol and of the store stays the
        same. Their names do not matter.
        """
        if self.cache is None:
            handle, name = mkstemp(suffix=".npz")
            os.close(handle)
            self.cache, self._temporary = Path(name), True
            weakref.finalize(self, os.unlink, name)
            self._collect()
            return
        if self._temporary:
            return  # this process wrote it in an earlier stage of training
        self.cache = Path(self.cache)
        stamp = self.cache.with_name(f"{self.cache.name}.sha256")
        content = content_of(self.protocol, self.store, self._subsets)
        if self.cache.exists() and self.cache.stat().st_size > 0:
            self._check_protocol(self.load(self.cache)[0])
            if stamp.is_file() and read_text(stamp) == content:
                return
            logger.warning(
                "%s belongs to other files, or to an older state: made again", self.cache
            )
        self._collect()
        write_text(stamp, content)

    @property
    def _subsets(self) -> tuple[str, ...]:
        return SUBSETS if self.has_validation else SUBSETS[:1]

    def _collect(self) -> None:
        found = {s: self.collect(getattr(self.protocol, s)(), s) for s in self._subsets}
        self.save(self.cache, found)

    def setup(self, stage: str | None = None) -> None:
        """Read the collected labels, in every process."""
        if stage == "fit":
            self.cache = self.trainer.strategy.broadcast(self.cache)
        protocol, self.prepared_data = self.load(self.cache)
        self._check_protocol(protocol)

    def _check_protocol(self, protocol: str) -> None:
        if protocol != self.protocol.name:
            raise ValueError(
                f"cache {self.cache} is of protocol {protocol}, not {self.protocol.name}: "
                "give another one"
            )

    def _loader(self, subset: str) -> DataLoader:
        batches, trainer = self.batches(subset), self.model.trainer
        if subset != "train" and len(batches) < trainer.world_size:
            # a process without batches would have no metrics to share
            raise ValueError(
                f"{self.protocol.name}: {len(batches)} batches of development files for "
                f"{trainer.world_size} processes: take smaller batches, or fewer processes"
            )
        # a sampler of batches, not a batch sampler: Lightning passes the epoch to it, and keeps it
        # unchanged when there are several processes
        order = BatchOrder(
            len(batches),
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
            shuffle=subset == "train",
            seed=batches.seed,
        )
        return DataLoader(
            batches,
            batch_size=None,
            sampler=order,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader:
        """Batches of a training epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list:
        """Batches of development files."""
        # Lightning accepts an empty list for no validation, but not None
        return self._loader("development") if self.has_validation else []


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
                f"{self.protocol.name}: there is no speech, or no annotation, in its {subset} "
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
