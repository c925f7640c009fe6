"""Definition of training stages: trained modules, losses, optimizer and duration.

References
----------
HMSA-Net's abstract mentions a multi-stage optimization without listing its stages. Those of
:func:`multi_stage` follow the three of its authors' MISP2022 system (visual encoder; the rest on a
frozen visual encoder; everything, https://github.com/mispchallenge/misp2022_baseline). The second
one is split, because HMSA-Net has two new modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError, read_yaml, refusing

#: value of `train` for a stage in which nothing is frozen
EVERYTHING = ("*",)
#: schedules of the learning rate
SCHEDULES = ("constant", "cosine", "exponential")
# the only remaining corruption of faces is a varied view and camera
_WHOLE_FACES = {
    "face_dropped": 0.0,
    "face_swapped": 0.0,
    "face_shifted": 0.0,
    "frames_deleted": 0.0,
    "sound_dropped": 0.0,
}


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes
    ----------
    name : str
        Name of the stage and of its folder.
    train : tuple of str
        Modules to train, as dotted names that include everything below; ``("*",)`` for all. The
        others are frozen, with batch normalisation and dropout in evaluation mode.
    losses : dict of str to float
        Weights of the losses of the task. Defaults to those of the task.
    max_epochs : int
        Maximum number of epochs. The task defines the length of an epoch.
    patience : int or None
        Stop after that many epochs without improvement of `monitor`.
    monitor : str or None
        Metric that selects the best epoch, whose weights are the result of the stage. None for the
        default of the task (its ``val_monitor``). Without development files nothing is monitored,
        and the last weights are the result.
    mode : {"min", "max"}
        Whether a low or a high `monitor` is better. Only used if `monitor` is given.
    start : str
        "previous" (stage), the name of an earlier stage, or the path of a ``.safetensors`` file.
        Tensors of the same name and shape are loaded from it.
    take : tuple of str
        Modules whose tensors are loaded; ``("*",)`` for all.
    optimizer : str
        Name of a class of ``torch.optim``. AdamW without weight decay is Adam.
    learning_rate, weight_decay : float
        Learning rate and weight decay of the optimizer.
    warm_up : int
        Number of steps in which the learning rate rises from zero.
    schedule : {"constant", "cosine", "exponential"}
        Cosine decays to zero in the last epoch. Exponential multiplies the learning rate by `decay`
        after every epoch.
    decay : float
        See `schedule`.
    clip : float or None
        Maximum norm of gradients.
    settings : dict of str to value
        Attributes to set on the task, such as ``batch_size``.
    """

    name: str
    train: tuple[str, ...] = EVERYTHING
    losses: Mapping[str, float] = field(default_factory=dict)
    max_epochs: int = 10
    patience: int | None = None
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    start: str = "previous"
    take: tuple[str, ...] = EVERYTHING
    optimizer: str = "AdamW"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warm_up: int = 0
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    decay: float = 0.95
    clip: float | None = 5.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "train", tuple(self.train))
        object.__setattr__(self, "take", tuple(self.take))
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"a stage cannot be called {self.name!r}: its folder is")
        if not self.train:
            raise ValueError(f"stage {self.name!r}: nothing learns (`train` is empty)")
        if self.max_epochs < 1:
            raise ValueError(f"stage {self.name!r}: max_epochs must be 1 or more")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"stage {self.name!r}: schedule must be one of {', '.join(SCHEDULES)}, not "
                f"{self.schedule!r}"
            )
        if self.mode not in ("min", "max"):
            raise ValueError(f"stage {self.name!r}: mode must be min or max, not {self.mode!r}")
        self.optimizer_class()

    def optimizer_class(self) -> type:
        """Class of ``torch.optim`` that `optimizer` names."""
        import torch

        found = getattr(torch.optim, self.optimizer, None)
        if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
            raise ValueError(
                f"stage {self.name!r}: torch.optim has no optimizer {self.optimizer!r}"
            )
        return found

    def monitored(self, task: Any) -> tuple[str, str]:
        """Metric that selects the best epoch, and whether "min" or "max" is better."""
        if self.monitor is None:
            return task.val_monitor
        return self.monitor, self.mode

    def to_dict(self) -> dict[str, Any]:
        """All attributes, as plain JSON-serialisable containers."""
        return {
            **asdict(self),
            "train": list(self.train),
            "take": list(self.take),
            "losses": dict(self.losses),
            "settings": dict(self.settings),
        }

    def to_short_dict(self) -> dict[str, Any]:
        """Attributes that differ from the defaults, for readable files."""
        default = {
            f.name: f.default_factory() if f.default_factory is not MISSING else f.default
            for f in fields(self)
        }
        given = self.to_dict()
        return {k: v for k, v in given.items() if v not in (default[k], list(EVERYTHING))}


