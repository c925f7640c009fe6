"""The list of all networks of this package.

Other modules find networks here by name: training by the name of the class, importers by the name
under which the authors published weights. :data:`pyannote_av.core.trust.CLASSES`, which says what
files may name, lists the same classes; a test compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyannote.audio import Model


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes
    ----------
    module : str
        Module that defines the class.
    task : str or None
        Task that trains the network; None if this package does not train it.
    published : str or None
        Name of the network whose published weights can be imported (see
        :mod:`pyannote_av.models.importers`).
    """

    module: str
    task: str | None = None
    published: str | None = None


#: networks by the name of their class
NETWORKS = {
    "AVRNet": Network("pyannote_av.clustering.avrnet", "PairwiseRelation", "avr-net"),
    "CAMPPlus": Network("pyannote_av.models.embedding.campplus"),
    "CompactASD": Network("pyannote_av.models.active_speaker.compact", "ActiveSpeakerDetection"),
    "CorrectedSimilarity": Network("pyannote_av.clustering.embedded", "PairwiseRelation"),
    "CYSMSD": Network("pyannote_av.clustering.cysmsd", "SpeakerCounting"),
    "FusedEmbeddings": Network("pyannote_av.clustering.embedded", "PairwiseRelation"),
    "HMSANet": Network("pyannote_av.models.hmsanet.model", "TargetSpeakerSegmentation"),
    "LightASD": Network(
        "pyannote_av.models.active_speaker.lightasd", "ActiveSpeakerDetection", "light-asd"
    ),
    "LoCoNet": Network(
        "pyannote_av.models.active_speaker.loconet", "ActiveSpeakerDetection", "loconet"
    ),
    "LRASD": Network("pyannote_av.models.active_speaker.lrasd", "ActiveSpeakerDetection", "lr-asd"),
    "RelationOfEmbeddings": Network("pyannote_av.clustering.embedded", "PairwiseRelation"),
    "SingleStream": Network("pyannote_av.clustering.single_stream", "PairwiseRelation"),
    "TalkNet": Network(
        "pyannote_av.models.active_speaker.talknet", "ActiveSpeakerDetection", "talknet"
    ),
    "TreeCounter": Network("pyannote_av.clustering.tree_counter"),
}


def published(task: str | None = None) -> dict[str, str]:
    """Names of classes by the name of their published weights, perhaps of one task alone."""
    return {
        one.published: name
        for name, one in NETWORKS.items()
        if one.published is not None and task in (None, one.task)
    }


def trainable() -> list[str]:
    """Names of the networks that this package trains."""
    return [name for name, one in NETWORKS.items() if one.task is not None]


def get_network(name: str) -> type[Model]:
    """Class of a network.

    Parameters
    ----------
    name : str
        Name of the class, or of its published weights: ``"LRASD"`` or ``"lr-asd"``.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    cls = published().get(name, name)
    if cls not in NETWORKS:
        known = ", ".join([*NETWORKS, *published()])
        raise ValueError(f"unknown network {name!r}: choose from {known}")
    return getattr(import_module(NETWORKS[cls].module), cls)
