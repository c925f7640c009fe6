"""Sliding-window inference of target speaker models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import FRAME_RATE, FRAMES_PER_WINDOW, SAMPLES_PER_FRAME, STEPS
from pyannote_av.core.threads import on_all_cores
from pyannote_av.fusion.targets import TargetSpeaker


def _whole(seconds: float) -> int:
    """Number of frames, rounded to a multiple of the frames of a window"""
    return FRAMES_PER_WINDOW * max(1, round(seconds * FRAME_RATE / FRAMES_PER_WINDOW))


class AVInference:
    """Sliding-window inference of target speakers over a whole recording.

    Posteriors of overlapping chunks are averaged with the weights of a Hamming window.

    Parameters
    ----------
    model : AVModel
        Target speaker model, such as ``HMSANet``.
    duration, step : float, optional
        Duration of chunks, and step between them, in seconds.
    batch_size : int, optional
        Chunks per forward pass.
    max_targets : int, optional
        Maximum number of target speakers in one chunk. Targets with a voiceprint come first,
        then the faces that are visible for the longest time.
    device : torch.device, optional
    """

    def __init__(
        self,
        model: torch.nn.Module,
        duration: float = 8.0,
        step: float = 2.0,
        batch_size: int = 4,
        max_targets: int = 20,
        device: torch.device | None = None,
    ):
        if not 0 < step <= duration:
            raise ValueError(f"step must be above 0 and at most {duration:g} s, not {step:g}")
        self.model = model.eval()
        self.duration, self.step = duration, step
        self.batch_size, self.max_targets = batch_size, max_targets
        self.to(device or torch.device("cpu"))

    def to(self, device: torch.device) -> AVInference:
        """Move the model."""
        self.device = device
        self.model.to(device)
        return self

    def __call__(
        self,
        waveform: torch.Tensor,
        targets: Sequence[TargetSpeaker],
        speaker_features: np.ndarray | None = None,
        progress: Callable[..., None] | None = None,
        first_pass: np.ndarray | None = None,
        num_speaking: np.ndarray | None = None,
    ) -> np.ndarray:
        """Compute posteriors of all target speakers.

        Parameters
        ----------
        waveform : (1, num_samples) tensor
            Audio at 16 kHz. Sample 0 is the start of grid frame 0.
        targets : sequence of TargetSpeaker
        speaker_features : (num_windows, dimension) array, optional
            Speaker embeddings of short windows of the whole recording.
        progress : callable, optional
            Called with keywords ``completed`` and ``total``, in chunks.
        first_pass : (4 x num_frames, num_targets) array, optional
            Probability of speech of each target according to a first pass; negative where unknown.
        num_speaking : (4 x num_frames, 3) array, optional
            Probability that nobody, one person, and two or more speak.

        Returns
        -------
        activities : (4 x num_frames, num_targets) float32 array
            Probabilities at 100 Hz. They are 0 in chunks without a visible face for targets that
            have no voiceprint.
        """
        num_frames = waveform.shape[1] // SAMPLES_PER_FRAME
        total = np.zeros((STEPS * num_frames, len(targets)), np.float32)
        if not targets or not num_frames:
            return total
        # pad the end with silence to a whole number of windows
        whole = FRAMES_PER_WINDOW * -(-num_frames // FRAMES_PER_WINDOW)
        length = min(_whole(self.duration), whole)
        starts = [*range(0, whole - length, _whole(self.step)), whole - length]
        total = np.zeros((STEPS * whole, len(targets)), np.float32)
        weight = np.zeros((len(total), 1), np.float32)
        window = np.hamming(STEPS * length + 2)[1:-1, None].astype(np.float32)
        chunks = [(start, self._chosen(targets, start, length)) for start in starts]

        def infer(batch: list[tuple[int, list[int]]]) -> list[tuple[int, list[int], np.ndarray]]:
            extra = self._first_pass(first_pass, num_speaking, batch, length)
            return list(self._infer(waveform, targets, speaker_features, extra, batch, length))

        firsts = range(0, len(chunks), self.batch_size)
        batches = (chunks[first : first + self.batch_size] for first in firsts)
        completed = 0
        for batch in on_all_cores(infer, batches, self.device):
            for start, chosen, found in batch:
                rows = slice(STEPS * start, STEPS * (start + length))
                total[rows, chosen] += found * window
                weight[rows] += window
            completed += len(batch)
            if progress is not None:
                progress(completed=completed, total=len(chunks))
        return (total / weight)[: STEPS * num_frames]

    def _chosen(self, targets: Sequence[TargetSpeaker], start: int, length: int) -> list[int]:
        """Indices of the targets of a chunk: those with a voiceprint or with a visible face"""
        visible_frames = [
            sum(
                int(
                    one.present[
                        max(0, start - one.start) : max(0, start + length - one.start)
                    ].sum()
                )
                for one in target.faces
            )
            for target in targets
        ]
        ranks = [
            (target.voiceprint is None, -frames, i)
            for i, (target, frames) in enumerate(zip(targets, visible_frames, strict=True))
            if target.voiceprint is not None or frames > 0
        ]
        return sorted(i for _, _, i in sorted(ranks)[: self.max_targets])

    def _first_pass(self, first_pass, num_speaking, batch, length) -> dict[str, torch.Tensor]:
        """First pass of each chunk"""
        if first_pass is None or num_speaking is None:
            return {}
        most = max(1, max(len(chosen) for _, chosen in batch))
        speaking = np.full((len(batch), most, STEPS * length), -1, np.float32)
        number = np.zeros((len(batch), STEPS * length, 3), np.float32)
        for b, (start, chosen) in enumerate(batch):
            rows = slice(STEPS * start, STEPS * (start + length))
            inside = len(first_pass[rows])
            speaking[b, : len(chosen), :inside] = first_pass[rows][:, chosen].T
            number[b, :inside] = num_speaking[rows]
        return {"first_pass": torch.from_numpy(speaking), "num_speaking": torch.from_numpy(number)}

    def _infer(
        self, waveform, targets, speaker_features, extra, batch, length
    ) -> Iterator[tuple[int, list[int], np.ndarray]]:
        """(first frame, targets, (4 x length, targets) probabilities) of each chunk"""
        most = max(1, max(len(chosen) for _, chosen in batch))
        dimension = self.model.visual_dimension
        shape = (len(batch), most, length)
        faces = np.zeros((*shape, dimension), np.float32)
        face_mask, target_mask = np.zeros(shape, bool), np.zeros(shape[:2], bool)
        voice = self.model.hparams.voiceprint_dimension
        voiceprints = np.zeros((*shape[:2], voice), np.float32)
        sounds, features = [], None
        if speaker_features is not None:
            windows = length // FRAMES_PER_WINDOW
            features = np.zeros((len(batch), windows, voice), np.float32)
        for b, (start, chosen) in enumerate(batch):
            sound = waveform[:, SAMPLES_PER_FRAME * start : SAMPLES_PER_FRAME * (start + length)]
            missing = SAMPLES_PER_FRAME * length - sound.shape[1]
            sounds.append(torch.nn.functional.pad(sound.float(), (0, missing)))
            if features is not None:
                first = start // FRAMES_PER_WINDOW
                rows = speaker_features[first : first + features.shape[1]]
                features[b, : len(rows)] = rows
            for s, i in enumerate(chosen):
                target_mask[b, s] = True
                faces[b, s], face_mask[b, s] = targets[i].face(start, start + length, dimension)
                if targets[i].voiceprint is not None:
                    voiceprints[b, s] = targets[i].voiceprint
        given = AVInput(
            torch.stack(sounds),
            torch.from_numpy(faces),
            torch.from_numpy(face_mask),
            torch.from_numpy(target_mask),
            torch.from_numpy(voiceprints),
            None if features is None else torch.from_numpy(features),
            **extra,
        )
        with torch.inference_mode():
            found = self.model(given.to(self.device)).float().cpu().numpy()
        for (start, chosen), one in zip(batch, found, strict=True):
            yield start, chosen, one[:, : len(chosen)]
