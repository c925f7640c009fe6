"""Torch checkpoints, read as plain weights: nothing in them is executed, no class is changed.

A checkpoint is a pickle, that is, a program that names functions and calls them. This reader knows
the few names that weights need, and refuses all others. It is handed to ``torch.load``, which reads
the archive around the pickle. torch's own reader of weights (``weights_only=True``) knows many more
names: some allocate as much as a number in the file says, one never ends, and for the classes of
pyannote.audio it would let a file set attributes of objects that the whole process shares, such as
the members of ``Problem``.

What a file says of pyannote's specifications is remembered by stand-ins first; objects of
pyannote.audio are made of them after each value has been checked.
"""

from __future__ import annotations

import io
import math
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.text import printable
from pyannote_av.core.trust import UntrustedError, policy, used_trust

#: bytes that a checkpoint may unfold to, beyond its own size
SLACK = 1 << 20
#: classes of a segmentation model, sets of speakers included
MAX_CLASSES = 4096
#: chunks of a model are at most this long (s)
MAX_CHUNK = 3600.0


class CheckpointError(ValueError):
    """A checkpoint is damaged or malformed; the message names the file and says why."""

    def __init__(self, message: str):
        super().__init__(printable(message, one_line=True))


# ---------------------------------------------------------------------- what a pickle may name


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
    """A type of numbers of numpy"""


def _number(dtype: Any, data: Any) -> float | int | bool:
    """A number of numpy, as one of Python"""
    code = dtype.args[0] if isinstance(dtype, _DType) and dtype.args else None
    if not isinstance(code, str) or code[:1] not in "biuf" or not code[1:].isdecimal():
        raise ValueError("something of numpy that is not a number")
    # its state begins with a version and the order of bytes
    state = getattr(dtype, "state", ())
    big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"
    raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(raw, np.dtype((">" if big else "<") + code), count=1)[0].item()


def _encode(text: str, codec: str = "latin1") -> bytes:
    """How bytes are written by old protocols"""
    if codec not in ("latin1", "latin-1"):
        raise ValueError(f"text encoded as {codec!r}")
    return text.encode("latin-1")


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *others: Any) -> torch.Tensor:
    """A tensor that has no more elements than its file has for it"""
    there = storage._size()
    if math.prod(size) > there:
        raise ValueError(f"a tensor of {math.prod(size)} elements, of which {there} exist")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _parameter(data: torch.Tensor, requires_grad: bool = True, *others: Any) -> torch.Tensor:
    if type(data) is not torch.Tensor:
        raise ValueError("a parameter that is not a tensor")
    return torch.nn.Parameter(data, bool(requires_grad))


_PYANNOTE = "pyannote.audio.core.task"
_KNOWN: dict[str, Any] = {
    f"{_PYANNOTE}.Problem": _Problem,
    f"{_PYANNOTE}.Resolution": _Resolution,
    f"{_PYANNOTE}.Specifications": _Specifications,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": tuple,
    "torch.device": lambda kind, index=None: str(kind),
    # torch.__version__ is a string of a class of its own
    "torch.torch_version.TorchVersion": str,
    "numpy.dtype": _DType,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, complex)
    },
}


class _Reader(pickle._Unpickler):
    """Knows what weights need; in Python, since the one in C allocates by numbers in the file"""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise _RefusedError(full)

    def load_build(self) -> None:
        """Remember the state of a stand-in, or make it; whatever else has one does without"""
        state = self.stack.pop()
        one = self.stack[-1]
        if isinstance(one, _StandIn):
            one.state = state

    dispatch[pickle.BUILD[0]] = load_build


class _RefusedError(Exception):
    """A name that weights do not need"""


def _load(file: BinaryIO, **options: Any) -> Any:
    return _Reader(file, **options).load()


# what torch takes for the module pickle
_PICKLE = SimpleNamespace(Unpickler=_Reader, load=_load, __name__="pickle")


# ---------------------------------------------------------------------- the file around it


def load_checkpoint(path: str | Path | BinaryIO, plain: bool = False) -> Any:
    """Read a torch checkpoint without executing anything in it.

    Parameters
    ----------
    path : str, Path or binary file
        Written by ``torch.save``, by Lightning or by pyannote.audio.
    plain : bool, optional
        Execute nothing in it under ``trust=True`` either.

    Returns
    -------
    checkpoint : dict
        Or what else was saved. Under ``trust=True`` (see :mod:`pyannote_av.core.trust`), whatever
        the file holds.

    Raises
    ------
    FileNotFoundError
    UntrustedError
        When the file holds objects other than tensors, plain containers, numbers and pyannote's own
        specifications. The message names the class.
    CheckpointError
        When it is empty, cut short or damaged, or unfolds to much more than its size.
    """
    if isinstance(path, io.IOBase):
        return _read(path, getattr(path, "name", "the checkpoint"), plain)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    with open(path, "rb") as file:
        return _read(file, path, plain)


