"""How fast training is, and how much of its time it waits for data."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from lightning.pytorch import Callback

#: steps that are not counted: the first ones start workers and choose kernels
_FIRST = 3


@dataclass(frozen=True)
class Pace:
    """How fast a stage was trained, as far as this process did it.

    Attributes
    ----------
    steps : int
        Steps that were timed; validation and checkpoints are not.
    seconds : float
        What they took, waiting for data included.
    waiting : float
        Seconds of these from the end of a step until the next batch was there.
    """

    steps: int
    seconds: float
    waiting: float

    @property
    def steps_per_second(self) -> float:
        """0 where nothing was timed."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time in which the device had nothing to do, 0 to 1."""
        return self.waiting / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, float]:
        """For records."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.steps_per_second, 4),
            "waiting_share": round(self.waiting_share, 4),
        }


class PaceMeter(Callback):
    """Times steps, and what lies between them.

    On a GPU, a step ends when all of it is computed: the clock is read once the device has nothing
    left to do, which costs little, as the next batch is being read meanwhile.
    """

    def __init__(self):
        self._steps, self._seconds, self._waiting = 0, 0.0, 0.0
        self._seen, self._end, self._start = 0, None, None

    @property
    def pace(self) -> Pace:
        """Up to now."""
        return Pace(self._steps, self._seconds, self._waiting)

    def on_train_epoch_start(self, trainer, model) -> None:
        """The first batch of an epoch is not counted: validation was before it."""
        self._end = None

    def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
        """A batch is there."""
        self._start = perf_counter()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        """A batch is done with."""
        if model.device.type == "cuda":
            import torch

            torch.cuda.synchronize(model.device)
        now, self._seen = perf_counter(), self._seen + 1
        if self._end is not None and self._seen > _FIRST:
            self._steps += 1
            self._seconds += now - self._end
            self._waiting += self._start - self._end
        self._end = now
