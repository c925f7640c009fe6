"""Loaders that make media, references and face tracks columns of a ``database.yml`` protocol.

Registered as entry points by suffix. Media and face tracks have loaders of their own::

    video: video/{uri}.mp4
    face_tracks: face_tracks/{uri}.npz

Suffixes ``.rttm``, ``.uem`` and ``.lab`` belong to pyannote.database, whose loaders take a file
that is missing from an RTTM for one in which nobody speaks. pyannote.database keeps one loader for
each suffix, whichever package comes last on this machine, so ours must not claim these: it would be
a matter of luck which one is used, and other people's protocols would change. Files of the same
content that end in ``.rttm_strict``, ``.uem_strict`` and ``.lab_strict`` are read strictly::

    annotation: annotation/{uri}.rttm_strict
    annotated: annotated/{uri}.uem_strict
    lab: lab/{uri}.lab_strict

What is wrong with them (:mod:`pyannote_av.formats.annotations`) is an error that names file and
line, and so is a uri they say nothing of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyannote_av.core.reading import check_name

if TYPE_CHECKING:
    from pyannote.core import Annotation, Timeline


class MediaPath:
    """Value of such a column: the path itself, as ``str`` (what pyannote tasks can cache).

    Parameters
    ----------
    path : str or Path
        Path to the file, as filled in by pyannote.database.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, file: Mapping) -> str:
        """Path in the mapping's column, checked to be there."""
        uri = check_name(file["uri"])
        if not self.path.is_file():
            raise FileNotFoundError(f"file {uri!r}: no such file: {self.path}")
        return str(self.path)


class _Strict:
    """One file, read once, when it is first asked for, by a function of `formats.annotations`."""

    reader: ClassVar[str]

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._content: dict[str, Any] | None = None

    def _read(self, uri: str) -> Any:
        from pyannote_av.formats import annotations

        check_name(uri)
        if self._content is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"file {uri!r}: no such file: {self.path}")
            self._content = getattr(annotations, self.reader)(self.path)
        if uri not in self._content:
            names = ", ".join(map(repr, sorted(self._content)[:3])) or "nothing at all"
            # no KeyError: that is what a protocol raises for a column it does not have
            raise ValueError(f"{self.path} says nothing of {uri!r}; it has {names}")
        return self._content[uri]


class StrictRTTM(_Strict):
    """Turns of a file, from an RTTM file of one file or of several.

    An RTTM file without any line says that nobody speaks in the file it is named after.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ValueError
        When the RTTM file is malformed (file and line are named), or says nothing of the file.
    """

    reader = "read_rttm"

    def __call__(self, file: Mapping) -> Annotation:
        """Turns of `file`."""
        return self._read(file["uri"])


class StrictUEM(_Strict):
    """Evaluation map of a file, from a UEM file of one file or of several.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ValueError
        When the UEM file is malformed (file and line are named), or says nothing of the file.
    """

    reader = "read_uem"

    def __call__(self, file: Mapping) -> Timeline:
        """What is scored of `file`."""
        return self._read(file["uri"])


class StrictLAB(_Strict):
    """Speech regions of a file, from a LAB file that bears its name.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ValueError
        When the LAB file is malformed (file and line are named), or belongs to another file.
    """

    reader = "read_lab"

    def __call__(self, file: Mapping) -> Timeline:
        """Where there is speech in `file`."""
        return self._read(file["uri"])
