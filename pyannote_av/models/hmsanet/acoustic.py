"""Acoustic branch of HMSA-Net: audio features conditioned on each target speaker.

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
from pyannote_av.models.hmsanet.inputs import FIRST_PASS_DIMENSION, Targets

#: spectra per video frame
SPECTRA_PER_FRAME = 4

# 1.5 s on either side, in video frames
_REACH = 37
# rough mean and standard deviation of the log-mel energies of speech, to scale inputs to about 1
_LEVEL, _SPREAD = -3.0, 4.0


class Spectra(nn.Module):
    """Log-mel energies at 100 Hz, both raw and relative to their running mean.

    Parameters
    ----------
    num_mels : int
    sample_rate : int
    """

    def __init__(self, num_mels: int, sample_rate: int):
        super().__init__()
        self.fbank = Fbank(num_mels, sample_rate)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute spectra. The running mean covers 1.5 s on either side and excludes padding.

        Parameters
        ----------
        waveforms : (batch, samples) tensor
        mask : (batch, frames) bool tensor
            True for video frames that are not padding.

        Returns
        -------
        spectra : (batch, 2, 4 x frames, num_mels) tensor
            0 in padding frames.
        """
        num_frames = mask.shape[1]
        sounding = mask.repeat_interleave(SAMPLES_PER_FRAME, dim=1)
        waveforms = torch.where(sounding, waveforms[:, : num_frames * SAMPLES_PER_FRAME], 0.0)
        # centre each window on the 10 ms that it represents
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
    """Convolutions over time and frequency. Every second one halves the frequency axis.

    Parameters
    ----------
    num_mels : int
    channels : sequence of int
        Number of output channels of each convolution.
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
    """Interpolate linearly from windows of the recording to video frames.

    Parameters
    ----------
    x : (batch, targets, windows, dimension) tensor
        Window i is centred on video frame 4i + 1.5.
    valid : (batch, windows) bool tensor
        Windows that may be used.
    num_frames : int

    Returns
    -------
    x : (batch, targets, num_frames, dimension) tensor
    known : (batch, num_frames) bool tensor
        False where neither adjacent window is valid; `x` is 0 there.
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
    """Acoustic branch: audio and voiceprints to acoustic features of each target speaker.

    It computes ``ReLU(W [F_t; p_k; f_t; p_k f_t; cos(p_k, f_t)])`` at 100 Hz, where F are audio
    features, p are voiceprints, and f are speaker embeddings of windows around t. The sum is split
    into terms to save computation. Terms that do not depend on speaker k are computed once for all
    speakers. Terms that do not depend on t are computed once for all frames. Terms that depend on
    both are computed at the rate of f, 6.25 Hz. Voiceprints also scale the audio features.

    Parameters
    ----------
    width : int
        Dimension of the output at 25 Hz. The output at 100 Hz has half of it.
    num_mels, channels, sample_rate
        See :class:`Spectra` and :class:`FrontEnd`.
    voiceprint_dimension : int
    num_layers : int
        Number of Conformer blocks.
    first_pass : bool
        Add features of a first pass to the sum. Their weights are zero before training.
    **conformer
        Parameters of the Conformer blocks.
    """

    def __init__(
        self,
        width: int,
        num_mels: int,
        channels: Sequence[int],
        sample_rate: int,
        voiceprint_dimension: int,
        num_layers: int,
        first_pass: bool,
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
        self.first_pass = None
        if first_pass:
            self.first_pass = nn.Linear(FIRST_PASS_DIMENSION, detail, bias=False)
            nn.init.zeros_(self.first_pass.weight)
        self.reduce = nn.Linear(SPECTRA_PER_FRAME * detail, width)
        self.layers = nn.ModuleList(Conformer(width, **conformer) for _ in range(num_layers))
        self.head = nn.Linear(width, 1)

    def condition(
        self,
        voiceprints: torch.Tensor,
        speaker_features: torch.Tensor | None,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the scale and shift that voiceprints and context apply to audio features.

        Parameters
        ----------
        voiceprints : (batch, targets, dimension) tensor
            Unit vectors; 0 where unknown.
        speaker_features : (batch, windows, dimension) tensor or None
            Unit vectors; 0 where unknown.
        mask : (batch, frames) bool tensor

        Returns
        -------
        scale : (batch, targets, 1, dimension') tensor
        shift : (batch, targets, frames or 1, dimension') tensor
        """
        known = voiceprints.any(dim=-1, keepdim=True)
        size = voiceprints.shape[-1] ** 0.5  # scales the entries of unit vectors to about 1
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
        context, known = interpolate(context, valid, num_frames)
        context = torch.where(known[:, None, :, None], context, self.unknown_context)
        return 1 + scale, shift + context

    def forward(
        self,
        waveforms: torch.Tensor,
        voiceprints: torch.Tensor,
        speaker_features: torch.Tensor | None,
        first_pass: torch.Tensor | None,
        targets: Targets,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute acoustic features of each target speaker.

        Parameters
        ----------
        waveforms : (batch, samples) tensor
        voiceprints, speaker_features, mask
            See :meth:`condition`.
        first_pass : (n, frames, 4, 5) tensor or None
            See :func:`~pyannote_av.models.hmsanet.inputs.first_pass_features`. Only used by
            networks with `first_pass`.
        targets : Targets
            The n target speakers.

        Returns
        -------
        features : (n, frames, width) tensor
        detail : (n, frames, 4, width / 2) tensor
            The same at 100 Hz, before the Conformer blocks.
        """
        sound = self.sound(self.front_end(self.spectra(waveforms, mask), mask))
        sound = targets.each(sound).unflatten(1, (-1, SPECTRA_PER_FRAME))
        scale, shift = self.condition(voiceprints, speaker_features, mask)
        scale, shift = targets.pack(scale).unsqueeze(2), targets.pack(shift).unsqueeze(2)
        detail = torch.addcmul(shift, sound, scale)
        if self.first_pass is not None:
            detail = detail + self.first_pass(first_pass)
        detail = detail.relu()
        x, mask = self.reduce(detail.flatten(2)), targets.each(mask)
        for layer in self.layers:
            x = layer(x, mask)
        return x, detail
