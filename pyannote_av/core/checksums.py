"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MEGABYTE = 2**20


def digest(blocks: Iterable[bytes]) -> str:
    """SHA-256 of bytes that come in blocks, in hexadecimal."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.hexdigest()


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal; raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return digest(iter(lambda: file.read(_MEGABYTE), b""))


def fingerprint(path: str | Path) -> str:
    """Of the size, and of a megabyte from beginning, middle and end: quick, and of content."""
    size = os.path.getsize(path)

    def blocks() -> Iterator[bytes]:
        yield str(size).encode()
        with open(path, "rb") as file:
            for position in (0, size // 2, max(0, size - _MEGABYTE)):
                file.seek(position)
                yield file.read(_MEGABYTE)

    return digest(blocks())


def weights_digest(model: torch.nn.Module) -> str:
    """Digest of the weights of a model: 16 hexadecimal digits."""
    state = sorted(model.state_dict().items())
    return digest(value.cpu().numpy().tobytes() for _, value in state)[:16]
