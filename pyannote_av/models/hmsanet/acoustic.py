"""Sound as each target speaker would hear it: what of it could be his voice.

The convolutional front end and its conditioning by voiceprints are those of target-speaker voice
activity detection (Medennikov et al., Interspeech 2020, https://arxiv.org/abs/2005.07272) as used
by the baseline of MISP2022 (He et al., Interspeech 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.core.grid import FRAMES_PER_WINDOW, SAMPLES_PER_FRAME
from pyannote_av.models.blocks.conformer import Conformer
from pyannote_av.models.blocks.fbank import Fbank
from pyannote_av.models.hmsanet.slots import Slots

#: spectra per picture
SPECTRA_PER_FRAME = 4

# 1.5 s to either side, in video frames
_REACH = 37
# of log-mel energies of speech; only roughly: they bring numbers near 1
_LEVEL, _SPREAD = -3.0, 4.0


class Spectra(nn.Module):
    """Log-mel energies at 100 Hz, as they are and relative to their running mean.

    Parameters
    ----------
    num_mels : int
    sample_rate : int
    """

    def __init__(self, num_mels: int, sample_rate: int):
        super().__init__()
        self.fbank = Fbank(num_mels, sample_rate)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute spectra; the mean is over 1.5 s to either side, padding not counted.

        Parameters
        ----------
        waveforms : (batch, samples) tensor
        mask : (batch, frames) bool tensor
            Which video frames are real.

        Returns
        -------
        spectra : (batch, 2, 4 x frames, num_mels) tensor
            0 where not real.
        """
        num_frames = mask.shape[1]
        sounding = mask.repeat_interleave(SAMPLES_PER_FRAME, dim=1)
        waveforms = torch.where(sounding, waveforms[:, : num_frames * SAMPLES_PER_FRAME], 0.0)
        # windows reach over the 10 ms that they stand for by the same on either side
        overlap = (self.fbank.window_size - self.fbank.step) // 2
        spectra = (self.fbank(F.pad(waveforms, (overlap, overlap))) - _LEVEL) / _SPREAD
        spectra = spectra.unflatten(1, (num_frames, SPECTRA_PER_FRAME))

        real = mask[:, None].to(spectra.dtype)
        present = spectra.mean(dim=2).transpose(1, 2) * real
        window = (2 * _REACH + 1, 1, _REACH)
        mean = F.avg_pool1d(present, *window) / F.avg_pool1d(real, *window).clamp_min(1e-3)
        relative = spectra - mean.transpose(1, 2).unsqueeze(2)
        both = torch.stack([spectra, relative], dim=1) * mask[:, None, :, None, None]
        return both.flatten(2, 3)


