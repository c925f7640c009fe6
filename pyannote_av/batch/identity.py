"""Identity of a pipeline: everything its results depend on, except the input file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyannote_av import __version__
from pyannote_av.core.checksums import digest, model_files, sha256_of

# default models of our pipelines, which are used if they are on this machine
_SOUND = ("segmentation-3.0", "campplus")
_PICTURES = ("lr-asd", "yunet", "sface", "facenet-vggface2")
_AUDIO_ONLY = ("AudioDiarization",)


def pipeline_identity(checkpoint: str | Path, **arguments: Any) -> str:
    """Digest of the configuration of a pipeline, the content of its weights, and versions.

    Nothing is loaded. Models on the Hugging Face hub are identified by name and revision.

    Parameters
    ----------
    checkpoint : str or Path
        See ``Pipeline.from_pretrained``.
    **arguments
        Arguments that replace those of the configuration, such as ``segmentation="exp/ft"``.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such pipeline, or its configuration cannot be read.
    """
    versions = {"pyannote-av": __version__, "pyannote.audio": version("pyannote.audio")}
    content = {"versions": versions, "parts": sorted(_parts(checkpoint, arguments))}
    return digest([json.dumps(content).encode()])


def _parts(
    checkpoint: str | Path, arguments: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (name, content) of a configuration, and of everything it refers to."""
    from pyannote_av.core.pipeline_config import named_file, read_pipeline, replace_arguments
    from pyannote_av.core.weights import REGISTRY
    from pyannote_av.pretrained import shipped

    config, folder = read_pipeline(checkpoint)
    if arguments:
        replace_arguments(config, arguments, str(checkpoint))
    yield "config", json.dumps(config, sort_keys=True, default=str)
    for value in _references(config["pipeline"]):
        if path := named_file(value, folder):
            yield from _files(path)
        elif value in REGISTRY:
            yield _weights(value)
        elif value in shipped():
            yield from _parts(value)
        elif Path(value).exists():
            yield from _files(Path(value))
    name = config["pipeline"]["name"]
    if name.startswith("pyannote_av."):
        for one in _SOUND + (() if name.endswith(_AUDIO_ONLY) else _PICTURES):
            yield _weights(one)


def _references(value: Any, key: str = "") -> Iterator[str]:
    """Yield the values of arguments that can name a model or a pipeline, at any depth."""
    from pyannote_av.core.pipeline_config import MODELS, PIPELINES

    if isinstance(value, str) and key in (*MODELS, *PIPELINES, "checkpoint"):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _references(one, str(name))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _references(one, key)


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and digest of each file of a model."""
    for file in model_files(path):
        yield str(file.relative_to(path)), sha256_of(file)


def _weights(name: str) -> tuple[str, str]:
    from pyannote_av.core.weights import find

    path = find(name)
    return name, "absent" if path is None else sha256_of(path)
