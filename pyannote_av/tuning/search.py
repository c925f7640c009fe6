"""Tune the hyper-parameters of a pipeline on the files of a protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from pyannote_av.core.atomic import locked
from pyannote_av.core.trust import trusting
from pyannote_av.core.workers import PIPELINE_IMPORTS, Failure, Pool, open_pool, run
from pyannote_av.tuning.cache import Cache
from pyannote_av.tuning.evaluator import Evaluation, Evaluator, load, metric_of
from pyannote_av.tuning.freezing import flat, tuned_names
from pyannote_av.tuning.hashing import file_checksum, reference_checksum
from pyannote_av.tuning.result import Result, write_result
from pyannote_av.tuning.study import open_study
from pyannote_av.tuning.trials import SAMPLERS, Schedule, complete_of, finished

logger = logging.getLogger(__name__)

# maximum number of processes that may die in a row before tuning stops
_MAX_DEATHS = 10


def optimize(
    pipeline: str | Path,
    files: Sequence[Mapping[str, Any]],
    into: str | Path,
    trials: int = 100,
    processes: int = 1,
    seed: int = 0,
    sampler: str = "TPESampler",
    prune: bool = False,
    cost: bool = False,
    num_speakers: str = "auto",
    freeze: Sequence[str] = (),
    cache: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
    trust: bool = False,
) -> Result:
    """Find the hyper-parameters of a pipeline that minimise its error rate.

    Call it again to resume an interrupted run. The result is the same as that of a run without
    interruption.

    Parameters
    ----------
    pipeline : str or Path
        Name or folder, as for ``Pipeline.from_pretrained``.
    files : sequence of mapping
        Files of a protocol, with ``annotation`` and ``annotated``.
    into : str or Path
        Folder of the study. Its content is described at
        :func:`~pyannote_av.tuning.result.write_result`.
    trials : int, optional
        Total number of trials, including those of earlier runs.
    processes : int, optional
        Number of parallel processes, with one thread each.
    seed : int, optional
        Trials are reproducible for the same seed and number of processes.
    sampler : {"TPESampler", "RandomSampler"}, optional
        Sampler of optuna.
    prune : bool, optional
        Stop trials that are worse than the median of earlier trials after the same number of files.
    cost : bool, optional
        Also minimise the processing time per second of media. The result is then a Pareto front.
    num_speakers : {"auto", "oracle"}, optional
        Whether the pipeline is given the number of speakers of each file ("oracle").
    freeze : sequence of str, optional
        Hyper-parameters to exclude; see :func:`~pyannote_av.tuning.freezing.freeze`.
    cache : str or Path, optional
        Folder that caches the pipeline stages that do not depend on tuned hyper-parameters. Several
        studies may share it. Defaults to a folder in `into`.
    device : str, optional
        Device to run the pipeline on.
    progress : bool, optional
        Whether to show a progress bar.
    trust : bool, optional
        Allow the pipeline to name any class, and its checkpoints to be unpickled.

    Returns
    -------
    result : Result

    Raises
    ------
    ValueError
        If options are invalid, or `into` holds another study.
    FileNotFoundError
        If a file is missing.
    RuntimeError
        If the pipeline fails on a file, processes die again and again, or another process uses
        `into`.
    """
    _check(trials, processes, sampler, prune, cost, num_speakers)
    into = Path(into)
    if not files:
        raise ValueError("there are no files to tune on")
    with trusting(trust):
        loaded = load(str(pipeline), freeze, device)
    metric = metric_of(loaded.pipeline)
    plain = [_plain(file, loaded.preprocessors, num_speakers) for file in files]
    checksums = [file_checksum(file) for file in plain]
    folder = Path(cache) if cache is not None else into / "cache"
    evaluator = Evaluator(str(pipeline), tuple(freeze), plain, folder, cost, device, trust)
    with locked(into), trusting(trust):
        about = {
            "pipeline": [type(loaded.pipeline).__name__, loaded.checksum],
            "start": flat(loaded.pipeline.parameters(instantiated=True)),
            "tuned": tuned_names(loaded.pipeline),
            "files": dict(zip((one["uri"] for one in plain), checksums, strict=True)),
            "references": {one["uri"]: reference_checksum(one) for one in plain},
            "objectives": [metric.name, *(["cost"] if cost else [])],
            "number of speakers": num_speakers,
            "seed": seed,
            "sampler": sampler,
            "pruning": prune,
        }
        study = open_study(into, about)
        if cache is None:
            Cache(folder).tidy()
        lag = 1 if processes == 1 else 2 * processes
        objectives = len(about["objectives"])
        schedule = Schedule(loaded.pipeline, objectives, seed, sampler, lag, prune)
        start = time.perf_counter()
        with _progress(progress, trials) as trials_of:
            if len(trials_of(study)) < trials:
                if processes == 1:
                    evaluator.load(loaded)
                    _search(study, schedule, trials, evaluator, trials_of)
                else:
                    _search_together(study, schedule, trials, evaluator, processes, trials_of)
        seconds = time.perf_counter() - start
        kept = Cache(folder).size()
        return write_result(into, str(pipeline), loaded.pipeline, study, about, kept, seconds)


def _check(trials, processes, sampler, prune, cost, num_speakers) -> None:
    if trials < 1 or processes < 1:
        raise ValueError("trials and processes must be 1 or more")
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler {sampler!r}: choose {' or '.join(SAMPLERS)}")
    if prune and cost:
        raise ValueError(
            "trials with two objectives cannot be stopped early: leave out one of the two"
        )
    if num_speakers not in ("auto", "oracle"):
        raise ValueError(f"num_speakers must be 'auto' or 'oracle', not {num_speakers!r}")


def _plain(
    file: Mapping[str, Any], preprocessors: Mapping[str, Callable], num_speakers: str
) -> dict[str, Any]:
    """A file with the values of all keys, so that it can be sent to other processes"""
    plain = {key: file[key] for key in file}
    uri = plain.get("uri")
    for name, preprocessor in preprocessors.items():
        plain[name] = preprocessor(plain)
    if not {"audio", "video", "waveform", "frames"} & plain.keys():
        plain["audio"] = _find_audio(plain)
    if "annotation" not in plain:
        raise ValueError(f"file {uri!r} has no annotation to tune on")
    if "annotated" not in plain:
        raise ValueError(f"file {uri!r} does not say what is annotated (a UEM)")
    if num_speakers == "oracle" and plain["annotation"].labels():
        plain["pipeline_kwargs"] = {"num_speakers": len(plain["annotation"].labels())}
    return plain


def _find_audio(file: Mapping[str, Any]) -> Path:
    """Path according to ``Databases:`` of the database.yml"""
    from pyannote.database import FileFinder

    try:
        return FileFinder()(file)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"file {file.get('uri')!r} has no audio, no video, and none where database.yml says "
            f"that they are ({error})"
        ) from error


def _search(
    study: optuna.Study, schedule: Schedule, total: int, evaluator: Evaluator, trials_of: Callable
) -> None:
    """Run the trials in this process"""
    while len(trials := trials_of(study)) < total:
        trial, job = schedule.next(trials)
        study.add_trial(finished(trial, evaluator(job)))


def _search_together(
    study: optuna.Study,
    schedule: Schedule,
    total: int,
    evaluator: Evaluator,
    processes: int,
    trials_of: Callable,
) -> None:
    """Run the trials in other processes, and record them in their order"""
    imports = PIPELINE_IMPORTS if evaluator.device == "cpu" else ()
    with open_pool(evaluator, processes, imports) as pool:
        # each process fills the cache for its share of the files first, to avoid waiting
        for attempt in run(pool, range(len(evaluator.files)), retries=1):
            if attempt.final and attempt.failure:
                raise RuntimeError(attempt.failure.message)
        running: dict[int, Any] = {}
        results: dict[int, Evaluation] = {}
        proposed: list[FrozenTrial] = []  # those not recorded, in order
        while (recorded := len(trials := trials_of(study))) < total:
            while (
                len(running) < processes
                and len(proposed) < schedule.lag
                and (number := recorded + len(proposed)) < total
            ):
                trial, running[number] = schedule.next([*trials, *proposed])
                proposed.append(trial)
                pool.submit(number, running[number], None)
            number, result = _next_result(pool, running)
            del running[number]
            results[number] = result
            while proposed and recorded in results:
                study.add_trial(finished(proposed.pop(0), results.pop(recorded)))
                recorded += 1


def _next_result(pool: Pool, jobs: Mapping[int, Any]) -> tuple[int, Any]:
    """Number and result of the next trial that ends; trials whose process dies start again"""
    for _ in range(_MAX_DEATHS):
        number, value = pool.next()
        if not isinstance(value, Failure):
            return number, value
        if value.kind != "ProcessDied":
            break
        logger.warning("trial %d is started again: %s", number, value.message)
        pool.submit(number, jobs[number], None)
    raise RuntimeError(value.message)


@contextmanager
def _progress(visible: bool, total: int) -> Iterator[Callable[[optuna.Study], list[FrozenTrial]]]:
    """Yield a function that returns the trials of a study, and shows them in a progress bar"""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task("", total=total)

        def trials_of(study: optuna.Study) -> list[FrozenTrial]:
            trials = study.get_trials(deepcopy=False)
            values = [one.values[0] for one in complete_of(trials)]
            best = f", best so far: {100 * min(values):.2f} %" if values else ""
            bar.update(
                task,
                completed=len(trials),
                description=f"{len(trials)} of {total} trials{best}",
            )
            return trials

        yield trials_of
