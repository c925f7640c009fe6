"""Active speaker scorers: one protocol for all ways to score whether a face speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from pyannote_av.core import weights
from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.hub import locate
from pyannote_av.core.model import Model
from pyannote_av.core.reading import ReadError
from pyannote_av.core.text import printable
from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.face import Face
from pyannote_av.models.active_speaker.network_scorer import CALIBRATIONS, NetworkScorer
from pyannote_av.models.active_speaker.synchrony import SynchronyScorer
from pyannote_av.models.importers import import_checkpoint

_AND_SYNCHRONY = "+synchrony"


@runtime_checkable
class ActiveSpeakerScorer(Protocol):
    """Scores whether a face speaks, from its crops and the audio of the same time.

    Attributes
    ----------
    name : str
    context : float
        Duration of face and audio before and after a frame that its score uses, in seconds.
    """

    name: str
    context: float

    def __call__(
        self, waveform: torch.Tensor, crops: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """Score a face.

        Parameters
        ----------
        waveform : (1, n) tensor
            16 kHz audio of the T crops, n = 640 T.
        crops : (T, 112, 112) uint8
            25 Hz grey face crops. Their content is undefined where the face is absent.
        present : (T,) bool

        Returns
        -------
        scores : (T,) float32
            Calibrated log-odds that the face speaks; NaN where it is absent.
        """
        ...


class AverageScorer:
    """Weighted mean of the log-odds of other scorers.

    LR-ASD recognises speaking faces, but hardly checks whether video and audio belong together:
    shifting the audio of a steady talker by one second changes its scores little. The synchrony
    scorer checks only that. The two make different errors, so their mean is better than either.

    Parameters
    ----------
    scorers : mapping of ActiveSpeakerScorer to float
        Scorers and their weights, which sum to 1.
    """

    def __init__(self, scorers: Mapping[ActiveSpeakerScorer, float]):
        self.scorers = dict(scorers)
        self.name = "+".join(scorer.name for scorer in scorers)
        self.context = max(scorer.context for scorer in scorers)

    def to(self, device: torch.device) -> AverageScorer:
        """Move all scorers that support it to a device."""
        for scorer in self.scorers:
            if hasattr(scorer, "to"):
                scorer.to(device)
        return self

    def __call__(
        self, waveform: torch.Tensor, crops: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """See :class:`ActiveSpeakerScorer`."""
        return self.many([(waveform, crops, present)])[0]

    def many(self, faces: Sequence[Face]) -> list[np.ndarray]:
        """See :func:`score_many`."""
        found = [
            [weight * scores for scores in score_many(scorer, faces)]
            for scorer, weight in self.scorers.items()
        ]
        return [np.sum(scores, axis=0, dtype=np.float32) for scores in zip(*found, strict=True)]


def score_many(scorer: ActiveSpeakerScorer, faces: Sequence[Face]) -> list[np.ndarray]:
    """Score several faces, in one batch if the scorer has a method ``many``.

    Parameters
    ----------
    scorer : ActiveSpeakerScorer
    faces : sequence of Face, or of tuples (waveform, crops, present)
        Arguments of the scorer for each face.

    Returns
    -------
    scores : list of (T,) float32 arrays
    """
    many = getattr(scorer, "many", None)
    return many(faces) if many else [scorer(*face) for face in faces]


def get_scorer(
    scorer: str | Path | Mapping | ActiveSpeakerModel | ActiveSpeakerScorer = "auto", **options
) -> ActiveSpeakerScorer:
    """Get a scorer by name, from a file, or from a network.

    Parameters
    ----------
    scorer : str, Path, mapping, ActiveSpeakerModel or ActiveSpeakerScorer
        - "lr-asd", "light-asd" (public weights for faces found by a detector), "lr-asd-ava",
          "light-asd-ava" (for the boxes of AVA-ActiveSpeaker);
        - "compact-asd", whose weights come with this package;
        - "synchrony", which has no weights;
        - "lr-asd+synchrony", "compact-asd+synchrony" and so on: a weighted mean (0.7 and 0.3);
        - "auto": "lr-asd+synchrony" if the weights of LR-ASD are on this machine, and
          "compact-asd+synchrony" otherwise;
        - a file: ``.safetensors`` written by ``AVModel.save``, a checkpoint of a training run, or
          a checkpoint published by the authors of a network;
        - a mapping that replaces ``$model/...`` of a configuration file;
        - a network, or a scorer, which is returned unchanged.
    **options
        Options of :class:`NetworkScorer`.

    Raises
    ------
    MissingWeightsError
        If the requested weights are not on this machine.
    ValueError
        For other names, and for files that do not contain an active speaker network.
    """
    if isinstance(scorer, ActiveSpeakerModel):
        return NetworkScorer(scorer, **options)
    if isinstance(scorer, Mapping):
        scorer = locate(scorer)
    if isinstance(scorer, Path) or (isinstance(scorer, str) and Path(scorer).suffix):
        return _scorer_from_file(Path(scorer), options)
    if not isinstance(scorer, str):
        if not callable(scorer):
            raise ValueError(f"{scorer!r} is not an active speaker scorer: it cannot be called")
        return scorer
    if scorer == "auto":
        scorer = ("lr-asd" if weights.find("lr-asd") else "compact-asd") + _AND_SYNCHRONY
    if scorer in CALIBRATIONS:
        options = {"calibration": CALIBRATIONS[scorer], "name": scorer, **options}
        return _scorer_from_file(weights.require(scorer), options)
    if scorer == "synchrony":
        return SynchronyScorer()
    network = scorer.removesuffix(_AND_SYNCHRONY)
    if network in CALIBRATIONS:
        return AverageScorer({get_scorer(network, **options): 0.7, SynchronyScorer(): 0.3})
    raise ValueError(
        f"unknown active speaker scorer {scorer!r}: choose one of {', '.join(CALIBRATIONS)}, one "
        "of these with +synchrony at the end, synchrony, auto, or give a file"
    )


def _scorer_from_file(path: Path, options: dict) -> NetworkScorer:
    """Load a network saved by us or by its authors. Public networks are calibrated."""
    if not path.is_file():
        raise FileNotFoundError(printable(f"no active speaker network: {path} does not exist"))
    digest = sha256_of(path)
    public = {entry.sha256: name for name, entry in weights.REGISTRY.items()}.get(digest)
    if public in CALIBRATIONS:
        options = {"calibration": CALIBRATIONS[public], "name": public, **options}
    if path.suffix in (".safetensors", ".ckpt"):
        model = Model.from_pretrained(path)
    else:
        model = import_checkpoint(path)
    if not isinstance(model, ActiveSpeakerModel):
        raise ReadError(
            f"{path} holds a {type(model).__name__}, which is not an active speaker network"
        )
    return NetworkScorer(model, **options)
