"""Results of tuning: a pipeline folder, tables and plots of the trials."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from pyannote.pipeline import Pipeline

from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.core.reading import read_json
from pyannote_av.sharing.folders import save_pipeline
from pyannote_av.tuning.trials import complete_of, nested_of


@dataclass(frozen=True)
class Result:
    """Result of tuning.

    Attributes
    ----------
    best : Path
        Pipeline folder of the trial with the lowest error rate.
    value : float
        Error rate of that trial.
    params : dict
        Hyper-parameters of that trial, including frozen ones.
    front : dict of Path to list of float
        With several objectives, the Pareto front: pipeline folders and their values.
    trials : int
        Number of trials, including pruned ones.
    """

    best: Path
    value: float
    params: dict[str, Any]
    front: dict[Path, list[float]]
    trials: int


def write_result(
    into: Path,
    checkpoint: str,
    pipeline: Pipeline,
    study: optuna.Study,
    about: Mapping[str, Any],
    cache: tuple[int, int],
    seconds: float,
) -> Result:
    """Write the results of a study.

    ::

        best/             pipeline folder of the trial with the lowest error rate
        front/NUMBER/     with several objectives: pipeline folders of the Pareto front
        trials.csv, trials.json
        importance.png    importance of the hyper-parameters, and the values of the trials

    Parameters
    ----------
    into : Path
    checkpoint : str
        Name or folder of the tuned pipeline.
    pipeline : Pipeline
        The same pipeline, loaded.
    study : Study
        Must have at least one finished trial.
    about : mapping
        Description of the study.
    cache : tuple of int
        Number of cache entries, and their size in bytes.
    seconds : float
        Duration of this run, in seconds.
    """

    def save(trial: FrozenTrial, folder: Path) -> dict[str, Any]:
        params = nested_of(pipeline, FixedTrial(trial.params))
        save_pipeline(checkpoint, folder, params, overwrite=True)
        return params

    import pandas as pd

    objectives = about["objectives"]
    several = front_of(study) if len(objectives) > 1 else []
    best = front_of(study)[0]
    params = save(best, into / "best")
    front = {into / "front" / str(one.number): list(one.values) for one in several}
    for one, folder in zip(several, front, strict=True):
        save(one, folder)
    _remove_former(into, front)
    trials = study.get_trials(deepcopy=False)
    rows = [_row(one) for one in trials]
    entries, size = cache
    content = {
        "objectives": objectives,
        "files": len(about["files"]),
        "best": {"trial": best.number, "values": best.values, "params": params},
        "front": {folder.name: values for folder, values in front.items()},
        "cache": {"entries": entries, "bytes": size},
        "seconds of this run": round(seconds, 3),
        "trials": rows,
    }
    write_text(into / "trials.json", json.dumps(content, indent=1) + "\n")
    table = [
        {
            **{name: row[name] for name in ("trial", "state")},
            **dict(zip(objectives, row["values"] or [None] * len(objectives), strict=True)),
            "seconds": row["seconds"],
            **dict(sorted(row["params"].items())),
        }
        for row in rows
    ]
    write_text(into / "trials.csv", pd.DataFrame(table, dtype=object).to_csv(index=False))
    draw(into / "importance.png", study, objectives)
    return Result(into / "best", best.values[0], params, front, len(trials))


def _remove_former(into: Path, front: Iterable[Path]) -> None:
    """Remove pipelines that an earlier run wrote and that are no longer on the front."""
    former: Iterable[str] = ()
    with suppress(OSError, ValueError, KeyError, TypeError):
        former = [str(name) for name in read_json(into / "trials.json")["front"]]
    for folder in (into / "front" / name for name in former if name.isdecimal()):
        if folder not in front and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def front_of(study: optuna.Study) -> list[FrozenTrial]:
    """Pareto front, by increasing error rate; of equally good trials, the first one."""
    ordered = sorted(study.best_trials, key=lambda one: (one.values, one.number))
    return list({tuple(one.values): one for one in reversed(ordered)}.values())[::-1]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        # for a pruned trial, optuna reports the value after the files processed so far
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "params": {name.replace(">", "."): value for name, value in trial.params.items()},
        "seconds": round(trial.duration.total_seconds(), 3),
    }


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of the variance of the first objective that each hyper-parameter explains.

    Empty if there are too few trials. Uses fANOVA (Hutter, Hoos, Leyton-Brown. An efficient
    approach for assessing hyperparameter importance. ICML 2014), as implemented in optuna.
    """
    complete = complete_of(study.get_trials(deepcopy=False))
    if len(complete) < 4 or len({one.values[0] for one in complete}) < 2:
        return {}
    found = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda one: one.values[0],
    )
    return {name.replace(">", "."): float(share) for name, share in found.items()}


def draw(path: Path, study: optuna.Study, objectives: list[str]) -> None:
    """Plot the importance of hyper-parameters, and the trials over their number or their cost."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = importance(study)
    figure = Figure(figsize=(10, max(3.2, 0.28 * len(shares) + 1.2)), layout="constrained")
    FigureCanvasAgg(figure)
    bars, values = figure.subplots(1, 2)
    bars.barh(list(shares)[::-1], list(shares.values())[::-1], color="tab:blue")
    bars.set_xlabel(f"share of the variance of the {objectives[0]}")
    if not shares:
        bars.set_title("too few trials to tell what matters", fontsize="medium")
    complete = complete_of(study.get_trials(deepcopy=False))
    rates = [100 * one.values[0] for one in complete]
    values.set_ylabel(f"{objectives[0]} (%)")
    if len(objectives) > 1:
        front = front_of(study)
        values.plot([one.values[1] for one in complete], rates, ".", color="tab:gray")
        values.plot([one.values[1] for one in front], [100 * one.values[0] for one in front], "o-")
        values.set_xlabel("cost: seconds of processing per second of media")
    else:
        numbers = [one.number for one in complete]
        best = [min(rates[: k + 1]) for k in range(len(rates))]
        values.plot(numbers, rates, ".", color="tab:gray", label="trial")
        values.step(numbers, best, where="post", label="best so far")
        values.set_xlabel("trial")
        values.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
