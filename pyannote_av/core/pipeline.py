"""``Pipeline.from_pretrained``: safe loading of shipped pipelines, folders, files and the hub."""

from __future__ import annotations

import inspect
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import torch
from pyannote.audio import Model as _Model
from pyannote.audio import Pipeline as _Pipeline
from pyannote.audio.core.pipeline import expand_subfolders
from pyannote.audio.core.plda import PLDA
from pyannote.audio.utils.dependencies import MissingDependency, WrongDependencyVersion
from pyannote.database import ProtocolFile
from pyannote.metrics.diarization import DiarizationErrorRate

from pyannote_av.core import caching
from pyannote_av.core.checkpoint import CheckpointError
from pyannote_av.core.counts import speaker_bounds
from pyannote_av.core.hub import locate, named_on_hub, old_token
from pyannote_av.core.model import Model, load_plda
from pyannote_av.core.pipeline_config import (
    check_config,
    locate_pipeline,
    read_config,
    replace_arguments,
)
from pyannote_av.core.reading import ReadError, read_yaml
from pyannote_av.core.text import field_name, printable
from pyannote_av.core.trust import UntrustedError, loading, named_class, policy, used_trust
from pyannote_av.pretrained import DEFAULT

logger = logging.getLogger(__name__)

#: The waveform of files longer than this is kept at half precision (s). Steps of pipelines convert
#: the parts they use.
LONG = 1800.0

# arguments of pyannote.audio's pipelines that name a model
_MODELS = ("segmentation", "embedding")


class Pipeline(_Pipeline):
    """Entry point ``Pipeline.from_pretrained``, with safe loading and shipped pipelines."""

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
        allow_network: bool = False,
        use_auth_token: str | bool | None = None,
        **arguments: Any,
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
            by default: only the classes listed in :mod:`pyannote_av.core.trust` are built, and
            checkpoints are read as plain weights, at any depth of the configuration.
        allow_network : bool, optional
            Fetch what a local configuration names on the Hugging Face hub. What `checkpoint` itself
            names there is fetched in any case, with what that refers to.
        use_auth_token : optional
            Former name of `token`.
        **arguments
            Arguments of the pipeline that replace those of the configuration, such as
            ``segmentation="exp/ft"`` for weights that were fine-tuned.

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
        token = old_token(token, use_auth_token)
        if isinstance(checkpoint, dict):
            config, folder, origin = deepcopy(checkpoint), Path.cwd(), "the configuration"
            check_config(config, origin)
        else:
            path = locate_pipeline(checkpoint, revision, token, cache_dir)
            if subfolder:
                path = path / subfolder
            config_yml = path / "config.yaml" if path.is_dir() else path
            if not config_yml.is_file():
                raise FileNotFoundError(f"no config.yaml in {path}: it is not a pipeline folder")
            config, folder, origin = read_config(config_yml), config_yml.parent, str(config_yml)

        if arguments:
            _check_arguments(config, arguments, origin)
            replace_arguments(config, arguments, origin)
        described = deepcopy(config), folder
        hparams = None if hparams_file is None else _hyper_parameters(hparams_file)
        on_hub = not isinstance(checkpoint, dict) and named_on_hub(checkpoint)
        with loading(origin, trust, allow_network, on_hub) as allowed, _naming(origin):
            if not allowed.trust:
                _leave_out(config, ("token", "cache_dir"))
            expand_subfolders(config, str(folder), token=token, cache_dir=cache_dir)
            if allowed.trust:
                used_trust(
                    f"{origin}: {config['pipeline']['name']!r} and everything it names is built"
                )
            else:
                _make_safe(config, origin, token, cache_dir)
            pipeline = _Pipeline.from_pretrained(config, token=token, cache_dir=cache_dir)
            pipeline.described = described  # for `save_pipeline`
            return pipeline if hparams is None else pipeline.instantiate(hparams)


