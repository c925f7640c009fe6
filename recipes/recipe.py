"""Classes that describe a corpus and its protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from recipes.corpus import File
from recipes.fetch import Download

#: names of all recipes (folders of this package), in the order of database.yml
NAMES = (
    "sample",
    "ava_avd",
    "ami",
    "misp2022",
    "msdwild",
    "ava_activespeaker",
    "simulated",
)

#: columns of a protocol: folder and suffix of the prepared files
COLUMNS = {
    "annotation": "annotation/{uri}.rttm_strict",
    "annotated": "annotated/{uri}.uem_strict",
    "lab": "lab/{uri}.lab_strict",
    "face_tracks": "face_tracks/{uri}.npz",
    "video": "video/{uri}.mkv",
}


@dataclass(frozen=True)
class Protocol:
    """One protocol of a corpus.

    Attributes
    ----------
    name : str
        Last part of the protocol name.
    subsets : mapping of str to str
        List of files for each of train, development and test.
    columns : mapping of str to str
        Columns that differ from :data:`COLUMNS`, or are added.
    scope : {"file", "database", "global"}
        Where speaker names are valid.
    """

    name: str
    subsets: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    scope: str = "file"


@dataclass(frozen=True)
class Expected:
    """Known size of a complete list.

    Attributes
    ----------
    files : int, optional
    speech : float, optional
        Hours of speech, summed over speakers, with a tolerance of 0.01.
    """

    files: int | None = None
    speech: float | None = None


def _nothing(folder: Path) -> Iterable[Download]:
    return ()


@dataclass(frozen=True)
class Recipe:
    """A corpus.

    Attributes
    ----------
    name : str
        Name of the recipe, and of the folder that it prepares.
    database : str
        First part of the protocol names.
    licence : str
    files : callable
        Yields the files of the corpus, given the folder of the download.
    protocols : tuple of Protocol
        The first one is the default of ``evaluate``.
    expected : mapping of str to Expected
        Known sizes, by list.
    downloads : callable
        Lists the files to download, given the target folder. May depend on files already there.
    instructions : str
        Instructions for files that must be obtained manually.
    make : callable, optional
        Generates the corpus in a folder, for a corpus that is generated instead of downloaded.
    metric : {"diarization", "active speaker"}
        Task that ``evaluate`` scores.
    """

    name: str
    database: str
    licence: str
    files: Callable[[Path], Iterable[File]]
    protocols: tuple[Protocol, ...]
    expected: Mapping[str, Expected] = field(default_factory=dict)
    downloads: Callable[[Path], Iterable[Download]] = _nothing
    instructions: str = ""
    make: Callable[[Path], object] | None = None
    metric: str = "diarization"

    def protocol(self, name: str | None = None) -> Protocol:
        """Protocol with a given name (last part or full name). Defaults to the first one."""
        for protocol in self.protocols:
            if name in (None, protocol.name, self.full_name(protocol)):
                return protocol
        names = ", ".join(self.full_name(protocol) for protocol in self.protocols)
        raise ValueError(f"no protocol {name!r} in {self.name}; choose from {names}")

    def full_name(self, protocol: Protocol) -> str:
        """Full name of a protocol in pyannote.database."""
        return f"{self.database}.SpeakerDiarization.{protocol.name}"


def load(name: str) -> Recipe:
    """Load the recipe with a given name.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`, or the dotted name of a module of your own that defines ``RECIPE``.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    if "." in name:
        try:
            return import_module(name).RECIPE
        except (ImportError, AttributeError) as error:
            raise ValueError(f"no recipe {name!r}: {error}") from error
    if name not in NAMES:
        raise ValueError(f"no recipe {name!r}; choose from {', '.join(NAMES)}")
    return import_module(f"recipes.{name}.recipe").RECIPE
