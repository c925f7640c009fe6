"""Configuration of a training as a YAML file, checked against a schema before it starts."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError, parse_yaml, read_yaml, refusing, whole
from pyannote_av.training.stages import Stage, check_stages, end_to_end, multi_stage

#: short names of loggers
LOGGERS = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger"}
#: maximum number of devices and of machines, because Lightning makes a list of them
MAX_DEVICES = 4096

_PROFILERS = ("simple", "advanced", "pytorch")


class _Part(BaseModel):
    # unknown keys are errors
    model_config = ConfigDict(extra="forbid")


class TaskConfig(_Part):
    """Task to train for."""

    name: Literal[
        "ActiveSpeakerDetection",
        "TargetSpeakerSegmentation",
        "PairwiseRelation",
        "SpeakerCounting",
    ] = Field(description="Name of a task of `pyannote_av.tasks`.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the task. `store` is required; see the documentation of the "
        "task for the others. An `augmentation` has the format of torch_audiomentations: "
        "`{transform: Gain, params: {...}}`.",
    )


class ModelConfig(_Part):
    """Model to train: a network from scratch, or a checkpoint to fine-tune."""

    name: str | None = Field(
        None,
        description="Name of a network, such as `HMSANet` or `TalkNet`. With `checkpoint`, the "
        "network that the checkpoint must contain.",
    )
    checkpoint: str | None = Field(
        None,
        description="Checkpoint to fine-tune: a `.safetensors` or `.ckpt` file, a folder with one, "
        "the name of known weights such as `lr-asd`, or a file published by the authors.",
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Hyper-parameters of the network. With `checkpoint`, only those to change.",
    )

    @model_validator(mode="after")
    def _something(self) -> ModelConfig:
        if self.name is None and self.checkpoint is None:
            raise ValueError("give the name of a network, or a checkpoint to fine-tune")
        return self


class PlanConfig(_Part):
    """Predefined stages."""

    preset: Literal["multi_stage", "end_to_end"] = Field(
        description="multi_stage for the five stages of HMSA-Net, or end_to_end for one stage with "
        "all losses."
    )
    epochs: int | list[int] | None = Field(
        None,
        description="Number of epochs of every stage, or a list with one number per stage. "
        "Default: 10 for multi_stage, 50 for end_to_end.",
    )
    learning_rate: float | None = Field(
        None, description="Learning rate. The joint stage of multi_stage uses a tenth of it."
    )

    def stages(self) -> list[Stage]:
        """Stages of the preset."""
        given = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        given = {name: value for name, value in given.items() if value is not None}
        if self.preset == "multi_stage":
            return multi_stage(**given)
        if isinstance(self.epochs, list):
            raise ValueError("end_to_end is one stage, and has one number of epochs")
        return end_to_end(**given)


class LoggerConfig(_Part):
    """Logger of Lightning, with parameters."""

    name: str = Field(description="Class of `lightning.pytorch.loggers`, such as `WandbLogger`.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of the logger.")


class TrainingConfig(_Part):
    """Configuration of a training.

    Paths are relative to the working directory.

    Attributes
    ----------
    protocol, database, into, task, model, stages, trainer, loggers, seed
        See ``pyannote-av train --keys``.
    """

    protocol: str = Field(
        description="Protocol of pyannote.database, such as `AVA-AVD.SpeakerDiarization.Clips`."
    )
    database: Path | None = Field(
        None,
        description="database.yml that defines the protocol. Default: those that "
        "pyannote.database finds.",
    )
    into: Path = Field(
        description="Output folder for checkpoints, records and logs. An interrupted "
        "training in this folder is continued."
    )
    task: TaskConfig
    model: ModelConfig
    stages: list[Stage] | PlanConfig = Field(
        default_factory=lambda: [Stage("training")],
        description="List of stages, trained one after the other, or `{preset: multi_stage}`.",
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of Lightning's `Trainer`: accelerator, devices, num_nodes, "
        "strategy, precision, accumulate_grad_batches, sync_batchnorm, limit_train_batches, ...",
    )
    loggers: list[str | LoggerConfig] = Field(
        default_factory=lambda: list(LOGGERS),
        description="List of loggers: `csv`, `tensorboard`, or others by name. `[]` for none.",
    )
    seed: int = Field(
        0, ge=0, description="Random seed of initial weights, batches and everything else."
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _each_stage(cls, value: Any) -> Any:
        """Validate stages one by one, for clear errors instead of one per member of the union."""
        if isinstance(value, Mapping):
            return PlanConfig(**value)
        if not isinstance(value, list) or not value:
            raise ValueError("a list of stages is expected, or {preset: ...}")
        stages = []
        for number, one in enumerate(value):
            if isinstance(one, Stage):
                stages.append(one)
                continue
            if not isinstance(one, Mapping):
                raise ValueError(f"stage number {number + 1} is no mapping")
            name = one.get("name", f"number {number + 1}")
            if unknown := sorted(map(str, set(one) - set(Stage.__dataclass_fields__))):
                known = Stage.__dataclass_fields__
                raise ValueError(f"stage {name}: {unknown_key(unknown[0], known)}")
            try:
                stages.append(Stage(**check_params(Stage, one, f"stage {name}")))
            except TypeError as error:
                raise ValueError(f"stage {name}: {error}") from error
        return check_stages(stages)

    @field_validator("trainer")
    @classmethod
    def _of_trainer(cls, value: dict[str, Any]) -> dict[str, Any]:
        from lightning.pytorch import Trainer
        from lightning.pytorch.strategies import StrategyRegistry

        from pyannote_av.training.fitting import OF_STAGES

        known = set(inspect.signature(Trainer.__init__).parameters) - {"self", "logger"}
        for key in value:
            if key in OF_STAGES:
                raise ValueError(f"{key}: stages say that, or `into` does")
            if key not in known:
                raise ValueError(unknown_key(key, known))
        check_params(Trainer, value, "trainer")
        strategies = ("auto", *StrategyRegistry.available_strategies())
        for key, names in (("profiler", _PROFILERS), ("strategy", strategies)):
            if isinstance(name := value.get(key), str) and name not in names:
                raise ValueError(f"{key}: {name!r} is not one of {', '.join(names)}")
        if (devices := devices_of(value.get("devices"))) is not None:
            whole(devices, 1, MAX_DEVICES, "devices")
        whole(value.get("num_nodes", 1), 1, MAX_DEVICES, "num_nodes")
        return value

    @field_validator("loggers")
    @classmethod
    def _known_loggers(cls, value: list[str | LoggerConfig]) -> list[str | LoggerConfig]:
        from lightning.pytorch import loggers

        for one in value:
            name = LOGGERS.get(one, one) if isinstance(one, str) else one.name
            if not isinstance(getattr(loggers, name, None), type):
                raise ValueError(f"no logger {name!r}; there is {', '.join(loggers.__all__)}")
        return value

    def plan(self) -> list[Stage]:
        """Stages of the training."""
        return self.stages.stages() if isinstance(self.stages, PlanConfig) else list(self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers."""
        content = self.model_dump(mode="json", exclude={"stages"})
        return {**content, "stages": [stage.to_short_dict() for stage in self.plan()]}

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> TrainingConfig:
        """Read a YAML file.

        Parameters
        ----------
        path : str or Path
        overrides : iterable of str, optional
            Changes, such as ``task.params.batch_size=8`` or ``stages.joint.max_epochs=20``. The
            value is YAML. Stages are addressed by name, or by number from 0.

        Raises
        ------
        ValueError
            If the configuration is invalid. The message names the file and the key.
        """
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ReadError(f"{path}: keys and values are expected, see train --keys")
        for one in overrides:
            override(content, one)
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], origin: str = "configuration") -> TrainingConfig:
        """Validate a configuration of plain containers.

        Raises
        ------
        ValueError
            If keys are invalid. The message names all of them, and `origin`.
        """
        with refusing(origin):
            try:
                return cls(**content)
            except ValidationError as error:
                raise ReadError("\n".join([f"{origin}:", *_wrong_keys(error)])) from error

    def write(self, path: str | Path) -> Path:
        """Write a YAML file that :meth:`read` can read."""
        return write_text(Path(path), yaml.safe_dump(self.to_dict(), sort_keys=False))


