"""Loaders of media, references and face tracks for the protocols of a ``database.yml``.

Loaders are registered as entry points, by suffix. Media and face tracks are columns such as::

    video: video/{uri}.mp4
    face_tracks: face_tracks/{uri}.npz

Suffixes ``.rttm``, ``.uem`` and ``.lab`` belong to pyannote.database. Its loaders treat a file
that is missing from an RTTM as a file in which nobody speaks. pyannote.database keeps one loader
per suffix, that of the package it finds last. If this package registered the same suffixes, the
loader in use would depend on the installation, and existing protocols could change. Rename files
to ``.rttm_strict``, ``.uem_strict`` and ``.lab_strict`` to have them read strictly::

    annotation: annotation/{uri}.rttm_strict
    annotated: annotated/{uri}.uem_strict
    lab: lab/{uri}.lab_strict

The strict loaders (:mod:`pyannote_av.formats.annotations`) raise an error that names file and
line when a file is malformed, and an error when it lacks the requested uri. A uri that is spelled
differently in the file (in another Unicode form, or with ``_`` for a space) is found, with a
warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import check_name
from pyannote_av.core.text import match_names

if TYPE_CHECKING:
    from pyannote.core import Annotation, Timeline


class MediaPath:
    """Loader that returns the path itself, as ``str``, which pyannote tasks can cache.

    Parameters
    ----------
    path : str or Path
        Path to the file, as filled in by pyannote.database.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, file: Mapping) -> str:
        """Path of the media file; raises FileNotFoundError if it does not exist."""
        uri = check_name(file["uri"])
        if not self.path.is_file():
            raise FileNotFoundError(f"file {uri!r}: {no_such_file(self.path)}")
        return str(self.path)


class _Strict:
    """One file, read on first use by a function of `formats.annotations`, and then kept."""

    reader: ClassVar[str]

    def __init__(self, path: str | Path, lenient: bool = False):
        self.path, self.lenient = Path(path), lenient
        self._content: dict[str, Any] | None = None

    def _read(self, uri: str) -> Any:
        from pyannote_av.formats import annotations

        check_name(uri)
        if self._content is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"file {uri!r}: {no_such_file(self.path)}")
            self._content = getattr(annotations, self.reader)(self.path, self.lenient)
        if uri not in self._content:
            self._content = match_names([uri], self._content, self.path)
        if uri not in self._content:
            names = ", ".join(map(repr, sorted(self._content)[:3])) or "nothing at all"
            # not a KeyError, which means that the protocol lacks the column
            raise ValueError(f"{self.path} has no entry for {uri!r}; it has {names}")
        return self._content[uri]


class StrictRTTM(_Strict):
    """Loads the turns of one file from an RTTM file, which may cover several files.

    An empty RTTM file means that nobody speaks in the file of the same name.

    Parameters
    ----------
    path : str or Path
    lenient : bool, optional
        Repair malformed lines, or leave them out, with a warning.

    Raises
    ------
    ValueError
        When the RTTM file is malformed (the error names file and line), or lacks the uri.
    """

    reader = "read_rttm"

    def __call__(self, file: Mapping) -> Annotation:
        """Turns of `file`."""
        return self._read(file["uri"])


class StrictUEM(_Strict):
    """Loads the evaluation map of one file from a UEM file, which may cover several files.

    Parameters
    ----------
    path : str or Path
    lenient : bool, optional
        Repair malformed lines, or leave them out, with a warning.

    Raises
    ------
    ValueError
        When the UEM file is malformed (the error names file and line), or lacks the uri.
    """

    reader = "read_uem"

    def __call__(self, file: Mapping) -> Timeline:
        """Scored regions of `file`."""
        return self._read(file["uri"])


class StrictLAB(_Strict):
    """Loads the speech regions of one file from the LAB file of the same name.

    Parameters
    ----------
    path : str or Path
    lenient : bool, optional
        Repair malformed lines, or leave them out, with a warning.

    Raises
    ------
    ValueError
        When the LAB file is malformed (the error names file and line), or has another name.
    """

    reader = "read_lab"

    def __call__(self, file: Mapping) -> Timeline:
        """Speech regions of `file`."""
        return self._read(file["uri"])
