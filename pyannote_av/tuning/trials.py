"""Which trial comes next, and what it tries: the same whatever was killed and begun again.

Trials have places 0, 1, 2, ... What is tried at a place is drawn with a seed of that place, from
what was found at the places before it. A trial that does not end leaves its place to another one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from pyannote_av.tuning.optimizer_adapter import Candidate

#: samplers that know nothing but the trials so far
SAMPLERS = ("TPESampler", "RandomSampler")

_PLACE, _PROCESS, _VALUES = "place", "process", "values"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Given(BaseSampler):
    """Suggests the values that it was given."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def infer_relative_search_space(self, study, trial) -> dict:
        """Nothing: parameters are independent."""
        return {}

    def sample_relative(self, study, trial, search_space) -> dict:
        """Nothing, likewise."""
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution) -> Any:
        """The value of a parameter."""
        return self.values[param_name]


class MedianOfEarlier(BasePruner):
    """Gives trials up that are worse than the median of earlier ones after as many files.

    optuna's ``MedianPruner`` compares the best that a trial ever was, as suits training; here that
    would be its first, easy files.

    Parameters
    ----------
    num_files : int
        After the last one there is nothing to be saved.
    """

    #: as in optuna: trials that there must be to compare with
    ENOUGH = 5

    def __init__(self, num_files: int) -> None:
        self.earlier: Sequence[FrozenTrial] = ()
        self._last = num_files - 1

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial is to be given up."""
        step = trial.last_step
        others = [
            one.intermediate_values[step]
            for one in self.earlier
            if one.state == TrialState.COMPLETE and step in one.intermediate_values
        ]
        if step == self._last or len(others) < self.ENOUGH:
            return False
        return trial.intermediate_values[step] > np.median(others)


class TrialSchedule:
    """Hands out trials of a study.

    Parameters
    ----------
    candidate : Candidate
        Whose hyper-parameters are tuned.
    start : mapping
        What is tried at place 0, by optuna's name.
    total : int
        Number of places.
    seed : int
    sampler : {"TPESampler", "RandomSampler"}
    lag : int
        What a trial tries depends on those at least so many places before it. 1 for one process;
        several need not wait for each other if it is larger than their number.
    num_files : int
        That trials are judged by.
    """

    def __init__(
        self,
        candidate: Candidate,
        start: Mapping[str, Any],
        total: int,
        seed: int,
        sampler: str,
        lag: int,
        num_files: int,
    ):
        self._candidate, self._start, self._total = candidate, dict(start), total
        self._seed, self._sampler, self._lag = seed, sampler, lag
        self.given, self.pruner = Given(), MedianOfEarlier(num_files)

    def claim(self, study: optuna.Study) -> Trial | None:
        """Begin the next trial; no other process may do so at the same time.

        Returns
        -------
        trial : Trial or None
            None when all that can be begun now is being done.
        """
        trials = placed(study)
        done = {place for place, one in trials.items() if one.state in _DONE}
        place = next((k for k in range(self._total) if k not in trials), None)
        if place is None or any(k not in done for k in range(place - self._lag + 1)):
            return None
        known = max(0, place - self._lag + 1)
        earlier = [trials[k] for k in range(known)]
        pending = [trials[k].user_attrs[_VALUES] for k in range(known, place)]
        self.given.values = self._suggest(place, study.directions, earlier, pending)
        trial = study.ask()
        # before the place, without which nobody asks for them
        trial.set_user_attr(_VALUES, self.given.values)
        trial.set_user_attr(_PROCESS, os.getpid())
        trial.set_user_attr(_PLACE, place)
        return trial

    def is_done(self, study: optuna.Study) -> bool:
        """Whether no place is left."""
        return len(finished(study)) >= self._total

    def _suggest(
        self,
        place: int,
        directions: Sequence,
        earlier: Sequence[FrozenTrial],
        pending: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """What to try at a place, knowing what is being tried elsewhere"""
        self.pruner.earlier = earlier
        if place == 0:
            return self._start
        options: dict[str, Any] = {}
        options["seed"] = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        if self._sampler == "TPESampler" and pending:
            # others would try the same again
            options["constant_liar"] = True
        with warnings.catch_warnings():
            # that option is new, and pyannote.pipeline uses functions of optuna that have new names
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)
            view = optuna.create_study(
                directions=directions, sampler=getattr(optuna.samplers, self._sampler)(**options)
            )
            view.add_trials(earlier)
            for values in pending:
                view.enqueue_trial(values)
                self._candidate.parameters(view.ask())
            trial = view.ask()
            self._candidate.parameters(trial)
        return trial.params


def placed(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Trials that are under way or done, by place."""
    trials = study.get_trials(deepcopy=False, states=(*_DONE, TrialState.RUNNING))
    return {one.user_attrs[_PLACE]: one for one in trials if _PLACE in one.user_attrs}


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that are done, in the order of their places."""
    return [one for _, one in sorted(placed(study).items()) if one.state in _DONE]


def give_up(study: optuna.Study, process: int | None = None) -> int:
    """Trials that were under way, of a process or of all, leave their places to others.

    Returns
    -------
    count : int
        Of such trials.
    """
    lost = [
        one
        for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if process is None or one.user_attrs.get(_PROCESS) == process
    ]
    for one in lost:
        study.tell(one.number, state=TrialState.FAIL)
    return len(lost)


def place_of(trial: FrozenTrial) -> int:
    """Place of a trial."""
    return trial.user_attrs[_PLACE]
