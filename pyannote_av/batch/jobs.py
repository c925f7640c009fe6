"""Jobs of a batch, and the digests that tell whether a result is up to date."""

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
    """One file of a batch.

    Attributes
    ----------
    name : str
        URI of the file. Outputs are named after it.
    media : dict
        Paths of ``video`` and ``audio``.
    options : dict
        ``num_speakers``, ``min_speakers``, ``max_speakers``.
    columns : dict
        Other keys that the protocol or the user provides: ``face_tracks``, ``lab``,
        ``audio_track``, ...
    """

    name: str
    media: dict[str, str]
    options: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> dict[str, Any]:
        """The file as a mapping for pipelines."""
        return {"uri": self.name, **self.media, **self.columns}

    def key(self, identity: str) -> str:
        """Digest of everything that the result depends on.

        Parameters
        ----------
        identity : str
            Digest of the work; see :attr:`Work.identity`.

        Raises
        ------
        OSError
            If media cannot be read.
        """
        content = {
            "work": identity,
            "media": {kind: fingerprint(path) for kind, path in sorted(self.media.items())},
            "options": self.options,
            "columns": {name: content_digest(value) for name, value in self.columns.items()},
        }
        return digest([json.dumps(content, sort_keys=True).encode()])


class Made(NamedTuple):
    """Result of the work on one file.

    Attributes
    ----------
    outputs : sequence of str
        Files, or folders with an ``index.json``, relative to the output folder.
    note : str
        Message for the user.
    problems : sequence of str
        Problems found in the file, as sentences.
    kept : bool
        Whether valid outputs already existed, so that nothing was written.
    summary : sequence of str
        The result in a few lines.
    """

    outputs: Sequence[str]
    note: str = ""
    problems: Sequence[str] = ()
    kept: bool = False
    summary: Sequence[str] = ()


class Work(Protocol):
    """Work to do on every file. It is sent to each process once.

    Attributes
    ----------
    verb : str
        What the work does, for the progress bar.
    identity : str
        Digest of everything that the results of all files depend on: models, hyper-parameters,
        formats, versions.
    imports : sequence of str, optional
        Slow modules that the work imports; see :func:`~pyannote_av.core.workers.open_pool`.
    """

    verb: str
    identity: str

    def load(self) -> None:
        """Load models and the like, once per process."""
        ...

    def outputs(self, name: str, every: bool = False) -> Sequence[str]:
        """Names of the outputs of a file, as in :attr:`Made.outputs`.

        This method is optional. Without it, a file of another origin that is in the way of an
        output is detected only after the work is done, and obsolete outputs are not removed.

        Parameters
        ----------
        name : str
            Name of the file.
        every : bool, optional
            Include outputs that the work writes with other options.
        """
        ...

    def process(self, job: Job, folder: Path) -> Made:
        """Write the outputs of a file into a folder."""
        ...


def outputs_of(work: Work, name: str, every: bool = False) -> list[str] | None:
    """Result of :meth:`Work.outputs`; None if the work does not define it."""
    outputs = getattr(work, "outputs", None)
    return None if outputs is None else list(outputs(name, every))


def content_digest(value: Any) -> str:
    """Digest of a value that a protocol provides: a path's content, an array or a container."""
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
