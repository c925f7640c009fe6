"""``Pipeline.from_pretrained``: shipped names, folders, YAML files and hub identifiers, safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from pyannote.audio import Pipeline as _Pipeline
from pyannote.audio.core.pipeline import expand_subfolders
from pyannote.metrics.diarization import DiarizationErrorRate

from pyannote_av.core.hub import resolve
from pyannote_av.core.model import Model, check_trusted
from pyannote_av.pretrained import DEFAULT, FOLDER, shipped

# what pyannote.audio pipelines call the arguments that take a model
_MODEL_ARGUMENTS = ("segmentation", "embedding")


class Pipeline(_Pipeline):
    """Entry point ``Pipeline.from_pretrained``: pyannote's, plus shipped names and safe loading."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        checkpoint: str | Path | dict = DEFAULT,
        revision: str | None = None,
        hparams_file: str | Path | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        trust: bool = False,
    ) -> _Pipeline:
        """Load a pretrained pipeline.

        Parameters
        ----------
        checkpoint : str, Path or dict, optional
            The name of a shipped pipeline (see :func:`pyannote_av.pretrained.shipped`), a folder
            with a ``config.yaml``, such a file, the identifier of a pipeline on the Hugging Face
            hub, or the content of a config file. Defaults to the best shipped pipeline.
        revision, hparams_file, subfolder, token, cache_dir : optional
            As in ``pyannote.audio.Pipeline.from_pretrained``.
        trust : bool, optional
            Build any class the configuration names and unpickle any checkpoint it points at. Off
            by default: classes come from pyannote and this package, checkpoints are read as
            plain weights.

        Returns
        -------
        pipeline : pyannote.audio.Pipeline

        Raises
        ------
        FileNotFoundError
            When `checkpoint` is no shipped name, no path and cannot be a hub identifier.
        ConnectionError
            When it is a hub identifier and the hub is out of reach.
        UntrustedError
            When loading it would execute code that is not trusted.
        """
        if isinstance(checkpoint, dict):
            config, folder, origin = deepcopy(checkpoint), Path.cwd(), "the configuration"
        else:
            path = locate_pipeline(checkpoint, revision, token, cache_dir)
            if subfolder:
                path = path / subfolder
            config_yml = path / "config.yaml" if path.is_dir() else path
            if not config_yml.is_file():
                raise FileNotFoundError(f"no config.yaml in {path}: it is not a pipeline folder")
            config, folder, origin = read_config(config_yml), config_yml.parent, str(config_yml)

        expand_subfolders(config, str(folder), token=token, cache_dir=cache_dir)
        if not trust:
            _make_safe(config, origin, token, cache_dir)
        return _Pipeline.from_pretrained(
            config, hparams_file=hparams_file, token=token, cache_dir=cache_dir
        )


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
                f"no shipped pipeline and no path is called {name!r}; "
                f"shipped: {', '.join(shipped())}"
            )
    elif isinstance(checkpoint, str) and name in shipped():
        return FOLDER / name  # a folder of the same name in the working directory does not win
    return resolve(checkpoint, revision=revision, token=token, cache_dir=cache_dir)


def read_config(config_yml: Path) -> dict[str, Any]:
    """What a YAML file says of a pipeline; ValueError where it says nothing of one."""
    with open(config_yml, encoding="utf-8") as file:
        try:
            config = yaml.safe_load(file)
        except yaml.YAMLError as error:
            raise ValueError(f"{config_yml} is not valid YAML: {error}") from error
    if not isinstance(config, dict) or "name" not in (config.get("pipeline") or {}):
        raise ValueError(f"{config_yml} does not describe a pipeline: no pipeline: name:")
    return config


