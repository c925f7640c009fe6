"""Base class of the parts of a training configuration, checks of keys, and error messages."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Part(BaseModel):
    """A part of a configuration; its keys are the fields of the class."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content: Any) -> Any:
        if isinstance(content, Mapping):
            refuse_unknown(content, cls.model_fields)
        return content


class _Arguments(Part):
    """Arguments of a constructor."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Suggestion of the most similar known name; all of them if there is none that is similar."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"


def refuse_unknown(content: Mapping[Any, Any], known: Iterable[str]) -> None:
    """Raise ValidationError for keys that are not known, with a suggestion for each."""
    known = list(known)
    errors = [
        InitErrorDetails(
            type=PydanticCustomError(
                "unknown_key", "unknown key; {suggestion}", {"suggestion": did_you_mean(key, known)}
            ),
            loc=(str(key),),
            input=content[key],
        )
        for key in content
        if key not in known
    ]
    if errors:
        raise ValidationError.from_exception_data("keys", errors)


def check_arguments(
    kind: type, arguments: Mapping[str, Any], given: Iterable[str] = (), complete: bool = True
) -> dict[str, Any]:
    """Check arguments against the signature of a constructor.

    Parameters
    ----------
    kind : class
    arguments : mapping
        Values by name.
    given : iterable of str, optional
        Parameters that the configuration must not contain.
    complete : bool, optional
        Whether parameters without a default are required.

    Returns
    -------
    arguments : dict
        Converted to the annotated types, such as text to numbers.

    Raises
    ------
    ValidationError
        If a key is unknown, missing, or of another type.
    """
    known = {
        name: one
        for name, one in inspect.signature(kind.__init__).parameters.items()
        if name not in ("self", *given) and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    refuse_unknown(arguments, known)
    hints = typing.get_type_hints(kind.__init__)
    # augmentations are mappings in files; the task builds them
    hints["augmentation"] = Any
    required = [name for name, one in known.items() if complete and one.default is one.empty]
    fields = {
        name: (hints.get(name, Any), ...) for name in {**dict.fromkeys(required), **arguments}
    }
    checked = create_model(kind.__name__, __base__=_Arguments, **fields)(**arguments)
    return {name: getattr(checked, name) for name in arguments}


def describe_errors(error: ValidationError, content: Any) -> list[str]:
    """Describe validation errors, one line per key.

    Parameters
    ----------
    error : ValidationError
    content : mapping or list
        The validated content. It provides the names of stages.
    """
    found: dict[str, list[str]] = {}
    for one in error.errors():
        place, steps, missing = content, [], one["type"] == "missing"
        for step in one["loc"]:
            try:
                place = place[step]
            except (LookupError, TypeError):
                if missing:
                    steps.append(str(step))
                break  # pydantic's names of the members of a union
            name = place.get("name") if isinstance(step, int) and isinstance(place, dict) else None
            steps.append(name if isinstance(name, str) else str(step))
        where = ".".join(steps) or "configuration"
        message = "is missing" if missing else one["msg"].removeprefix("Value error, ")
        own = one["type"] in ("value_error", "unknown_key") or missing
        if not own and isinstance(place, str | int | float | None):
            message = f"{place!r}: {message}"
        messages = found.setdefault(where, [])
        if message not in messages:
            messages.append(message)
    return [f"{where}: {'; '.join(messages)}" for where, messages in found.items()]
