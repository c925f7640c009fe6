"""Build what a configuration describes, refuse what it may not do, and train."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pyannote_av.core.model import AVModel, Model, check_hparams
from pyannote_av.core.protocols import open_protocol
from pyannote_av.core.reading import ReadError, read_text
from pyannote_av.core.renaming import current_names
from pyannote_av.core.trust import UntrustedError, loading, named_class, policy
from pyannote_av.core.weights import REGISTRY, require
from pyannote_av.models.importers import import_checkpoint
from pyannote_av.models.registry import NETWORKS
from pyannote_av.training.config import (
    LOGGERS,
    LoggerConfig,
    ModelConfig,
    TrainingConfig,
    devices_of,
    task_class,
)
from pyannote_av.training.fitting import freeze_others
from pyannote_av.training.runner import configure, optimize
from pyannote_av.training.schema import check_arguments, describe_errors
from pyannote_av.training.stages import check_stages

if TYPE_CHECKING:
    from pyannote.audio.core.task import Task

# authors' files, as opposed to checkpoints that name their architecture
_AUTHORS = {".model", ".pt", ".pth"}

#: augmentations in augmentations; and files and folders that one may look through
MAX_NESTING, MAX_FILES = 10, 100_000
# parameters of augmentations that are searched for files of sound
_PATHS = ("background_paths", "ir_paths")
# parameters of loggers that can be given without trust: a place, and no code
_OF_LOGGERS = {
    "CSVLogger": {"save_dir", "name", "version", "prefix", "flush_logs_every_n_steps"},
    "TensorBoardLogger": {
        *("save_dir", "name", "version", "prefix"),
        *("log_graph", "default_hp_metric", "max_queue", "flush_secs"),
    },
}
# of the texts among them: no path, address or variable
_PLAIN = re.compile(r"(?!.*\.\.)[\w .+=-]*", re.ASCII)
# what fsspec and Lightning take for an address, a variable or somebody's home
_EXPANDED = re.compile(r"://|::|\$|%|^~")


def train(config: TrainingConfig, trust: bool = False) -> AVModel:
    """Train a model, or continue an interrupted training.

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
        If the configuration is invalid, or the folder belongs to another one.
    FileNotFoundError
        If the store, the database or the checkpoint does not exist.
    """
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    task, model = _build(config, trust)
    _remember(config)
    try:
        # stages may name losses of other packages
        with loading("the configuration of the training", trust):
            return optimize(
                model,
                task,
                config.plan(),
                config.into,
                config.seed,
                loggers=lambda folder: _loggers(config, folder),
                **_trainer_options(config.trainer, task),
            )
    except MisconfigurationException as error:
        raise ReadError(f"trainer: {error}") from error


def check(config: TrainingConfig, trust: bool = False) -> None:
    """Check what can be checked before training: task, data, model and stages. Writes nothing.

    Parameters
    ----------
    config, trust
        See :func:`train`, which raises the same errors.
    """
    task, model = _build(config, trust)
    with loading("the configuration of the training", trust):
        for stage in check_stages(config.plan()):
            configure(task, stage)
            freeze_others(model, stage.train)


def _build(config: TrainingConfig, trust: bool) -> tuple[Task, AVModel]:
    """The task and the model, which fit each other"""
    with loading("the configuration of the training", trust):
        check_trainer(config.trainer)
        check_loggers(config)
        check_caches(config)
        task = make_task(config)
        model = make_model(config.model, config.seed, trust, task.implied_hparams())
    task.check_model(model)
    return task, model


def make_task(config: TrainingConfig) -> Task:
    """Task of a configuration, on its protocol."""
    kind = task_class(config.task.name)
    params = check_arguments(kind, config.task.params, given=("protocol",))
    augmentation = params.get("augmentation")
    if augmentation is not None and not callable(augmentation):
        params["augmentation"] = make_augmentation(augmentation)
    return kind(open_protocol(config.protocol, config.database), **params)


@contextmanager
def _refusing(key: str, content: Any = None) -> Iterator[None]:
    """Turn exceptions of other packages into an error that names the key of the configuration."""
    try:
        yield
    except (UntrustedError, ReadError):
        raise
    except ValidationError as error:
        lines = [f"{key}.{line}" for line in describe_errors(error, content)]
        raise ReadError("\n".join(lines)) from error
    except Exception as error:  # of constructors of other packages
        raise ReadError(f"{key}: {error or type(error).__name__}") from error


def make_augmentation(augmentation: Any) -> Any:
    """Build an augmentation whose classes, at any depth, are those of torch_audiomentations.

    Parameters
    ----------
    augmentation : mapping
        Such as ``{"transform": "Gain", "params": {...}}``.

    Returns
    -------
    augmentation : torch.nn.Module

    Raises
    ------
    UntrustedError
        If it names another class.
    ValueError
        If it is invalid, has more than :data:`MAX_NESTING` levels, or would search more than
        :data:`MAX_FILES` files and folders for sound.
    """
    from torch_audiomentations.utils.config import from_dict

    with _refusing("task.params.augmentation"):
        return from_dict(_judged(augmentation))


def _judged(augmentation: Any, depth: int = 1) -> dict[str, Any]:
    """Checked arguments of ``from_dict``"""
    if not isinstance(augmentation, Mapping) or "transform" not in augmentation:
        raise ValueError("{transform: Gain, params: {...}} is expected")
    if depth > MAX_NESTING:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep")
    cls = named_class(augmentation["transform"], "augmentation")
    params = augmentation.get("params") or {}
    if not isinstance(params, Mapping) or not isinstance(params.get("transforms", []), list):
        raise ValueError("params are a mapping, and transforms in them a list")
    # tasks of pyannote.audio expect dictionaries
    params = {"output_type": "dict", **params}
    if "transforms" in params:
        params["transforms"] = [_judged(one, depth + 1) for one in params["transforms"]]
    for key in _PATHS:
        if key in params:
            _check_paths(key, params[key])
    # torch_audiomentations builds nested transforms only for bare names of its own classes
    own = cls.__module__.startswith("torch_audiomentations.")
    name = cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"
    return {"transform": name, "params": params}


def _check_paths(key: str, paths: Any) -> None:
    """Raise if a path does not exist, or if searching it would take minutes"""
    count = 0
    for path in paths if isinstance(paths, (list, tuple)) else [paths]:
        if not Path(path).is_dir() and not Path(path).is_file():
            raise ValueError(f"{key}: no such file or folder: {path}")
        # torch_audiomentations follows links, too
        for _, folders, names in os.walk(path, followlinks=True):
            count += len(folders) + len(names)
            if count > MAX_FILES:
                raise ValueError(f"{key}: more than {MAX_FILES:,} files and folders in {path}")


def make_model(
    config: ModelConfig,
    seed: int = 0,
    trust: bool = False,
    implied: Mapping[str, Any] | None = None,
) -> AVModel:
    """Build a network, or load it from a checkpoint.

    Parameters
    ----------
    config : ModelConfig
    seed : int, optional
        Seed of the initial weights.
    trust : bool, optional
        Build any named network, and unpickle any checkpoint.
    implied : mapping, optional
        Hyper-parameters for networks that have them and are trained from scratch. Those of the
        configuration take precedence.

    Raises
    ------
    ValueError
        If there is no such network or parameter, or the checkpoint holds another network.
    """
    from lightning.pytorch import seed_everything

    seed_everything(seed, verbose=False)
    with loading("the configuration of the training", trust):
        return _make_model(config, implied or {})


def _make_model(config: ModelConfig, implied: Mapping[str, Any]) -> AVModel:
    if config.checkpoint is None:
        kind = _network(config.name)
        params = current_names(config.params, kind.FORMER_HPARAMS, "model.params")
        check_hparams(kind, params, "model.params")
        known = inspect.signature(kind.__init__).parameters
        given = {name: value for name, value in implied.items() if name in known} | params
        with _refusing("model.params", given):
            return kind(**check_arguments(kind, given, given=("task",)))
    path = Path(config.checkpoint).expanduser()
    if config.checkpoint in REGISTRY and not path.exists():
        path = require(config.checkpoint)
    if path.is_file() and path.suffix in _AUTHORS:
        if config.params:
            raise ValueError("model.params: published weights come with fixed hyper-parameters")
        model = import_checkpoint(path)
    else:
        model = Model.from_pretrained(path, **config.params)
    if not isinstance(model, AVModel):
        raise ValueError(
            f"model.checkpoint: {path} is a {type(model).__name__}, not a network of this package"
        )
    if config.name is not None and not isinstance(model, _network(config.name)):
        raise ValueError(
            f"model.checkpoint: {path} is a {type(model).__name__}, not a {config.name}"
        )
    return model


def _network(name: str) -> type[AVModel]:
    known = NETWORKS.get(name)
    dotted = name if known is None else f"{known.module}.{name}"
    found = named_class(dotted, "model", "model.name")
    if not issubclass(found, AVModel):
        raise ValueError(f"model.name: {name!r} is not a network of this package")
    return found


def _trainer_options(options: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Distributed training must know that some tensors have no gradient in some steps"""
    options = dict(options)
    if not options.get("plugins"):
        # the plugin of `Fit` writes checkpoints atomically and never executes what they hold
        options.pop("plugins", None)
    several = _num_processes(options) > 1
    if several and task.SPARSE and options.get("strategy", "auto") in ("auto", "ddp"):
        options["strategy"] = "ddp_find_unused_parameters_true"
    return options


