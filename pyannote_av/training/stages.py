"""Stages of training, as data: what is trained, what stays as it is, by which losses, how long.

References
----------
HMSA-Net's abstract names a multi-stage optimization without listing its stages. Those of
:func:`multi_stage` follow the three of its authors' MISP2022 system (visual encoder; the rest on a
frozen visual encoder; everything, https://github.com/mispchallenge/misp2022_baseline), whose second
is split where HMSA-Net has two new modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import ReadError, read_yaml, refusing

#: `train` of a stage in which nothing is frozen
EVERYTHING = ("*",)
#: courses of the learning rate
SCHEDULES = ("constant", "cosine", "exponential")
# of what usually happens to faces in training, other views are left
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
        Names its folder too.
    train : tuple of str
        Modules that learn, dotted names with all that is below; ``("*",)`` for all. The others are
        frozen, with their batch normalisation and dropout in evaluation mode.
    losses : dict of str to float
        Weights of the losses of the task; those it has unless given.
    max_epochs : int
        Epochs at most; how long one is, is for the task to say.
    patience : int or None
        Stop after that many epochs without a better `monitor`.
    monitor : str or None
        Metric that the best epoch is chosen by: its weights are those of the stage. None for what
        the task says (its ``val_monitor``). Without development files nothing is monitored, and
        the last weights are those of the stage.
    mode : {"min", "max"}
        Whether a low or a high `monitor` is good, where one is named.
    start : str
        "previous" (stage), the name of an earlier one, or the path of a ``.safetensors`` file, of
        which tensors of the same name and shape are taken.
    take : tuple of str
        Of which modules they are taken; ``("*",)`` for all.
    optimizer : str
        Name of a class of ``torch.optim``. AdamW is Adam when there is no weight decay.
    learning_rate, weight_decay : float
        Of the optimizer.
    warm_up : int
        Steps in which the learning rate rises from zero.
    schedule : {"constant", "cosine", "exponential"}
        Cosine falls to zero in the last epoch; exponential falls by the factor `decay` after every
        epoch.
    decay : float
        See `schedule`.
    clip : float or None
        Norm gradients are clipped to.
    settings : dict of str to value
        Attributes of the task to be set, such as ``batch_size``.
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
        """What the best epoch is chosen by, and whether "min" or "max" is good."""
        if self.monitor is None:
            return task.val_monitor
        return self.monitor, self.mode

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain JSON-serialisable containers."""
        return {
            **asdict(self),
            "train": list(self.train),
            "take": list(self.take),
            "losses": dict(self.losses),
            "settings": dict(self.settings),
        }

    def to_short_dict(self) -> dict[str, Any]:
        """What differs from the defaults, for files that people read."""
        default = {
            f.name: f.default_factory() if f.default_factory is not MISSING else f.default
            for f in fields(self)
        }
        given = self.to_dict()
        return {k: v for k, v in given.items() if v not in (default[k], list(EVERYTHING))}


def multi_stage(epochs: int | Iterable[int] = 10, learning_rate: float = 1e-4) -> list[Stage]:
    """The five stages of HMSA-Net.

    Visual encoder by itself, on faces that nothing happens to; acoustic encoder by itself; the
    fusion of both; the decoder; all together at a tenth of the learning rate.

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
    """One stage that trains everything at once: what multi-stage optimization is compared with."""
    losses = multi_stage()[-1].losses
    return [Stage("end_to_end", losses=losses, max_epochs=epochs, learning_rate=learning_rate)]


def check_stages(stages: Iterable[Stage]) -> list[Stage]:
    """The stages, if names are unique and each starts from what is there by then.

    Raises
    ------
    ValueError
        Naming the stage.
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
    """Stages from a YAML file: a list of what differs from the defaults.

    Raises
    ------
    ValueError
        Naming file, stage and key, where it makes no sense.
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
    """Write what :func:`read_stages` reads."""
    import yaml

    content = [stage.to_short_dict() for stage in stages]
    return write_text(Path(path), yaml.safe_dump(content, sort_keys=False))


def describe_fields() -> dict[str, str]:
    """What each attribute of a stage means, by name, from its documentation."""
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
