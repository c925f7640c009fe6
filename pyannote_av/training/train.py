"""From a configuration to a trained model."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pyannote_av.core.model import AVModel, Model, check_hparams
from pyannote_av.core.protocols import open_protocol
from pyannote_av.core.trust import UntrustedError, loading, named_class, policy
from pyannote_av.core.weights import REGISTRY, require
from pyannote_av.models.importers import import_checkpoint
from pyannote_av.training.config import LOGGERS, ModelConfig, TrainingConfig, unknown_key
from pyannote_av.training.runner import optimize

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

#: networks that can be trained from scratch by name
NETWORKS = {
    "LRASD": "pyannote_av.models.active_speaker.lrasd",
    "CompactASD": "pyannote_av.models.active_speaker.compact",
    "LightASD": "pyannote_av.models.active_speaker.lightasd",
    "LoCoNet": "pyannote_av.models.active_speaker.loconet",
    "TalkNet": "pyannote_av.models.active_speaker.talknet",
    "HMSANet": "pyannote_av.models.hmsanet.model",
    "AVRNet": "pyannote_av.clustering.avrnet",
    "RelationOfEmbeddings": "pyannote_av.clustering.embedded",
    "FusedEmbeddings": "pyannote_av.clustering.embedded",
    "CYSMSD": "pyannote_av.clustering.cysmsd",
}

#: tasks by name
TASKS = {
    "ActiveSpeakerDetection": "pyannote_av.tasks.active_speaker_detection",
    "TargetSpeakerSegmentation": "pyannote_av.tasks.target_speaker_segmentation",
    "PairwiseRelation": "pyannote_av.clustering.pairwise_relation",
    "SpeakerCounting": "pyannote_av.clustering.speaker_counting",
}

# authors' files, as opposed to checkpoints that name their architecture
_AUTHORS = {".model", ".pt", ".pth"}


def train(config: TrainingConfig, trust: bool = False) -> AVModel:
    """Train a model, or go on with it.

    Parameters
    ----------
    config : TrainingConfig
    trust : bool, optional
        Build any class that the configuration names, and unpickle any checkpoint.

    Returns
    -------
    model : AVModel
        In evaluation mode, with the weights of the last stage; they are in
        ``config.into / "model.safetensors"`` too.

    Raises
    ------
    ValueError
        When the configuration makes no sense, or the folder was begun with another one.
    FileNotFoundError
        When store, database or checkpoint are not there.
    """
    with loading("the configuration of the training", trust):
        task = make_task(config)
        model = make_model(config.model, config.seed, trust, task.implied_hparams())
        check_loggers(config)
    task.check_model(model)
    _remember(config)
    return optimize(
        model,
        task,
        config.plan(),
        config.into,
        config.seed,
        loggers=lambda folder: _loggers(config, folder),
        **_trainer_options(config.trainer, task),
    )


def make_task(config: TrainingConfig) -> Task:
    """Task of a configuration, on its protocol."""
    from torch_audiomentations.utils.config import from_dict

    module = TASKS[config.task.name]
    kind, params = getattr(import_module(module), config.task.name), dict(config.task.params)
    check_params(kind, params, "task.params", given=("protocol",))
    if isinstance(params.get("augmentation"), Mapping):
        given = params["augmentation"]
        # what tasks of pyannote.audio expect
        given = {**given, "params": {"output_type": "dict", **(given.get("params") or {})}}
        params["augmentation"] = from_dict(_judged(given))
    return kind(open_protocol(config.protocol, config.database), **params)


def _judged(augmentation: Any) -> dict[str, Any]:
    """An augmentation whose classes, at any depth, are those of torch_audiomentations."""
    if not isinstance(augmentation, Mapping) or "transform" not in augmentation:
        raise ValueError("task.params.augmentation: {transform: Gain, params: {...}} is expected")
    cls = named_class(augmentation["transform"], "augmentation")
    params = dict(augmentation.get("params") or {})
    if "transforms" in params:
        params["transforms"] = [_judged(one) for one in params["transforms"]]
    return {"transform": f"{cls.__module__}.{cls.__qualname__}", "params": params}


def make_model(
    config: ModelConfig,
    seed: int = 0,
    trust: bool = False,
    implied: Mapping[str, Any] | None = None,
) -> AVModel:
    """Network from scratch, or from a checkpoint.

    Parameters
    ----------
    config : ModelConfig
    seed : int, optional
        Of initial weights.
    trust : bool, optional
        Build any network that is named, and unpickle any checkpoint.
    implied : mapping, optional
        Hyper-parameters of networks from scratch that have them, unless the configuration says
        otherwise.

    Raises
    ------
    ValueError
        When there is no such network, it has no such parameter, or the checkpoint is of another.
    """
    from lightning.pytorch import seed_everything

    seed_everything(seed, verbose=False)
    with loading("the configuration of the training", trust):
        return _make_model(config, implied or {})


def _make_model(config: ModelConfig, implied: Mapping[str, Any]) -> AVModel:
    if config.checkpoint is None:
        kind = _network(config.name)
        check_hparams(kind, config.params, "model.params")
        check_params(kind, config.params, "model.params", given=("task",))
        known = inspect.signature(kind.__init__).parameters
        fitting = {name: value for name, value in implied.items() if name in known}
        return kind(**{**fitting, **config.params})
    path = Path(config.checkpoint).expanduser()
    if config.checkpoint in REGISTRY and not path.exists():
        path = require(config.checkpoint)
    if path.is_file() and path.suffix in _AUTHORS:
        if config.params:
            raise ValueError("model.params: networks of authors' files are as they are published")
        model = import_checkpoint(path)
    else:
        model = Model.from_pretrained(path, **config.params)
    if not isinstance(model, AVModel):
        raise ValueError(f"model.checkpoint: {path} is a {type(model).__name__}, which is not ours")
    if config.name is not None and not isinstance(model, _network(config.name)):
        raise ValueError(
            f"model.checkpoint: {path} is a {type(model).__name__}, not a {config.name}"
        )
    return model


def _network(name: str) -> type[AVModel]:
    module = NETWORKS.get(name)
    if module is None and "." not in name:
        raise ValueError(f"model.name: {unknown_key(name, NETWORKS)} (there is {list(NETWORKS)})")
    return named_class(name if module is None else f"{module}.{name}", "model", "model.name")


def check_params(
    kind: type, params: Mapping[str, Any], where: str, given: tuple[str, ...] = ()
) -> None:
    """Raise ValueError where parameters are not those of a class, naming the key.

    Parameters
    ----------
    kind : class
    params : mapping
        By name.
    where : str
        Key of the configuration that holds them.
    given : tuple of str, optional
        Parameters that are not for the configuration to give.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    signature = inspect.signature(kind.__init__).parameters
    known = {name: one for name, one in signature.items() if name not in ("self", *given)}
    hints = typing.get_type_hints(kind.__init__)
    for name, value in params.items():
        if name not in known:
            raise ValueError(f"{where}: {unknown_key(name, known)}")
        hint = hints.get(name, Any)
        if isinstance(hint, type) and issubclass(hint, int | float | bool | str):
            config = None
        else:
            config = ConfigDict(arbitrary_types_allowed=True)
        if name == "augmentation":
            continue
        try:
            TypeAdapter(hint, config=config).validate_python(value)
        except ValidationError as error:
            reason = "; ".join(sorted({one["msg"] for one in error.errors()}))
            raise ValueError(f"{where}.{name}: {value!r}: {reason}") from error
    for name, one in known.items():
        if one.default is inspect.Parameter.empty and name not in params:
            raise ValueError(f"{where}.{name} is missing")


