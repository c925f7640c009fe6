"""Configuration of a training as a YAML file, checked against a schema before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError, parse_yaml, read_yaml, refusing, whole
from pyannote_av.core.renaming import current_names
from pyannote_av.models.registry import get_network, trainable
from pyannote_av.training.schema import (
    Part,
    check_arguments,
    describe_errors,
    did_you_mean,
)
from pyannote_av.training.stages import (
    OF_STAGES,
    Stage,
    check_stages,
    end_to_end,
    multi_stage,
)

#: modules of the tasks, by name of the task
TASKS = {
    "ActiveSpeakerDetection": "pyannote_av.tasks.active_speaker_detection",
    "TargetSpeakerSegmentation": "pyannote_av.tasks.target_speaker_segmentation",
    "PairwiseRelation": "pyannote_av.clustering.pairwise_relation",
    "SpeakerCounting": "pyannote_av.clustering.speaker_counting",
}
#: short names of loggers
LOGGERS = {"csv": "CSVLogger", "tensorboard": "TensorBoardLogger"}
#: maximum number of devices and of machines, because Lightning makes a list of them
MAX_DEVICES = 4096

_PROFILERS = ("simple", "advanced", "pytorch")


class TaskConfig(Part):
    """Task to train for."""

    name: str = Field(description=f"Name of the task: {', '.join(TASKS)}.")
    params: dict[str, Any] = Field(
        {},
        validate_default=True,
        description="Parameters of the task. `store` is required; see the documentation of the "
        "task for the others. An `augmentation` has the format of torch_audiomentations: "
        "`{transform: Gain, params: {...}}`.",
    )

    @field_validator("name")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"unknown task {name!r}; {did_you_mean(name, TASKS)}")
        return name

    @field_validator("params")
    @classmethod
    def _current_names(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" not in info.data:
            return params
        kind = task_class(info.data["name"])
        params = current_names(params, kind.FORMER_PARAMS, "task.params")
        check_arguments(kind, params, given=("protocol",))
        return params


class ModelConfig(Part):
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
        {},
        description="Hyper-parameters of the network. With `checkpoint`, only those to change.",
    )

    @field_validator("name")
    @classmethod
    def _known_network(cls, name: str | None) -> str | None:
        if name is not None and "." not in name and name not in trainable():
            raise ValueError(f"unknown network {name!r}; {did_you_mean(name, trainable())}")
        return name

    @field_validator("params")
    @classmethod
    def _current_names(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name")
        if name not in trainable():  # known when the checkpoint, or the trusted class, is loaded
            return params
        kind = get_network(name)
        params = current_names(params, kind.FORMER_HPARAMS, "model.params")
        check_arguments(kind, params, given=("task",), complete=False)
        return params

    @model_validator(mode="after")
    def _something(self) -> ModelConfig:
        if self.name is None and self.checkpoint is None:
            raise ValueError("give the name of a network, or a checkpoint to fine-tune")
        return self


class PlanConfig(Part):
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

    @model_validator(mode="after")
    def _makes_stages(self) -> PlanConfig:
        self.stages()
        return self

    def stages(self) -> list[Stage]:
        """Stages of the preset."""
        given = self.model_dump(exclude={"preset"}, exclude_none=True)
        if self.preset == "multi_stage":
            return multi_stage(**given)
        if isinstance(self.epochs, list):
            raise ValueError("end_to_end is one stage, and has one number of epochs")
        return end_to_end(**given)


class LoggerConfig(Part):
    """Logger of Lightning, with parameters."""

    name: str = Field(description="Class of `lightning.pytorch.loggers`, such as `WandbLogger`.")
    params: dict[str, Any] = Field({}, description="Parameters of the logger.")


class TrainingConfig(Part):
    """Configuration of a training; ``pyannote-av train --keys`` describes its fields.

    Paths are relative to the working directory.
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
        [Stage(name="training")],
        description="List of stages, trained one after the other, or `{preset: multi_stage}`.",
    )
    trainer: dict[str, Any] = Field(
        {},
        description="Parameters of Lightning's `Trainer`: accelerator, devices, num_nodes, "
        "strategy, precision, accumulate_grad_batches, sync_batchnorm, limit_train_batches, ...",
    )
    loggers: list[str | LoggerConfig] = Field(
        list(LOGGERS),
        description="List of loggers: `csv`, `tensorboard`, or others by name. `[]` for none.",
    )
    seed: int = Field(
        0, ge=0, description="Random seed of initial weights, batches and everything else."
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _list_or_preset(cls, value: Any) -> Any:
        """Choose by type, so that errors refer to one of the two alternatives only."""
        if isinstance(value, Mapping):
            return PlanConfig.model_validate(value)
        if not isinstance(value, list) or not value:
            raise ValueError("a list of stages is expected, or {preset: ...}")
        return check_stages(TypeAdapter(list[Stage]).validate_python(value))

    @field_validator("trainer")
    @classmethod
    def _of_trainer(cls, value: dict[str, Any]) -> dict[str, Any]:
        from lightning.pytorch import Trainer
        from lightning.pytorch.strategies import StrategyRegistry

        if defined := [key for key in OF_STAGES if key in value]:
            raise ValueError(f"{defined[0]}: stages define it, or `into` does")
        check_arguments(Trainer, value, given=("logger",))
        strategies = ("auto", *StrategyRegistry.available_strategies())
        for key, names in (("profiler", _PROFILERS), ("strategy", strategies)):
            if isinstance(name := value.get(key), str) and name not in names:
                raise ValueError(f"{key}: {name!r} is not one of {', '.join(names)}")
        if (devices := devices_of(value.get("devices"))) is not None:
            whole(devices, 1, MAX_DEVICES, "devices")
        whole(value.get("num_nodes", 1), 1, MAX_DEVICES, "num_nodes")
        if value.get("limit_train_batches", 1) == 0:
            raise ValueError("limit_train_batches: at least one batch is needed for training")
        return value

    @field_validator("loggers")
    @classmethod
    def _known_loggers(cls, value: list[str | LoggerConfig]) -> list[str | LoggerConfig]:
        from lightning.pytorch import loggers

        for one in value:
            name = LOGGERS.get(one, one) if isinstance(one, str) else one.name
            if not isinstance(getattr(loggers, name, None), type):
                known = [*LOGGERS, *loggers.__all__]
                raise ValueError(f"unknown logger {name!r}; {did_you_mean(name, known)}")
        return value

    def plan(self) -> list[Stage]:
        """Stages of the training."""
        return self.stages.stages() if isinstance(self.stages, PlanConfig) else list(self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers."""
        content = self.model_dump(mode="json", exclude={"stages"})
        return {**content, "stages": [stage.to_dict(short=True) for stage in self.plan()]}

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> TrainingConfig:
        """Read a YAML file.

        Parameters
        ----------
        path : str or Path
        overrides : iterable of str, optional
            Changes, such as ``task.params.batch_size=8`` or ``stages.joint.max_epochs=20``. The
            value is YAML. Stages, also those of a preset, are addressed by name, or by number
            from 0.

        Raises
        ------
        ValueError
            If the configuration is invalid. The message names the file and the key.
        """
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise ReadError(f"{path}: expected a mapping of keys to values; see `train --keys`")
        for one in overrides:
            override(content, one)
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], origin: str = "configuration") -> TrainingConfig:
        """Validate a configuration of plain containers.

        Former names of parameters are replaced, with a DeprecationWarning.

        Raises
        ------
        ValueError
            If keys are invalid. The message names these keys, and `origin`.
        """
        with refusing(origin):
            try:
                return cls.model_validate(dict(content))
            except ValidationError as error:
                raise ReadError(
                    f"{origin}: {'; '.join(describe_errors(error, content))}"
                ) from error

    def write(self, path: str | Path) -> Path:
        """Write a YAML file that :meth:`read` can read."""
        return write_text(Path(path), yaml.safe_dump(self.to_dict(), sort_keys=False))


def task_class(name: str) -> type:
    """Class of a task of :data:`TASKS`."""
    return getattr(import_module(TASKS[name]), name)


def devices_of(value: Any) -> int | None:
    """Number of devices for Lightning's ``Trainer``; None for all available devices.

    Raises
    ------
    ValueError
        If `value` is neither a number nor a list of devices.
    """
    if isinstance(value, str) and "," in value:
        value = [one for one in value.split(",") if one.strip()]
    if isinstance(value, (list, tuple)):
        return len(value)
    try:
        return None if value in (None, "auto", -1, "-1") else int(value)
    except (TypeError, ValueError):
        raise ValueError(f"devices: {value!r} is neither a number nor a list of devices") from None


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
    if parents[:1] == ["stages"] and len(parents) > 1:
        _expand_preset(content, assignment)
    place: Any = content
    for step in parents:
        if isinstance(place, list):
            place = place[_index(place, step, assignment)]
            continue
        if not isinstance(place, dict):
            raise ValueError(f"{assignment!r}: the parent of {step!r} has no keys")
        if place.get(step) is None:
            place[step] = {}
        place = place[step]
    if isinstance(place, list):
        place[_index(place, last, assignment)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ValueError(f"{assignment!r}: {'.'.join(parents)} has no keys")


def _expand_preset(content: dict[str, Any], assignment: str) -> None:
    """Replace a preset by its stages, one of which is to be changed"""
    if isinstance(preset := content.get("stages"), Mapping):
        try:
            stages = PlanConfig.model_validate(preset).stages()
        except ValidationError as error:
            lines = describe_errors(error, preset)
            raise ValueError(f"{assignment!r}: stages.{'; '.join(lines)}") from error
        content["stages"] = [stage.to_dict(short=True) for stage in stages]


def _index(place: list, step: str, assignment: str) -> int:
    names = [one.get("name") if isinstance(one, dict) else None for one in place]
    if step in names:
        return names.index(step)
    if step.isdigit() and int(step) < len(place):
        return int(step)
    advice = ""
    if step in PlanConfig.model_fields:
        advice = "; give keys of the preset before those of its stages"
    raise ValueError(f"{assignment!r}: no {step!r} among {[n for n in names if n]}{advice}")


def keys() -> str:
    """List all keys of a configuration with their descriptions."""
    lines: list[str] = []

    def tell(part: type[BaseModel], indent: str) -> None:
        for name, one in part.model_fields.items():
            kind = one.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                lines.append(f"{indent}{name}: {inspect.getdoc(kind).splitlines()[0]}")
                tell(kind, indent + "  ")
                continue
            required = " (required)" if one.is_required() else ""
            lines.append(f"{indent}{name}{required}: {one.description}")
            if name == "stages":
                tell(Stage, indent + "  ")
                lines.append(f"{indent}  or, instead of a list:")
                tell(PlanConfig, indent + "  ")
            if name == "loggers":
                tell(LoggerConfig, indent + "  ")

    tell(TrainingConfig, "")
    return "\n".join(lines)
