"""HMSA-Net: speech activity of target speakers from their voices and faces.

References
----------
Chen, He, Du, Siniscalchi, Liu, Wan et al. HMSA-Net: hierarchical modality-speaker adaptive network
for audio-visual speaker diarization. IEEE TASLP 2026, https://doi.org/10.1109/TASLPRO.2026.3698952.
Only the abstract is public. docs/hmsanet.md lists what is published and what is our own design.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from pyannote_av.core.grid import SAMPLE_RATE, SAMPLES_PER_FRAME
from pyannote_av.core.model import AVModel
from pyannote_av.models.hmsanet.acoustic import SPECTRA_PER_FRAME, TargetAcoustic
from pyannote_av.models.hmsanet.cgima import CGIMA, LAGS, Concatenation
from pyannote_av.models.hmsanet.decoder import TargetDecoder
from pyannote_av.models.hmsanet.inputs import complete, first_pass_features
from pyannote_av.models.hmsanet.visual import TargetVisual

#: branches that each give outputs of their own
BRANCHES = ("acoustic", "visual", "fusion", "decoder")

#: Hyper-parameters of a large network (38 M parameters, like its published predecessors), for
#: training on GPUs. The defaults give a network for CPUs (2.2 M parameters).
LARGE: dict[str, Any] = {
    "width": 320,
    "heads": 8,
    "num_mels": 80,
    "channels": [64, 64, 128, 128],
    "acoustic_layers": 2,
    "visual_layers": 3,
    "cgima_layers": 2,
    "disa_layers": 3,
    "expansion": 4,
    "visual": "resnet",
}


class HMSAOutput(NamedTuple):
    """Outputs of all branches, per target speaker.

    Outputs of padding targets are zero, those of padding frames undefined. Outputs of branches that
    were not requested are None.

    Attributes
    ----------
    logits : (batch, targets, 4 x frames) tensor or None
        Logits of speech at 100 Hz: the final output.
    fused_logits, acoustic_logits, visual_logits : (batch, targets, frames) tensor or None
        Logits of speech at 25 Hz from both modalities, from audio alone and from video alone.
        They are computed before speakers attend to each other, and serve training in stages.
    gate_logits : (batch, targets, frames, 2, heads) tensor or None
        Logits of the gates: how much the audio stream takes from video [0], and the video stream
        from audio [1]. Like the next three outputs, None unless fusion is "cgima".
    acoustic_sync, visual_sync : (batch, targets, frames, dimension) tensor or None
        Unit vectors that are similar where audio and video are synchronous.
    confidence : (batch, targets, frames) tensor or None
        Synchrony: similarity at the best lag minus similarity at the median lag.
    attention : tuple of (batch, frames, heads, targets, keys) tensor
        Attention weights of each DISA layer, from each speaker to the others. The first key is
        the learned "nobody". All speakers at frames t - `speaker_reach`, ..., t + `speaker_reach`
        follow.
    """

    logits: torch.Tensor | None = None
    fused_logits: torch.Tensor | None = None
    acoustic_logits: torch.Tensor | None = None
    visual_logits: torch.Tensor | None = None
    gate_logits: torch.Tensor | None = None
    acoustic_sync: torch.Tensor | None = None
    visual_sync: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    attention: tuple[torch.Tensor, ...] = ()


class HMSANet(AVModel):
    """Speech activity of target speakers, each given by a voiceprint, a face track, or both.

    Parameters
    ----------
    width : int, optional
        Feature dimension. 128 gives the compact model.
    heads : int, optional
        Number of attention heads, and of gates per direction.
    num_mels : int, optional
        Number of mel bands.
    channels : sequence of int, optional
        Number of channels of each convolution over the spectra.
    acoustic_layers, visual_layers, cgima_layers, disa_layers : int, optional
        Number of layers of each branch.
    attention_window : int, optional
        Frames (of 40 ms) on either side that each layer of attention over time covers.
    speaker_reach : int, optional
        Frames on either side that attention between speakers covers.
    expansion : int, optional
        Size of the hidden layer of a feedforward module, as a multiple of `width`.
    dropout : float, optional
    voiceprint_dimension : int, optional
        Dimension of speaker embeddings. 192 is the dimension of CAM++.
    visual : {"compact", "lrasd", "resnet"}, optional
        Visual encoder: one that can be trained on a CPU, the encoder of LR-ASD, or a ResNet18.
    face_size : int, optional
        Width and height in pixels to which face crops are downsampled. 56 costs a quarter of 112.
    fusion : {"cgima", "attention", "concat"}, optional
        Audio-visual fusion: gated cross-modal attention, attention without gates, or
        concatenation.
    decoder : {"disa", "mean", "none", "fixed"}, optional
        How speakers exchange information: by attention, through the mean of the others, not at
        all, or by concatenation of at most `max_targets` speakers.
    max_targets : int, optional
        Largest number of speakers, used by "fixed" only.
    lags : int, optional
        Largest lag between audio and video that the gates of "cgima" compare, in frames of 40 ms.
    first_pass : bool, optional
        Take the posteriors of a first pass over the sound as a further input, and add the output
        to their log-odds. Before training, the network adds nothing (cf. DiaCorrect, Han et al.
        2023, https://arxiv.org/abs/2309.08377).
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

    FORMER_HPARAMS: ClassVar = {
        "context": "attention_window",
        "max_slots": "max_targets",
        "window": "speaker_reach",
    }

    def __init__(
        self,
        width: int = 128,
        heads: int = 4,
        num_mels: int = 40,
        channels: Sequence[int] = (16, 16, 32, 32),
        acoustic_layers: int = 1,
        visual_layers: int = 1,
        cgima_layers: int = 1,
        disa_layers: int = 2,
        attention_window: int = 25,
        speaker_reach: int = 0,
        expansion: int = 2,
        dropout: float = 0.1,
        voiceprint_dimension: int = 192,
        visual: Literal["compact", "lrasd", "resnet"] = "lrasd",
        face_size: int = 112,
        fusion: Literal["cgima", "attention", "concat"] = "cgima",
        decoder: Literal["disa", "mean", "none", "fixed"] = "disa",
        max_targets: int = 6,
        lags: int = LAGS,
        first_pass: bool = False,
        sample_rate: int = SAMPLE_RATE,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        if sample_rate != SAMPLE_RATE:
            raise ValueError(f"HMSANet is defined for 16 kHz audio, not {sample_rate} Hz")
        channels = list(channels)
        self.save_hyperparameters(ignore=["task"])

        attention = {
            "num_heads": heads,
            "window": attention_window,
            "expansion": expansion,
            "dropout": dropout,
        }
        self.acoustic = TargetAcoustic(
            width,
            num_mels,
            channels,
            sample_rate,
            voiceprint_dimension,
            acoustic_layers,
            first_pass,
            **attention,
        )
        self.visual = TargetVisual(visual, face_size, width, visual_layers, **attention)
        if fusion == "concat":
            self.fusion = Concatenation(width)
        else:
            sound = SPECTRA_PER_FRAME * self.acoustic.detail_dimension
            gated = fusion == "cgima"
            self.fusion = CGIMA(width, sound, cgima_layers, gated=gated, lags=lags, **attention)
        self.decoder = TargetDecoder(
            decoder,
            width,
            self.acoustic.detail_dimension,
            disa_layers,
            reach=speaker_reach,
            max_targets=max_targets,
            **attention,
        )
        self.residual = None
        if first_pass:
            self.residual = nn.Parameter(torch.ones(1))
            nn.init.zeros_(self.decoder.head.weight)
            nn.init.zeros_(self.decoder.head.bias)

    @property
    def visual_dimension(self) -> int:
        """Dimension of :meth:`visual_features`."""
        return self.visual.encoder.dimension

    def num_frames(self, num_samples: int) -> int:
        """Number of output frames (one every 10 ms) for `num_samples` samples."""
        return SPECTRA_PER_FRAME * (num_samples // SAMPLES_PER_FRAME)

    def receptive_field_size(self, num_frames: int = 1) -> int:
        """Number of samples that `num_frames` output frames span."""
        return num_frames * SAMPLES_PER_FRAME // SPECTRA_PER_FRAME

    def receptive_field_center(self, frame: int = 0) -> int:
        """Index of the sample in the middle of an output frame."""
        size = self.receptive_field_size()
        return frame * size + (size - 1) // 2

    def visual_features(
        self, faces: torch.Tensor, face_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Encode face crops. The model accepts these features in place of the crops.

        Parameters
        ----------
        faces : (batch, targets, frames, height, width) tensor
            Grey face crops in [0, 255].
        face_mask : (batch, targets, frames) tensor, optional
            Frames in which the face is present. Pixels of other frames are ignored.

        Returns
        -------
        features : (batch, targets, frames, visual_dimension) tensor
            0 where the face is absent.
        """
        if face_mask is None:
            face_mask = torch.ones(faces.shape[:3], device=faces.device)
        return self.visual.encode(faces, face_mask.bool())

    def predict(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
        voiceprints: torch.Tensor | None = None,
        speaker_features: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        first_pass: torch.Tensor | None = None,
        num_speaking: torch.Tensor | None = None,
        branches: Collection[str] = BRANCHES,
    ) -> HMSAOutput:
        """Compute the outputs of all branches.

        Parameters
        ----------
        branches : collection of str, optional
            Branches whose outputs are wanted. Only these, and those they depend on, are computed.
            Defaults to all of "acoustic", "visual", "fusion" and "decoder".
        others
            See :meth:`forward`.

        Returns
        -------
        output : HMSAOutput
        """
        x = complete(
            waveforms,
            faces,
            face_mask,
            target_mask,
            voiceprints,
            speaker_features,
            frame_mask,
            first_pass,
            num_speaking,
            visual_dimension=self.visual_dimension,
            voiceprint_dimension=self.hparams.voiceprint_dimension,
        )
        outputs: dict[str, torch.Tensor] = {}
        decides = "decoder" in branches
        fuses = decides or "fusion" in branches
        frames, present = x.targets.each(x.real), x.targets.pack(x.present)
        corrected = None
        if self.residual is not None:
            corrected = x.targets.pack(first_pass_features(x.first_pass, x.num_speaking))
        if fuses or "acoustic" in branches:
            a, detail = self.acoustic(
                x.waveforms, x.voiceprints, x.speaker_features, corrected, x.targets, x.real
            )
            outputs["acoustic_logits"] = self.acoustic.head(a).squeeze(-1)
        if fuses or "visual" in branches:
            faces = self.visual.encode(x.faces, x.present) if x.faces.ndim == 5 else x.faces
            v, picture = self.visual(x.targets.pack(faces), present, frames)
            outputs["visual_logits"] = self.visual.head(v).squeeze(-1)
        if fuses:
            z, agreement = self.fusion(a, v, detail.flatten(2), picture, present, frames)
            outputs["fused_logits"] = self.fusion.head(z).squeeze(-1)
            if agreement is not None:
                outputs |= agreement._asdict()
        attention: list[torch.Tensor] = []
        if decides:
            outputs["logits"], attention = self.decoder(z, detail, x.targets, x.real)
            if corrected is not None:
                log_odds = corrected[..., 0].flatten(1)
                outputs["logits"] = outputs["logits"] + self.residual * log_odds
        outputs = {name: x.targets.unpack(one) for name, one in outputs.items()}
        return HMSAOutput(**outputs, attention=tuple(attention))

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
        voiceprints: torch.Tensor | None = None,
        speaker_features: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        first_pass: torch.Tensor | None = None,
        num_speaking: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the speech activity of target speakers.

        Voiceprints, faces and speaker features are optional. Each may be missing for some or all
        speakers, and in some or all frames.

        Parameters
        ----------
        waveforms : (batch, 1, samples) tensor
            16 kHz audio that starts together with the first video frame. There are
            T = samples // 640 frames.
        faces : (batch, targets, T, height, width) or (batch, targets, T, visual_dimension) tensor
            Grey face crops in [0, 255], or their :meth:`visual_features`.
        face_mask : (batch, targets, T) tensor, optional
            Frames in which the face is present. Other frames of `faces` are ignored.
        target_mask : (batch, targets) tensor, optional
            True for target speakers, False for padding.
        voiceprints : (batch, targets, voiceprint_dimension) tensor, optional
            Speaker embeddings of the target speakers, of any norm; 0 where unknown.
        speaker_features : (batch, ceil(T / 4), voiceprint_dimension) tensor, optional
            Speaker embeddings of windows of the recording. Window i is centred on frame
            4i + 1.5; 0 where unknown.
        frame_mask : (batch, T) tensor, optional
            True for frames that are not padding. Padding does not affect the other frames.
        first_pass : (batch, targets, 4 x T) tensor, optional
            Probability of speech of each target according to a first pass over the sound; negative
            where unknown. Ignored by networks without `first_pass`, like the next one.
        num_speaking : (batch, 4 x T, 3) tensor, optional
            Probability that nobody, one person, and two or more speak; zero where unknown.

        Returns
        -------
        activities : (batch, 4 x T, targets) tensor
            Posteriors of speech, at 100 Hz; 0 for padding targets and padding frames.

        Raises
        ------
        ValueError
            When the shapes of the inputs are inconsistent.
        """
        output = self.predict(
            waveforms,
            faces,
            face_mask,
            target_mask,
            voiceprints,
            speaker_features,
            frame_mask,
            first_pass,
            num_speaking,
        )
        activities = output.logits.sigmoid()
        if target_mask is not None:
            activities = activities * target_mask.bool().unsqueeze(2)
        if frame_mask is not None:
            real = frame_mask.bool().repeat_interleave(SPECTRA_PER_FRAME, dim=1)
            activities = activities * real.unsqueeze(1)
        return activities.transpose(1, 2)
