"""Adapter that lets pyannote.pipeline's ``Optimizer`` tune a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyannote.core import Annotation, Timeline
from pyannote.metrics.base import BaseMetric
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.pipeline import Pipeline

from pyannote_av.tuning.cache import Cache, process


class Cost(BaseMetric):
    """Processing time per second of media, for the last file of a candidate.

    Parameters
    ----------
    candidate : Candidate
    """

    @classmethod
    def metric_name(cls) -> str:
        """Name of the metric."""
        return "cost"

    @classmethod
    def metric_components(cls) -> list[str]:
        """Components that are summed over files, in seconds."""
        return ["processing", "media"]

    def __init__(self, candidate: Candidate):
        super().__init__()
        self._candidate = candidate

    def compute_components(
        self, reference: Annotation, hypothesis: Annotation, uem: Timeline | None = None, **kwargs
    ) -> dict[str, float]:
        """Times of the last file. All arguments are ignored."""
        return {"processing": self._candidate.seconds, "media": self._candidate.media}

    def compute_metric(self, detail: Mapping[str, float]) -> float:
        """Cost from the summed components, rounded to three significant digits."""
        return float(f"{detail['processing'] / detail['media']:.3g}") if detail["media"] else 0.0


class Candidate:
    """Adapts a pipeline to ``Optimizer``.

    ``Optimizer`` passes ``pipeline_kwargs`` twice, expects an ``Annotation`` where pyannote's own
    pipelines return a richer output, and evaluates a pipeline by its own metric. The pipeline must
    not have preprocessors: pyannote's own pipelines would bypass the cache. See
    :class:`~pyannote_av.tuning.worker.Loaded`.

    Parameters
    ----------
    pipeline : Pipeline
    cache : Cache
        Cache for the steps of the pipeline.
    with_cost : bool, optional
        Also minimise the cost.

    Attributes
    ----------
    seconds, media : float
        Processing time of the last file, as if nothing had been cached, and its duration.
    """

    def __init__(self, pipeline: Pipeline, cache: Cache, with_cost: bool = False):
        self.pipeline, self.cache, self.with_cost = pipeline, cache, with_cost
        self.seconds = self.media = 0.0

    @property
    def training(self) -> bool:
        """Whether the pipeline is being tuned."""
        return self.pipeline.training

    @training.setter
    def training(self, training: bool) -> None:
        self.pipeline.training = training

    def get_metric(self) -> Sequence[BaseMetric]:
        """The diarization error rate of the pipeline, and optionally the cost."""
        return (
            [metric_of(self.pipeline), Cost(self)] if self.with_cost else [metric_of(self.pipeline)]
        )

    def get_direction(self) -> list[str]:
        """All metrics are minimised."""
        return ["minimize"] * (1 + self.with_cost)

    def parameters(self, trial: Any) -> dict[str, Any]:
        """Hyper-parameters that a trial suggests."""
        return self.pipeline.parameters(trial=trial)

    def instantiate(self, params: Mapping[str, Any]) -> Candidate:
        """Set hyper-parameters."""
        self.pipeline.instantiate(params)
        return self

    def __call__(self, file: Mapping[str, Any], **_: Any) -> Annotation:
        """Process a file; the pipeline reads ``pipeline_kwargs`` from it.

        Raises
        ------
        RuntimeError
            If the pipeline fails, with the name of the file.
        """
        hypothesis, self.seconds, self.media = process(self.pipeline, file, self.cache)
        return hypothesis


def metric_of(pipeline: Pipeline) -> DiarizationErrorRate:
    """Error rate that a pipeline is evaluated by.

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


def flat(nested: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested hyper-parameters by their full name, such as ``clustering.threshold``."""
    found = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            inner = flat(value, separator)
            found |= {f"{name}{separator}{other}": one for other, one in inner.items()}
        else:
            found[name] = value
    return found
