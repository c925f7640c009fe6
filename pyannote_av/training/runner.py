"""What runs the stages of training, one after another, and goes on where it was killed.

::

    FOLDER/01-visual/last.ckpt            of the epoch that ended last
                     model.safetensors    weights of the best epoch, with the lineage of stages
                     stage.json           the stage and its history; when this is there, it is done
           02-acoustic/...
           model.safetensors              weights of the last stage
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from pyannote_av.core.atomic import write_text
from pyannote_av.core.model import AVModel, allowed_in_checkpoints, read_safetensors
from pyannote_av.training.stages import EVERYTHING, Stage, check_stages

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

logger = logging.getLogger(__name__)


def within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of, or below, those of `modules`."""
    return modules == EVERYTHING or any(f"{name}.".startswith(f"{one}.") for one in modules)


def freeze_others(model: nn.Module, train: Iterable[str]) -> list[str]:
    """Let only some modules learn; all others stay exactly as they are.

    Parameters
    ----------
    model : Module
    train : iterable of str
        Dotted names, or ``("*",)``.

    Returns
    -------
    names : list of str
        Parameters that learn.

    Raises
    ------
    ValueError
        When the model has no such module.
    """
    train = tuple(train)
    modules = dict(model.named_modules())
    if unknown := [name for name in train if name not in modules and train != EVERYTHING]:
        known = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no {', '.join(unknown)}, but {known}")

    for name, module in modules.items():
        # `train()` would reach below: the mode of each module is its own
        module.training = within(name, train) or any(one.startswith(f"{name}.") for one in train)
    model.training = True
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad = within(name, train)
        if parameter.requires_grad:
            names.append(name)
    return names


def _optimizers(model: AVModel, stage: Stage, total: int):
    """Optimizer and learning rate by step"""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=stage.learning_rate, weight_decay=stage.weight_decay)

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / stage.warm_up) if stage.warm_up else 1.0
        if stage.schedule == "constant":
            return rising
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Course(Callback):
    """Random numbers that depend on the step alone, and a record of all epochs"""

    def __init__(self, seed: int):
        self.seed = seed
        self.history: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        # whoever is killed and comes back draws what he would have drawn
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step)

    def on_train_epoch_end(self, trainer, model):
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({**row, **metrics})

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]


class _Patience(EarlyStopping):
    """Remembers that it had enough when training is taken up again"""

    def on_train_start(self, trainer, model):
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class _Last(ModelCheckpoint):
    """State of the epoch that ended last, once everybody has taken note of it"""

    def __init__(self, folder: Path):
        super().__init__(
            dirpath=folder,
            filename="last",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )


def _load(model: AVModel, path: Path, stage: Stage) -> None:
    """Tensors of the same name and shape"""
    state, own = read_safetensors(path)[0], model.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if within(name, stage.take) and name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ValueError(f"stage {stage.name!r}: nothing of {path} fits {type(model).__name__}")
    if left := sorted(own.keys() - fitting.keys()):
        logger.info("%s: %d tensors (%s, ...) are not in it", path, len(left), left[0])
    model.load_state_dict(fitting, strict=False)


def _configure(task: Task, stage: Stage) -> None:
    """What a stage sets stays set in those that follow, whether or not it is done already"""
    if stage.losses:
        task.losses = dict(stage.losses)
    for name, value in stage.settings.items():
        if not hasattr(task, name):
            raise ValueError(f"stage {stage.name!r}: {type(task).__name__} has no {name!r}")
        setattr(task, name, value)


