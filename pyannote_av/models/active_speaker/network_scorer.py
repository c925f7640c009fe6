"""Scores of an active speaker network: windows, calibration, precision, engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.active_speaker.base import ABSENT, ActiveSpeakerModel
from pyannote_av.models.active_speaker.export import OnnxNetwork, in_parts, score_alone
from pyannote_av.models.active_speaker.loconet import LoCoNet
from pyannote_av.models.blocks.separable import fold
from pyannote_av.models.importers import ACTIVE_SPEAKER_NETWORKS


@dataclass(frozen=True)
class Calibration:
    """From raw scores, the logit of "speaking", to log-odds: slope * (raw - threshold).

    Parameters
    ----------
    threshold : float
        Raw score at which a face is as likely to speak as not.
    slope : float
    """

    threshold: float
    slope: float


#: Calibrations of public weights.
#:
#: Found on GRID and HDTF talkers in turns with idle faces (those of the GRID talkers before they
#: begin, played back and forth, and portraits that sway) that hear the other talkers, all degraded:
#: small, compressed, brighter or darker, noise in picture and sound. For the weights made for faces
#: found by a detector, 98 to 99 % of the listening frames lie below the threshold, 80 to 88 % of
#: the talking ones above; for those made for the boxes of AVA-ActiveSpeaker, cut as a detector's,
#: 98 % and 55 to 76 %. The slope is half of what logistic regression fits to those clips, which are
#: easier than films.
#:
#: Our own (None) gives log-odds as it is.
CALIBRATIONS: dict[str, Calibration | None] = {
    "compact-asd": None,
    "lr-asd": Calibration(threshold=0.75, slope=1.5),
    "lr-asd-ava": Calibration(threshold=1.0, slope=0.7),
    "light-asd": Calibration(threshold=2.0, slope=0.8),
    "light-asd-ava": Calibration(threshold=0.75, slope=1.1),
}


class NetworkScorer:
    """Scores of a network, calibrated.

    The published evaluation of this family of networks cuts a track into windows of 1, 2, ... 6 s
    and averages the scores of the six passes. Where both encoders of a network can run by
    themselves (LR-ASD, Light-ASD) they run once here; only the recurrent part, a fiftieth of the
    cost, runs per window length.

    Parameters
    ----------
    model : ActiveSpeakerModel
    calibration : Calibration, optional
        Of the raw logit of "speaking". Without it, scores are the log-odds the network was
        trained to give. Public weights of LR-ASD and Light-ASD have one in ``CALIBRATIONS``.
    name : str, optional
        Defaults to that of the network.
    window_seconds : sequence of int, optional
        Window lengths, each as often as it counts. The published code means to weigh lengths by
        (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6) but writes a set, so that its results are those of the
        default, where each counts once.
    precision : {"fp32", "bf16"}, optional
        "bf16" runs the convolutions in half precision: twice as fast on processors with
        AVX-512 BF16 or on a GPU, slower on others.
    engine : {"torch", "onnxruntime"}, optional
        "onnxruntime" runs in fp32 and on the CPU, wherever the scorer is moved.

    batch_size : int, optional
        Stretches of 4 s, of the same or of different faces, that are encoded at once where both
        encoders can run by themselves. Defaults to 1 on processors, which gain nothing from more,
        and 16 elsewhere.

    Notes
    -----
    A scorer is shown one face at a time. Networks that compare faces (LoCoNet) are given the face
    itself as its context: what they know about the other faces of a scene is not used.
    """

    context = 2.0

    # pictures per call of the visual encoder, which bounds memory, and how far it sees beyond
    _chunk, _halo = 100, 9

    def __init__(
        self,
        model: ActiveSpeakerModel,
        calibration: Calibration | None = None,
        name: str | None = None,
        window_seconds: Sequence[int] = (1, 2, 3, 4, 5, 6),
        precision: str = "fp32",
        engine: str = "torch",
        batch_size: int | None = None,
    ):
        if precision not in ("fp32", "bf16") or engine not in ("torch", "onnxruntime"):
            raise ValueError(
                f"no precision {precision!r} with engine {engine!r}: choose fp32 or bf16, "
                "torch or onnxruntime"
            )
        if engine == "onnxruntime" and precision != "fp32":
            raise ValueError("onnxruntime runs networks in fp32 only")
        self.name = name or _name_of(model)
        self.calibration = calibration
        self.window_seconds = tuple(window_seconds)
        self.precision = precision
        self.batch_size = batch_size
        self.model = fold(model)
        # what computes: the model or, in its place, something with the same methods
        self._network = OnnxNetwork(self.model) if engine == "onnxruntime" else self.model
        self._absent = 0 if isinstance(model, LoCoNet) else ABSENT

    def to(self, device: torch.device) -> NetworkScorer:
        """Move the network, unless ONNX Runtime runs it."""
        if self._network is self.model:
            self.model.to(device)
        return self

    def __call__(
        self, waveform: torch.Tensor, crops: np.ndarray, present: np.ndarray
    ) -> np.ndarray:
        """See :class:`~pyannote_av.models.active_speaker.scorers.ActiveSpeakerScorer`."""
        return self.many([(waveform, crops, present)])[0]

    @torch.inference_mode()
    def many(self, faces: Sequence[tuple]) -> list[np.ndarray]:
        """See :func:`~pyannote_av.models.active_speaker.scorers.score_many`."""
        spans, spectra, pictures = [], [], []
        for waveform, crops, present in faces:
            seen = np.flatnonzero(present)
            span = slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, 0)
            shown = np.where(present[span, None, None], crops[span], np.uint8(self._absent))
            sound = waveform.to(self.model.device)
            sound = self._network.spectrum(sound, num_frames=4 * len(crops))
            spans.append(span)
            spectra.append(sound[:, 4 * span.start : 4 * span.stop])
            pictures.append(torch.from_numpy(shown))
        parts = in_parts(self._network)
        visual = self._visual(pictures) if parts else pictures
        return [
            self._calibrated(self._logits(spectra[i], visual[i]), spans[i], present)
            if len(pictures[i])
            else np.full(len(present), np.nan, np.float32)
            for i, (_, _, present) in enumerate(faces)
        ]

    def _calibrated(self, logits: torch.Tensor, span: slice, present: np.ndarray) -> np.ndarray:
        """Scores (T,) of a face from logits within the span it is present in."""
        scores = np.full(len(present), np.nan, np.float32)
        logits = logits.cpu().numpy()
        if self.calibration is None:
            scores[span] = logits[:, 1] - logits[:, 0]
        else:
            scores[span] = self.calibration.slope * (logits[:, 1] - self.calibration.threshold)
        scores[~np.asarray(present, bool)] = np.nan
        return scores

    def _logits(self, spectra: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Mean over window lengths, (T, 2), for one face: (T, 128) features or (T, 112, 112)."""
        if in_parts(self._network):
            compute = self._network.fuse
            with self._autocast():
                acoustic = self._network.acoustic_features(spectra)
            inputs = [acoustic.float(), visual[None]]
        else:
            compute = self._whole
            # the sound of a picture side by side, so that both are cut at the same place
            inputs = [spectra.unflatten(1, (len(visual), 4)), visual[None].to(spectra.device)]
        total = 0.0
        for seconds, times in Counter(self.window_seconds).items():
            # equal parts of about that length: no short remainder without context
            parts = max(1, round(len(visual) / (seconds * FRAME_RATE)))
            windows = zip(*(each.tensor_split(parts, dim=1) for each in inputs), strict=True)
            total = total + times * torch.cat([compute(*window)[0] for window in windows])
        return total / len(self.window_seconds)

    def _whole(self, spectra: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Fused logits of a window; spectra are (1, T, 4, coefficients)."""
        with self._autocast():
            return score_alone(self._network, spectra.flatten(1, 2), faces).float()

    def _visual(self, faces: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """(T, 112, 112) each to (T, 128) each, in chunks that see what they would see uncut.

        Chunks of the same length run together, whichever face they are of.
        """
        device = self.model.device
        features = [torch.empty(len(face), 128, device=device) for face in faces]
        chunks: dict[int, list[tuple[int, int, int]]] = {}
        for i, face in enumerate(faces):
            for start in range(0, len(face), self._chunk):
                first = max(0, start - self._halo)
                last = min(len(face), start + self._chunk + self._halo)
                chunks.setdefault(last - first, []).append((i, start, first))
        together = self.batch_size or (1 if device.type == "cpu" else 16)
        for length, places in chunks.items():
            for k in range(0, len(places), together):
                some = places[k : k + together]
                batch = torch.stack([faces[i][first : first + length] for i, _, first in some])
                with self._autocast():
                    found = self._network.visual_features(batch.to(device)).float()
                for (i, start, first), each in zip(some, found, strict=True):
                    each = each[start - first :][: self._chunk]
                    features[i][start : start + len(each)] = each
        return features

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )


def _name_of(model: ActiveSpeakerModel) -> str:
    cls = type(model)
    names = {path: name for name, path in ACTIVE_SPEAKER_NETWORKS.items()}
    return names.get(f"{cls.__module__}.{cls.__qualname__}", cls.__name__)
