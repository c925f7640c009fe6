"""Models with a visual stream, and the safe way to load any model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pyannote.audio import Model as _Model
from pyannote.audio.core.task import Problem, Resolution, Specifications

from pyannote_av import __version__
from pyannote_av.core.atomic import replacing
from pyannote_av.core.task import AVInput

#: classes named by a checkpoint or a configuration file must live below one of these packages
TRUSTED_PACKAGES = ("pyannote.audio.", "pyannote.pipeline.", "pyannote_av.")

_FILENAME = "model.safetensors"


class UntrustedError(ValueError):
    """Loading would execute code that this package does not vouch for."""


def check_trusted(dotted_name: str, where: str) -> None:
    """Raise :class:`UntrustedError` unless class `dotted_name` comes from a trusted package."""
    if not dotted_name.startswith(TRUSTED_PACKAGES):
        raise UntrustedError(
            f"{where} asks for class {dotted_name!r}, which is outside of "
            f"{', '.join(p.rstrip('.') for p in TRUSTED_PACKAGES)}. "
            "Pass trust=True if you know and trust its origin."
        )


def allowed_in_checkpoints() -> list[type]:
    """What checkpoints of pyannote.audio hold besides tensors and plain containers."""
    return [Specifications, Problem, Resolution, torch.torch_version.TorchVersion]


def load_checkpoint(path: str | Path | io.BytesIO) -> dict[str, Any]:
    """Read a torch checkpoint without executing anything in it.

    Parameters
    ----------
    path : str, Path or BytesIO
        A file written by ``torch.save``, by Lightning or by pyannote.audio.

    Returns
    -------
    checkpoint : dict

    Raises
    ------
    UntrustedError
        When the file holds objects other than tensors, plain containers and pyannote's own
        specifications.
    """
    try:
        with torch.serialization.safe_globals(allowed_in_checkpoints()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # UnpicklingError, but also what damaged archives raise
        raise UntrustedError(
            f"{path} cannot be read as plain weights ({str(error).splitlines()[0]}). "
            "It is damaged, or holds objects that would have to be executed; pass trust=True "
            "if you know and trust its origin."
        ) from error


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
    """Tensors by name, and metadata, of a ``.safetensors`` file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return state, file.metadata() or {}


def _load_safetensors(path: Path, trust: bool, overrides: Mapping[str, Any]) -> _Model:
    state, metadata = read_safetensors(path)
    if "architecture" not in metadata:
        raise ValueError(f"{path} does not say which model its weights belong to")
    if not trust:
        check_trusted(metadata["architecture"], str(path))
    module, name = metadata["architecture"].rsplit(".", 1)
    model = getattr(import_module(module), name)(
        **{**json.loads(metadata.get("hparams", "{}")), **overrides}
    )
    model.load_state_dict(state, strict=True)
    model.lineage = json.loads(metadata.get("lineage", "[]"))
    return model.eval()


class Model(_Model):
    """Entry point ``Model.from_pretrained``: pyannote's, with safe loading and safetensors."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, checkpoint: str | Path, trust: bool = False, strict: bool = True, **kwargs: Any
    ) -> _Model:
        """Load a pretrained model.

        Parameters
        ----------
        checkpoint : str or Path
            A ``.safetensors`` file of this package, a pyannote.audio or Lightning checkpoint, a
            folder that holds either, or the identifier of a model on the Hugging Face hub.
        trust : bool, optional
            Unpickle whatever the file holds and instantiate whatever class it names. Off by
            default: only tensors are read, only classes of pyannote and of this package built.
        strict : bool, optional
            Whether the keys of the checkpoint must match those of the model.
        **kwargs
            Hyper-parameters that override the saved ones.

        Returns
        -------
        model : pyannote.audio.Model
            In evaluation mode.
        """
        from pyannote_av.core.hub import resolve

        path = resolve(checkpoint)
        if path.is_dir():
            candidates = [path / _FILENAME, path / "pytorch_model.bin"]
            path = next((c for c in candidates if c.is_file()), candidates[0])
            if not path.is_file():
                raise FileNotFoundError(
                    f"no model in folder {path.parent}: expected model.safetensors or "
                    "pytorch_model.bin"
                )
        if path.suffix == ".safetensors":
            return _load_safetensors(path, trust, kwargs)
        if trust:
            return _Model.from_pretrained(path, strict=strict, **kwargs).eval()

        loaded = load_checkpoint(path)
        try:
            architecture = loaded["pyannote.audio"]["architecture"]
        except (KeyError, TypeError):
            raise ValueError(
                f"{path} is not a pyannote.audio checkpoint: it does not name its architecture"
            ) from None
        check_trusted(f"{architecture['module']}.{architecture['class']}", str(path))
        # pyannote unpickles what it is given; what it is given here is known to be plain
        buffer = io.BytesIO()
        torch.save(loaded, buffer)
        buffer.seek(0)
        return _Model.from_pretrained(buffer, strict=strict, **kwargs).eval()