def multi_stage(epochs: int | Iterable[int] = 10, learning_rate: float = 1e-4) -> list[Stage]:
    """The five stages of HMSA-Net.

    The visual encoder alone, on faces without corruption; the acoustic encoder alone; the fusion of
    both; the decoder; everything together, at a tenth of the learning rate.

    Parameters
    ----------
    epochs : int or five of them
    learning_rate : float
    """
    lengths = [epochs] * 5 if isinstance(epochs, int) else list(epochs)
    if len(lengths) != 5:
        raise ValueError(f"there are five stages, {len(lengths)} lengths are given")
    stages = [
        Stage("visual", ("visual",), {"visual": 1.0}, settings={"corruption": _WHOLE_FACES}),
        Stage("acoustic", ("acoustic",), {"acoustic": 1.0}, settings={"corruption": {}}),
        Stage("fusion", ("fusion",), {"fused": 1.0, "nce": 1.0, "gate": 0.5}),
        Stage("decoder", ("decoder",), {"diarization": 1.0}),
        Stage(
            "joint",
            losses={"diarization": 1.0, "acoustic": 0.4, "visual": 0.4, "nce": 0.3, "gate": 0.2},
        ),
    ]
    rates = [learning_rate] * 4 + [learning_rate / 10]
    return [
        replace(stage, max_epochs=length, learning_rate=rate)
        for stage, length, rate in zip(stages, lengths, rates, strict=True)
    ]


def end_to_end(epochs: int = 50, learning_rate: float = 1e-4) -> list[Stage]:
    """A single stage that trains everything, as a baseline for multi-stage training."""
    losses = multi_stage()[-1].losses
    return [Stage("end_to_end", losses=losses, max_epochs=epochs, learning_rate=learning_rate)]


def check_stages(stages: Iterable[Stage]) -> list[Stage]:
    """Check that names are unique, and that each stage starts from an earlier one or a file.

    Raises
    ------
    ValueError
        With the name of the stage.
    """
    stages, known = list(stages), []
    if not stages:
        raise ValueError("there is no stage")
    for stage in stages:
        if stage.name in known:
            raise ValueError(f"two stages are called {stage.name!r}")
        given = stage.start.endswith(".safetensors")
        if not given and stage.start != "previous" and stage.start not in known:
            raise ValueError(
                f"stage {stage.name!r} starts from {stage.start!r}, which is neither an earlier "
                "stage nor a .safetensors file"
            )
        known.append(stage.name)
    return stages


def read_stages(path: str | Path) -> list[Stage]:
    """Read stages from a YAML file, a list of attributes that differ from the defaults.

    Raises
    ------
    ValueError
        If the file is invalid, with the file, stage and key.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ReadError(f"{path}: a list of stages is expected")
    known = {one.name for one in fields(Stage)}
    stages = []
    for number, one in enumerate(content, 1):
        name = one.get("name", f"number {number}")
        if unknown := sorted(one.keys() - known, key=str):
            raise ReadError(f"{path}: stage {name}: unknown {', '.join(map(repr, unknown))}")
        with refusing(f"{path}: stage {name}"):
            stages.append(Stage(**one))
    with refusing(path):
        return check_stages(stages)


def write_stages(stages: Iterable[Stage], path: str | Path) -> Path:
    """Write stages in the format that :func:`read_stages` reads."""
    import yaml

    content = [stage.to_short_dict() for stage in stages]
    return write_text(Path(path), yaml.safe_dump(content, sort_keys=False))


def describe_fields() -> dict[str, str]:
    """Description of each attribute of a stage, by name, taken from its docstring."""
    import inspect
    import re

    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(Stage.__doc__ or "").splitlines():
        if head := re.fullmatch(r"(\w+(?:, \w+)*) : (.*)", line):
            names = head[1].split(", ")
            found |= dict.fromkeys(names, f"({head[2]})")
        elif names and line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
