"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

from pyannote_av.core.reading import ReadError

_MEGABYTE = 2**20
# suffixes of the files of a model
_OF_MODELS = {".yaml", ".yml", ".json", ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".model"}
_OF_MODELS |= {".npz", ".npy", ".onnx", ".txt"}
# maximum number of files (of any kind) and of bytes in the folder of a model
_ENTRIES, _BYTES = 10_000, 20 * 2**30


def digest(blocks: Iterable[bytes]) -> str:
    """SHA-256 of blocks of bytes, in hexadecimal."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.hexdigest()


def sha256_of(path: str | Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal; raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return digest(iter(lambda: file.read(_MEGABYTE), b""))


def model_files(path: str | Path) -> list[Path]:
    """Files of the model at `path`: the file itself, or the files of a folder.

    A configuration may name any folder on the machine. Therefore only weights and configurations
    in a folder are listed. Links that lead out of the folder are ignored, except those in a cache
    of the Hugging Face hub.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    files : list of Path
        Sorted.

    Raises
    ------
    FileNotFoundError
        When `path` does not exist.
    ReadError
        When the folder is too large for a model.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"no such file or folder: {path}")
        return [path]
    within = [path.resolve()]
    repository = path.resolve().parent.parent
    if path.resolve().parent.name == "snapshots" and repository.name.startswith("models--"):
        # the cache of the Hugging Face hub keeps files beside its snapshots, and links to them
        within.append(repository / "blobs")
    files, entries, size = [], 0, 0
    for folder, folders, names in os.walk(path):
        entries += len(folders) + len(names)
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() not in _OF_MODELS or not file.is_file():
                continue
            if any(file.resolve().is_relative_to(one) for one in within):
                files.append(file)
                size += file.stat().st_size
        if entries > _ENTRIES or size > _BYTES:
            raise ReadError(
                f"{path} is not the folder of a model: more than {_ENTRIES:,} files, or more than "
                f"{_BYTES:,} bytes; name the folder or the file of the model"
            )
    return sorted(files)


def fingerprint(path: str | Path) -> str:
    """Digest of the size of a file and of a megabyte at its beginning, middle and end."""
    size = os.path.getsize(path)

    def blocks() -> Iterator[bytes]:
        yield str(size).encode()
        with open(path, "rb") as file:
            for position in (0, size // 2, max(0, size - _MEGABYTE)):
                file.seek(position)
                yield file.read(_MEGABYTE)

    return digest(blocks())


def weights_digest(model: torch.nn.Module) -> str:
    """Digest of the weights of a model, 16 hexadecimal digits."""
    state = sorted(model.state_dict().items())
    return digest(value.cpu().numpy().tobytes() for _, value in state)[:16]
