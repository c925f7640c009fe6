"""Copies of model files in shared folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.model import AVModel, Model, load_checkpoint
from pyannote_av.core.weights import REGISTRY
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.models.importers import import_checkpoint
from pyannote_av.sharing.strip import architecture, strip

MODEL, CHECKPOINT = "model.safetensors", "pytorch_model.bin"
PLDA = ("xvec_transform.npz", "plda.npz")


def known_as(path: Path) -> str | None:
    """Name under which ``core.weights`` knows a file with this content, if any."""
    if not path.is_file():
        return None
    digest = sha256_of(path)
    return next((name for name, known in REGISTRY.items() if known.sha256 == digest), None)


def find_files(source: Path) -> list[Path]:
    """Files of a model: a single model file, or the two files of a PLDA.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    if source.is_file():
        return [source]
    for names in ((MODEL,), (CHECKPOINT,), PLDA):
        files = [source / name for name in names]
        if all(file.is_file() for file in files):
            return files
    raise FileNotFoundError(
        f"no model in {source}: expected {MODEL}, {CHECKPOINT}, or {' and '.join(PLDA)}"
    )


def copy_model(source: Path, into: Path) -> None:
    """Copy a model: as safetensors if it is of this package, else as a stripped checkpoint.

    Parameters
    ----------
    source : Path
        A model file, or a folder with a model or a PLDA.
    into : Path
        Created if missing.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If the model cannot be read without executing code.
    """
    files = find_files(source)
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.suffix in (".safetensors", ".npz"):
            name = MODEL if file.suffix == ".safetensors" else file.name
            shutil.copyfile(file, into / name)
        elif file.suffix == ".pt":
            CAMPPlus.from_checkpoint(file).save(into / MODEL)
        elif file.suffix == ".model":
            import_checkpoint(file).save(into / MODEL)
        else:
            ours = issubclass(architecture(load_checkpoint(file), file), AVModel)
            strip(file, into / (MODEL if ours else CHECKPOINT))
    if (into / MODEL).is_file():
        Model.from_pretrained(into / MODEL)
