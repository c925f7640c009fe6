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
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import AVModel, read_safetensors
from pyannote_av.core.reading import ReadError, parse_json, read_json, refusing
from pyannote_av.training.fitting import Fit, within
from pyannote_av.training.stages import Stage, check_stages

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

logger = logging.getLogger(__name__)


def _load(model: AVModel, path: Path, stage: Stage) -> None:
    """Tensors of the same name and shape"""
    state, own = read_safetensors(path)[0], model.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if within(name, stage.take) and name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ReadError(f"stage {stage.name!r}: nothing of {path} fits {type(model).__name__}")
    if left := sorted(own.keys() - fitting.keys()):
        logger.info("%s: %d tensors (%s, ...) are not in it", path, len(left), left[0])
    model.load_state_dict(fitting, strict=False)


def _configure(task: Task, stage: Stage) -> None:
    """What a stage sets stays set in those that follow, whether or not it is done already"""
    if stage.losses:
        task.losses = dict(stage.losses)
    for name, value in stage.settings.items():
        known = isinstance(name, str) and not name.startswith("_") and hasattr(task, name)
        if not known or callable(getattr(task, name)):
            raise ValueError(f"stage {stage.name!r}: {type(task).__name__} has no setting {name!r}")
        try:
            setattr(task, name, value)
        except AttributeError as error:  # what follows from the protocol is not for stages to say
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
    loggers : callable, optional
        Given the folder of a stage, the loggers of its ``Trainer``. None without.
    **options
        Of Lightning's ``Trainer``: ``accelerator``, ``devices``, ``precision``, ...

    Returns
    -------
    model : AVModel
        The same, in evaluation mode, with the weights of the last stage; ``model.lineage`` tells
        where they come from.

    Raises
    ------
    ValueError
        When the folder was begun with other stages, or they do not fit model and task.
    RuntimeError
        When memory or disk are not enough, saying what to do.

    Notes
    -----
    With several processes, all of them call this with the same arguments, as Lightning has them
    do; the folder is one that they all see. The first one writes to it.
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
            logger_ = {"logger": loggers(place)} if loggers is not None else {}
            fit = Fit(model, task, stage, place, seed + number, {**options, **logger_})
            fit.run()
            found = _best(fit.history, *stage.monitored(task)) if task.has_validation else {}
            steps = {"steps": int(fit.history[-1]["step"]), "epochs": len(fit.history)}
            told = replace(stage, start=Path(stage.start).name).to_dict()
            done = {"stage": told, "seed": seed, **steps, **found}
            model.lineage = [*lineage, done]
            # nobody removes what others still read, nor goes on before it is written
            fit.trainer.strategy.barrier()
            if fit.trainer.is_global_zero:
                model.save(place)
                content = {
                    "lineage": model.lineage,
                    "history": fit.history,
                    "pace": fit.pace.to_dict(),
                }
                write_text(record, json.dumps(content, indent=1) + "\n")
                for path in (*place.glob("best*.ckpt"), *place.glob("last*.ckpt")):
                    path.unlink()
            fit.trainer.strategy.barrier()
        results[stage.name] = place / "model.safetensors"
    _begin(model, Stage("end"), results, initial, inherited)
    for parameter in model.parameters():
        parameter.requires_grad = True
    model.eval()
    if _is_first():
        model.save(folder)
    return model


def _is_first() -> bool:
    """Whether this is the process that writes"""
    from torch import distributed

    alone = not (distributed.is_available() and distributed.is_initialized())
    return alone or distributed.get_rank() == 0


def _begin(model, stage, results, initial, inherited) -> None:
    """Weights and lineage a stage starts from"""
    if stage.start.endswith(".safetensors"):
        model.load_state_dict(initial)
        _load(model, Path(stage.start), stage)
        path = Path(stage.start)  # whose place is nobody else's business
        model.lineage = [*inherited, {"start": path.name, "sha256": sha256_of(path)}]
    elif not results:
        model.load_state_dict(initial)
    else:
        start = stage.start if stage.start != "previous" else next(reversed(results))
        state, metadata = read_safetensors(results[start])
        model.load_state_dict(state)
        model.lineage = parse_json(metadata["lineage"], str(results[start]), nan=True)


def _best(history: list[dict[str, float]], monitor: str, mode: str) -> dict[str, Any]:
    """The epoch whose weights are those of a stage"""
    rows = [row for row in history if not math.isnan(row.get(monitor, math.nan))]
    if not rows:
        return {}
    row = (min if mode == "min" else max)(rows, key=lambda one: one[monitor])
    return {"epoch": int(row["epoch"]), monitor: row[monitor]}


def _check_same(place: Path, stage: Stage, seed: int) -> None:
    """Raise ValueError where a stage was begun as another one"""
    path, content = place / "begun.json", {"stage": stage.to_dict(), "seed": seed}
    if not path.is_file():
        write_text(path, json.dumps(content, indent=1))
        return
    begun = read_json(path)
    with refusing(path, "not what a stage was begun with"):
        # what was written before there was a field has its default
        then, now = Stage(**begun["stage"]).to_dict(), json.loads(json.dumps(stage.to_dict()))
        changed = [name for name in now if then[name] != now[name]]
        changed += ["seed"] * (begun["seed"] != seed)
    if changed:
        raise ReadError(
            f"{place}: this stage was begun with other {', '.join(changed)}; "
            "use the same, or another folder"
        )
