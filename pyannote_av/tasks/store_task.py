"""What tasks have in common whose batches come whole from a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from pyannote.audio.core.task import Task
from torch.utils.data import DataLoader, Dataset

from pyannote_av.tasks.track_batches import BatchOrder

SUBSETS = ("train", "development")


class StoreTask(Task):
    """A task that collects what a protocol says of its files once, and then reads a store only.

    Subclasses implement :meth:`collect`, :meth:`save`, :meth:`load` and :meth:`batches`.
    """

    def collect(self, files: Iterable[Mapping], subset: str) -> Any:
        """What there is to know of the files of a subset.

        Raises
        ------
        ValueError
            When nothing can be trained on.
        """
        raise NotImplementedError

    def save(self, path: Path, subsets: Mapping[str, Any]) -> None:
        """Write what was collected, by subset, with the name of the protocol."""
        raise NotImplementedError

    def load(self, path: Path) -> tuple[str, dict[str, Any]]:
        """Name of a protocol, and what was collected, by subset."""
        raise NotImplementedError

    def batches(self, subset: str) -> Dataset:
        """Whole batches of "train" or "development" files by (epoch, index, whether it counts)."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Collect what the protocol says of its files, once, in the main process."""
        if self.cache is None:
            handle, name = mkstemp(suffix=".npz")
            os.close(handle)
            self.cache = Path(name)
        elif self.cache.exists() and self.cache.stat().st_size > 0:
            return
        subsets = SUBSETS if self.has_validation else SUBSETS[:1]
        self.save(
            self.cache,
            {name: self.collect(getattr(self.protocol, name)(), name) for name in subsets},
        )

    def setup(self, stage: str | None = None) -> None:
        """Read what was collected, in every process."""
        if stage == "fit":
            self.cache = self.trainer.strategy.broadcast(self.cache)
        protocol, self.prepared_data = self.load(self.cache)
        if protocol != self.protocol.name:
            raise ValueError(
                f"cache {self.cache} is of protocol {protocol}, not {self.protocol.name}: "
                "give another one"
            )

    def _loader(self, subset: str) -> DataLoader:
        batches, trainer = self.batches(subset), self.model.trainer
        # a sampler of batches and not a batch sampler: Lightning tells it the epoch, and leaves it
        # as it is when there are several processes
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
        """Batches of an epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list:
        """Batches of development files."""
        # Lightning takes an empty list for none, but not None
        return self._loader("development") if self.has_validation else []
