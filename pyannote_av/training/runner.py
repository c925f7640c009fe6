"""Run the stages of training one after another, and continue after an interruption.

::

    FOLDER/01-visual/last.ckpt            of the last complete epoch
                     model.safetensors    weights of the best epoch, with the lineage of stages
                     stage.json           the stage and its history; written when the stage is done
           02-acoustic/...
           model.safetensors              weights of the last stage
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import AVModel, read_safetensors
from pyannote_av.core.reading import ReadError, parse_json, read_json, refusing
from pyannote_av.core.renaming import current_names
from pyannote_av.training.fitting import Fit, within
from pyannote_av.training.stages import Stage, check_stages

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

logger = logging.getLogger(__name__)


def _load(model: AVModel, path: Path, stage: Stage) -> None:
    """Load tensors of the same name and shape"""
    state, own = read_safetensors(path)[0], model.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if within(name, stage.take) and name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ReadError(f"stage {stage.name!r}: no tensor of {path} fits {type(model).__name__}")
    if left := sorted(own.keys() - fitting.keys()):
        logger.info("%s: %d tensors (%s, ...) are not in it", path, len(left), left[0])
    model.load_state_dict(fitting, strict=False)


def configure(task: Task, stage: Stage) -> None:
    """Apply the losses and settings of a stage; they also hold in later stages"""
    if stage.losses:
        task.losses = dict(stage.losses)
    former = getattr(task, "FORMER_PARAMS", {})
    settings = current_names(stage.settings, former, f"stage {stage.name!r}: settings")
    for name, value in settings.items():
        known = isinstance(name, str) and not name.startswith("_") and hasattr(task, name)
        if not known or callable(getattr(task, name)):
            raise ValueError(f"stage {stage.name!r}: {type(task).__name__} has no setting {name!r}")
        try:
            setattr(task, name, value)
        except AttributeError as error:  # properties that follow from the protocol
            raise ValueError(f"stage {stage.name!r}: {name} of the task cannot be set") from error


def optimize(
    model: AVModel,
    task: Task,
    stages: Iterable[Stage],
    folder: str | Path,
    seed: int = 0,
    loggers: Callable[[Path], Any] | None = None,
    **options: Any,
) -> AVModel:
    """Train a model in stages.

    If it is called again with the same folder, it continues after the last complete epoch, and
    gives the same weights as an uninterrupted run (same machine, same number of threads).

    Parameters
    ----------
    model : AVModel
    task : Task
        Trains the model on a protocol. Stages with losses set its attribute ``losses``.
    stages : iterable of Stage
        Such as ``multi_stage()``.
    folder : str or Path
        Created if missing.
    seed : int, optional
    loggers : callable, optional
        Takes the folder of a stage and returns the loggers of its ``Trainer``.
    **options
        Options of Lightning's ``Trainer``: ``accelerator``, ``devices``, ``precision``, ...

    Returns
    -------
    model : AVModel
        The same model, in evaluation mode, with the weights of the last stage. Their origin is in
        ``model.lineage``.

    Raises
    ------
    ValueError
        If the folder was started with other stages, or the stages do not fit the model and
        the task.
    RuntimeError
        If memory or disk space run out. The message says what to do.

    Notes
    -----
    With several processes, Lightning lets all of them call this function with the same arguments.
    All of them must see the folder; the first one writes to it.
    """
    stages, folder = check_stages(stages), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Path] = {}
    inherited = list(model.lineage)
    learnt = [parameter.requires_grad for parameter in model.parameters()]
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    for number, stage in enumerate(stages, 1):
        place = folder / f"{number:02d}-{stage.name}"
        place.mkdir(exist_ok=True)
        _check_same(place, stage, seed)
        configure(task, stage)
        record = place / "stage.json"
        if not record.is_file():
            _begin(model, stage, results, initial, inherited)
            lineage = model.lineage
            logger_ = {"logger": loggers(place)} if loggers is not None else {}
            fit = Fit(model, task, stage, place, seed + number, {**options, **logger_})
            fit.run()
            found = _best(fit.history, *stage.monitored(task)) if task.has_validation else {}
            steps = {"steps": int(fit.history[-1]["step"]), "epochs": len(fit.history)}
            known = stage.model_copy(update={"start": Path(stage.start).name})
            done = {"stage": known.to_dict(), "seed": seed, **steps, **found}
            model.lineage = [*lineage, done]
            # wait for each other before files are removed, and until they are written
            fit.trainer.strategy.barrier()
            if fit.trainer.is_global_zero:
                model.save(place)
                content = {
                    "lineage": model.lineage,
                    "history": fit.history,
                    "pace": fit.pace,
                }
                write_text(record, json.dumps(content, indent=1) + "\n")
                for path in (*place.glob("best*.ckpt"), *place.glob("last*.ckpt")):
                    path.unlink()
            fit.trainer.strategy.barrier()
        results[stage.name] = place / "model.safetensors"
    _begin(model, Stage(name="end"), results, initial, inherited)
    for parameter, was_learnt in zip(model.parameters(), learnt, strict=True):
        parameter.requires_grad = was_learnt
    model.eval()
    if _is_first():
        model.save(folder)
    return model


def _is_first() -> bool:
    """Whether this process writes the files"""
    from torch import distributed

    alone = not (distributed.is_available() and distributed.is_initialized())
    return alone or distributed.get_rank() == 0


def _begin(model, stage, results, initial, inherited) -> None:
    """Set the weights and the lineage that a stage starts from"""
    if stage.start.endswith(".safetensors"):
        model.load_state_dict(initial)
        _load(model, Path(stage.start), stage)
        path = Path(stage.start)  # only the name is recorded, because the folder is private
        model.lineage = [*inherited, {"start": path.name, "sha256": sha256_of(path)}]
    elif not results:
        model.load_state_dict(initial)
    else:
        start = stage.start if stage.start != "previous" else next(reversed(results))
        state, metadata = read_safetensors(results[start])
        model.load_state_dict(state)
        model.lineage = parse_json(metadata["lineage"], str(results[start]), nan=True)


def _best(history: list[dict[str, float]], monitor: str, mode: str) -> dict[str, Any]:
    """The best epoch of a stage, whose weights are its result"""
    rows = [row for row in history if not math.isnan(row.get(monitor, math.nan))]
    if not rows:
        return {}
    row = (min if mode == "min" else max)(rows, key=lambda one: one[monitor])
    return {"epoch": int(row["epoch"]), monitor: row[monitor]}


def _check_same(place: Path, stage: Stage, seed: int) -> None:
    """Raise ValueError if a stage was started with other values"""
    path, content = place / "begun.json", {"stage": stage.to_dict(), "seed": seed}
    if not path.is_file():
        write_text(path, json.dumps(content, indent=1))
        return
    begun = read_json(path)
    with refusing(path, "not the record of a started stage"):
        # fields that did not exist when the file was written have their defaults
        then, now = Stage(**begun["stage"]).to_dict(), stage.to_dict()
        changed = [name for name in now if then[name] != now[name]]
        changed += ["seed"] * (begun["seed"] != seed)
    if changed:
        raise ReadError(
            f"{place}: this stage was started with other {', '.join(changed)}; "
            "use the same, or another folder"
        )
