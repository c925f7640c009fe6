"""One process that tunes: takes a trial of the study, runs the pipeline on all files, and so on."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from filelock import FileLock
from optuna.trial import TrialState
from pyannote.pipeline import Optimizer, Pipeline

from pyannote_av.core.pipeline import Pipeline as Loader
from pyannote_av.core.trust import trusting
from pyannote_av.tuning.cache import Cache, CachedFile
from pyannote_av.tuning.freezing import freeze
from pyannote_av.tuning.hashing import checksum, pipeline_checksum
from pyannote_av.tuning.optimizer_adapter import Candidate, flat
from pyannote_av.tuning.study import JOURNAL, STUDY, lock_of
from pyannote_av.tuning.trials import TrialSchedule

# what others do meanwhile takes longer
_POLL = 0.05


@dataclass(frozen=True)
class Setup:
    """All that a process has to know.

    Attributes
    ----------
    pipeline : str
        What ``Pipeline.from_pretrained`` takes.
    files : list of dict
        As the protocol has them.
    checksums : list of str
        Of their content.
    frozen : tuple of str
        See :func:`~pyannote_av.tuning.freezing.freeze`.
    into, cache : Path
        Folder of the study, and that of the stages.
    trials, processes, seed, sampler, prune, cost, device, trust
        See :func:`~pyannote_av.tuning.search.optimize`.
    """

    pipeline: str
    files: list[dict[str, Any]]
    checksums: list[str]
    frozen: tuple[str, ...]
    into: Path
    cache: Path
    trials: int
    processes: int = 1
    seed: int = 0
    sampler: str = "TPESampler"
    prune: bool = False
    cost: bool = False
    device: str = "cpu"
    trust: bool = False


class Loaded(NamedTuple):
    """A pipeline that is tuned.

    Attributes
    ----------
    pipeline : Pipeline
        With what is frozen, and without preprocessors.
    checksum : str
        Of what its stages depend on.
    preprocessors : dict
        By the name of what they make. Applied by the pipeline, they would hide what files keep.
    """

    pipeline: Pipeline
    checksum: str
    preprocessors: dict[str, Callable]


def load(checkpoint: str, frozen: Sequence[str], device: str) -> Loaded:
    """Load a pipeline to be tuned; arguments are those of :class:`Setup`."""
    pipeline = Loader.from_pretrained(checkpoint)
    preprocessors = getattr(pipeline, "preprocessors", {})
    if preprocessors:
        del pipeline.preprocessors
    identity = pipeline_checksum(pipeline)
    return Loaded(freeze(pipeline, frozen).to(torch.device(device)), identity, preprocessors)


def start_of(pipeline: Pipeline) -> dict[str, Any]:
    """Values that a pipeline has, of what is tuned, by optuna's name."""
    if not pipeline.instantiated:
        pipeline.instantiate(pipeline.default_parameters())
    return flat(pipeline.parameters(instantiated=True), ">")


def work(
    setup: Setup,
    loaded: Loaded,
    rank: int = 0,
    after: Callable[[optuna.Study], None] | None = None,
) -> None:
    """Do trials until there are as many as wanted.

    Parameters
    ----------
    setup : Setup
    loaded : Loaded
        The pipeline of it.
    rank : int, optional
        Which of the processes this is.
    after : callable, optional
        Is called with the study after every trial.
    """
    candidate = Candidate(loaded.pipeline, setup.cost)
    keys = [checksum([loaded.checksum, one]) for one in setup.checksums]
    cache = Cache(setup.cache)
    files = [CachedFile(file, cache, key) for file, key in zip(setup.files, keys, strict=True)]
    lag = 1 if setup.processes == 1 else 2 * setup.processes
    options = setup.trials, setup.seed, setup.sampler, lag, len(files)
    places = TrialSchedule(candidate, start_of(loaded.pipeline), *options)
    optimizer = Optimizer(
        candidate,
        db=setup.into / JOURNAL,
        study_name=STUDY,
        sampler=places.given,
        pruner=places.pruner if setup.prune else None,
        average_case=True,
    )
    study = optimizer.study_
    objective = optimizer.get_objective(files)
    candidate.training = True
    if setup.processes > 1 and not places.is_done(study):
        # every process sees to its share first, so that they do not wait for each other
        for file in files[rank :: setup.processes]:
            candidate(file)
    claims = FileLock(setup.into / ".claims.lock")
    while not places.is_done(study):
        with claims:
            trial = places.claim(study)
        if trial is None:
            time.sleep(_POLL)
            continue
        _evaluate(study, trial, objective)
        if after is not None:
            after(study)
    candidate.training = False


def _evaluate(study: optuna.Study, trial: optuna.Trial, objective: Callable) -> None:
    """Do one trial"""
    try:
        with warnings.catch_warnings():
            # pyannote.pipeline uses functions of optuna that have new names, and asks for
            # intervals of confidence that are not used
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "Cannot compute a reliable confidence interval")
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="scipy")
            values = objective(trial)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        if study.tell(trial, values).state == TrialState.FAIL:
            raise ValueError(f"the error rate of a trial is {values}: is there any reference?")


def run(setup: Setup, rank: int) -> None:
    """What a process of its own does, for as long as the one that began it is alive."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with FileLock(lock_of(setup.into, rank)), trusting(setup.trust):
        work(setup, load(setup.pipeline, setup.frozen, setup.device), rank)


def _die_with_parent() -> None:
    # nobody would clean up after a parent that was killed, and go on with its study
    wait([parent_process().sentinel])
    os._exit(1)
