"""What a recipe says of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from recipes.corpus import File
from recipes.fetch import Download

#: folders of this package, in the order of database.yml
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
        Last part of its name.
    subsets : mapping of str to str
        Which list of files is train, development, test.
    columns : mapping of str to str
        Where they differ from :data:`COLUMNS`, or are added.
    scope : {"file", "database", "global"}
        How far speaker names reach.
    """

    name: str
    subsets: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    scope: str = "file"


@dataclass(frozen=True)
class Expected:
    """What a complete list holds.

    Attributes
    ----------
    files : int, optional
    speech : float, optional
        Hours, summed over speakers; agrees to 0.01.
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
        Of the recipe, and of the folder of what it prepares.
    database : str
        First part of the names of protocols.
    licence : str
    files : callable
        Files of the corpus, given the folder it was downloaded to.
    protocols : tuple of Protocol
        The first is what ``evaluate`` takes unless told.
    expected : mapping of str to Expected
        By list.
    downloads : callable
        What can be downloaded, given the folder it goes to; may depend on what is there already.
    instructions : str
        What has to be got by hand, and how.
    make : callable, optional
        Makes the corpus in a folder, where it is not downloaded but generated.
    metric : {"diarization", "active speaker"}
        What ``evaluate`` scores.
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
        """By its last name; the first one unless told."""
        for protocol in self.protocols:
            if name in (None, protocol.name, self.full_name(protocol)):
                return protocol
        names = ", ".join(self.full_name(protocol) for protocol in self.protocols)
        raise ValueError(f"no protocol {name!r} in {self.name}; there is {names}")

    def full_name(self, protocol: Protocol) -> str:
        """As pyannote.database wants it."""
        return f"{self.database}.SpeakerDiarization.{protocol.name}"


def load(name: str) -> Recipe:
    """Recipe of a name.

    Raises
    ------
    ValueError
        When there is none.
    """
    if name not in NAMES:
        raise ValueError(f"no recipe {name!r}; there is {', '.join(NAMES)}")
    return import_module(f"recipes.{name}.recipe").RECIPE