def _read(file: BinaryIO, where: object, plain: bool) -> Any:
    if policy().trust and not plain:
        used_trust(f"{where} is unpickled, and may execute anything")
        return torch.load(file, map_location="cpu", weights_only=False)
    try:
        _check_archive(file, where)
        content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except (CheckpointError, UntrustedError, PermissionError):
        raise
    except _RefusedError as error:
        raise UntrustedError(
            f"{where} cannot be read as plain weights: it holds an object of {error}. Pass "
            "trust=True (--trust on the command line) if you know and trust its origin."
        ) from None
    except Exception as error:  # whatever damaged archives and pickles raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{where} is not a checkpoint, or is damaged ({reason})") from error
    if isinstance(content, Mapping) and isinstance(content.get("pyannote.audio"), dict):
        about = content["pyannote.audio"]
        if about.get("specifications") is not None:
            about["specifications"] = restore_specifications(about["specifications"], where)
    return content


def _check_archive(file: BinaryIO, where: object) -> None:
    """Refuse what unfolds to more than its size, and archives that torch reads by other readers"""
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise CheckpointError(f"{where} is empty (0 bytes)")
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = [name.casefold() for name in archive.namelist()]
            whole = sum(entry.file_size for entry in archive.infolist())
        if whole > size + SLACK or len(set(names)) < len(names):
            raise CheckpointError(
                f"{where} ({size} bytes) unfolds to {whole} bytes, or has two parts of one name: "
                "torch writes neither, so it is damaged, or made to fill the memory"
            )
        if any(name.endswith("constants.pkl") for name in names):
            raise UntrustedError(f"{where} is a program (TorchScript), not weights")
    else:
        file.seek(0)
        if file.read(2) == b"PK":
            raise CheckpointError(
                f"{where} is cut short or damaged: the end of its archive is gone"
            )
        file.seek(0)
        if tarfile.is_tarfile(file):
            raise CheckpointError(f"{where} was written by a torch before 0.1.10: convert it first")
    file.seek(0)


# ---------------------------------------------------------------------- pyannote's own objects


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
        When a value is invalid.
    """
    if isinstance(value, (tuple, list)):
        return tuple(_restore_one(one, where) for one in value)
    return _restore_one(value, where)


def _restore_one(value: Any, where: object) -> Specifications:
    if isinstance(value, Specifications):
        return value
    if not isinstance(value, _Specifications):
        raise CheckpointError(f"{where}: its specifications are a {type(value).__name__}")
    known = {one.name for one in fields(Specifications)}
    # what it has computed is in the file, too
    state = getattr(value, "state", None)
    if not isinstance(state, dict):
        raise CheckpointError(f"{where}: its specifications are empty")
    given = {key: one for key, one in state.items() if key in known}
    checks: dict[str, Callable[[Any], Any]] = {
        "problem": lambda one: _member(Problem, one),
        "resolution": lambda one: _member(Resolution, one),
        "duration": _seconds,
        "min_duration": _seconds,
        "warm_up": lambda one: tuple(map(_seconds, one)),
        "classes": lambda one: [str(name) for name in one],
        "powerset_max_classes": int,
        "permutation_invariant": bool,
    }
    try:
        given = {
            key: None if one is None else checks[key](one) if key in checks else one
            for key, one in given.items()
        }
        if given.get("classes") is not None:
            _check_classes(len(given["classes"]), given.get("powerset_max_classes"))
        return Specifications(**given)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{where}: its specifications are invalid ({error})") from error


def _member(kind: type, value: Any) -> Any:
    if isinstance(value, _StandIn):
        (value,) = value.args
    return value if isinstance(value, kind) else kind(value)


def _seconds(value: Any) -> float:
    if not 0 <= float(value) <= MAX_CHUNK:
        raise ValueError(f"{value} is not a number of seconds up to {MAX_CHUNK:g}")
    return float(value)


def _check_classes(number: int, at_once: int | None) -> None:
    if at_once is not None:
        if not 0 < at_once <= number:
            raise ValueError(f"{at_once} of {number} classes at once")
        number = sum(math.comb(number, size) for size in range(min(at_once, 64) + 1))
    if number > MAX_CLASSES:
        raise ValueError(f"{number} classes (the limit is {MAX_CLASSES})")
