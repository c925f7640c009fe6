"""Files to be worked on, and what tells whether that was done before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pyannote_av.core.checksums import digest, fingerprint, sha256_of


@dataclass(frozen=True)
class Job:
    """One file of a collection.

    Attributes
    ----------
    name : str
        Its uri, which outputs are named after.
    media : dict
        Paths, by ``video`` and ``audio``.
    options : dict
        ``num_speakers``, ``min_speakers``, ``max_speakers``.
    columns : dict
        What else a protocol says of it: ``face_tracks``, ``lab``, ...
    """

    name: str
    media: dict[str, str]
    options: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> dict[str, Any]:
        """As pipelines take it."""
        return {"uri": self.name, **self.media, **self.columns}

    def key(self, identity: str) -> str:
        """Digest of all that the result depends on.

        Parameters
        ----------
        identity : str
            Of what is done with the file.

        Raises
        ------
        OSError
            When media cannot be read.
        """
        content = {
            "work": identity,
            "media": {kind: fingerprint(path) for kind, path in sorted(self.media.items())},
            "options": self.options,
            "columns": {name: content_digest(value) for name, value in self.columns.items()},
        }
        return digest([json.dumps(content, sort_keys=True).encode()])


class Made(NamedTuple):
    """What work on one file came to.

    Attributes
    ----------
    outputs : sequence of str
        Files, or folders with an ``index.json``, relative to the folder that was given.
    note : str
        For who watches.
    problems : sequence of str
        What is wrong with the file, in sentences.
    kept : bool
        It was there before, where it belongs; nothing was written to the folder that was given.
    """

    outputs: Sequence[str]
    note: str = ""
    problems: Sequence[str] = ()
    kept: bool = False


class Work(Protocol):
    """What is done with every file; sent to each process once.

    Attributes
    ----------
    verb : str
        For who watches.
    identity : str
        Digest of all that the result depends on and that is the same for all files: of models,
        hyper-parameters, formats, versions.
    """

    verb: str
    identity: str

    def load(self) -> None:
        """Make ready, once in each process."""
        ...

    def outputs(self, name: str, every: bool = False) -> Sequence[str]:
        """Names of the outputs of a file, as in :attr:`Made.outputs`.

        Work that does not say so is done all the same. It is only then found out whether somebody
        else's file is at the place of an output, and outputs that are out of date stay.

        Parameters
        ----------
        name : str
            Of the file.
        every : bool, optional
            Those, too, that it writes with other options.
        """
        ...

    def process(self, job: Job, folder: Path) -> Made:
        """Write the outputs of a file into a folder."""
        ...


def outputs_of(work: Work, name: str, every: bool = False) -> list[str] | None:
    """See :meth:`Work.outputs`; None where work does not say so."""
    outputs = getattr(work, "outputs", None)
    return None if outputs is None else list(outputs(name, every))


def content_digest(value: Any) -> str:
    """Of what a protocol says of a file: content of files, arrays, and what holds some."""
    if isinstance(value, Path):
        return sha256_of(value)
    if isinstance(value, np.ndarray):
        return digest([str((value.dtype, value.shape)).encode(), np.ascontiguousarray(value).data])
    if is_dataclass(value):
        value = {one.name: getattr(value, one.name) for one in fields(value)}
    elif hasattr(value, "itertracks"):
        value = value.itertracks(yield_label=True)
    if isinstance(value, Mapping):
        value = sorted((str(key), content_digest(one)) for key, one in value.items())
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        value = [content_digest(one) for one in value]
    return digest([repr(value).encode()])
