"""Run one stage of training: frozen modules, optimizer, checkpoints and resuming."""

from __future__ import annotations

import errno
import io
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO, TorchCheckpointIO
from torch import nn

from pyannote_av.core.atomic import replacing
from pyannote_av.core.checkpoint import load_checkpoint
from pyannote_av.core.model import AVModel
from pyannote_av.training.stages import EVERYTHING, OF_STAGES, Stage

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

logger = logging.getLogger(__name__)

#: initial steps that are not timed, in which workers start and kernels are selected
_FIRST = 3


def within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of `modules`, or below one of them."""
    return modules == EVERYTHING or any(f"{name}.".startswith(f"{one}.") for one in modules)


def freeze_others(model: nn.Module, train: Iterable[str]) -> list[str]:
    """Train only some modules and freeze all others.

    Parameters
    ----------
    model : Module
    train : iterable of str
        Dotted names, or ``("*",)``.

    Returns
    -------
    names : list of str
        Names of the parameters that are trained.

    Raises
    ------
    ValueError
        If the model has no such module.
    """
    train = tuple(train)
    modules = dict(model.named_modules())
    if unknown := [name for name in train if name not in modules and train != EVERYTHING]:
        known = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no {', '.join(unknown)}, but {known}")

    for name, module in modules.items():
        # set each module's mode directly: `train()` would also change its children
        module.training = within(name, train) or any(one.startswith(f"{name}.") for one in train)
    model.training = True
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad = within(name, train)
        if parameter.requires_grad:
            names.append(name)
    return names


def learning_rate_factor(stage: Stage, step: int, steps: int) -> float:
    """Factor of the learning rate of a stage before step `step` of `steps`."""
    rising = min(1.0, (step + 1) / stage.warm_up) if stage.warm_up else 1.0
    if stage.schedule == "cosine":
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    if stage.schedule == "exponential":
        return rising * stage.decay ** (step * stage.max_epochs // steps)
    return rising


def _optimizers(model: AVModel, stage: Stage) -> dict[str, Any]:
    """Optimizer and learning rate schedule, updated every step"""
    steps = int(model.trainer.estimated_stepping_batches)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = stage.optimizer_class()(
        learning, lr=stage.learning_rate, weight_decay=stage.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(stage, step, steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Course(Callback):
    """Seeds random numbers by step, and records the metrics of all epochs"""

    def __init__(self, seed: int):
        self.seed = seed
        self.history: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        # seeded by step, so a resumed run draws the same numbers; accumulated batches and
        # processes have different seeds
        part = batch_idx % trainer.accumulate_grad_batches
        part = part * trainer.world_size + trainer.global_rank
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step + part * 1_000_000_007)

    def on_train_epoch_end(self, trainer, model):
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({**row, **metrics})

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]


class _Pace(Callback):
    """Times training steps, and the time between them.

    On a GPU, a step ends when its computation is finished. The device is synchronized before
    reading the clock. This costs little, because the next batch is read at the same time.
    """

    def __init__(self):
        self.steps, self.seconds, self.waiting = 0, 0.0, 0.0
        self._count, self._start, self._end = 0, 0.0, None

    def on_train_epoch_start(self, trainer, model):
        self._end = None  # validation may precede the first batch of an epoch

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self._start = perf_counter()

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        now, self._count = perf_counter(), self._count + 1
        if self._end is not None and self._count > _FIRST:
            self.steps += 1
            self.seconds += now - self._end
            self.waiting += self._start - self._end
        self._end = now

    def to_dict(self) -> dict[str, float]:
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "steps_per_second": round(self.steps / self.seconds, 4) if self.seconds else 0.0,
            "waiting_share": round(self.waiting / self.seconds, 4) if self.seconds else 0.0,
        }


class _Patience(EarlyStopping):
    """Early stopping that still applies after training is resumed"""

    def on_train_start(self, trainer, model):
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


@contextmanager
def _less_noise() -> Iterator[None]:
    """Suppress warnings about intended behaviour"""
    with warnings.catch_warnings():
        for message in (
            "Checkpoint directory .* exists",
            "The number of training batches",
            "The '.*dataloader' does not have many workers",
            ".*isinstance.treespec, LeafSpec",
            "Found .* in eval mode at the start of training",
            "You called `self.log.* but have no logger configured",
        ):
            warnings.filterwarnings("ignore", message)
        yield


class _WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically, and reads them as plain weights

    Lightning first writes them to the folder of temporary files. If that is on another file system,
    moving them from there is not atomic.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        # if torch wrote to a full disk directly, the error would be "unexpected pos 128 vs 0"
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def load_checkpoint(self, path, map_location=None, weights_only=None):
        return load_checkpoint(path)


class Fit:
    """Runs one stage of training in a folder from which it can be resumed.

    Parameters
    ----------
    model : AVModel
    task : Task
    stage : Stage
    folder : Path
        Must exist. Contains ``last.ckpt`` if the stage was started before.
    seed : int
    options : dict
        Options of Lightning's ``Trainer``.

    Attributes
    ----------
    trainer : Trainer
        Lightning's.
    """

    def __init__(
        self,
        model: AVModel,
        task: Task,
        stage: Stage,
        folder: Path,
        seed: int,
        options: dict[str, Any],
    ):
        self.model, self.task, self.stage, self.folder = model, task, stage, folder
        self._course, self._pace = _Course(seed), _Pace()
        # before creating the trainer, whose processes inherit the seed
        seed_everything(seed, verbose=False)
        self.trainer = self._trainer(options)

    def _trainer(self, options: dict[str, Any]) -> Trainer:
        stage = self.stage
        if own := sorted(set(options).intersection(OF_STAGES)):
            raise ValueError(f"{', '.join(own)}: stages define it, not the trainer")
        callbacks: list[Callback] = [self._course]
        if self.task.has_validation:
            monitor, mode = stage.monitored(self.task)
            callbacks.append(
                ModelCheckpoint(
                    self.folder, "best", monitor=monitor, mode=mode, enable_version_counter=False
                )
            )
            if stage.patience is not None:
                callbacks.append(_Patience(monitor, mode=mode, patience=stage.patience))
        given = dict(options)
        plugins = given.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(one, CheckpointIO) for one in plugins):
            plugins.append(_WholeCheckpoints())
        given["plugins"] = plugins
        # saved after all other callbacks have updated their states
        once = {"enable_version_counter": False, "save_on_train_epoch_end": True}
        last = ModelCheckpoint(self.folder, "last", save_top_k=1, **once)
        callbacks = [*given.pop("callbacks", ()), *callbacks, last, self._pace]
        quiet = {"logger": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
        return Trainer(
            **{**quiet, **given},
            max_epochs=stage.max_epochs,
            gradient_clip_val=stage.clip,
            default_root_dir=self.folder,
            callbacks=callbacks,
        )

    @property
    def history(self) -> list[dict[str, float]]:
        """One row of metrics per epoch."""
        return self._course.history

    @property
    def pace(self) -> dict[str, float]:
        """Speed of the part of the stage that this process ran, and its share spent waiting."""
        return self._pace.to_dict()

    def run(self) -> None:
        """Train, and load the best weights into the model.

        Raises
        ------
        RuntimeError
            If memory runs out or the disk is full, with advice on what to do.
        """
        model, stage = self.model, self.stage
        model.task = self.task
        names = freeze_others(model, stage.train)
        logger.info("stage %s: %d tensors are trained", stage.name, len(names))
        model.configure_optimizers = lambda: _optimizers(model, stage)
        try:
            self._fit()
        except (RuntimeError, OSError, MemoryError) as error:
            if (advice := self._advice(error)) is None:
                raise
            raise RuntimeError(f"stage {stage.name!r}: {advice}") from error
        finally:
            del model.configure_optimizers

    def _fit(self) -> None:
        last = self.folder / "last.ckpt"
        with _less_noise():
            self.trainer.fit(
                self.model, ckpt_path=last if last.is_file() else None, weights_only=True
            )
            if self.trainer.interrupted:
                raise KeyboardInterrupt
            if (best := self.folder / "best.ckpt").is_file():
                state = load_checkpoint(best)
                self.model.load_state_dict(state["state_dict"])

    def _advice(self, error: BaseException) -> str | None:
        """Advice for errors caused by limited resources; None for other errors"""
        text = str(error)
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            return None
        if isinstance(error, OSError):
            return (
                f"the disk of {self.folder} is full: make room, and start again; training "
                "continues after the last epoch that was saved"
            )
        lacking = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if lacking or "can't allocate memory" in text:
            size = getattr(self.task, "batch_size", None) or getattr(
                self.task, "frames_per_batch", "?"
            )
            return (
                f"out of memory ({text.split(chr(10))[0]}). Use smaller batches (now {size}) with "
                "accumulate_grad_batches of the trainer to make up for it, shorter chunks "
                "(duration of the task), or precision bf16-mixed; training continues after the "
                "last epoch that was saved"
            )
        return None
