"""LR-ASD: lightweight and robust active speaker detection.

References
----------
Liao, Duan, Feng, Zhao, Yang, Chen, Chen. LR-ASD: Lightweight and Robust Network for Active Speaker
Detection. IJCV 2025. https://github.com/Junhua-Liao/LR-ASD (MIT)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from pyannote_av.core.model import AVModel
from pyannote_av.models.blocks.mfcc import MFCC
from pyannote_av.models.blocks.separable import ChannelAttention, SpectrumBlock, VideoBlock

#: video frames per second, and samples of 16 kHz audio per video frame
FRAME_RATE = 25
SAMPLES_PER_FRAME = 640

#: what the network sees where there is no face: mid grey, the value of crops that reach
#: over the border of the picture
ABSENT = 110

_DIMENSION = 128


class VisualEncoder(nn.Module):
    """Grey pictures of a face to one 128-d feature per picture; sees 9 pictures to either side."""

    def __init__(self):
        super().__init__()
        self.block1 = VideoBlock(1, 32, stride=2)
        self.block2 = VideoBlock(32, 64)
        self.block3 = VideoBlock(64, _DIMENSION)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """(batch, frames, 112, 112) in [0, 255] to (batch, frames, 128)."""
        batch, num_frames, height, width = faces.shape
        x = (faces / 255 - 0.4161) / 0.1688
        x = x.reshape(batch * num_frames, 1, height, width)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.pool(self.block1(x, num_frames))
        x = self.pool(self.block2(x, num_frames))
        x = self.block3(x, num_frames)
        return x.amax(dim=(2, 3)).reshape(batch, num_frames, _DIMENSION)


class AcousticEncoder(nn.Module):
    """MFCC at 100 Hz to one 128-d feature per video frame."""

    def __init__(self):
        super().__init__()
        self.block1 = SpectrumBlock(1, 32)
        self.block2 = SpectrumBlock(32, 64)
        self.block3 = SpectrumBlock(64, _DIMENSION)
        self.pool = nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, 13) to (batch, frames, 128)."""
        x = mfcc.transpose(1, 2).unsqueeze(1)
        x = self.pool(self.block1(x))
        x = self.pool(self.block2(x))
        x = self.block3(x)
        return x.mean(dim=2).transpose(1, 2)


class Decoder(nn.Module):
    """Context from both directions of time."""

    def __init__(self, dimension: int):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(dimension, dimension // 4, batch_first=True, bidirectional=True)
        self.attention = ChannelAttention(dimension // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dimension) to (batch, frames, dimension / 2)."""
        return self.attention(self.gru(self.dropout(x))[0])


class LRASD(AVModel):
    """Does this face speak the speech that is heard? One score per face and video frame.

    The score is the published one, the raw output for class "speaking"; it is not a calibrated
    probability and 0 is not its best threshold (see ``LRASDScorer``).

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.

    Notes
    -----
    Faces lie on a grid of 25 pictures per second that starts with the audio. Audio that ends
    before the pictures do is continued by digital silence: nobody speaks there. (The published
    code repeats the beginning instead, which moves speech to where there is none.)

    A face is scored from the first to the last frame it is present in, as if nothing else
    existed, so padding in time or in the number of faces changes nothing.
    """

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task=None):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        if sample_rate != FRAME_RATE * SAMPLES_PER_FRAME:
            raise ValueError(f"LR-ASD is defined for 16 kHz audio, not {sample_rate} Hz")
        self.mfcc = MFCC(sample_rate)
        self.acoustic = AcousticEncoder()
        self.visual = VisualEncoder()
        self.fusion = ChannelAttention(2 * _DIMENSION)
        self.decoder = Decoder(2 * _DIMENSION)
        self.classifier = nn.Linear(_DIMENSION, 2)
        # only read in training, where it keeps the visual branch informative by itself
        self.visual_classifier = nn.Linear(_DIMENSION, 2)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> LRASD:
        """Read a ``.model`` file of the authors (see ``importers.import_lrasd``)."""
        from pyannote_av.models.active_speaker.importers import import_lrasd

        return import_lrasd(path)

    def acoustic_features(self, mfcc: torch.Tensor) -> torch.Tensor:
        """MFCC (batch, 4 x frames, 13) to features (batch, frames, 128)."""
        return self.acoustic(mfcc)

    def visual_features(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces (..., frames, 112, 112) in [0, 255] to features (..., frames, 128)."""
        *leading, num_frames, height, width = faces.shape
        features = self.visual(faces.reshape(-1, num_frames, height, width))
        return features.reshape(*leading, num_frames, _DIMENSION)

    def scores_from_features(self, acoustic: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """Features of both branches, (batch, frames, 128) each, to scores (batch, frames)."""
        x = self.decoder(self.fusion(torch.cat([acoustic, visual], dim=-1)))
        return self.classifier(x)[..., 1]

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score faces.

        Parameters
        ----------
        waveforms : (batch, 1, samples) tensor
            16 kHz, in [-1, 1]; the first sample is heard when the first picture is shown.
        faces : (batch, slots, frames, 112, 112) or (batch, frames, 112, 112) tensor
            Grey pictures in [0, 255], typically uint8; without slots, one face each.
        face_mask : (batch, slots, frames) or (batch, frames) tensor, optional
            Where faces are present. Pixels elsewhere are never read.

        Returns
        -------
        scores : (batch, frames, slots) tensor
            Raw scores, 0 outside of the time a face is present from first to last.

        Raises
        ------
        ValueError
            Without faces: the network has no audio-only path.
        """
        if faces is None:
            raise ValueError("LR-ASD scores faces: there is no score without them")
        if faces.ndim == 4:
            faces = faces.unsqueeze(1)
            face_mask = face_mask.unsqueeze(1) if face_mask is not None else None
        batch, num_slots, num_frames = faces.shape[:3]
        if face_mask is None:
            face_mask = torch.ones(faces.shape[:3], dtype=torch.bool, device=faces.device)
        present = face_mask.bool()
        mfcc = self.mfcc(waveforms[:, 0], num_frames=4 * num_frames)

        scores = mfcc.new_zeros(batch, num_slots, num_frames)
        for (first, last), item, slot in _spans(present):
            seen = present[item, slot, first:last, None, None]
            visual = self.visual_features(torch.where(seen, faces[item, slot, first:last], ABSENT))
            heard, which = item.unique(return_inverse=True)
            acoustic = self.acoustic_features(mfcc[heard, 4 * first : 4 * last])[which]
            found = self.scores_from_features(acoustic, visual)
            frames = torch.arange(first, last, device=faces.device)[None]
            scores = scores.index_put((item[:, None], slot[:, None], frames), found)
        return scores.transpose(1, 2)


def _spans(
    present: torch.Tensor,
) -> Iterator[tuple[tuple[int, int], torch.Tensor, torch.Tensor]]:
    """Group faces by the stretch of time they are present in.

    Parameters
    ----------
    present : (batch, slots, frames) bool tensor

    Yields
    ------
    span : (int, int)
        First frame and one past the last.
    item, slot : (n,) int tensors
        The faces present from the first to the last frame of that span, perhaps with gaps.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for b, faces in enumerate(present.cpu().numpy()):
        for s, seen in enumerate(faces):
            frames = seen.nonzero()[0]
            if len(frames):
                groups.setdefault((int(frames[0]), int(frames[-1]) + 1), []).append((b, s))
    for span, members in groups.items():
        item, slot = torch.tensor(members, device=present.device).unbind(1)
        yield span, item, slot