def _check_arguments(config: dict[str, Any], arguments: Mapping[str, Any], origin: str) -> None:
    """Refuse arguments that the pipeline does not have"""
    name = config["pipeline"]["name"]
    if policy().trust and not name.startswith("pyannote_av."):
        return
    known = _arguments_of(named_class(name, "pipeline", origin))
    for one in arguments:
        if one not in known:
            raise TypeError(
                f"{name.rpartition('.')[2]} has no argument {one!r}: it has {', '.join(known)}"
            )


def _arguments_of(kind: type) -> list[str]:
    """Arguments of a constructor, with those that ``**kwargs`` passes on to the base class"""
    found: dict[str, None] = {}
    for cls in (one for one in kind.__mro__ if "__init__" in vars(one)):
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        found |= {one.name: None for one in parameters if one.kind is not one.VAR_KEYWORD}
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return list(found)


# errors that constructors raise for invalid arguments
_MALFORMED = (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, NameError)
_MALFORMED += (AssertionError, ImportError, MissingDependency, WrongDependencyVersion)


@contextmanager
def _naming(origin: str) -> Iterator[None]:
    """Turn whatever a malformed configuration raises into a ValueError that names the file"""
    try:
        yield
    except _MALFORMED as error:
        text = f"{origin}: {type(error).__name__}: {error}"
        raise ValueError(printable(text, one_line=True)) from error
    except ValueError as error:
        if origin in str(error) or isinstance(error, (UntrustedError, CheckpointError, ReadError)):
            raise
        raise ValueError(printable(f"{origin}: {error}", one_line=True)) from error


def _hyper_parameters(path: str | Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("params"), dict):
        raise ValueError(f"{path} holds no hyper-parameters: no params:")
    return content["params"]


def _leave_out(value: Any, keys: tuple[str, ...]) -> None:
    """Remove keys, at any depth, that a configuration must not set: token and cache folder"""
    if isinstance(value, dict):
        for key in keys:
            value.pop(key, None)
        for one in value.values():
            _leave_out(one, keys)
    elif isinstance(value, list):
        for one in value:
            _leave_out(one, keys)


def _make_safe(config: dict[str, Any], origin: str, token, cache_dir) -> None:
    """Check the classes a configuration names; load what pyannote would unpickle or fetch itself"""
    pipeline = config["pipeline"]
    kind = named_class(pipeline["name"], "pipeline", origin)
    # another name of the same class may not be importable
    pipeline["name"] = f"{kind.__module__}.{kind.__qualname__}"
    for key, preprocessor in (config.get("preprocessors") or {}).items():
        if not isinstance(preprocessor, dict) or "name" not in preprocessor:
            raise UntrustedError(
                f"{origin}: preprocessor {key!r} names no class. A list of databases or a template "
                "of paths changes which files are read, and needs trust=True."
            )
        found = named_class(preprocessor["name"], "preprocessor", origin)
        preprocessor["name"] = f"{found.__module__}.{found.__qualname__}"
    if kind.__module__.startswith("pyannote_av."):
        return  # ours load by functions that ask core.trust

    params = pipeline["params"]
    arguments = inspect.signature(kind.__init__).parameters
    given = {name: params.get(name, one.default) for name, one in arguments.items()}
    clustering = given.get("clustering")
    for name in _MODELS:
        value = given.get(name)
        unused = name == "embedding" and clustering == "OracleClustering"
        if value is not None and not isinstance(value, _Model) and not unused:
            params[name] = Model.from_pretrained(locate(value, token, cache_dir))
    if "plda" in given:
        if clustering == "VBxClustering":
            params["plda"] = load_plda(given["plda"], token, cache_dir)
        else:
            # pyannote insists on one whatever the clustering: an empty stand-in is never used
            params["plda"] = PLDA.__new__(PLDA)


