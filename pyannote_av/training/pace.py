"""Measure the speed of training, and the time spent waiting for data."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from lightning.pytorch import Callback

#: initial steps to ignore, in which workers start and kernels are selected
_FIRST = 3


@dataclass(frozen=True)
class Pace:
    """Speed of the part of a stage that this process ran.

    Attributes
    ----------
    steps : int
        Number of timed steps. Validation and checkpoints are not included.
    seconds : float
        Total duration of these steps, including the time spent waiting for data.
    waiting : float
        Time spent waiting for data: from the end of a step until the next batch is available.
    """

    steps: int
    seconds: float
    waiting: float

    @property
    def steps_per_second(self) -> float:
        """Steps per second; 0 if no step was timed."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data, in [0, 1]."""
        return self.waiting / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, float]:
        """Rounded values for records."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.steps_per_second, 4),
            "waiting_share": round(self.waiting_share, 4),
        }


class PaceMeter(Callback):
    """Times training steps, and the time between them.

    On a GPU, a step ends when its computation is finished. The device is synchronized before
    reading the clock. This costs little, because the next batch is read at the same time.
    """

    def __init__(self):
        self._steps, self._seconds, self._waiting = 0, 0.0, 0.0
        self._seen, self._end, self._start = 0, None, None

    @property
    def pace(self) -> Pace:
        """Speed so far."""
        return Pace(self._steps, self._seconds, self._waiting)

    def on_train_epoch_start(self, trainer, model) -> None:
        """Ignore the first batch of an epoch, because validation may precede it."""
        self._end = None

    def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
        """Note when a batch is available."""
        self._start = perf_counter()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        """Note when a step ends."""
        if model.device.type == "cuda":
            import torch

            torch.cuda.synchronize(model.device)
        now, self._seen = perf_counter(), self._seen + 1
        if self._end is not None and self._seen > _FIRST:
            self._steps += 1
            self._seconds += now - self._end
            self._waiting += self._start - self._end
        self._end = now
