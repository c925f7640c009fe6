"""Self-contained folders of pipelines, with pyannote's layout.

::

    FOLDER/config.yaml                       models as $model/<argument>
           README.md                         model card
           <argument>/model.safetensors      a model
           plda/{xvec_transform,plda}.npz    a PLDA

Weights that :mod:`pyannote_av.core.weights` knows are kept as names. They come with installed
packages, or are downloaded by ``pyannote-av download``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pyannote.audio import Pipeline as _Pipeline

from pyannote_av.core.hub import locate, named_on_hub
from pyannote_av.core.model import AVModel
from pyannote_av.core.paths import lies_within
from pyannote_av.core.pipeline import Pipeline
from pyannote_av.core.pipeline_config import MODELS, PIPELINES, named_file, read_pipeline
from pyannote_av.core.reading import ReadError
from pyannote_av.core.trust import loading
from pyannote_av.core.weights import REGISTRY
from pyannote_av.sharing.atomic_folder import new_folder
from pyannote_av.sharing.card import write_card
from pyannote_av.sharing.models import MODEL, copy_model, find_files, known_as

CONFIG = "config.yaml"


_REFERENCE = "$model/"


def save_pipeline(
    checkpoint: str | Path | _Pipeline,
    into: str | Path,
    params: Mapping[str, Any] | None = None,
    card: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a self-contained folder of a pipeline, and check that it loads.

    Parameters
    ----------
    checkpoint : str or Path
        A shipped name, a folder, a YAML file, or an identifier on the Hugging Face hub; see
        ``Pipeline.from_pretrained``. A pipeline that was loaded by it is saved with its current
        hyper-parameters.
    into : str or Path
        Output folder. It appears only when it is complete.
    params : mapping, optional
        Hyper-parameters for ``pipeline.instantiate``, which replace those of the pipeline.
    card : str, optional
        Content of the model card. Defaults to a card without figures.
    overwrite : bool, optional
        Replace `into` if it contains a pipeline.

    Returns
    -------
    into : Path

    Raises
    ------
    FileExistsError
        If `into` exists and is not empty.
    FileNotFoundError, UntrustedError, ValueError
        If the pipeline, or a file that it refers to, cannot be read safely.
    """
    with new_folder(into, overwrite) as temporary:
        if isinstance(checkpoint, _Pipeline):
            config, folder = _described(checkpoint)
            params = checkpoint.parameters(instantiated=True) if params is None else params
            on_hub = False
        else:
            config, folder = read_pipeline(checkpoint)
            on_hub = named_on_hub(checkpoint)
        with loading(folder / CONFIG, from_hub=on_hub):
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


def _described(pipeline: _Pipeline) -> tuple[dict[str, Any], Path]:
    """Configuration of a loaded pipeline, and the folder that ``$model`` refers to"""
    try:
        config, folder = pipeline.described
    except AttributeError:
        raise ValueError(
            "only a pipeline that Pipeline.from_pretrained has loaded can be saved: write a "
            "config.yaml for this one"
        ) from None
    return deepcopy(config), folder


def _gather(value: Any, folder: Path, into: Path, at: tuple[str, ...] = ()) -> Any:
    """Copy the files that a part of a configuration refers to, and update the references.

    Parameters
    ----------
    value : Any
    folder : Path
        Folder that ``$model`` refers to.
    into : Path
        Folder that ``$model`` refers to in the copy. Files are copied into it.
    at : tuple of str
        Keys of the part within the configuration.

    Raises
    ------
    ValueError
        If anything but a model or a pipeline refers to a file, which would be shared unnoticed.
    """
    is_argument = at[-3:-1] == ("pipeline", "params")
    source = named_file(value, folder)
    if source:
        check_links(source, folder)
    if is_argument and at[-1] in PIPELINES and isinstance(value, str):
        nested, folder = read_pipeline(source or value)
        nested.pop("dependencies", None)
        return _gather(nested, folder, into, at)
    if is_argument and isinstance(value, AVModel):
        place = at[-1]
        value.save(into / place)
        return f"{_REFERENCE}{place}"
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
    """Refuse links that lead out of a folder, because their targets would be shared.

    Parameters
    ----------
    path : Path
        A file, or a folder, which is checked recursively.
    folder : Path
        The folder that is shared.

    Raises
    ------
    ValueError
    """
    root = folder.resolve()
    within, repository = [root], root.parent.parent
    if root.parent.name == "snapshots" and repository.name.startswith("models--"):
        # snapshots in the cache of the hub are links to files in a folder next to them
        within.append(repository / "blobs")
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not lies_within(one, *within):
            raise ReadError(f"{one} is a link that leads out of {folder}: it is not shared")


def _names_file(argument: str, value: Any) -> bool:
    """Whether an argument for a model is a path, or an identifier on the hub."""
    if isinstance(value, Mapping):
        return "checkpoint" in value
    if not isinstance(value, str) or value in REGISTRY:
        return False
    # scorers are given by name, or by a file with a suffix
    return argument != "scorer" or bool(Path(value).suffix)


def _model(source: Path, into: Path, at: tuple[str, ...]) -> str:
    """Copy a model, and return the reference to the copy."""
    if name := known_as(find_files(source)[0]):
        return name
    place = "/".join(key for key in at if key not in ("pipeline", "params"))
    copy_model(source, into / place)
    # scorers are referred to by file, other models by folder
    return f"{_REFERENCE}{place}" + (f"/{MODEL}" if at[-1] == "scorer" else "")


def _plain(value: Any) -> Any:
    """Convert numpy numbers to Python numbers, and mappings to dictionaries."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
