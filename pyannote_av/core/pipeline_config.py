"""Configurations of pipelines: where they are and what is in them. Nothing heavy is imported."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyannote_av.core.hub import resolve
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import ReadError, check_name, read_yaml
from pyannote_av.core.text import printable
from pyannote_av.pretrained import FOLDER, shipped

logger = logging.getLogger(__name__)

_CONFIG, _REFERENCE = "config.yaml", "$model/"
#: arguments of pipelines that take a model, and those that take another pipeline
MODELS = ("segmentation", "embedding", "plda", "relation", "counter", "scorer")
PIPELINES = ("audio",)


def locate_pipeline(
    checkpoint: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Folder or YAML file of a pipeline; see :meth:`Pipeline.from_pretrained`."""
    name = str(checkpoint)
    if isinstance(checkpoint, str) and not Path(name).exists() and "/" not in name:
        if (FOLDER / name / "config.yaml").is_file():
            return FOLDER / name
        if not Path(name).suffix:
            raise FileNotFoundError(
                f"{name!r} is neither a shipped pipeline nor a path; "
                f"shipped: {', '.join(shipped())}"
            )
    elif isinstance(checkpoint, str) and name in shipped():
        return FOLDER / name  # takes precedence over a folder of this name in the working directory
    return resolve(checkpoint, revision=revision, token=token, cache_dir=cache_dir)


def read_config(config_yml: Path) -> dict[str, Any]:
    """Read the configuration of a pipeline. Raises ValueError if a YAML file is not one."""
    config = read_yaml(config_yml)
    check_config(config, str(config_yml))
    return config


def read_pipeline(checkpoint: str | Path) -> tuple[dict[str, Any], Path]:
    """Read the configuration of a pipeline. Returns its folder too."""
    path = locate_pipeline(checkpoint)
    config = path / "config.yaml" if path.is_dir() else path
    if not config.is_file():
        raise FileNotFoundError(f"no config.yaml in {path}: it is not a pipeline folder")
    return read_config(config), config.parent


def named_file(value: Any, folder: Path) -> Path | None:
    """Path that a reference ``$model/...`` points to, or None for other values.

    Parameters
    ----------
    value : Any
        A value of a configuration.
    folder : Path
        Folder that ``$model`` refers to.

    Raises
    ------
    ValueError
        If the reference is empty, or leads out of the folder.
    FileNotFoundError
        If there is no such file or folder.
    """
    if not (isinstance(value, str) and value.startswith(_REFERENCE)):
        return None
    # the revision after @ is for the hub; the folder has that revision already
    name = value.removeprefix(_REFERENCE).partition("@")[0]
    try:
        path = folder / check_name(name)
    except ReadError as error:
        raise ReadError(
            f"{folder / _CONFIG}: {value} names nothing, or leads out of {folder}"
        ) from error
    if not path.exists():
        raise FileNotFoundError(
            printable(f"{folder / _CONFIG} refers to {value}, but there is no {name}")
        )
    return path


def check_config(config: Any, origin: str) -> None:
    """Raise ValueError unless this is the configuration of a pipeline.

    Parameters
    ----------
    config : Any
        Content of a ``config.yaml``.
    origin : str
        For messages.
    """
    if not isinstance(config, dict) or not isinstance(config.get("pipeline"), dict):
        raise ValueError(f"{origin} does not describe a pipeline: no pipeline: name:")
    if "name" not in config["pipeline"]:
        raise ValueError(f"{origin} does not describe a pipeline: no pipeline: name:")
    if "device" in config:
        _check_device(config, origin)
    _check_numbers([config["pipeline"].get("params"), config.get("params")], origin)
    for key in ("params", "preprocessors", "dependencies", "freeze"):
        if not isinstance(config.get(key) or {}, dict):
            raise ValueError(f"{origin}: {key} is not a mapping")
        if key in config and config[key] is None:
            del config[key]
    if not isinstance(config["pipeline"].get("params") or {}, dict):
        raise ValueError(f"{origin}: params of the pipeline are not a mapping")
    config["pipeline"]["params"] = config["pipeline"].get("params") or {}


# smallest and largest number for arguments whose names end like this: work grows with them
_RANGES = {"step": (1e-3, 600.0), "duration": (1e-2, 3600.0), "batch_size": (1, 4096)}
_ANY = (-1e6, 1e6)


def _check_numbers(value: Any, origin: str, name: str = "") -> None:
    """Refuse numbers, at any depth, with which a short recording would take forever"""
    if isinstance(value, Mapping):
        for key, one in value.items():
            _check_numbers(one, origin, str(key))
    elif isinstance(value, (list, tuple)):
        for one in value:
            _check_numbers(one, origin, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        ranges = (_RANGES[end] for end in _RANGES if name.endswith(end))
        low, high = next(ranges, _ANY)
        if not low <= value <= high:
            raise ValueError(f"{origin}: {name} is {value}: {low:g} to {high:g} is possible")


def _check_device(config: dict[str, Any], origin: str) -> None:
    """Refuse an invalid device; remove one that this machine lacks, as pyannote does"""
    device = config["device"]
    if not isinstance(device, str) or not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", device):
        raise ValueError(f"{origin}: device is cpu, cuda, cuda:1, ... or mps, not {device!r}")
    if device == "cpu":
        return
    import torch

    there = {"mps": torch.backends.mps.is_available()}
    if not there.get(device, torch.cuda.is_available()):
        logger.warning("%s asks for device %s, which this machine lacks: on CPU", origin, device)
        del config["device"]


def replace_arguments(config: dict[str, Any], arguments: Mapping[str, Any], origin: str) -> None:
    """Replace arguments of a pipeline in its configuration, in place.

    Parameters
    ----------
    config : dict
        See :func:`check_config`.
    arguments : mapping
        Such as ``{"segmentation": "exp/ft"}``. Paths are made absolute.
    origin : str
        For messages.

    Raises
    ------
    FileNotFoundError
        If a model is neither known by name nor a path.
    """
    from pyannote_av.core.weights import REGISTRY

    for name, value in arguments.items():
        if isinstance(value, (str, Path)) and name in MODELS and str(value) not in REGISTRY:
            path = Path(value).expanduser()
            if not path.exists() and name == "segmentation":
                raise FileNotFoundError(f"{name} of {origin}: {no_such_file(path)}")
            value = str(path.absolute()) if path.exists() else str(value)
        config["pipeline"]["params"][name] = value