def _run(
    model: AVModel, task: Task, stage: Stage, folder: Path, seed: int, options: dict[str, Any]
) -> list[dict[str, float]]:
    """One stage; returns its history, and leaves its best weights in the model"""
    seed_everything(seed)
    model.task = task
    names = freeze_others(model, stage.train)
    logger.info("stage %s: %d tensors learn", stage.name, len(names))
    model.configure_optimizers = lambda: _optimizers(
        model, stage, int(model.trainer.estimated_stepping_batches)
    )

    course, last = _Course(seed), _Last(folder)
    callbacks: list[Callback] = [course]
    if task.has_validation:
        callbacks.append(
            ModelCheckpoint(folder, "best", monitor=stage.monitor, enable_version_counter=False)
        )
        if stage.patience is not None:
            callbacks.append(_Patience(stage.monitor, patience=stage.patience))
    trainer = Trainer(
        **{
            "logger": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **options,
            "max_epochs": stage.max_epochs,
            "gradient_clip_val": stage.clip,
            "default_root_dir": folder,
            "callbacks": [*options.get("callbacks", ()), *callbacks, last],
        }
    )
    last_epoch = folder / "last.ckpt"
    # what is read is what was written here, and still nothing in it is executed
    with torch.serialization.safe_globals(allowed_in_checkpoints()):
        trainer.fit(
            model, ckpt_path=last_epoch if last_epoch.is_file() else None, weights_only=True
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if (best := folder / "best.ckpt").is_file():
            state = torch.load(best, map_location="cpu", weights_only=True)
            model.load_state_dict(state["state_dict"])
    del model.configure_optimizers
    return course.history


def optimize(
    model: AVModel,
    task: Task,
    stages: Iterable[Stage],
    folder: str | Path,
    seed: int = 0,
    **options: Any,
) -> AVModel:
    """Train a model in stages.

    Called again with the same folder, it goes on at the end of the last finished epoch, and ends
    with the weights it would have ended with undisturbed (same machine, same number of threads).

    Parameters
    ----------
    model : AVModel
    task : Task
        Trains the model on a protocol; its attribute ``losses`` is set by stages that have any.
    stages : iterable of Stage
        Such as ``multi_stage()``.
    folder : str or Path
        Created if missing.
    seed : int, optional
    **options
        Of Lightning's ``Trainer``: ``accelerator``, ``devices``, ``precision``, ``logger``, ...

    Returns
    -------
    model : AVModel
        The same, in evaluation mode, with the weights of the last stage; ``model.lineage`` tells
        where they come from.

    Raises
    ------
    ValueError
        When the folder was begun with other stages, or they do not fit model and task.
    """
    stages, folder = check_stages(stages), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Path] = {}
    inherited = list(model.lineage)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    for number, stage in enumerate(stages, 1):
        place = folder / f"{number:02d}-{stage.name}"
        place.mkdir(exist_ok=True)
        _check_same(place, stage, seed)
        _configure(task, stage)
        record = place / "stage.json"
        if not record.is_file():
            _begin(model, stage, results, initial, inherited)
            lineage = model.lineage
            history = _run(model, task, stage, place, seed + number, options)
            done = {"stage": stage.to_dict(), "seed": seed, **_best(history, stage)}
            model.lineage = [*lineage, done]
            model.save(place)
            content = {"lineage": model.lineage, "history": history}
            write_text(record, json.dumps(content, indent=1) + "\n")
            for path in (*place.glob("best*.ckpt"), *place.glob("last*.ckpt")):
                path.unlink()
        results[stage.name] = place / "model.safetensors"
    _begin(model, Stage("end"), results, initial, inherited)
    for parameter in model.parameters():
        parameter.requires_grad = True
    model.eval()
    model.save(folder)
    return model


def _begin(model, stage, results, initial, inherited) -> None:
    """Weights and lineage a stage starts from"""
    if stage.start.endswith(".safetensors"):
        model.load_state_dict(initial)
        _load(model, Path(stage.start), stage)
        model.lineage = [*inherited, {"start": stage.start}]
    elif not results:
        model.load_state_dict(initial)
    else:
        start = stage.start if stage.start != "previous" else next(reversed(results))
        state, metadata = read_safetensors(results[start])
        model.load_state_dict(state)
        model.lineage = json.loads(metadata["lineage"])


def _best(history: list[dict[str, float]], stage: Stage) -> dict[str, Any]:
    """What there is to say about the result of a stage"""
    found = {"steps": int(history[-1]["step"]), "epochs": len(history)}
    if stage.monitor in history[-1]:
        row = min(history, key=lambda one: one.get(stage.monitor, math.inf))
        found |= {"epoch": int(row["epoch"]), stage.monitor: row[stage.monitor]}
    return found


def _check_same(place: Path, stage: Stage, seed: int) -> None:
    """Raise ValueError where a stage was begun as another one"""
    path, content = place / "begun.json", {"stage": stage.to_dict(), "seed": seed}
    content = json.loads(json.dumps(content))
    if not path.is_file():
        write_text(path, json.dumps(content, indent=1))
    elif (begun := json.loads(path.read_text())) != content:
        changed = [k for k in content["stage"] if begun["stage"].get(k) != content["stage"][k]]
        raise ValueError(
            f"{place}: this stage was begun with other {', '.join(changed) or 'seed'}; "
            "use the same, or another folder"
        )
