"""Active speaker scorers: one way to ask "is this face heard?", whatever answers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pyannote_av.core import weights
from pyannote_av.models.active_speaker.base import ABSENT, FRAME_RATE
from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.models.active_speaker.synchrony import SynchronyScorer


@runtime_checkable
class ActiveSpeakerScorer(Protocol):
    """Scores one face against the sound of the same time.

    Attributes
    ----------
    name : str
    context : float
        Seconds of face and sound before and after a moment that improve its score.
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
            16 kHz sound during the T crops, n = 640 T.
        crops : (T, 112, 112) uint8
            25 Hz grey face crops. Not to be read where the face is absent.
        present : (T,) bool

        Returns
        -------
        scores : (T,) float32
            Calibrated log-odds that the face is heard speaking; NaN where it is absent.
        """
        ...


def _fold(model: LRASD) -> LRASD:
    """Copy of a network with batch normalisation folded into the convolutions before it.

    Same scores (to 1e-5) at a third of the time on a CPU.
    """
    model = deepcopy(model).eval()
    for layers in model.modules():
        if isinstance(layers, nn.Sequential) and isinstance(layers[0], nn.Conv2d):
            layers[0] = fuse_conv_bn_eval(layers[0], layers[1])
            layers[0].to(memory_format=torch.channels_last)
            layers[1] = nn.Identity()
    return model


class LRASDScorer:
    """Scores of LR-ASD, calibrated.

    The published evaluation cuts a track into windows of 1, 2, ... 6 s and averages the scores of
    the six passes. Here both encoders run once; only the recurrent part, a fiftieth of the cost,
    runs per window length.

    Parameters
    ----------
    model : LRASD
        With the weights trained on detector crops ("TalkSet"), for which the calibration holds.
    """

    name = "lr-asd"
    context = 2.0

    # Raw scores are moved and scaled to log-odds. GRID and HDTF talkers, degraded, in turns with
    # idle faces: 98 % of the listening frames lie below the threshold, 87 % of the talking ones
    # above. The slope is half of what fits those clips, which are easier than films.
    _threshold = 0.75
    _slope = 1.5

    _window_seconds = (1, 2, 3, 4, 5, 6)
    # pictures per call of the visual encoder, which bounds memory, and how far it sees beyond
    _chunk, _halo = 100, 9

    def __init__(self, model: LRASD):
        self.model = _fold(model)

    def to(self, device: torch.device) -> LRASDScorer:
        """Move the network."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def __call__(
        self, waveform: torch.Tensor, crops: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """See :class:`ActiveSpeakerScorer`."""
        scores = np.full(len(crops), np.nan, np.float32)
        seen = np.flatnonzero(present)
        if not len(seen):
            return scores
        span = slice(int(seen[0]), int(seen[-1]) + 1)
        faces = np.where(present[span, None, None], crops[span], np.uint8(ABSENT))
        device = self.model.device
        mfcc = self.model.spectrum(waveform.to(device), num_frames=4 * len(crops))
        acoustic = self.model.acoustic_features(mfcc[:, 4 * span.start : 4 * span.stop])
        visual = self._visual(torch.from_numpy(faces).to(device))

        passes = []
        for seconds in self._window_seconds:
            # equal parts of about that length: no short remainder without context
            parts = max(1, round(len(faces) / (seconds * FRAME_RATE)))
            passes.append(
                torch.cat(
                    [
                        self.model.fuse(a, v)[..., 1]
                        for a, v in zip(
                            acoustic.tensor_split(parts, dim=1),
                            visual.tensor_split(parts, dim=1),
                            strict=True,
                        )
                    ],
                    dim=1,
                )
            )
        raw = torch.stack(passes).mean(dim=0)[0].cpu().numpy()
        scores[span] = self._slope * (raw - self._threshold)
        scores[~np.asarray(present, bool)] = np.nan
        return scores

    def _visual(self, faces: torch.Tensor) -> torch.Tensor:
        """(T, 112, 112) to (1, T, 128), in chunks that see what they would see in one piece."""
        features = []
        for start in range(0, len(faces), self._chunk):
            first = max(0, start - self._halo)
            chunk = faces[None, first : start + self._chunk + self._halo]
            features.append(self.model.visual_features(chunk)[:, start - first :][:, : self._chunk])
        return torch.cat(features, dim=1)


class AverageScorer:
    """Weighted mean of the log-odds of other scorers.

    LR-ASD knows what speaking looks like but hardly checks whether picture and sound belong
    together: moving the sound of a steady talker by a second changes little. Synchrony checks
    nothing else. Their errors are different ones.

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
        """Move what can be moved."""
        for scorer in self.scorers:
            if hasattr(scorer, "to"):
                scorer.to(device)
        return self

    def __call__(
        self, waveform: torch.Tensor, crops: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """See :class:`ActiveSpeakerScorer`."""
        found = [w * scorer(waveform, crops, present) for scorer, w in self.scorers.items()]
        return np.sum(found, axis=0, dtype=np.float32)


def get_scorer(scorer: str | ActiveSpeakerScorer = "auto") -> ActiveSpeakerScorer:
    """Find a scorer.

    Parameters
    ----------
    scorer : str or ActiveSpeakerScorer
        "lr-asd" (needs weights), "synchrony" (needs none), "lr-asd+synchrony" (their mean, in
        which LR-ASD leads), "auto" (both where the weights of LR-ASD are found, synchrony alone
        otherwise), or a scorer, which is returned as it is.

    Raises
    ------
    MissingWeightsError
        When weights are asked for that are not on this machine.
    ValueError
        For other names.
    """
    if not isinstance(scorer, str):
        return scorer
    if scorer == "auto":
        scorer = "lr-asd+synchrony" if weights.find("lr-asd") else "synchrony"
    if scorer == "lr-asd":
        return LRASDScorer(LRASD.from_checkpoint(weights.require("lr-asd")))
    if scorer == "synchrony":
        return SynchronyScorer()
    if scorer == "lr-asd+synchrony":
        return AverageScorer({get_scorer("lr-asd"): 0.7, SynchronyScorer(): 0.3})
    raise ValueError(
        f"no active speaker scorer called {scorer!r}: "
        'choose "lr-asd", "synchrony", "lr-asd+synchrony" or "auto"'
    )
