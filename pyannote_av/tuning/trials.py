"""Schedule of trials, which is reproducible even if processes are killed and restarted.

Trials have places 0, 1, 2, ... The values tried at a place are drawn with a seed of that place,
given the results of earlier places. If a trial does not finish, another trial takes its place.
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

#: samplers without any state besides the trials so far
SAMPLERS = ("TPESampler", "RandomSampler")

_PLACE, _PROCESS, _VALUES = "place", "process", "values"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Given(BaseSampler):
    """A sampler that suggests predefined values."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def infer_relative_search_space(self, study, trial) -> dict:
        """Empty: parameters are sampled independently."""
        return {}

    def sample_relative(self, study, trial, search_space) -> dict:
        """Empty, for the same reason."""
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution) -> Any:
        """Predefined value of a parameter."""
        return self.values[param_name]


class MedianOfEarlier(BasePruner):
    """Prunes trials that are worse than the median of earlier ones after as many files.

    optuna's ``MedianPruner`` compares the best intermediate value of a trial, which suits training.
    Here, that would be the value after the first, easy files.

    Parameters
    ----------
    num_files : int
        Number of files. A trial is never pruned after the last one.
    """

    #: minimum number of trials to compare with, as in optuna
    ENOUGH = 5

    def __init__(self, num_files: int) -> None:
        self.earlier: Sequence[FrozenTrial] = ()
        self._last = num_files - 1

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to prune a trial."""
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
    """Assigns the trials of a study to processes.

    Parameters
    ----------
    candidate : Candidate
        Adapter of the pipeline to tune.
    start : mapping
        Values tried at place 0, by optuna's names.
    total : int
        Total number of places.
    seed : int
    sampler : {"TPESampler", "RandomSampler"}
    lag : int
        The values tried at a place depend on the results of places at least this far before it. 1
        for one process. With several processes, a lag above their number avoids waiting.
    num_files : int
        Number of files that a trial is evaluated on.
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
        """Start the next trial. Only one process may call this at a time.

        Returns
        -------
        trial : Trial or None
            None if no trial can start until others have finished.
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
        # set before the place, because only trials with a place are read by other processes
        trial.set_user_attr(_VALUES, self.given.values)
        trial.set_user_attr(_PROCESS, os.getpid())
        trial.set_user_attr(_PLACE, place)
        return trial

    def is_done(self, study: optuna.Study) -> bool:
        """Whether all places are done."""
        return len(finished(study)) >= self._total

    def _suggest(
        self,
        place: int,
        directions: Sequence,
        earlier: Sequence[FrozenTrial],
        pending: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Values to try at a place, given the values of unfinished trials"""
        self.pruner.earlier = earlier
        if place == 0:
            return self._start
        options: dict[str, Any] = {}
        options["seed"] = int(np.random.SeedSequence([self._seed, place]).generate_state(1)[0])
        if self._sampler == "TPESampler" and pending:
            # otherwise several processes would try similar values
            options["constant_liar"] = True
        with warnings.catch_warnings():
            # that option is experimental, and pyannote.pipeline uses deprecated optuna functions
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
    """Running and finished trials, by place."""
    trials = study.get_trials(deepcopy=False, states=(*_DONE, TrialState.RUNNING))
    return {one.user_attrs[_PLACE]: one for one in trials if _PLACE in one.user_attrs}


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials, in the order of their places."""
    return [one for _, one in sorted(placed(study).items()) if one.state in _DONE]


def give_up(study: optuna.Study, process: int | None = None) -> int:
    """Mark unfinished trials, of one process or of all, as failed, so that others replace them.

    Returns
    -------
    count : int
        Number of such trials.
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
