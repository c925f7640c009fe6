"""Trials: the hyper-parameters that they try, and the records of their results.

Trials are numbered 0, 1, 2, ... A sampler of Optuna draws the values of a trial from the results of
earlier trials, with a seed that depends on the number of the trial. After an interruption, the same
values are drawn again, so only finished trials are recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from pyannote.pipeline import Pipeline

from pyannote_av.tuning.evaluator import Evaluation
from pyannote_av.tuning.freezing import flat

#: samplers without any state besides the trials so far
SAMPLERS = ("TPESampler", "RandomSampler")

# minimum number of trials that a trial is compared with before it is pruned, as in Optuna
_ENOUGH = 5


@dataclass(frozen=True)
class Schedule:
    """Hyper-parameters of each trial of a study.

    Attributes
    ----------
    pipeline : Pipeline
        The pipeline to tune. Trial 0 tries its current values.
    objectives : int
        Number of values to minimise.
    seed : int
    sampler : {"TPESampler", "RandomSampler"}
    lag : int, optional
        A trial depends on the results of trials that are at least this many numbers before it, so
        that `lag` trials can be evaluated at the same time. Of the trials in between, only the
        values that they try are taken into account.
    prune : bool, optional
        Stop trials that are worse than the median of earlier trials after the same number of files.
    """

    pipeline: Pipeline
    objectives: int
    seed: int
    sampler: str
    lag: int = 1
    prune: bool = False

    def next(self, trials: Sequence[FrozenTrial]) -> tuple[FrozenTrial, tuple]:
        """The next trial, and its job for :class:`~pyannote_av.tuning.evaluator.Evaluator`.

        Parameters
        ----------
        trials : sequence of FrozenTrial
            All earlier trials, in order. The last ones, fewer than `lag`, may be unfinished.
        """
        known = trials[: max(0, len(trials) - self.lag + 1)]
        if trials:
            trial = self._draw(len(trials), [*known, *map(_running, trials[len(known) :])])
        else:
            trial = FixedTrial(flat(self.pipeline.parameters(instantiated=True), ">"))
        params = nested_of(self.pipeline, trial)
        return _running(trial), (params, _limits(known) if self.prune else [])

    def _draw(self, number: int, trials: Sequence[FrozenTrial]) -> optuna.Trial:
        # a study in memory, because Optuna draws given everything that a study contains
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            directions=["minimize"] * self.objectives,
            sampler=getattr(optuna.samplers, self.sampler)(seed=seed),
        )
        study.add_trials(trials)
        return study.ask()


def _limits(trials: Sequence[FrozenTrial]) -> list[float]:
    """Medians of the error rates after each file but the last, above which a trial is pruned.

    Optuna's ``MedianPruner`` compares the best intermediate value of a trial, which suits training.
    Here, the best value may be the one after a few easy files.
    """
    rates = [list(one.intermediate_values.values()) for one in complete_of(trials)]
    return np.median(rates, axis=0)[:-1].tolist() if len(rates) >= _ENOUGH else []


def nested_of(pipeline: Pipeline, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Nested hyper-parameters that a trial suggests, including frozen ones."""
    with warnings.catch_warnings():
        # pyannote.pipeline uses deprecated functions of Optuna
        warnings.simplefilter("ignore", FutureWarning)
        return pipeline.parameters(trial=trial)


def _running(trial: Any) -> FrozenTrial:
    return optuna.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )


def finished(trial: FrozenTrial, evaluation: Evaluation) -> FrozenTrial:
    """A proposed trial with its results.

    Raises
    ------
    ValueError
        If the error rate is not a number.
    """
    pruned = evaluation.values is None
    values = evaluation.rates[-1:] if pruned else evaluation.values
    if np.isnan(values).any():
        raise ValueError(
            f"the error rate of a trial is {values[0]}: do the files have a reference?"
        )
    made = optuna.create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        values=values,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=dict(enumerate(evaluation.rates)),
    )
    made.datetime_start -= timedelta(seconds=evaluation.seconds)
    return made


def complete_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that were not pruned."""
    return [one for one in trials if one.state == TrialState.COMPLETE]