def _make_safe(config: dict[str, Any], origin: str, token, cache_dir) -> None:
    """Check the classes a configuration names; load its models before pyannote unpickles them."""
    name = config["pipeline"]["name"]
    check_trusted(name if "." in name else f"pyannote.pipeline.blocks.{name}", origin)
    for preprocessor in (config.get("preprocessors") or {}).values():
        if isinstance(preprocessor, dict):
            check_trusted(preprocessor["name"], origin)

    if name.startswith("pyannote_av."):
        return  # our own classes load every model safely themselves
    params = config["pipeline"].get("params") or {}
    for argument in _MODEL_ARGUMENTS:
        value = params.get(argument)
        if isinstance(value, dict) and "checkpoint" in value:
            path = resolve(
                value["checkpoint"],
                revision=value.get("revision"),
                token=token,
                cache_dir=cache_dir,
            )
            params[argument] = Model.from_pretrained(path / (value.get("subfolder") or ""))
        elif isinstance(value, str):
            path = resolve(value, token=token, cache_dir=cache_dir)
            params[argument] = Model.from_pretrained(path)


class MediaMixin:
    """Lets any pyannote.audio pipeline take media files: decoded once, on the container clock.

    ``prepare_one`` is where pyannote prepares a file; what it adds stays in the caller's mapping,
    so that hyper-parameter optimization decodes every file once.
    """

    def prepare_one(self, file: Any, preload: bool = False) -> Mapping:
        """Decode the audio of a file into memory.

        Parameters
        ----------
        file : str, Path or mapping
            See :meth:`pyannote_av.Video.validate_file`.
        preload : bool, optional
            Has no effect: audio is always decoded once, into memory.

        Returns
        -------
        file : mapping
            With ``waveform`` (1, num_samples), ``sample_rate``, ``problems`` (list of str) and
            ``decoding_seconds`` added. A file without audio gets silence and ``has_audio=False``.
        """
        from pyannote_av.core.io import SAMPLE_RATE, Video

        video = Video()
        known = video.validate_file(file)
        if not isinstance(file, Mapping):
            file = known
        elif "uri" not in file:
            file["uri"] = known["uri"]
        if "problems" not in file:
            start = perf_counter()
            problems: list[str] = []
            if "waveform" in known or "audio" in known or video.probe(file).audio:
                file["waveform"] = video.waveform(file, problems)
            else:
                num_samples = round(video.get_duration(file) * SAMPLE_RATE)
                file["waveform"] = torch.zeros(1, num_samples)
                file["has_audio"] = False
            file["sample_rate"] = SAMPLE_RATE
            file["problems"] = problems
            file["decoding_seconds"] = perf_counter() - start
        return super().prepare_one(file, preload=False)

    def __call__(self, file: Any, preload: bool = False, **kwargs: Any) -> Any:
        """Process one file, or a list of files; see ``apply`` for keyword arguments.

        Returns
        -------
        output : Any
            What ``apply`` returns; for a list, an iterator of (file, output), which decodes each
            file when its turn comes.
        """
        if isinstance(file, list):
            return self._one_by_one(file, **kwargs)
        if isinstance(file, Mapping):
            # pyannote passes these twice when it optimizes: once from the file, once by keyword
            given = file.get("pipeline_kwargs", {}) if "pipeline_kwargs" in file else {}
            kwargs = {name: value for name, value in kwargs.items() if name not in given}
        return super().__call__(file, preload=preload, **kwargs)

    def _one_by_one(self, files: list, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        from pyannote_av.core.io import Video

        uris = [Video().validate_file(file)["uri"] for file in files]
        twice = sorted({uri for uri in uris if uris.count(uri) > 1})
        if twice:
            raise ValueError(f"several files are called {', '.join(twice)}: uris must be distinct")
        return ((file, self(file, **kwargs)) for file in files)


class DiarizationPipeline(MediaMixin, _Pipeline):
    """A pipeline of ours that says who speaks when: takes media files, and is tuned by its DER."""

    def get_metric(self) -> DiarizationErrorRate:
        """What the optimizer minimises."""
        return DiarizationErrorRate(collar=0.0, skip_overlap=False)

    @staticmethod
    def get_direction() -> str:
        """Of the metric: the lower, the better."""
        return "minimize"
