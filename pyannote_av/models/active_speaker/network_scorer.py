"""Calibrated speaking scores from an active speaker network."""

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
from pyannote_av.models.registry import NETWORKS


@dataclass(frozen=True)
class Calibration:
    """Linear map of raw scores (logits of "speaking") to log-odds: slope * (raw - threshold).

    Parameters
    ----------
    threshold : float
        Raw score at which a face is as likely to be speaking as not.
    slope : float
    """

    threshold: float
    slope: float


#: Calibrations of public weights.
#:
#: They were fitted on GRID and HDTF clips. Talkers alternate with idle faces that are paired with
#: the audio of the other talkers. Idle faces are GRID talkers before they begin to speak, played
#: back and forth, and portraits that sway. All clips are degraded: small, compressed, brighter or
#: darker, with noise in video and audio.
#:
#: For the weights made for faces found by a detector, 98 to 99 % of the frames of listeners lie
#: below the threshold, and 80 to 88 % of the frames of talkers above. For the weights made for the
#: boxes of AVA-ActiveSpeaker, with faces cropped as by a detector, it is 98 % and 55 to 76 %. The
#: slope is half the slope that logistic regression fits, because these clips are easier than films.
#:
#: Our own network (None) gives log-odds without calibration.
CALIBRATIONS: dict[str, Calibration | None] = {
    "compact-asd": None,
    "lr-asd": Calibration(threshold=0.75, slope=1.5),
    "lr-asd-ava": Calibration(threshold=1.0, slope=0.7),
    "light-asd": Calibration(threshold=2.0, slope=0.8),
    "light-asd-ava": Calibration(threshold=0.75, slope=1.1),
}


class NetworkScorer:
    """Calibrated speaking scores of a network.

    The published evaluation of this family of networks cuts a track into windows of 1, 2, ... 6 s
    and averages the scores of the six passes. If both encoders of a network can run separately
    (LR-ASD, Light-ASD), they run once here. Only the recurrent part, a fiftieth of the cost, runs
    once per window length.

    Parameters
    ----------
    model : ActiveSpeakerModel
    calibration : Calibration, optional
        Calibration of the raw logit of "speaking". Without it, scores are the log-odds that the
        network was trained to give. ``CALIBRATIONS`` holds those of the public weights of LR-ASD
        and Light-ASD.
    name : str, optional
        Name of the scorer. Defaults to the name of the network.
    window_seconds : sequence of int, optional
        Window lengths. A length that is repeated has a larger weight. The published code intends
        (1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6) but writes a set, so its results are those of the
        default, where all lengths have the same weight.
    precision : {"fp32", "bf16"}, optional
        "bf16" runs the convolutions in half precision. This is twice as fast on processors with
        AVX-512 BF16 and on GPUs, and slower on other processors.
    engine : {"torch", "onnxruntime"}, optional
        "onnxruntime" always runs in fp32 and on the CPU, even after a call of :meth:`to`.
    batch_size : int, optional
        Number of chunks of 4 s, from the same or different faces, that are encoded at once if both
        encoders can run separately. Defaults to 1 on CPUs, where larger batches are not faster,
        and to 16 on other devices.

    Notes
    -----
    A scorer receives one face at a time. Networks that compare faces (LoCoNet) receive the face
    itself as context, so the other faces of a scene do not affect the score.
    """

    context = 2.0

    # frames per call of the visual encoder, which bounds memory, and context frames on either side
    _chunk, _halo = 100, 9
    # windows of features that are fused at once, which bounds memory
    _windows = 64

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
        # the model, or an ONNX replacement with the same methods
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
        scores = [np.full(len(present), np.nan, np.float32) for _, _, present in faces]
        visible = [i for i, (_, _, present) in enumerate(faces) if np.any(present)]
        spans, acoustic, pictures = [], [], []
        heard: dict[tuple, torch.Tensor] = {}  # faces of one shot often share their audio
        for waveform, crops, present in (faces[i] for i in visible):
            rows = np.flatnonzero(present)
            span = slice(int(rows[0]), int(rows[-1]) + 1)
            audio = span.start, span.stop, len(crops), waveform.numpy(force=True).tobytes()
            if audio not in heard:
                heard[audio] = self._acoustic(waveform, len(crops), span)
            spans.append(span)
            acoustic.append(heard[audio])
            masked = np.where(present[span, None, None], crops[span], np.uint8(self._absent))
            pictures.append(torch.from_numpy(masked))
        visual = self._visual(pictures) if in_parts(self._network) else pictures
        logits = self._logits(acoustic, visual)
        for i, span, each in zip(visible, spans, logits, strict=True):
            scores[i][span] = self._calibrated(each.cpu().numpy())
            scores[i][~np.asarray(faces[i][2], bool)] = np.nan
        return scores

    def _calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Scores (T,) from logits (T, 2)."""
        if self.calibration is None:
            return logits[:, 1] - logits[:, 0]
        return self.calibration.slope * (logits[:, 1] - self.calibration.threshold)

    def _acoustic(self, waveform: torch.Tensor, num_frames: int, span: slice) -> torch.Tensor:
        """Acoustic features (T, 128) of a span of frames.

        If the encoders cannot run separately, spectra (T, 4, coefficients): one row per video
        frame, so that windows cut both inputs at the same frame.
        """
        spectra = self._network.spectrum(waveform.to(self.model.device), num_frames=4 * num_frames)
        spectra = spectra[:, 4 * span.start : 4 * span.stop]
        if not in_parts(self._network):
            return spectra[0].unflatten(0, (-1, 4))
        with self._autocast():
            return self._network.acoustic_features(spectra)[0].float()

    def _logits(
        self, acoustic: Sequence[torch.Tensor], visual: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Logits (T, 2) of each face, averaged over window lengths.

        `acoustic` and `visual` are features (T, 128) of each face. If the encoders cannot run
        separately, they are spectra (T, 4, coefficients) and crops (T, 112, 112). Windows of
        features that have the same length form batches, across faces.
        """
        compute, together = (
            (self._network.fuse, self._windows) if in_parts(self._network) else (self._whole, 1)
        )
        windows: dict[int, list[tuple[int, int, int]]] = {}
        for i, each in enumerate(visual):
            # equal parts of about that length, which avoids a short remainder with little context
            counts = Counter(
                max(1, round(len(each) / (s * FRAME_RATE))) for s in self.window_seconds
            )
            for parts, times in counts.items():
                for part in np.array_split(np.arange(len(each)), parts):
                    windows.setdefault(len(part), []).append((i, int(part[0]), times))
        logits = [torch.zeros(len(each), 2, device=self.model.device) for each in visual]
        for length, places in windows.items():
            for k in range(0, len(places), together):
                some = places[k : k + together]
                batch = (
                    torch.stack([each[i][start : start + length] for i, start, _ in some])
                    for each in (acoustic, visual)
                )
                found = compute(*(each.to(self.model.device) for each in batch))
                for (i, start, times), each in zip(some, found, strict=True):
                    logits[i][start : start + length] += times * each
        return [each / len(self.window_seconds) for each in logits]

    def _whole(self, spectra: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Fused logits of a window. `spectra` has shape (1, T, 4, coefficients)."""
        with self._autocast():
            return score_alone(self._network, spectra.flatten(1, 2), faces).float()

    def _visual(self, faces: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Encode crops (T, 112, 112) of each face to features (T, 128).

        Faces are encoded in chunks with enough context to give the same features as without
        chunks. Chunks of the same length form batches, across faces.
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
    known = NETWORKS.get(cls.__name__)
    own = known is not None and known.module == cls.__module__
    return (known.published if own else None) or cls.__name__
