"""Tune the hyper-parameters of a pipeline on the files of a protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna

from pyannote_av.core.trust import trusting
from pyannote_av.tuning.cache import Cache
from pyannote_av.tuning.freezing import tuned_names
from pyannote_av.tuning.hashing import file_checksum, reference_checksum
from pyannote_av.tuning.optimizer_adapter import flat, metric_of
from pyannote_av.tuning.result import Result, complete_of, write_result
from pyannote_av.tuning.study import alone, describe, open_study
from pyannote_av.tuning.trials import SAMPLERS, finished, give_up
from pyannote_av.tuning.worker import Loaded, Setup, load, run, work

logger = logging.getLogger(__name__)

# seconds between checks of the worker processes
_POLL = 0.2


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

    An interrupted run can be repeated. It resumes, and gives the same result as a run without
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
        If the pipeline fails on a file, all processes end early, or another process uses `into`.
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
    setup = Setup(
        str(pipeline),
        plain,
        checksums,
        tuple(freeze),
        into,
        folder,
        trials,
        processes,
        seed,
        sampler,
        prune,
        cost,
        device,
        trust,
    )
    with alone(into), trusting(trust):
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
        describe(into, about)
        if cache is None:
            Cache(folder).tidy()
        study = open_study(into, len(about["objectives"]))
        if lost := give_up(study):
            logger.info("%d trials that did not end are begun again", lost)
        start = time.perf_counter()
        with _progress(progress, study, trials) as after:
            after(study)
            if len(finished(study)) < trials:
                _search(setup, loaded, study, after)
        seconds = time.perf_counter() - start
        kept = Cache(folder).size()
        return write_result(into, str(pipeline), loaded.pipeline, study, about, kept, seconds)


def _check(trials, processes, sampler, prune, cost, num_speakers) -> None:
    if trials < 1 or processes < 1:
        raise ValueError("trials and processes must be 1 or more")
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler {sampler!r}: choose {' or '.join(SAMPLERS)}")
    if prune and cost:
        raise ValueError("trials with two objectives cannot be given up early: drop one of both")
    if num_speakers not in ("auto", "oracle"):
        raise ValueError(f"num_speakers must be 'auto' or 'oracle', not {num_speakers!r}")


def _plain(
    file: Mapping[str, Any], preprocessors: Mapping[str, Callable], num_speakers: str
) -> dict[str, Any]:
    """A file with all of its keys evaluated, so that it can be sent to processes"""
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


def _search(setup: Setup, loaded: Loaded, study: optuna.Study, after: Callable) -> None:
    """Run all trials, in this process or in others"""
    if setup.processes == 1:
        work(setup, loaded, after=after)
        return
    context = get_context("spawn")
    workers = [context.Process(target=run, args=(setup, k)) for k in range(setup.processes)]
    try:
        for worker in workers:
            worker.start()
        alive = list(workers)
        while alive:
            alive[0].join(_POLL)
            for worker in [one for one in alive if one.exitcode is not None]:
                alive.remove(worker)
                if worker.exitcode:
                    lost = give_up(study, worker.pid)
                    logger.warning(
                        "a process ended with code %s; %d of its trials go to %d others",
                        worker.exitcode,
                        lost,
                        len(alive),
                    )
            after(study)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()
    if (done := len(finished(study))) < setup.trials:
        raise RuntimeError(
            f"all processes ended early, after {done} of {setup.trials} trials (see above); "
            "begun again, tuning goes on from there"
        )


@contextmanager
def _progress(shown: bool, study: optuna.Study, total: int) -> Iterator[Callable]:
    """Yield a function to call after each trial, or periodically, to update the progress bar"""
    if not shown:
        yield lambda study: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    best = TextColumn("{task.description}")
    with Progress(*columns, best, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def after(study: optuna.Study) -> None:
            done = finished(study)
            values = [one.values[0] for one in complete_of(done)]
            text = f"best so far: {100 * min(values):.2f} %" if values else ""
            bar.update(task, completed=len(done), description=text)

        yield after
