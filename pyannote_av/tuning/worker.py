"""A tuning process: claims trials of the study and runs the pipeline on all files."""

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
from pyannote_av.tuning.cache import Cache
from pyannote_av.tuning.freezing import freeze
from pyannote_av.tuning.hashing import pipeline_checksum
from pyannote_av.tuning.optimizer_adapter import Candidate, flat
from pyannote_av.tuning.study import JOURNAL, STUDY, lock_of
from pyannote_av.tuning.trials import TrialSchedule

# seconds between attempts to claim a trial; trials of other processes take longer
_POLL = 0.05


@dataclass(frozen=True)
class Setup:
    """Settings of a tuning process.

    Attributes
    ----------
    pipeline : str
        Name or folder, as for ``Pipeline.from_pretrained``.
    files : list of dict
        Files of the protocol.
    checksums : list of str
        Checksums of the files' content.
    frozen : tuple of str
        Frozen hyper-parameters; see :func:`~pyannote_av.tuning.freezing.freeze`.
    into, cache : Path
        Folder of the study, and folder of cached stages.
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
    """A loaded pipeline to tune.

    Attributes
    ----------
    pipeline : Pipeline
        Has the given hyper-parameters frozen, and no preprocessors.
    checksum : str
        Checksum of everything that the pipeline's stages depend on.
    preprocessors : dict
        Preprocessors by key. If the pipeline applied them, it would bypass the cache of files.
    """

    pipeline: Pipeline
    checksum: str
    preprocessors: dict[str, Callable]


def load(checkpoint: str, frozen: Sequence[str], device: str) -> Loaded:
    """Load a pipeline to tune; arguments are those of :class:`Setup`."""
    pipeline = Loader.from_pretrained(checkpoint)
    preprocessors = getattr(pipeline, "preprocessors", {})
    if preprocessors:
        del pipeline.preprocessors
    identity = pipeline_checksum(pipeline)
    return Loaded(freeze(pipeline, frozen).to(torch.device(device)), identity, preprocessors)


def start_of(pipeline: Pipeline) -> dict[str, Any]:
    """Current values of a pipeline's hyper-parameters, by optuna's names."""
    if not pipeline.instantiated:
        pipeline.instantiate(pipeline.default_parameters())
    return flat(pipeline.parameters(instantiated=True), ">")


def work(
    setup: Setup,
    loaded: Loaded,
    rank: int = 0,
    after: Callable[[optuna.Study], None] | None = None,
) -> None:
    """Run trials until the study has as many as requested.

    Parameters
    ----------
    setup : Setup
    loaded : Loaded
        The pipeline of `setup`.
    rank : int, optional
        Index of this process.
    after : callable, optional
        Called with the study after every trial.
    """
    candidate = Candidate(loaded.pipeline, Cache(setup.cache), setup.cost)
    files = setup.files
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
        # each process fills the cache for its share of the files first, to avoid waiting
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
    """Run one trial"""
    try:
        with warnings.catch_warnings():
            # pyannote.pipeline uses deprecated optuna functions, and computes confidence
            # intervals that are not used
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
    """Main function of a worker process, which exits together with its parent."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with FileLock(lock_of(setup.into, rank)), trusting(setup.trust):
        work(setup, load(setup.pipeline, setup.frozen, setup.device), rank)


def _die_with_parent() -> None:
    # exit with the parent: an orphan would continue the study
    wait([parent_process().sentinel])
    os._exit(1)
