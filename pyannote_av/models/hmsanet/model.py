"""HMSA-Net: when does each of these people speak, from their voices and faces.

References
----------
Chen, He, Du, Siniscalchi, Liu, Wan et al. HMSA-Net: hierarchical modality-speaker adaptive network
for audio-visual speaker diarization. IEEE TASLP 2026, https://doi.org/10.1109/TASLPRO.2026.3698952.
Only the abstract is public; docs/hmsanet.md tells line by line what is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch

from pyannote_av.core.grid import SAMPLE_RATE, SAMPLES_PER_FRAME
from pyannote_av.core.model import AVModel
from pyannote_av.models.hmsanet.acoustic import SPECTRA_PER_FRAME, TargetAcoustic
from pyannote_av.models.hmsanet.cgima import CGIMA, Concatenation
from pyannote_av.models.hmsanet.decoder import TargetDecoder
from pyannote_av.models.hmsanet.inputs import complete
from pyannote_av.models.hmsanet.output import AGREEMENT, HMSAOutput
from pyannote_av.models.hmsanet.visual import TargetVisual

#: each of which says something of its own
BRANCHES = ("acoustic", "visual", "fusion", "decoder")

#: hyper-parameters of a network as large as the lineage's (38 M parameters), for training on GPUs;
#: the defaults are for CPUs (2.2 M)
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


class HMSANet(AVModel):
    """Activity of target speakers, each given by a voiceprint, a face, or both.

    Parameters
    ----------
    width : int, optional
        Of features; 128 is compact.
    heads : int, optional
        Of attention, and gates per direction.
    num_mels : int, optional
    channels : sequence of int, optional
        Of the convolutions over spectra.
    acoustic_layers, visual_layers, cgima_layers, disa_layers : int, optional
    context : int, optional
        Frames (of 40 ms) that attention over time sees to either side, in each layer.
    window : int, optional
        Frames that speakers see of each other to either side.
    expansion : int, optional
        Of the hidden layers of feedforwards.
    dropout : float, optional
    voiceprint_dimension : int, optional
        192 is that of CAM++.
    visual : {"compact", "lrasd", "resnet"}, optional
        What looks at pictures: an encoder made to be trained on CPUs, that of LR-ASD, a ResNet18.
    face_size : int, optional
        Pictures are reduced to that many pixels in width and height; 56 costs a quarter of 112.
    fusion : {"cgima", "attention", "concat"}, optional
        How sound and picture meet: with gates, without, or side by side.
    decoder : {"disa", "mean", "none", "fixed"}, optional
        How speakers see each other: by attention, as a mean, not at all, or in `max_slots` places.
    max_slots : int, optional
        Only for "fixed".
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    """

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
        context: int = 25,
        window: int = 0,
        expansion: int = 2,
        dropout: float = 0.1,
        voiceprint_dimension: int = 192,
        visual: Literal["compact", "lrasd", "resnet"] = "lrasd",
        face_size: int = 112,
        fusion: Literal["cgima", "attention", "concat"] = "cgima",
        decoder: Literal["disa", "mean", "none", "fixed"] = "disa",
        max_slots: int = 6,
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
            "window": context,
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
            **attention,
        )
        self.visual = TargetVisual(visual, face_size, width, visual_layers, **attention)
        if fusion == "concat":
            self.fusion = Concatenation(width)
        else:
            sound = SPECTRA_PER_FRAME * self.acoustic.detail_dimension
            gated = fusion == "cgima"
            self.fusion = CGIMA(width, sound, cgima_layers, gated=gated, **attention)
        self.decoder = TargetDecoder(
            decoder,
            width,
            self.acoustic.detail_dimension,
            disa_layers,
            reach=window,
            max_slots=max_slots,
            **attention,
        )

    @property
    def visual_dimension(self) -> int:
        """Of :meth:`visual_features`."""
        return self.visual.encoder.dimension

    def num_frames(self, num_samples: int) -> int:
        """Number of decisions for so many samples, one every 10 ms."""
        return SPECTRA_PER_FRAME * (num_samples // SAMPLES_PER_FRAME)

    def receptive_field_size(self, num_frames: int = 1) -> int:
        """Samples that so many decisions are about."""
        return num_frames * SAMPLES_PER_FRAME // SPECTRA_PER_FRAME

    def receptive_field_center(self, frame: int = 0) -> int:
        """Sample in the middle of what a decision is about."""
        size = self.receptive_field_size()
        return frame * size + (size - 1) // 2

    def visual_features(
        self, faces: torch.Tensor, face_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the encoder makes of pictures; may be given to the model in their place.

        Parameters
        ----------
        faces : (batch, slots, frames, height, width) tensor
            Grey pictures in [0, 255].
        face_mask : (batch, slots, frames) tensor, optional
            Where faces are present. Pixels elsewhere are not read.

        Returns
        -------
        features : (batch, slots, frames, visual_dimension) tensor
            0 where no face is present.
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
        branches: Collection[str] = BRANCHES,
    ) -> HMSAOutput:
        """All that the network says.

        Parameters
        ----------
        branches : collection of str, optional
            Who is asked: what nobody needs is not computed. Defaults to all of "acoustic",
            "visual", "fusion" and "decoder".
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
            visual_dimension=self.visual_dimension,
            voiceprint_dimension=self.hparams.voiceprint_dimension,
        )
        said: dict[str, torch.Tensor] = {}
        decides = "decoder" in branches
        fuses = decides or "fusion" in branches
        frames, present = x.targets.each(x.real), x.targets.pack(x.present)
        if fuses or "acoustic" in branches:
            a, detail = self.acoustic(
                x.waveforms, x.voiceprints, x.speaker_features, x.targets, x.real
            )
            said["acoustic_logits"] = self.acoustic.head(a).squeeze(-1)
        if fuses or "visual" in branches:
            faces = self.visual.encode(x.faces, x.present) if x.faces.ndim == 5 else x.faces
            v, picture = self.visual(x.targets.pack(faces), present, frames)
            said["visual_logits"] = self.visual.head(v).squeeze(-1)
        if fuses:
            z, agreement = self.fusion(a, v, detail.flatten(2), picture, present, frames)
            said["fused_logits"] = self.fusion.head(z).squeeze(-1)
            if agreement is not None:
                said |= zip(AGREEMENT, agreement, strict=True)
        attention: list[torch.Tensor] = []
        if decides:
            said["logits"], attention = self.decoder(z, detail, x.targets, x.real)
        said = {name: x.targets.unpack(one) for name, one in said.items()}
        return HMSAOutput(**said, attention=tuple(attention))

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
        voiceprints: torch.Tensor | None = None,
        speaker_features: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Activities of target speakers.

        Whatever is not given is unknown: any of voiceprints, faces and the voices heard around may
        be missing, for all speakers or some, at all times or some.

        Parameters
        ----------
        waveforms : (batch, 1, samples) tensor
            16 kHz; the first sample is heard when the first picture is shown. There are
            T = samples // 640 frames.
        faces : (batch, slots, T, height, width) or (batch, slots, T, visual_dimension) tensor
            Grey pictures in [0, 255], or what :meth:`visual_features` made of them.
        face_mask : (batch, slots, T) tensor, optional
            Where faces are present. Nothing else of `faces` is read.
        target_mask : (batch, slots) tensor, optional
            Which slots are somebody; others are padding.
        voiceprints : (batch, slots, voiceprint_dimension) tensor, optional
            Of target speakers, of any length; 0 where unknown.
        speaker_features : (batch, ceil(T / 4), voiceprint_dimension) tensor, optional
            Voiceprints of windows of the recording, window i centred on frame 4i + 1.5; 0 where
            unknown.
        frame_mask : (batch, T) tensor, optional
            Which frames are real; others are padding, and change nothing.

        Returns
        -------
        activities : (batch, 4 x T, slots) tensor
            Probability of speaking, at 100 Hz; 0 for slots and frames that are padding.

        Raises
        ------
        ValueError
            When shapes do not fit each other.
        """
        output = self.predict(
            waveforms, faces, face_mask, target_mask, voiceprints, speaker_features, frame_mask
        )
        activities = output.logits.sigmoid()
        if target_mask is not None:
            activities = activities * target_mask.bool().unsqueeze(2)
        if frame_mask is not None:
            real = frame_mask.bool().repeat_interleave(SPECTRA_PER_FRAME, dim=1)
            activities = activities * real.unsqueeze(1)
        return activities.transpose(1, 2)
