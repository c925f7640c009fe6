"""Evaluation of a trial: a pipeline with given hyper-parameters runs on all files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from pyannote.metrics.base import BaseMetric
from pyannote.pipeline import Pipeline

from pyannote_av.core.pipeline import Pipeline as Loader
from pyannote_av.core.trust import trusting
from pyannote_av.tuning.cache import Cache, process
from pyannote_av.tuning.freezing import freeze
from pyannote_av.tuning.hashing import pipeline_checksum


class Loaded(NamedTuple):
    """A loaded pipeline to tune.

    Attributes
    ----------
    pipeline : Pipeline
        Has the given hyper-parameters frozen, and no preprocessors.
    checksum : str
        Checksum of everything that the pipeline's stages depend on.
    preprocessors : dict
        Preprocessors by key. The pipeline does not apply them, as this would bypass the cache.
    """

    pipeline: Pipeline
    checksum: str
    preprocessors: dict[str, Callable]


def load(checkpoint: str, frozen: Sequence[str], device: str) -> Loaded:
    """Load a pipeline to tune; arguments are those of :class:`Evaluator`."""
    pipeline = Loader.from_pretrained(checkpoint)
    preprocessors = getattr(pipeline, "preprocessors", {})
    if preprocessors:
        del pipeline.preprocessors
    identity = pipeline_checksum(pipeline)
    return Loaded(freeze(pipeline, frozen).to(torch.device(device)), identity, preprocessors)


class Evaluation(NamedTuple):
    """Results of a trial.

    Attributes
    ----------
    values : list of float or None
        Error rate, and the cost if it is measured. None if the trial was pruned.
    rates : list of float
        Error rate after each file.
    seconds : float
        Duration of the evaluation, in seconds.
    """

    values: list[float] | None
    rates: list[float]
    seconds: float


@dataclass
class Evaluator:
    """Runs a pipeline on all files of a study.

    Evaluators can be sent to other processes, where :meth:`load` loads the pipeline.

    Attributes
    ----------
    checkpoint : str
        Name or folder of the pipeline, as for ``Pipeline.from_pretrained``.
    frozen : tuple of str
        Frozen hyper-parameters; see :func:`~pyannote_av.tuning.freezing.freeze`.
    files : list of dict
        Files of the protocol.
    cache : Path
        Folder of cached stages.
    cost : bool
        Whether to measure the cost as well.
    device : str
    trust : bool
        See :func:`~pyannote_av.tuning.search.optimize`.
    """

    checkpoint: str
    frozen: tuple[str, ...]
    files: list[dict[str, Any]]
    cache: Path
    cost: bool = False
    device: str = "cpu"
    trust: bool = False

    def load(self, loaded: Loaded | None = None) -> None:
        """Prepare this process, unless the pipeline is already loaded."""
        with trusting(self.trust):
            self._pipeline, *_ = loaded or load(self.checkpoint, self.frozen, self.device)
        self._pipeline.training = True
        self._cache = Cache(self.cache)

    def __call__(self, job: int | tuple[Mapping[str, Any], Sequence[float]]) -> Evaluation | None:
        """Evaluate hyper-parameters, or fill the cache.

        Parameters
        ----------
        job : (nested hyper-parameters, limits) or int
            The trial is pruned when its error rate exceeds the limit after the same number of
            files. With the index of a file, only the cache of that file is filled.

        Raises
        ------
        RuntimeError
            If the pipeline fails, with the name of the file.
        """
        with trusting(self.trust):
            if isinstance(job, int):
                process(self._pipeline, self.files[job], self._cache)
                return None
            return self._evaluate(*job)

    def _evaluate(self, params: Mapping[str, Any], limits: Sequence[float]) -> Evaluation:
        start = perf_counter()
        self._pipeline.instantiate(params)
        metric, rates, spent, media = metric_of(self._pipeline), [], 0.0, 0.0
        for number, file in enumerate(self.files):
            hypothesis, seconds, duration = process(self._pipeline, file, self._cache)
            metric(file["annotation"], hypothesis, uem=file["annotated"])
            rates.append(abs(metric))
            spent, media = spent + seconds, media + duration
            if number < len(limits) and rates[-1] > limits[number]:
                return Evaluation(None, rates, perf_counter() - start)
        values = rates[-1:]
        if self.cost:
            values = [*values, float(f"{spent / media:.3g}") if media else 0.0]
        return Evaluation(values, rates, perf_counter() - start)


def metric_of(pipeline: Pipeline) -> BaseMetric:
    """Error rate metric of a pipeline.

    Raises
    ------
    TypeError
        If it has no such metric.
    """
    try:
        metric = pipeline.get_metric()
    except NotImplementedError:
        metric = None
    if not isinstance(metric, BaseMetric) or pipeline.get_direction() != "minimize":
        raise TypeError(f"{type(pipeline).__name__} has no error rate that could be minimised")
    return metric
