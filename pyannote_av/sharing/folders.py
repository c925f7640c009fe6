"""Pipelines as folders that hold all they need, laid out as pyannote does.

::

    FOLDER/config.yaml                       models as $model/<argument>
           README.md                         model card
           <argument>/model.safetensors      a model
           plda/{xvec_transform,plda}.npz    a PLDA

Weights that :mod:`pyannote_av.core.weights` knows stay names: they come with installed packages,
or by ``pyannote-av download``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from pyannote_av.core.hub import locate, named_on_hub
from pyannote_av.core.pipeline import MODELS, PIPELINES, Pipeline, named_file, read_pipeline
from pyannote_av.core.reading import ReadError
from pyannote_av.core.trust import loading
from pyannote_av.core.weights import REGISTRY
from pyannote_av.sharing.atomic_folder import new_folder
from pyannote_av.sharing.card import write_card
from pyannote_av.sharing.models import MODEL, copy_model, find_files, known_as

CONFIG = "config.yaml"


_REFERENCE = "$model/"


def save_pipeline(
    checkpoint: str | Path,
    into: str | Path,
    params: Mapping[str, Any] | None = None,
    card: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a folder that holds all that a pipeline needs, and make sure that it loads.

    Parameters
    ----------
    checkpoint : str or Path
        What ``Pipeline.from_pretrained`` takes: a shipped name, a folder, a YAML file, an
        identifier of the Hugging Face hub.
    into : str or Path
        The folder. It appears at once, complete.
    params : mapping, optional
        Hyper-parameters, as ``pipeline.instantiate`` takes them, in place of those it has.
    card : str, optional
        Content of the model card; one without figures unless given.
    overwrite : bool, optional
        Replace `into` where it holds a pipeline already.

    Returns
    -------
    into : Path

    Raises
    ------
    FileExistsError
        When `into` is there, and not empty.
    FileNotFoundError, UntrustedError, ValueError
        When the pipeline, or a file that it refers to, cannot be read safely.
    """
    with new_folder(into, overwrite) as temporary:
        config, folder = read_pipeline(checkpoint)
        with loading(folder / CONFIG, from_hub=named_on_hub(checkpoint)):
            config = _gather(config, folder, temporary)
        if params is not None:
            config["params"] = _plain(params)
        installed = {name: version(name) for name in ("pyannote.audio", "pyannote-av")}
        config = {"dependencies": installed | (config.pop("dependencies", None) or {}), **config}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (temporary / CONFIG).write_text(text, encoding="utf-8")
        Pipeline.from_pretrained(temporary)
        write_card(temporary, card, name=Path(into).absolute().name)
    return Path(into)


def _gather(value: Any, folder: Path, into: Path, at: tuple[str, ...] = ()) -> Any:
    """A part of a configuration, as it refers to copies of files.

    Parameters
    ----------
    value : Any
    folder : Path
        What ``$model`` stands for.
    into : Path
        What it will stand for; files are copied into it.
    at : tuple of str
        Keys that lead to the part.

    Raises
    ------
    ValueError
        When anything but a model or a pipeline refers to a file: it would be shared unseen.
    """
    is_argument = at[-3:-1] == ("pipeline", "params")
    source = named_file(value, folder)
    if source:
        check_links(source, folder)
    if is_argument and at[-1] in PIPELINES and isinstance(value, str):
        nested, folder = read_pipeline(source or value)
        nested.pop("dependencies", None)
        return _gather(nested, folder, into, at)
    if is_argument and at[-1] in MODELS and (source or _names_file(at[-1], value)):
        return _model(source or locate(value), into, at)
    if source:
        raise ReadError(
            f"{folder / CONFIG}: {'.'.join(at)} is {value}, but only models and pipelines of a "
            f"pipeline ({', '.join(MODELS + PIPELINES)}) are shared with it: remove that key"
        )
    if isinstance(value, dict):
        return {key: _gather(one, folder, into, (*at, str(key))) for key, one in value.items()}
    if isinstance(value, list):
        return [_gather(one, folder, into, (*at, str(i))) for i, one in enumerate(value)]
    return value


def check_links(path: Path, folder: Path) -> None:
    """Refuse links that lead out of a folder: what they lead to would be shared.

    Parameters
    ----------
    path : Path
        A file, or a folder with all that is below it.
    folder : Path
        The folder that is shared.

    Raises
    ------
    ValueError
    """
    root = folder.resolve()
    within, repository = [root], root.parent.parent
    if root.parent.name == "snapshots" and repository.name.startswith("models--"):
        # the cache of the hub keeps the content of files beside its snapshots, which link to it
        within.append(repository / "blobs")
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        try:
            inside = any(map(one.resolve().is_relative_to, within))
        except RuntimeError:  # links in a circle, up to Python 3.12
            inside = False
        if not inside:
            raise ReadError(f"{one} is a link that leads out of {folder}: it is not shared")


def _names_file(argument: str, value: Any) -> bool:
    """Whether an argument for a model is a path, or an identifier of the hub."""
    if isinstance(value, Mapping):
        return "checkpoint" in value
    if not isinstance(value, str) or value in REGISTRY:
        return False
    # scorers have names, and files have suffixes
    return argument != "scorer" or bool(Path(value).suffix)


def _model(source: Path, into: Path, at: tuple[str, ...]) -> str:
    """Copy a model, and return what the copy is called."""
    if name := known_as(find_files(source)[0]):
        return name
    place = "/".join(key for key in at if key not in ("pipeline", "params"))
    copy_model(source, into / place)
    # scorers are files
    return f"{_REFERENCE}{place}" + (f"/{MODEL}" if at[-1] == "scorer" else "")


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, mappings as dictionaries."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
