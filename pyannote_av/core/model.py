"""Models with a visual stream, and the safe way to load any model."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pyannote.audio import Model as _Model
from pyannote.audio.core.plda import PLDA
from pyannote.audio.utils.dependencies import MissingDependency, WrongDependencyVersion
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from pyannote_av import __version__
from pyannote_av.core.atomic import replacing
from pyannote_av.core.batch import AVInput
from pyannote_av.core.checkpoint import (
    SLACK,
    CheckpointError,
    load_checkpoint,
)
from pyannote_av.core.hub import locate, named_on_hub, old_token, resolve
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import read_npz
from pyannote_av.core.renaming import current_names
from pyannote_av.core.text import printable
from pyannote_av.core.trust import (
    UntrustedError,
    loading,
    may_fetch,
    named_class,
    policy,
    used_trust,
)

__all__ = [
    "AVModel",
    "Model",
    "UntrustedError",
    "load_checkpoint",
    "load_plda",
    "read_safetensors",
]

_FILENAME = "model.safetensors"


class AVModel(_Model):
    """pyannote.audio model with an optional visual input.

    Subclasses implement ``forward(waveforms, faces=None, face_mask=None)``, where ``faces=None``
    is the audio-only path. Branches are top-level attributes, so that ``freeze_by_name`` works.
    Hyper-parameters are recorded by ``save_hyperparameters`` and must be JSON-serialisable.

    ``model(AVInput(waveforms, faces, face_mask))`` is ``model(waveforms, faces, face_mask)``,
    and likewise for further inputs.

    Attributes
    ----------
    lineage : list of dict
        Training stages of the weights, saved and loaded with them.
    """

    #: current names of hyper-parameters by former name, under which files may hold them
    FORMER_HPARAMS: ClassVar[Mapping[str, str]] = {}
    #: hyper-parameters with which the network is that of the authors, where defaults differ
    PUBLISHED: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lineage: list[dict[str, Any]] = []

    def __call__(self, waveforms: torch.Tensor | AVInput, *args: Any, **kwargs: Any) -> Any:
        """Forward pass of tensors, or of the ``X`` of a batch."""
        if isinstance(waveforms, AVInput):
            return super().__call__(*args, **waveforms.present(), **kwargs)
        return super().__call__(waveforms, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the lineage in checkpoints of training as well."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["pyannote.audio"]["lineage"] = self.lineage

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :meth:`on_save_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self.lineage = checkpoint["pyannote.audio"].get("lineage", [])

    @property
    def example_input_array(self) -> dict[str, torch.Tensor]:
        """Ten frames of noise, with which Lightning computes shapes for its model summary."""
        samples = round(0.4 * self.hparams.sample_rate)
        return {
            "waveforms": torch.randn(1, 1, samples, device=self.device),
            "faces": torch.randint(256, (1, 1, 10, 112, 112), device=self.device).byte(),
        }

    def save(self, path: str | Path) -> Path:
        """Write weights and hyper-parameters to one safetensors file.

        Parameters
        ----------
        path : str or Path
            A ``.safetensors`` file, or a folder, in which ``model.safetensors`` is written.

        Returns
        -------
        path : Path
            The file written.
        """
        from safetensors.torch import save

        path = Path(path)
        if path.suffix != ".safetensors":
            path = path / _FILENAME
        cls = type(self)
        metadata = {
            "architecture": f"{cls.__module__}.{cls.__qualname__}",
            "hparams": json.dumps(dict(self.hparams)),
            "pyannote_av": __version__,
            "lineage": json.dumps(self.lineage),
        }
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        with replacing(path) as temporary:
            # a full disk is an OSError then
            temporary.write_bytes(save(state, metadata=metadata))
        return path


def read_safetensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, and metadata, of a ``.safetensors`` file.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        When the file is empty, cut short, or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(no_such_file(path))
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is not a regular file")
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is damaged ({error})"
        ) from error


def _load_safetensors(path: Path, overrides: Mapping[str, Any]) -> _Model:
    state, metadata = read_safetensors(path)
    if "architecture" not in metadata:
        raise CheckpointError(f"{path} does not say which model its weights belong to")
    cls = named_class(metadata["architecture"], "model", path)
    hparams = _json_of(path, metadata, "hparams", dict)
    lineage = _json_of(path, metadata, "lineage", list)
    hparams = {**_current(cls, hparams, path), **_current(cls, overrides, path)}
    check_hparams(cls, hparams, path)
    sizes = {name: tensor.numel() for name, tensor in state.items()}
    try:
        check_size(cls, hparams, sizes)
        model = cls(**hparams)
        model.load_state_dict(state, strict=True)
    except _MISFITS as error:
        raise CheckpointError(f"{path} does not fit {cls.__name__}: {error}") from error
    model.lineage = lineage
    return model.eval()


def _current(cls: type, hparams: Mapping[str, Any], path: object) -> dict[str, Any]:
    """Hyper-parameters under their current names"""
    try:
        return current_names(hparams, getattr(cls, "FORMER_HPARAMS", {}))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _json_of(path: Path, metadata: Mapping[str, str], key: str, kind: type) -> Any:
    try:
        content = json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {key} are not JSON ({error})") from error
    if content is not None and not isinstance(content, kind):
        raise CheckpointError(f"{path}: its {key} are a {type(content).__name__}")
    return kind() if content is None else content


# what constructors and load_state_dict raise for hyper-parameters or weights of something else
_MISFITS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, NameError)
_MISFITS += (ArithmeticError, AssertionError, MemoryError, ImportError)
_MISFITS += (MissingDependency, WrongDependencyVersion)

#: largest number in hyper-parameters, and how many of them there may be
MAX_NUMBER, MAX_VALUES = 1_000_000, 10_000


def check_hparams(cls: type, hparams: Mapping[str, Any], where: object) -> None:
    """Refuse hyper-parameters by which a network would load, fetch or import something.

    Parameters
    ----------
    cls : type
        The network.
    hparams : mapping
        From a file.
    where : path
        For messages.

    Raises
    ------
    UntrustedError
    CheckpointError
        When they are not numbers, text and containers of them, or too large.
    """
    for name in hparams:
        if not isinstance(name, str) or not name.isidentifier() or name[0] == "_":
            raise UntrustedError(f"{where}: {name!r} is not a hyper-parameter")
    _check_values(hparams, where)
    if policy().trust:
        return
    if cls.__name__ == "SSeRiouSS" and isinstance(source := hparams.get("wav2vec"), str):
        import torchaudio

        if source not in torchaudio.pipelines.__all__:
            raise UntrustedError(
                f"{where}: its wav2vec is the file {source!r}, which would be unpickled. Pass "
                "trust=True (--trust on the command line) if you know and trust its origin."
            )
        may_fetch(f"the weights {source} of torchaudio")
    if cls.__name__ == "ToTaToNet" and hparams.get("use_wavlm", True):
        may_fetch("the weights of WavLM")


def _check_values(hparams: Mapping[str, Any], where: object) -> None:
    todo, count = list(hparams.items()), 0
    while todo:
        name, value = todo.pop()
        count += 1
        if isinstance(value, Mapping):
            todo += value.items()
        elif isinstance(value, (list, tuple)):
            todo += ((name, one) for one in value)
        large = isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER
        if large or count + len(todo) > MAX_VALUES:
            raise CheckpointError(
                f"{where}: hyper-parameter {name!r} is too large: numbers up to {MAX_NUMBER} are "
                f"allowed, and {MAX_VALUES} values in all"
            )


class _TooLargeError(ValueError):
    """A network has more parameters than its file"""


class _Guessing(TorchFunctionMode):
    """Answers what constructors ask of tensors that hold no numbers"""

    _ANSWERS: ClassVar = {"__bool__": False, "__int__": 1, "__index__": 1}
    _ANSWERS |= {"__float__": 1.0, "item": 1.0}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            name = getattr(func, "__name__", "")
            if name in self._ANSWERS:
                return self._ANSWERS[name]
            if name == "tolist" and args[0].numel() <= MAX_VALUES:
                return np.ones(args[0].shape).tolist()
        return func(*args, **(kwargs or {}))


def check_size(cls: type[_Model], hparams: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Refuse hyper-parameters that ask for a network larger than the weights in its file.

    The network is built on a device without memory, and counted while it is.

    Parameters
    ----------
    cls : type
        The network.
    hparams : mapping
    sizes : mapping of str to int
        Number of elements of each tensor in the file.

    Raises
    ------
    ValueError
        When it is larger, or cannot be built.
    """
    if isinstance(hparams.get("wav2vec"), str) or policy().trust:
        return  # weights that the caller allowed are fetched, or anything may happen
    limit = sum(sizes.values()) + SLACK
    mine, count, tensors = threading.get_ident(), 0, 0

    def register(module: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal count, tensors
        if value is not None and threading.get_ident() == mine:
            count, tensors = count + value.numel(), tensors + 1
            if count > limit or tensors > 4 * len(sizes) + 1000:
                raise _TooLargeError(
                    f"its hyper-parameters ask for more than {limit} numbers, or for more tensors "
                    "than there are in the file"
                )

    handles = (
        register_module_parameter_registration_hook(register),
        register_module_buffer_registration_hook(register),
    )
    try:
        with torch.device("meta"), torch.no_grad(), _Guessing():
            cls(**hparams)
    finally:
        for handle in handles:
            handle.remove()


class Model(_Model):
    """Entry point ``Model.from_pretrained``: pyannote's, with safe loading and safetensors."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        checkpoint: str | Path | io.BytesIO,
        trust: bool = False,
        strict: bool = True,
        allow_network: bool = False,
        map_location: Any = None,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        use_auth_token: str | bool | None = None,
        **kwargs: Any,
    ) -> _Model:
        """Load a pretrained model.

        Parameters
        ----------
        checkpoint : str, Path or BytesIO
            A ``.safetensors`` file of this package, a pyannote.audio or Lightning checkpoint, a
            folder that holds either, the identifier of a model on the Hugging Face hub, or the
            content of a checkpoint.
        trust : bool, optional
            Unpickle whatever the file holds and instantiate whatever class it names. Off by
            default: only tensors are read, and only the networks listed in
            :mod:`pyannote_av.core.trust` built.
        strict : bool, optional
            Whether the keys of the checkpoint must match those of the model.
        allow_network : bool, optional
            Fetch what a local checkpoint asks for.
        map_location : optional
            Device of the model, as in ``torch.load``.
        subfolder, revision, token, cache_dir : optional
            As in ``pyannote.audio.Model.from_pretrained``.
        use_auth_token : optional
            Former name of `token`.
        **kwargs
            Hyper-parameters that override the saved ones.

        Returns
        -------
        model : pyannote.audio.Model
            In evaluation mode.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        UntrustedError
            When loading it would execute or fetch something that is not trusted.
        CheckpointError
            When the file is damaged, or holds something else.
        """
        token = old_token(token, use_auth_token)
        if isinstance(checkpoint, io.BytesIO):
            path: Any = checkpoint
            where, on_hub = "the checkpoint", False
        else:
            folder = resolve(checkpoint, revision=revision, token=token, cache_dir=cache_dir)
            path = where = _model_file(folder / (subfolder or ""))
            on_hub = named_on_hub(checkpoint)
        with loading(where, trust, allow_network, on_hub) as allowed:
            if getattr(path, "suffix", "") == ".safetensors":
                model = _load_safetensors(path, kwargs)
                return model if map_location is None else model.to(map_location)
            if allowed.trust:
                used_trust(f"{where} is unpickled, and may execute anything")
                options = {"map_location": map_location, "strict": strict}
                return _Model.from_pretrained(_renamed(path, where), **options, **kwargs).eval()
            return _load_pyannote(path, where, strict, map_location, kwargs)


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    candidates = [path / _FILENAME, path / "pytorch_model.bin"]
    found = next((one for one in candidates if one.is_file()), None)
    if found is None:
        where = printable(str(path), one_line=True)
        raise FileNotFoundError(
            f"no model in folder {where}: expected model.safetensors or pytorch_model.bin"
        )
    return found


def architecture(content: Any, path: object) -> type[_Model]:
    """Class of the model that a checkpoint belongs to, if it may be built.

    Parameters
    ----------
    content : Any
        See :func:`~pyannote_av.core.checkpoint.load_checkpoint`.
    path : path
        For messages.

    Raises
    ------
    CheckpointError
        When the checkpoint does not name it.
    UntrustedError
    """
    try:
        named = content["pyannote.audio"]["architecture"]
        name = f"{named['module']}.{named['class']}"
    except (KeyError, TypeError, IndexError):
        raise CheckpointError(
            f"{path} is not a checkpoint of pyannote.audio or Lightning: it does not name its model"
        ) from None
    return named_class(name, "model", path)


def plain_checkpoint(content: Mapping[str, Any], path: object) -> dict[str, Any]:
    """What pyannote.audio needs of a checkpoint to build a model and fill it, and nothing else.

    Parameters
    ----------
    content : mapping
        See :func:`~pyannote_av.core.checkpoint.load_checkpoint`.
    path : path
        For messages.

    Raises
    ------
    CheckpointError
        When it lacks something.
    UntrustedError
        When its model may not be built.
    """
    cls, about = architecture(content, path), content["pyannote.audio"]
    hparams, state = content.get("hyper_parameters", {}), content.get("state_dict")
    versions = about.get("versions")
    if not isinstance(hparams, Mapping):
        raise CheckpointError(f"{path}: its hyper-parameters are a {type(hparams).__name__}")
    if not isinstance(versions, Mapping):
        raise CheckpointError(
            f"{path} does not say what wrote it: it has no versions (of pyannote.audio, torch, "
            "numpy), so pyannote.audio did not write it, or it was edited"
        )
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise CheckpointError(f"{path} has no weights: its state_dict is not a mapping of tensors")
    check_hparams(cls, hparams, path)
    return {
        "pytorch-lightning_version": str(content.get("pytorch-lightning_version", "2.0.0")),
        "hyper_parameters": _current(cls, hparams, path),
        "state_dict": dict(state),
        "pyannote.audio": {
            "versions": {str(name): str(version) for name, version in versions.items()},
            "architecture": {"module": cls.__module__, "class": cls.__qualname__},
            "specifications": about.get("specifications"),
        },
    }


def _renamed(path: Any, where: object) -> Any:
    """A checkpoint, or a copy of it where it holds former names of hyper-parameters"""
    try:
        content = load_checkpoint(path, plain=True)
        cls, hparams = architecture(content, where), content["hyper_parameters"]
        current = _current(cls, hparams, where)
    except (KeyError, TypeError, ValueError, AttributeError):
        current = hparams = None  # more than plain weights, or damaged: pyannote.audio reads it
    if isinstance(path, io.BytesIO):
        path.seek(0)
    if current == hparams:
        return path
    content["hyper_parameters"] = current
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


def _load_pyannote(
    path: Any, where: object, strict: bool, map_location: Any, overrides: Mapping[str, Any]
) -> _Model:
    content = load_checkpoint(path)
    cls = architecture(content, where)
    lineage = content["pyannote.audio"].get("lineage", [])
    content, overrides = plain_checkpoint(content, where), _current(cls, overrides, where)
    # pyannote unpickles what it is given; what it is given here is known to be plain
    buffer = io.BytesIO()
    try:
        sizes = {name: tensor.numel() for name, tensor in content["state_dict"].items()}
        known = {**content["hyper_parameters"], **overrides}
        check_size(cls, {name: known[name] for name in _arguments(cls, known)}, sizes)
        torch.save(content, buffer)
        buffer.seek(0)
        options = {"map_location": map_location, "strict": strict}
        model = _Model.from_pretrained(buffer, **options, **overrides).eval()
    except _MISFITS as error:
        raise CheckpointError(f"{where} does not fit {cls.__name__}: {error}") from error
    if isinstance(model, AVModel) and isinstance(lineage, list):
        model.lineage = lineage
    return model


def _arguments(cls: type, hparams: Mapping[str, Any]) -> list[str]:
    """Hyper-parameters that a constructor takes: Lightning leaves out the others"""
    import inspect

    known = inspect.signature(cls.__init__).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return list(hparams)
    return [name for name in hparams if name in known]


#: bytes of a file of a PLDA, and dimensions of embeddings that it takes
MAX_PLDA, MAX_DIMENSION = 1 << 26, 2048


def load_plda(
    reference: str | Path | Mapping | PLDA,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> PLDA:
    """Load a PLDA.

    Parameters
    ----------
    reference : str, Path, mapping or PLDA
        A folder with ``xvec_transform.npz`` and ``plda.npz``; see
        :func:`~pyannote_av.core.hub.locate` for other ways to name it.
    token, cache_dir : optional
        For the Hugging Face hub.

    Raises
    ------
    FileNotFoundError
        When there is no such folder, or not both files in it.
    ValueError
        When they hold something else.
    """
    if isinstance(reference, PLDA):
        return reference
    folder = locate(reference, token, cache_dir)
    arrays: dict[str, np.ndarray] = {}
    for name in ("xvec_transform.npz", "plda.npz"):
        if not (folder / name).is_file():
            where = printable(str(folder), one_line=True)
            raise FileNotFoundError(f"no PLDA in {where}: there is no {name}")
        arrays |= read_npz(folder / name, limit=MAX_PLDA)
    if max((max(one.shape, default=0) for one in arrays.values()), default=0) > MAX_DIMENSION:
        raise CheckpointError(f"{folder}: embeddings of more than {MAX_DIMENSION} dimensions")
    try:
        return PLDA.from_pretrained(folder)
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise CheckpointError(f"{folder} holds no PLDA: {type(error).__name__}: {error}") from error
