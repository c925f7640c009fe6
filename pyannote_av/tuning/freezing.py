"""Hyper-parameters that are excluded from tuning, named as on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyannote.pipeline import Pipeline
from pyannote.pipeline.parameter import Categorical, Frozen, Integer, LogUniform, Uniform

from pyannote_av.core.reading import parse_yaml


def freeze(pipeline: Pipeline, names: Sequence[str]) -> Pipeline:
    """Freeze hyper-parameters.

    Parameters
    ----------
    pipeline : Pipeline
        Must have hyper-parameters, or defaults for them.
    names : sequence of str
        Hyper-parameters to freeze, such as ``clustering.threshold=0.5``. Without a value, the
        current value is kept. ``clustering`` stands for all hyper-parameters below it.

    Returns
    -------
    pipeline : Pipeline

    Raises
    ------
    ValueError
        If a hyper-parameter does not exist, or is already frozen at another value; if none is left
        to tune; or if the value of one that is left lies outside its search range.
    """
    if not pipeline.instantiated:
        pipeline.instantiate(pipeline.default_parameters())
    values = flat(pipeline.parameters(instantiated=True))
    for one in names:
        kinds = flat(pipeline.parameters())
        name, given, text = one.partition("=")
        chosen = [full for full in values if full == name or full.startswith(f"{name}.")]
        if not chosen:
            raise ValueError(f"unknown hyper-parameter {name!r}; choose from {', '.join(values)}")
        if given and chosen != [name]:
            raise ValueError(f"{name} is a group: give a value to one of {', '.join(chosen)}")
        for full in chosen:
            value = parse_yaml(text, repr(one)) if given else values[full]
            if given and not _allows(kinds[full], value):
                raise ValueError(f"{full} cannot be {value!r}; allowed: {_range(kinds[full])}")
            _freeze(pipeline, full, kinds[full], value)
    kinds, values = flat(pipeline.parameters()), flat(pipeline.parameters(instantiated=True))
    tuned = {name: kind for name, kind in kinds.items() if not isinstance(kind, Frozen)}
    if not tuned:
        raise ValueError("all hyper-parameters are frozen: there is nothing to tune")
    for name, kind in tuned.items():
        if not _allows(kind, values[name]):
            raise ValueError(
                f"the pipeline has {name}={values[name]}, where {_range(kind)} are tried: freeze it"
            )
    return pipeline


def tuned_names(pipeline: Pipeline) -> list[str]:
    """Names of the hyper-parameters that are not frozen."""
    kinds = flat(pipeline.parameters())
    return [name for name, kind in kinds.items() if not isinstance(kind, Frozen)]


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


def _freeze(pipeline: Pipeline, name: str, kind: Any, value: Any) -> None:
    if isinstance(kind, Frozen):
        if kind.value != value:
            raise ValueError(f"the pipeline itself has {name} frozen at {kind.value}")
        return
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    pipeline.freeze(nested)
    pipeline.instantiate(nested)


def _allows(kind: Any, value: Any) -> bool:
    """Whether a value is in the range of a parameter"""
    if isinstance(kind, Categorical):
        return value in kind.choices
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(kind, Integer):
        return is_number and kind.low <= value <= kind.high and value == int(value)
    if isinstance(kind, (Uniform, LogUniform)):
        return is_number and kind.low <= value <= kind.high
    return True


def _range(kind: Any) -> str:
    """Range of a parameter, in words"""
    if isinstance(kind, Categorical):
        return "one of " + ", ".join(map(str, kind.choices))
    return f"values from {kind.low:g} to {kind.high:g}"