def _trainer_options(options: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Several processes need to know that some tensors have no gradient in some steps"""
    options = dict(options)
    several = _num_processes(options) > 1
    if several and task.SPARSE and options.get("strategy", "auto") in ("auto", "ddp"):
        options["strategy"] = "ddp_find_unused_parameters_true"
    return options


def _num_processes(options: Mapping[str, Any]) -> int:
    import torch

    devices, nodes = options.get("devices", "auto"), int(options.get("num_nodes", 1))
    if isinstance(devices, list):
        return len(devices) * nodes
    if str(devices) in ("auto", "-1"):
        on_gpu = options.get("accelerator", "auto") in ("auto", "gpu", "cuda")
        return nodes * (max(1, torch.cuda.device_count()) if on_gpu else 1)
    return int(devices) * nodes


def check_loggers(config: TrainingConfig) -> None:
    """Refuse loggers that send what they log to a server, or write elsewhere, unless trusted.

    Raises
    ------
    UntrustedError
    """
    for one in config.loggers:
        name = LOGGERS.get(one, one) if isinstance(one, str) else one.name
        if policy().trust:
            continue
        if name not in LOGGERS.values():
            raise UntrustedError(
                f"loggers: {name} may send what it logs to a server. Pass trust=True (--trust on "
                f"the command line) if that is what you want; {', '.join(LOGGERS)} do not."
            )
        params = {} if isinstance(one, str) else one.params
        place = Path(str(params.get("save_dir", config.into))).resolve()
        names = [str(params.get(key) or "") for key in ("name", "version", "sub_dir", "prefix")]
        outside = not place.is_relative_to(config.into.resolve())
        if outside or any("/" in part or ".." in part for part in names):
            raise UntrustedError(
                f"loggers: {name} writes to {place}, outside of {config.into}. Pass trust=True "
                "(--trust on the command line) if that is what you want."
            )


def _loggers(config: TrainingConfig, folder: Path) -> list[Any]:
    from lightning.pytorch import loggers

    found = []
    for one in config.loggers:
        if isinstance(one, str):
            # of an own version each time: what was logged before a kill stays
            found.append(getattr(loggers, LOGGERS.get(one, one))(folder, name=f"{one}_logs"))
        else:
            found.append(getattr(loggers, one.name)(**one.params))
    return found


# what may change when training goes on: it says where and how, and not what
_MAY_CHANGE = ("trainer", "loggers", "database", "into")


def _remember(config: TrainingConfig) -> None:
    """Write the configuration to its folder, or compare it with the one that is there"""
    path, now = config.into / "config.yaml", config.to_dict()
    if path.is_file():
        then = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = [key for key in now if key not in _MAY_CHANGE and then.get(key) != now[key]]
        if changed:
            raise ValueError(
                f"{config.into}: training was begun there with another {', '.join(changed)}; use "
                "the same, or another folder"
            )
    config.write(path)
