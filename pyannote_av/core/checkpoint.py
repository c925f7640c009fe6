"""Torch checkpoints, read as plain weights: nothing in them is executed, no class is changed.

A checkpoint is a pickle. ``torch.load(weights_only=True)`` builds tensors, plain containers and
objects of the classes on a list. A pickle may also set attributes of such objects, and the members
of an enumeration belong to the whole process: a file could rename a member of pyannote's
``Problem`` for good. The list therefore holds stand-ins, which only remember what the file says.
Objects of pyannote.audio are made from them after each value has been checked.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications

from pyannote_av.core.text import printable
from pyannote_av.core.trust import UntrustedError, policy, used_trust

#: bytes that a checkpoint may unfold to, beyond its own size
SLACK = 1 << 20
#: classes of a segmentation model, sets of speakers included
MAX_CLASSES = 4096
#: chunks of a model are at most this long (s)
MAX_CHUNK = 3600.0

# the refused name in torch's message, which has several forms
_REFUSED = re.compile(r"(?:GLOBAL|global|function|class)\s+([\w.]+\.[\w.]+)")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class CheckpointError(ValueError):
    """A checkpoint is damaged or malformed; the message names the file and says why."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class _StandIn:
    """Remembers how a pickle would have made an object"""

    def __init__(self, *args: Any):
        self.args = args


class _Problem(_StandIn):
    pass


class _Resolution(_StandIn):
    pass


class _Specifications(_StandIn):
    pass


class _DType(_StandIn):
    def __setstate__(self, state: Any) -> None:
        # byte order; the rest is for structured types, which are refused
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"


class _Version(str):
    """torch.__version__ is a string of a class of its own"""


def _scalar(dtype: Any, data: Any) -> float | int | bool:
    """A number of numpy, as one of Python"""
    code = dtype.args[0] if isinstance(dtype, _DType) and dtype.args else None
    if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
        raise ValueError("a number of numpy that is none")
    raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    order = ">" if getattr(dtype, "order", "|") == ">" else "<"
    return np.frombuffer(raw, np.dtype(order + code), count=1)[0].item()


@contextmanager
def stand_ins() -> Iterator[None]:
    """What ``torch.load(weights_only=True)`` makes of objects within."""
    allowed = [
        (_Specifications, "pyannote.audio.core.task.Specifications"),
        (_Problem, "pyannote.audio.core.task.Problem"),
        (_Resolution, "pyannote.audio.core.task.Resolution"),
        (_Version, "torch.torch_version.TorchVersion"),
        (_DType, "numpy.dtype"),
        *((_scalar, f"numpy.{name}.multiarray.scalar") for name in ("core", "_core")),
    ]
    with torch.serialization.safe_globals(allowed):
        yield


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a torch checkpoint without executing anything in it.

    Parameters
    ----------
    path : str or Path
        A file written by ``torch.save``, by Lightning or by pyannote.audio.

    Returns
    -------
    checkpoint : dict
        Under ``trust=True`` (see :mod:`pyannote_av.core.trust`), whatever the file holds.

    Raises
    ------
    FileNotFoundError
    UntrustedError
        When the file holds objects other than tensors, plain containers, numbers and pyannote's own
        specifications. The message names the class.
    CheckpointError
        When it is empty, cut short or damaged, or unfolds to much more than its size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {printable(str(path))}")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    if policy().trust:
        used_trust(f"{path} is unpickled, and may execute anything")
        return torch.load(path, map_location="cpu", weights_only=False)
    try:
        with open(path, "rb") as file:
            _check_size(path, file)
        with stand_ins():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (CheckpointError, UntrustedError, PermissionError):
        raise
    except Exception as error:  # UnpicklingError, and whatever damaged archives raise
        raise _explain(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("pyannote.audio"), Mapping):
        about = content["pyannote.audio"]
        if about.get("specifications") is not None:
            about["specifications"] = restore_specifications(about["specifications"], path)
    return content


def _explain(path: Path, error: Exception) -> Exception:
    message = _ESCAPES.sub("", str(error))
    if re.search(r"[Uu]nsupported|not an allowed|Can only (create|build)|unrecognized", message):
        if found := _REFUSED.search(message):
            what = f"an object of {found[1]}"
        else:
            what = "objects that would have to be executed"
        return UntrustedError(
            f"{path} cannot be read as plain weights: it holds {what}. Pass trust=True (--trust on "
            "the command line) if you know and trust its origin."
        )
    reason = next(iter(message.splitlines()), "") or type(error).__name__
    return CheckpointError(f"{path} is no checkpoint, or damaged ({reason})")


def _check_size(path: Path, file: BinaryIO) -> None:
    """Refuse files that ask for more memory than they bring along"""
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes)")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            whole = sum(entry.file_size for entry in archive.infolist())
            if whole > size + SLACK:
                raise CheckpointError(
                    f"{path} ({size} bytes) unfolds to {whole} bytes: torch does not compress, so "
                    "it is damaged, or made to fill the memory"
                )
            pickles = [archive.read(n) for n in archive.namelist() if n.endswith("data.pkl")]
    else:
        file.seek(0)
        pickles = [file.read()]
    # torch calls it with any length, and no weights need it
    if any(b"bytearray\n" in one for one in pickles):
        raise UntrustedError(f"{path} holds a bytearray, which plain weights do not")


def restore_specifications(value: Any, where: object) -> Specifications | tuple:
    """Specifications of a task, from what a checkpoint says of them.

    Parameters
    ----------
    value : stand-in, Specifications, or a tuple of them
    where : path
        For messages.

    Raises
    ------
    CheckpointError
        When a value is not what it should be.
    """
    if isinstance(value, Specifications):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(restore_specifications(one, where) for one in value)
    if not isinstance(value, _Specifications):
        raise CheckpointError(f"{where}: specifications are a {type(value).__name__}")
    state = {key: one for key, one in vars(value).items() if key != "args"}
    known = {one.name for one in fields(Specifications)}
    given = {key: one for key, one in state.items() if key in known}
    try:
        given["problem"] = _member(Problem, given["problem"])
        given["resolution"] = _member(Resolution, given["resolution"])
        for name in ("duration", "min_duration"):
            if given.get(name) is not None:
                given[name] = float(given[name])
                if not 0 < given[name] <= MAX_CHUNK:
                    raise ValueError(f"{name} is {given[name]:g} s")
        if given.get("warm_up") is not None:
            before, after = map(float, given["warm_up"])
            if not (0 <= before <= MAX_CHUNK and 0 <= after <= MAX_CHUNK):
                raise ValueError(f"warm_up is {before:g} and {after:g} s")
            given["warm_up"] = (before, after)
        if given.get("classes") is not None:
            given["classes"] = [str(name) for name in given["classes"]]
            _check_classes(given["classes"], given.get("powerset_max_classes"))
        if given.get("permutation_invariant") is not None:
            given["permutation_invariant"] = bool(given["permutation_invariant"])
        return Specifications(**given)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{where}: its specifications make no sense ({error})") from error


def _member(kind: type, value: Any) -> Any:
    if isinstance(value, _StandIn):
        (value,) = value.args
    return value if isinstance(value, kind) else kind(value)


def _check_classes(classes: list[str], at_once: Any) -> None:
    number = len(classes)
    if at_once is not None:
        at_once = int(at_once)
        if not 0 < at_once <= number:
            raise ValueError(f"{at_once} of {number} classes at once")
        number = sum(math.comb(number, size) for size in range(min(at_once, 64) + 1))
    if number > MAX_CLASSES:
        raise ValueError(f"{number} classes (the limit is {MAX_CLASSES})")
