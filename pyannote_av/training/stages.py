"""Stages of training: trained modules, losses, optimizer and duration.

References
----------
HMSA-Net's abstract mentions a multi-stage optimization without listing its stages. The stages of
:func:`multi_stage` follow those of the MISP2022 system of the same authors: the visual encoder,
then the rest on a frozen visual encoder, then everything
(https://github.com/mispchallenge/misp2022_baseline). The second stage is split here, because
HMSA-Net has two new modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from pyannote_av.training.schema import Part, did_you_mean

#: options of Lightning's ``Trainer`` that the stages define
OF_STAGES = ("max_epochs", "gradient_clip_val", "default_root_dir")
#: value of `train` for a stage in which nothing is frozen
EVERYTHING = ("*",)
# of the corruptions of faces, only the varied view and camera remain
_WHOLE_FACES = {
    "face_dropped": 0.0,
    "face_swapped": 0.0,
    "face_shifted": 0.0,
    "frames_deleted": 0.0,
    "sound_dropped": 0.0,
}


class Stage(Part):
    """One stage of training; ``pyannote-av train --keys`` describes its fields."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Name of the stage and of its folder.")
    train: tuple[str, ...] = Field(
        EVERYTHING,
        min_length=1,
        description="Modules to train, as dotted names that include everything below; `['*']` for "
        "all. The others are frozen, with batch normalisation and dropout in evaluation mode.",
    )
    losses: dict[str, float] = Field(
        {},
        description="Weights of the losses of the task. Default: those of the task. For target "
        "speakers, `package.module.NAME` is a loss of your own; it needs `--trust`.",
    )
    max_epochs: int = Field(
        10, ge=1, description="Maximum number of epochs. The task defines the length of an epoch."
    )
    patience: int | None = Field(
        None, description="Stop after that many epochs without improvement of `monitor`."
    )
    monitor: str | None = Field(
        None,
        description="Metric that selects the best epoch, whose weights are the result of the "
        "stage. Default: that of the task. Without development files nothing is monitored, and the "
        "last weights are the result.",
    )
    mode: Literal["min", "max"] = Field(
        "min",
        description="Whether a low or a high `monitor` is better. Only used if `monitor` is given.",
    )
    start: str = Field(
        "previous",
        description="`previous` (stage), the name of an earlier stage, or the path of a "
        "`.safetensors` file. Tensors of the same name and shape are loaded from it.",
    )
    take: tuple[str, ...] = Field(
        EVERYTHING, description="Modules whose tensors are loaded; `['*']` for all."
    )
    optimizer: str = Field(
        "AdamW",
        description="Name of a class of `torch.optim`. AdamW without weight decay is Adam.",
    )
    learning_rate: float = Field(1e-4, description="Learning rate of the optimizer.")
    weight_decay: float = Field(0.0, description="Weight decay of the optimizer.")
    warm_up: int = Field(
        0, description="Number of steps in which the learning rate rises from zero."
    )
    schedule: Literal["constant", "cosine", "exponential"] = Field(
        "constant",
        description="Cosine decays to zero in the last epoch. Exponential multiplies the learning "
        "rate by `decay` after every epoch.",
    )
    decay: float = Field(0.95, description="Factor of the exponential schedule.")
    clip: float | None = Field(5.0, description="Maximum norm of gradients.")
    settings: dict[str, Any] = Field(
        {}, description="Attributes to set on the task, such as `batch_size`."
    )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(
                f"a stage cannot be called {name!r}: it cannot be the name of a folder"
            )
        return name

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        import torch

        found = getattr(torch.optim, name, None)
        if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
            known = [one for one in dir(torch.optim) if one[0].isupper()]
            raise ValueError(f"torch.optim has no {name!r}; {did_you_mean(name, known)}")
        return name

    def optimizer_class(self) -> type:
        """Class of ``torch.optim`` that `optimizer` names."""
        import torch

        return getattr(torch.optim, self.optimizer)

    def monitored(self, task: Any) -> tuple[str, str]:
        """Metric that selects the best epoch, and whether "min" or "max" is better."""
        return task.val_monitor if self.monitor is None else (self.monitor, self.mode)

    def to_dict(self, short: bool = False) -> dict[str, Any]:
        """Convert to plain containers; if `short`, only fields that differ from the defaults."""
        return self.model_dump(mode="json", exclude_defaults=short)


def multi_stage(epochs: int | Iterable[int] = 10, learning_rate: float = 1e-4) -> list[Stage]:
    """The five stages of HMSA-Net.

    They train, one after the other, the visual encoder (on faces without corruption), the acoustic
    encoder, the fusion of both, the decoder, and finally all modules at a tenth of the learning
    rate.

    Parameters
    ----------
    epochs : int or iterable of int
        Number of epochs of every stage, or of each of the five stages.
    learning_rate : float
    """
    lengths = [epochs] * 5 if isinstance(epochs, int) else list(epochs)
    if len(lengths) != 5:
        raise ValueError(f"five numbers of epochs are needed, {len(lengths)} were given")
    stages: list[dict[str, Any]] = [
        {
            "name": "visual",
            "train": ("visual",),
            "losses": {"visual": 1.0},
            "settings": {"corruption": _WHOLE_FACES},
        },
        {
            "name": "acoustic",
            "train": ("acoustic",),
            "losses": {"acoustic": 1.0},
            "settings": {"corruption": {}},
        },
        {
            "name": "fusion",
            "train": ("fusion",),
            "losses": {"fused": 1.0, "nce": 1.0, "gate": 0.5},
        },
        {"name": "decoder", "train": ("decoder",), "losses": {"diarization": 1.0}},
        {
            "name": "joint",
            "losses": {"diarization": 1.0, "acoustic": 0.4, "visual": 0.4, "nce": 0.3, "gate": 0.2},
        },
    ]
    rates = [learning_rate] * 4 + [learning_rate / 10]
    return [
        Stage(max_epochs=length, learning_rate=rate, **stage)
        for stage, length, rate in zip(stages, lengths, rates, strict=True)
    ]


def end_to_end(epochs: int = 50, learning_rate: float = 1e-4) -> list[Stage]:
    """A single stage that trains everything, as a baseline for multi-stage training."""
    losses = multi_stage()[-1].losses
    given = {"losses": losses, "max_epochs": epochs, "learning_rate": learning_rate}
    return [Stage(name="end_to_end", **given)]


def check_stages(stages: Iterable[Stage]) -> list[Stage]:
    """Check that names are unique, and that each stage starts from an earlier one or a file.

    Raises
    ------
    ValueError
        With the name of the stage.
    """
    stages, known = list(stages), []
    if not stages:
        raise ValueError("no stage is given")
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