def _num_processes(options: Mapping[str, Any]) -> int:
    import torch

    devices, nodes = devices_of(options.get("devices", "auto")), int(options.get("num_nodes", 1))
    if devices is None:
        on_gpu = options.get("accelerator", "auto") in ("auto", "gpu", "cuda")
        devices = max(1, torch.cuda.device_count()) if on_gpu else 1
    return devices * nodes


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse options of Lightning's ``Trainer`` that upload models, unless trusted.

    Raises
    ------
    UntrustedError
    """
    if options.get("model_registry") is not None and not policy().trust:
        raise UntrustedError(
            "trainer.model_registry uploads models. Pass trust=True (--trust on the command line) "
            "if that is what you want."
        )


def check_caches(config: TrainingConfig) -> None:
    """Refuse caches outside of the output folder, unless trusted.

    Caches that an earlier training wrote may be read and updated.

    Raises
    ------
    UntrustedError
    """
    given = {"task.params.cache": config.task.params.get("cache")}
    for stage in config.plan():
        with _refusing(f"stage {stage.name!r}: settings"):
            given[f"stage {stage.name!r}: settings.cache"] = dict(stage.settings).get("cache")
    for key, cache in given.items():
        if cache is None or policy().trust:
            continue
        with _refusing(key):
            path = Path(cache)
            inside = path.resolve().is_relative_to(config.into.resolve())
            known = path.is_file() and _is_stamp(path.with_name(f"{path.name}.sha256"))
        if not inside and not known:
            raise UntrustedError(
                f"{key}: {cache} is outside of {config.into}, and not the cache of an earlier "
                "training. Name a file in that folder, or pass trust=True (--trust on the "
                "command line)."
            )


def _is_stamp(path: Path) -> bool:
    """Whether a file is the digest that tasks write next to their caches"""
    return path.is_file() and re.fullmatch("[0-9a-f]{64}", read_text(path, 1024)) is not None


def check_loggers(config: TrainingConfig) -> None:
    """Refuse loggers that send data to a server or write elsewhere, unless trusted.

    Loggers accept addresses of other machines as paths, and expand variables and ``~`` in them.

    Raises
    ------
    UntrustedError
    """
    for one in config.loggers if not policy().trust else ():
        given = LoggerConfig(name=LOGGERS.get(one, one)) if isinstance(one, str) else one
        if fault := _fault_of(given, config.into):
            raise UntrustedError(
                f"loggers: {given.name} {fault}. Pass trust=True (--trust on the command line) if "
                "that is what you want."
            )


def _fault_of(logger: LoggerConfig, into: Path) -> str | None:
    """Why a logger needs trust; None if it does not"""
    if logger.name not in LOGGERS.values():
        return f"may send what it logs to a server; {', '.join(LOGGERS)} do not"
    params = dict(logger.params)
    if unknown := sorted(set(params) - _OF_LOGGERS[logger.name]):
        known = ", ".join(sorted(_OF_LOGGERS[logger.name]))
        return f"is given {unknown[0]!r}; without trust, it takes {known}"
    place = params.pop("save_dir", into)
    for key, value in params.items():
        if not isinstance(value, (str, int, type(None))) or not _PLAIN.fullmatch(str(value)):
            return f"has the {key} {value!r}, which is not a plain name"
    if not isinstance(place, (str, Path)) or _EXPANDED.search(str(place)):
        return f"writes to {place!r}, which is not a plain path"
    # a link in it may lead anywhere
    below = [str(params[key]) for key in ("name", "version") if params.get(key) is not None]
    path = Path(place, *below).resolve()
    return None if path.is_relative_to(into.resolve()) else f"writes to {path}, outside of {into}"


def _loggers(config: TrainingConfig, folder: Path) -> list[Any]:
    from lightning.pytorch import loggers

    found = []
    for one in config.loggers:
        if isinstance(one, str):
            # each run has its own version, so that the log of an interrupted one stays
            found.append(getattr(loggers, LOGGERS.get(one, one))(folder, name=f"{one}_logs"))
        else:
            with _refusing(f"loggers: {one.name}"):
                found.append(getattr(loggers, one.name)(**one.params))
    return found


# keys that may change when training continues: they do not affect what is trained
_MAY_CHANGE = ("trainer", "loggers", "database", "into")


def _remember(config: TrainingConfig) -> None:
    """Write the configuration to its folder, or compare it with the one found there"""
    path, now = config.into / "config.yaml", config.to_dict()
    if path.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # names of an earlier version
            then = TrainingConfig.read(path).to_dict()
        changed = [key for key in now if key not in _MAY_CHANGE and then[key] != now[key]]
        if changed:
            raise ValueError(
                f"{config.into}: training was started there with another {', '.join(changed)}; use "
                "the same, or another folder"
            )
    config.write(path)