class MediaMixin:
    """Mixin for pyannote.audio pipelines that take media files. Audio is decoded once.

    ``prepare_one`` is where pyannote prepares a file. It never writes to a mapping of the caller.
    While hyper-parameters are optimized, decoded audio and the steps of the pipeline are cached;
    see :mod:`pyannote_av.core.caching`.
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
            A new mapping, with ``waveform`` (1, num_samples), ``sample_rate``, ``problems`` (list
            of str), ``streams`` (see :meth:`pyannote_av.Video.streams`) and ``decoding_seconds``
            added. A file without audio gets silence and ``has_audio=False``.
        """
        from pyannote_av.core.io import Video

        known = Video().validate_file(file)
        if not isinstance(file, Mapping):
            prepared: MutableMapping = dict(known)
        else:
            prepared = ProtocolFile(file) if isinstance(file, ProtocolFile) else dict(file)
        if "uri" not in prepared:
            prepared["uri"] = known["uri"]
        session = media = None
        if self.training:
            session = caching.current_session() or caching.Session(self._own_cache())
            media = caching.media_checksum(known)
        if "problems" not in prepared:
            decode = partial(_decode, known)
            sound = decode() if session is None else session.cached(media, "sound", decode, True)
            prepared.update(sound, problems=list(sound["problems"]))
        prepared.pop("channel", None)  # the waveform has it alone
        prepared = super().prepare_one(prepared, preload=False)
        if session is None:
            return prepared
        return caching.CachedFile(prepared, session, media, self)

    def _own_cache(self) -> caching.MemoryCache:
        """Cache for optimizers that have none, such as that of pyannote.pipeline"""
        return self.__dict__.setdefault("_cache", caching.MemoryCache())

    def __call__(self, file: Any, preload: bool = False, **kwargs: Any) -> Any:
        """Process one file, or a list of files; see ``apply`` for keyword arguments.

        Parameters
        ----------
        file : str, Path, mapping, binary file, or list of these
            See :meth:`pyannote_av.Video.validate_file`. An open file (``io.BytesIO``, or the result
            of ``open(path, "rb")``), also as ``video`` or ``audio`` of a mapping, is copied to disk
            while it is processed.
        preload : bool, optional
            Has no effect: audio is always decoded once, into memory.
        **kwargs : Any
            Numbers of speakers may be text ("2").

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
        if kwargs.pop("return_embeddings", False):
            raise ValueError(
                "return_embeddings was an option of pyannote.audio 3: leave it out, and take "
                "speaker_embeddings of the output"
            )
        numbers = {name: kwargs[name] for name in _NUMBERS if name in kwargs}
        kwargs |= {name: n for name, n in speaker_bounds(**numbers).items() if name in numbers}
        if not self.instantiated:
            # pyannote does the same, but warns and lists all parameters
            self.instantiate(self.default_parameters())
        with _on_disk(file) as path:
            return super().__call__(path, preload=preload, **kwargs)

    def to(self, device: torch.device | str | int) -> _Pipeline:
        """Move to a device, such as "cuda" or ``torch.device("cuda", 1)``.

        Raises
        ------
        ValueError
            When it is no device, or this machine has no such device.
        """
        return super().to(as_device(device))

    def _one_by_one(self, files: list, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        uris = [_uri(file) for file in files]
        twice = sorted({uri for uri in uris if uris.count(uri) > 1})
        if twice:
            raise ValueError(f"several files are called {', '.join(twice)}: uris must be distinct")
        return ((file, self(file, **kwargs)) for file in files)


def _decode(file: Mapping) -> dict[str, Any]:
    """Audio of a validated file, silent if there is none, and problems found while decoding"""
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video

    video = Video()
    start = perf_counter()
    problems: list[str] = []
    sound: dict[str, Any] = {"sample_rate": SAMPLE_RATE, "problems": problems}
    if "waveform" in file or "audio" in file or video.probe(file).audio:
        long = "waveform" not in file and video.get_duration(file) > LONG
        sound["waveform"] = video.waveform(file, problems, half=long)
    else:
        num_samples = round(video.get_duration(file) * SAMPLE_RATE)
        sound["waveform"] = torch.zeros(1, num_samples)
        sound["has_audio"] = False
    if sound["waveform"].shape[1] > LONG * SAMPLE_RATE:  # also of sound in memory
        sound["waveform"] = sound["waveform"].half()
    return {**sound, "streams": video.streams(file), "decoding_seconds": perf_counter() - start}


_NUMBERS = ("num_speakers", "min_speakers", "max_speakers")


def as_device(device: torch.device | str | int) -> torch.device:
    """Device by its name; raises ValueError when there is none of this name on this machine."""
    try:
        found = torch.device("cuda", device) if type(device) is int else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{device!r} is not a device: write 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count()
        raise ValueError(f"no device {str(found)!r}: this machine has {number} CUDA devices")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("no device 'mps': this machine has none")
    return found


def _opened(file: Any) -> dict[str, Any]:
    """Open files in a file argument, by key"""
    given = file if isinstance(file, Mapping) else {"video": file}
    return {key: given[key] for key in ("video", "audio") if hasattr(given.get(key), "read")}


def _uri(file: Any) -> str:
    """Name of a file, which may be open"""
    from pyannote_av.core.io import Video

    opened = _opened(file)
    if not opened:
        return Video().validate_file(file)["uri"]
    if isinstance(file, Mapping) and file.get("uri") is not None:
        return str(file["uri"])
    return field_name(_name(next(iter(opened.values()))).stem)


def _name(opened: Any) -> Path:
    """Path of an open file; "stream" if it has none"""
    name = getattr(opened, "name", None)
    return Path(name if isinstance(name, str) and name else "stream")


@contextmanager
def _on_disk(file: Any) -> Iterator[Any]:
    """The file, with copies on disk of what is open"""
    opened = _opened(file)
    if not opened:
        yield file
        return
    copied: MutableMapping = {}
    if isinstance(file, Mapping):
        copied = ProtocolFile(file) if isinstance(file, ProtocolFile) else dict(file)
    copied["uri"] = _uri(file)
    with tempfile.TemporaryDirectory(prefix="pyannote_av_") as folder:
        for key, one in opened.items():
            if isinstance(one.read(0), str):
                raise ValueError(f"{_name(one)} is open as text: open it with open(..., 'rb')")
            # the suffix tells formats apart that begin alike
            suffix = _name(one).suffix
            path = Path(folder) / f"{key}{suffix if len(suffix) < 16 else ''}"
            try:
                begin = one.tell()
                one.seek(0)
            except (AttributeError, OSError):  # such as a pipe
                begin = None
            with open(path, "wb") as copy:
                shutil.copyfileobj(one, copy)
            if begin is not None:
                one.seek(begin)
            copied[key] = path
        yield copied


class DiarizationPipeline(MediaMixin, _Pipeline):
    """Base class of our diarization pipelines: they take media files; tuning minimises DER."""

    #: hyper-parameters of earlier versions, which configurations may still hold
    FORMER_PARAMETERS: ClassVar[frozenset[str]] = frozenset()

    def instantiate(self, params: Mapping[str, Any]) -> DiarizationPipeline:
        """Set hyper-parameters.

        Those that no longer exist are ignored, with a warning. The defaults are then used for all
        that are missing.
        """
        if former := sorted(self.FORMER_PARAMETERS.intersection(params)):
            warnings.warn(
                f"{type(self).__name__} has no hyper-parameters {', '.join(former)} any more: "
                "they are ignored, and its results differ from those of earlier versions",
                DeprecationWarning,
                stacklevel=2,
            )
            kept = {name: value for name, value in params.items() if name not in former}
            params = {**self.default_parameters(), **kept}
        return super().instantiate(params)

    def get_metric(self) -> DiarizationErrorRate:
        """Diarization error rate, which the optimizer minimises: no collar, overlap is scored."""
        return DiarizationErrorRate(collar=0.0, skip_overlap=False)

    @staticmethod
    def get_direction() -> str:
        """Direction of the optimization: a lower error rate is better."""
        return "minimize"