def _wrong_keys(error: ValidationError) -> Iterator[str]:
    """Describe validation errors, one line per key."""
    for one in error.errors():
        where = ".".join(map(str, one["loc"])) or "all of it"
        message = one["msg"].removeprefix("Value error, ").removeprefix(f"{where}.")
        if one["type"] == "extra_forbidden":
            message = unknown_key(where.rsplit(".", 1)[-1], _siblings(one["loc"]))
        elif one["type"] == "missing":
            message = "is missing"
        yield f"  {where}: {message}"


def devices_of(value: Any) -> int | None:
    """Number of devices for Lightning's ``Trainer``; None for all available devices.

    Raises
    ------
    ValueError
        If `value` is neither a number of devices nor a list of them.
    """
    if isinstance(value, str) and "," in value:
        value = [one for one in value.split(",") if one.strip()]
    if isinstance(value, (list, tuple)):
        return len(value)
    try:
        return None if value in (None, "auto", -1, "-1") else int(value)
    except (TypeError, ValueError):
        raise ValueError(f"devices: {value!r} is no number of devices, and no list") from None


def check_params(
    kind: type, params: Mapping[str, Any], where: str, given: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check parameters against the signature of a class, and convert their types.

    Parameters
    ----------
    kind : class
    params : mapping
        Values by name.
    where : str
        Key of the configuration that holds the parameters.
    given : tuple of str, optional
        Parameters that the configuration must not contain.

    Returns
    -------
    params : dict
        Values converted to the annotated types, such as text to numbers.

    Raises
    ------
    ValueError
        If a key is unknown, missing, or of another type.
    """
    signature = inspect.signature(kind.__init__).parameters
    known = {name: one for name, one in signature.items() if name not in ("self", *given)}
    hints = typing.get_type_hints(kind.__init__)
    found = dict(params)
    for name, value in params.items():
        if name not in known:
            raise ReadError(f"{where}: {unknown_key(name, known)}")
        hint = hints.get(name, Any)
        if isinstance(hint, type) and issubclass(hint, int | float | bool | str):
            config = None
        else:
            config = ConfigDict(arbitrary_types_allowed=True)
        if name == "augmentation":
            continue
        try:
            found[name] = TypeAdapter(hint, config=config).validate_python(value)
        except ValidationError as error:
            reason = "; ".join(sorted({one["msg"] for one in error.errors()}))
            raise ReadError(f"{where}.{name}: {value!r}: {reason}") from error
    for name, one in known.items():
        if one.default is inspect.Parameter.empty and name not in params:
            raise ReadError(f"{where}.{name} is missing")
    return found


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Error message for an unknown key, with the most similar known key."""
    close = difflib.get_close_matches(key, list(known), 1)
    return f"there is no key {key!r}" + (f": is it {close[0]!r}?" if close else "")


def _siblings(location: tuple) -> list[str]:
    """Known keys at the location of an unknown one."""
    part: Any = TrainingConfig
    for step in location[:-1]:
        part = part.model_fields[step].annotation if step in part.model_fields else part
    return list(part.model_fields)


def override(content: dict[str, Any], assignment: str) -> None:
    """Change one value of a configuration, in place; see :meth:`TrainingConfig.read`.

    Raises
    ------
    ValueError
        If `assignment` is not an assignment, or its key cannot be assigned to.
    """
    path, sign, text = assignment.partition("=")
    if not sign or not path:
        raise ValueError(f"{assignment!r}: overrides read key=value")
    *parents, last = path.split(".")
    value = parse_yaml(text, repr(assignment))
    place: Any = content
    for step in parents:
        place = _step(place, step, assignment)
    if isinstance(place, list):
        place[_index(place, last, assignment)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ValueError(f"{assignment!r}: there is nothing below {'.'.join(parents)}")


def _step(place: Any, step: str, assignment: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, step, assignment)]
    if not isinstance(place, dict):
        raise ValueError(f"{assignment!r}: there is nothing below what is above {step!r}")
    if place.get(step) is None:
        place[step] = {}
    return place[step]


def _index(place: list, step: str, assignment: str) -> int:
    names = [one.get("name") if isinstance(one, dict) else None for one in place]
    if step in names:
        return names.index(step)
    if step.isdigit() and int(step) < len(place):
        return int(step)
    raise ValueError(f"{assignment!r}: no {step!r} among {[n for n in names if n]}")


def keys() -> str:
    """List all keys of a configuration with their descriptions."""
    from pyannote_av.training.stages import describe_fields

    lines: list[str] = []

    def tell(part: type[BaseModel], indent: str) -> None:
        for name, one in part.model_fields.items():
            kind = one.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                lines.append(f"{indent}{name}: {kind.__doc__.splitlines()[0]}")
                tell(kind, indent + "  ")
                continue
            needed = " (needed)" if one.is_required() else ""
            lines.append(f"{indent}{name}{needed}: {one.description}")
            if name == "stages":
                lines.extend(f"{indent}  {key}: {text}" for key, text in describe_fields().items())
                lines.append(f"{indent}  or, instead of a list:")
                tell(PlanConfig, indent + "  ")
            if name == "loggers":
                tell(LoggerConfig, indent + "  ")

    tell(TrainingConfig, "")
    return "\n".join(lines)
