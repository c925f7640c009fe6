"""Base class of tasks that read whole batches from a store."""

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

from pyannote.audio.core.task import Task
from pyannote.database import Protocol
from torch.utils.data import DataLoader, Dataset

from pyannote_av.core.atomic import write_text
from pyannote_av.core.checksums import digest, fingerprint
from pyannote_av.core.reading import read_text
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.track_batches import BatchOrder

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


class StoreTask(Task):
    """A task that collects the labels of a protocol once, and afterwards reads only from a store.

    Subclasses implement :meth:`collect`, :meth:`save`, :meth:`load` and :meth:`batches`.
    """

    # whether the cache is a temporary file
    _temporary = False
    #: whether some parameters get no gradient in some steps, which distributed training must know
    SPARSE: ClassVar[bool] = False
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
            logger.warning("%s is of other files, or of an older state: made anew", self.cache)
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
