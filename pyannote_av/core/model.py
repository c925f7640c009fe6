"""Models with a visual stream, and the safe way to load any model."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pyannote.audio import Model as _Model
from pyannote.audio.core.plda import PLDA
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from pyannote_av import __version__
from pyannote_av.core.atomic import replacing
from pyannote_av.core.checkpoint import (
    SLACK,
    CheckpointError,
    load_checkpoint,
    restore_specifications,
)
from pyannote_av.core.hub import locate, named_on_hub, resolve
from pyannote_av.core.reading import read_npz
from pyannote_av.core.task import AVInput
from pyannote_av.core.trust import UntrustedError, loading, may_fetch, named_class, used_trust

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
    """A pyannote.audio model that can also look at faces.

    Subclasses implement ``forward(waveforms, faces=None, face_mask=None)``, where ``faces=None``
    is the audio-only path. Branches are top-level attributes so that ``freeze_by_name`` works;
    hyper-parameters are what ``save_hyperparameters`` recorded and must be JSON-serialisable.

    ``model(AVInput(waveforms, faces, face_mask))`` is ``model(waveforms, faces, face_mask)``,
    and so on for whatever else there is.

    Attributes
    ----------
    lineage : list of dict
        Stages of training its weights went through, saved and loaded with them.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lineage: list[dict[str, Any]] = []

    def __call__(self, waveforms: torch.Tensor | AVInput, *args: Any, **kwargs: Any) -> Any:
        """Forward pass, also of what tasks call a batch's ``X``."""
        if isinstance(waveforms, AVInput):
            return super().__call__(*args, **waveforms.present(), **kwargs)
        return super().__call__(waveforms, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the lineage in checkpoints of training, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["pyannote.audio"]["lineage"] = self.lineage

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :meth:`on_save_checkpoint`."""
        about = checkpoint["pyannote.audio"]
        if about.get("specifications") is not None:
            # Lightning read the file itself, and has stand-ins
            about["specifications"] = restore_specifications(
                about["specifications"], "the checkpoint"
            )
        super().on_load_checkpoint(checkpoint)
        self.lineage = checkpoint["pyannote.audio"].get("lineage", [])

    @property
    def example_input_array(self) -> dict[str, torch.Tensor]:
        """Ten frames of noise: what Lightning measures shapes with for its summary of the model."""
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
            A folder (the file is then called ``model.safetensors``) or a ``.safetensors`` file.

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
        raise FileNotFoundError(f"no such file: {path}")
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is not a regular file")
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} is no safetensors file, or damaged ({error})") from error


def _load_safetensors(path: Path, overrides: Mapping[str, Any]) -> _Model:
    state, metadata = read_safetensors(path)
    if "architecture" not in metadata:
        raise CheckpointError(f"{path} does not say which model its weights belong to")
    cls = named_class(metadata["architecture"], "model")
    hparams = _json_of(path, metadata, "hparams", dict)
    lineage = _json_of(path, metadata, "lineage", list)
    hparams = {**hparams, **overrides}
    check_hparams(cls, hparams, path)
    sizes = {name: tensor.numel() for name, tensor in state.items()}
    try:
        _check_size(cls, hparams, sizes)
        model = cls(**hparams)
        model.load_state_dict(state, strict=True)
    except _MISFITS as error:
        raise CheckpointError(f"{path} does not fit {cls.__name__}: {error}") from error
    model.lineage = lineage
    return model.eval()


def _json_of(path: Path, metadata: Mapping[str, str], key: str, kind: type) -> Any:
    try:
        content = json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {key} are not JSON ({error})") from error
    if content is not None and not isinstance(content, kind):
        raise CheckpointError(f"{path}: its {key} are a {type(content).__name__}")
    return kind() if content is None else content


# what constructors and load_state_dict raise for hyper-parameters or weights of something else
_MISFITS = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError)
_MISFITS += (ArithmeticError, AssertionError, RecursionError, MemoryError)


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
    """
    if unusual := [name for name in hparams if not str(name).isidentifier() or name[0] == "_"]:
        raise UntrustedError(f"{where}: {unusual[0]!r} is no hyper-parameter")
    if cls.__name__ == "SSeRiouSS" and isinstance(source := hparams.get("wav2vec"), str):
        import torchaudio

        if source not in torchaudio.pipelines.__all__:
            raise UntrustedError(
                f"{where}: its wav2vec is the file {source!r}, which would be unpickled. Pass "
                "trust=True if you know and trust its origin."
            )
        may_fetch(f"the weights {source} of torchaudio")
    if cls.__name__ == "ToTaToNet" and hparams.get("use_wavlm", True):
        may_fetch("the weights of WavLM")


class _TooLargeError(ValueError):
    """A network has more parameters than its file"""


def _check_size(cls: type[_Model], hparams: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Refuse hyper-parameters that ask for a network larger than the weights in its file

    The network is built on a device without memory, and counted while it is.
    """
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
        with torch.device("meta"), torch.no_grad():
            cls(**hparams)
    except _TooLargeError:
        raise
    except _MISFITS:
        # whatever is wrong is said when it is built for good; some need numbers to be built at all
        pass
    finally:
        for handle in handles:
            handle.remove()


class Model(_Model):
    """Entry point ``Model.from_pretrained``: pyannote's, with safe loading and safetensors."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        checkpoint: str | Path,
        trust: bool = False,
        strict: bool = True,
        allow_network: bool = False,
        **kwargs: Any,
    ) -> _Model:
        """Load a pretrained model.

        Parameters
        ----------
        checkpoint : str or Path
            A ``.safetensors`` file of this package, a pyannote.audio or Lightning checkpoint, a
            folder that holds either, or the identifier of a model on the Hugging Face hub.
        trust : bool, optional
            Unpickle whatever the file holds and instantiate whatever class it names. Off by
            default: only tensors are read, and only the networks listed in
            :mod:`pyannote_av.core.trust` built.
        strict : bool, optional
            Whether the keys of the checkpoint must match those of the model.
        allow_network : bool, optional
            Fetch what a local checkpoint asks for.
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
        path = _model_file(resolve(checkpoint))
        with loading(path, trust, allow_network, named_on_hub(checkpoint)) as allowed:
            if path.suffix == ".safetensors":
                return _load_safetensors(path, kwargs)
            if allowed.trust:
                used_trust(f"{path} is unpickled, and may execute anything")
                return _Model.from_pretrained(path, strict=strict, **kwargs).eval()
            return _load_pyannote(path, strict, kwargs)


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    candidates = [path / _FILENAME, path / "pytorch_model.bin"]
    found = next((one for one in candidates if one.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no model in folder {path}: expected model.safetensors or pytorch_model.bin"
        )
    return found


def architecture(content: Any, path: Path) -> type[_Model]:
    """Class of the model that a checkpoint belongs to, if it may be built.

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


# what pyannote.audio needs to build a model and fill it
NEEDED = (
    "pytorch-lightning_version",
    "hparams_name",
    "hyper_parameters",
    "state_dict",
    "pyannote.audio",
)


def _load_pyannote(path: Path, strict: bool, overrides: Mapping[str, Any]) -> _Model:
    content = load_checkpoint(path)
    cls = architecture(content, path)
    hparams, state = content.get("hyper_parameters", {}), content.get("state_dict")
    if not isinstance(hparams, Mapping) or not isinstance(state, Mapping):
        raise CheckpointError(f"{path} has no weights, or no hyper-parameters that are a mapping")
    check_hparams(cls, {**hparams, **overrides}, path)
    content = {key: content[key] for key in NEEDED if key in content}
    about = {"module": cls.__module__, "class": cls.__qualname__}
    content["pyannote.audio"] = {**content["pyannote.audio"], "architecture": about}
    # pyannote unpickles what it is given; what it is given here is known to be plain
    buffer = io.BytesIO()
    try:
        sizes = {name: tensor.numel() for name, tensor in state.items()}
        known = {**hparams, **overrides}
        _check_size(cls, {name: known[name] for name in _arguments(cls, known)}, sizes)
        torch.save(content, buffer)
        buffer.seek(0)
        return _Model.from_pretrained(buffer, strict=strict, **overrides).eval()
    except _MISFITS as error:
        raise CheckpointError(f"{path} does not fit {cls.__name__}: {error}") from error


def _arguments(cls: type, hparams: Mapping[str, Any]) -> list[str]:
    """Hyper-parameters that a constructor takes: Lightning leaves out the others"""
    import inspect

    known = inspect.signature(cls.__init__).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return list(hparams)
    return [name for name in hparams if name in known]


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
    for name in ("xvec_transform.npz", "plda.npz"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no PLDA in {folder}: there is no {name}")
        read_npz(folder / name)
    try:
        return PLDA.from_pretrained(folder)
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"{folder} holds no PLDA: {type(error).__name__}: {error}") from error