class FrontEnd(nn.Module):
    """Four or so convolutions over time and frequency; each other one halves frequency.

    Parameters
    ----------
    num_mels : int
    channels : sequence of int
        Of each convolution.
    """

    def __init__(self, num_mels: int, channels: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList()
        before, bands = 2, num_mels
        for i, after in enumerate(channels):
            stride = 2 - i % 2
            self.layers.append(nn.Conv2d(before, after, 3, (1, stride), padding=1))
            before, bands = after, (bands - 1) // stride + 1
        self.dimension = before * bands
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, spectra: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, 2, 4 x frames, num_mels) and (batch, frames) to (batch, 4 x frames, dimension)"""
        real = mask.repeat_interleave(SPECTRA_PER_FRAME, dim=1)[:, None, :, None]
        x = spectra.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x).relu() * real
        return x.permute(0, 2, 3, 1).flatten(2)


def interpolate(
    x: torch.Tensor, valid: torch.Tensor, num_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """From windows of the recording to video frames, linearly, between those that are valid.

    Parameters
    ----------
    x : (batch, slots, windows, dimension) tensor
        Window i is centred on video frame 4i + 1.5.
    valid : (batch, windows) bool tensor
    num_frames : int

    Returns
    -------
    x : (batch, slots, num_frames, dimension) tensor
    known : (batch, num_frames) bool tensor
        False where neither window next to the frame is valid; `x` is 0 there.
    """
    last = x.shape[2] - 1
    frame = torch.arange(num_frames, device=x.device)
    position = ((frame - (FRAMES_PER_WINDOW - 1) / 2) / FRAMES_PER_WINDOW).clamp(0, last)
    left = position.long()
    right = (left + 1).clamp_max(last)
    fraction = position - left
    weight = torch.stack([(1 - fraction) * valid[:, left], fraction * valid[:, right]])
    total = weight.sum(dim=0)
    weight = (weight / total.clamp_min(1e-6)).to(x.dtype)[:, :, None, :, None]
    return x[:, :, left] * weight[0] + x[:, :, right] * weight[1], total > 0


class TargetAcoustic(nn.Module):
    """Acoustic branch: sound and voiceprints to what is heard of each target speaker.

    ``ReLU(W [F_t; p_k; f_t; p_k f_t; cos(p_k, f_t)])`` at 100 Hz, where F are features of the
    sound, p voiceprints and f voices heard around t, is computed in parts: what does not depend on
    speaker k once for all of them, what does not depend on t once for all frames, and what depends
    on both at the rate of f, 6.25 Hz. Voiceprints also scale the features of the sound.

    Parameters
    ----------
    width : int
        Of what comes out at 25 Hz; half of that at 100 Hz.
    num_mels, channels, sample_rate
        See :class:`Spectra` and :class:`FrontEnd`.
    voiceprint_dimension : int
    num_layers : int
        Number of Conformer blocks.
    **conformer
        Their parameters.
    """

    def __init__(
        self,
        width: int,
        num_mels: int,
        channels: Sequence[int],
        sample_rate: int,
        voiceprint_dimension: int,
        num_layers: int,
        **conformer: Any,
    ):
        super().__init__()
        self.detail_dimension = detail = width // 2
        self.spectra = Spectra(num_mels, sample_rate)
        self.front_end = FrontEnd(num_mels, channels)
        self.sound = nn.Linear(self.front_end.dimension, detail)
        self.voice = nn.Linear(voiceprint_dimension, 2 * detail)
        self.unknown_voice = nn.Parameter(torch.zeros(2 * detail))
        self.context = nn.Linear(voiceprint_dimension, detail)
        self.unknown_context = nn.Parameter(torch.zeros(detail))
        self.match = nn.Linear(voiceprint_dimension, detail, bias=False)
        self.cosine = nn.Linear(1, detail, bias=False)
        self.reduce = nn.Linear(SPECTRA_PER_FRAME * detail, width)
        self.layers = nn.ModuleList(Conformer(width, **conformer) for _ in range(num_layers))
        self.head = nn.Linear(width, 1)

    def condition(
        self,
        voiceprints: torch.Tensor,
        speaker_features: torch.Tensor | None,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What voices do to sound.

        Parameters
        ----------
        voiceprints : (batch, slots, dimension) tensor
            Of length 1, or 0 where unknown.
        speaker_features : (batch, windows, dimension) tensor or None
            Likewise.
        mask : (batch, frames) bool tensor

        Returns
        -------
        scale : (batch, slots, 1, dimension') tensor
        shift : (batch, slots, frames or 1, dimension') tensor
        """
        known = voiceprints.any(dim=-1, keepdim=True)
        size = voiceprints.shape[-1] ** 0.5  # numbers near 1 in vectors of length 1
        voice = torch.where(known, self.voice(size * voiceprints), self.unknown_voice)
        scale, shift = voice.unsqueeze(2).chunk(2, dim=-1)
        if speaker_features is None:
            return 1 + scale, shift + self.unknown_context

        num_frames = mask.shape[1]
        windows = F.pad(mask, (0, -num_frames % FRAMES_PER_WINDOW))
        valid = windows.unflatten(1, (-1, FRAMES_PER_WINDOW)).any(dim=2)
        valid = valid & speaker_features.any(dim=-1)
        product = voiceprints.unsqueeze(2) * speaker_features.unsqueeze(1)
        context = self.context(size * speaker_features).unsqueeze(1)
        context = context + self.match(size**2 * product)
        context = context + self.cosine(product.sum(dim=-1, keepdim=True))
        context, heard = interpolate(context, valid, num_frames)
        context = torch.where(heard[:, None, :, None], context, self.unknown_context)
        return 1 + scale, shift + context

    def forward(
        self,
        waveforms: torch.Tensor,
        voiceprints: torch.Tensor,
        speaker_features: torch.Tensor | None,
        slots: Slots,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Listen for each target speaker.

        Parameters
        ----------
        waveforms : (batch, samples) tensor
        voiceprints, speaker_features, mask
            See :meth:`condition`.
        slots : Slots
            Which of them are somebody: n in all.

        Returns
        -------
        features : (n, frames, width) tensor
        detail : (n, frames, 4, width / 2) tensor
            The same at 100 Hz, without context.
        """
        sound = self.sound(self.front_end(self.spectra(waveforms, mask), mask))
        sound = slots.each(sound).unflatten(1, (-1, SPECTRA_PER_FRAME))
        scale, shift = self.condition(voiceprints, speaker_features, mask)
        scale, shift = slots.pack(scale).unsqueeze(2), slots.pack(shift).unsqueeze(2)
        detail = torch.addcmul(shift, sound, scale).relu()
        x, mask = self.reduce(detail.flatten(2)), slots.each(mask)
        for layer in self.layers:
            x = layer(x, mask)
        return x, detail
