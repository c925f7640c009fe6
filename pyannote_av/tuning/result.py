"""Results of tuning: a pipeline folder, tables and plots of the trials."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pyannote.pipeline import Pipeline

from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.sharing.folders import save_pipeline
from pyannote_av.tuning.trials import finished, place_of


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
        Duration of this run.
    """
    trials = finished(study)
    complete = complete_of(trials)
    best = min(complete, key=lambda one: (one.values[0], place_of(one)))
    params = params_of(pipeline, best)
    save_pipeline(checkpoint, into / "best", params, overwrite=True)
    front = {}
    if len(about["objectives"]) > 1:
        for one in front_of(complete):
            folder = into / "front" / str(place_of(one))
            save_pipeline(checkpoint, folder, params_of(pipeline, one), overwrite=True)
            front[folder] = list(one.values)
    entries, size = cache
    content = {
        "objectives": about["objectives"],
        "files": len(about["files"]),
        "best": {"trial": place_of(best), "values": best.values, "params": params},
        "front": {folder.name: values for folder, values in front.items()},
        "cache": {"entries": entries, "bytes": size},
        "seconds of this run": round(seconds, 3),
        "trials": [_row(one) for one in trials],
    }
    write_text(into / "trials.json", json.dumps(content, indent=1) + "\n")
    write_text(into / "trials.csv", _table(trials, about["objectives"]))
    draw(into / "importance.png", trials, about["objectives"])
    return Result(into / "best", best.values[0], params, front, len(trials))


def params_of(pipeline: Pipeline, trial: FrozenTrial) -> dict[str, Any]:
    """Nested hyper-parameters of a trial, including frozen ones."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pipeline.parameters(trial=optuna.trial.FixedTrial(trial.params))


def complete_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that were not pruned."""
    return [one for one in trials if one.state == TrialState.COMPLETE]


def front_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Pareto front of the trials, sorted by the first objective."""

    def beats(one: FrozenTrial, other: FrozenTrial) -> bool:
        pairs = list(zip(one.values, other.values, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    best = [one for one in trials if not any(beats(other, one) for other in trials)]
    unique = {tuple(one.values): one for one in reversed(best)}
    return [unique[values] for values in sorted(unique)]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": place_of(trial),
        "state": trial.state.name.lower(),
        # for a pruned trial, optuna reports the value after the files processed so far
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "params": {name.replace(">", "."): value for name, value in trial.params.items()},
        "seconds": round(trial.duration.total_seconds(), 3),
    }


def _table(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> str:
    names = sorted({name for one in trials for name in one.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["trial", "state", *objectives, "seconds", *(name.replace(">", ".") for name in names)]
    )
    for one in trials:
        row = _row(one)
        values = row["values"] or [""] * len(objectives)
        own = [one.params.get(name, "") for name in names]
        writer.writerow([row["trial"], row["state"], *values, row["seconds"], *own])
    return text.getvalue()


def importance(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Share of the variance of the first objective that each hyper-parameter explains.

    Empty if there are too few trials. Uses fANOVA (Hutter, Hoos, Leyton-Brown. An efficient
    approach for assessing hyperparameter importance. ICML 2014), as implemented in optuna.
    """
    complete = complete_of(trials)
    if len(complete) < 4 or len({one.values[0] for one in complete}) < 2:
        return {}
    study = optuna.create_study(directions=["minimize"] * len(complete[0].values))
    study.add_trials(complete)
    found = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda one: one.values[0],
    )
    return {name.replace(">", "."): float(share) for name, share in found.items()}


def draw(path: Path, trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> Path:
    """Plot the importance of hyper-parameters, and the trials over their number or their cost."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = importance(trials)
    figure = Figure(figsize=(10, max(3.2, 0.28 * len(shares) + 1.2)), layout="constrained")
    FigureCanvasAgg(figure)
    bars, values = figure.subplots(1, 2)
    bars.barh(list(shares)[::-1], list(shares.values())[::-1], color="tab:blue")
    bars.set_xlabel(f"share of the variance of the {objectives[0]}")
    if not shares:
        bars.set_title("too few trials to tell what matters", fontsize="medium")
    complete = complete_of(trials)
    rates = [100 * one.values[0] for one in complete]
    values.set_ylabel(f"{objectives[0]} (%)")
    if len(objectives) > 1:
        front = front_of(complete)
        values.plot([one.values[1] for one in complete], rates, ".", color="tab:gray")
        values.plot([one.values[1] for one in front], [100 * one.values[0] for one in front], "o-")
        values.set_xlabel("cost: seconds of processing per second of media")
    else:
        places = [place_of(one) for one in complete]
        best = [min(rates[: k + 1]) for k in range(len(rates))]
        values.plot(places, rates, ".", color="tab:gray", label="trial")
        values.step(places, best, where="post", label="best so far")
        values.set_xlabel("trial")
        values.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path
