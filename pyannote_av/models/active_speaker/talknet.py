"""TalkNet: active speaker detection with long-term temporal context.

References
----------
Tao, Pan, Das, Qian, Shou, Li. Is someone speaking? Exploring long-term temporal features for
audio-visual active speaker detection. ACM MM 2021. https://github.com/TaoRuijie/TalkNet-ASD (MIT)
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import nn

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel, Heads
from pyannote_av.models.blocks.attention import AttentionLayer, CrossAttention
from pyannote_av.models.blocks.mfcc import MFCC
from pyannote_av.models.blocks.se_resnet import SEResNet
from pyannote_av.models.blocks.visual_frontend import VisualEncoder

_DIMENSION = 128

_ATTENTION_PARTS = {
    "self_attn": "attention",
    "linear1": "feedforward.0",
    "linear2": "feedforward.3",
    "norm1": "norm1",
    "norm2": "norm2",
}
_UNIT_PARTS = {
    "conv1a": "first.conv1",
    "bn1a": "first.norm1",
    "conv2a": "first.conv2",
    "outbna": "first.norm2",
    "downsample": "shortcut",
    "conv1b": "second.conv1",
    "bn1b": "second.norm1",
    "conv2b": "second.conv2",
    "outbnb": "second.norm2",
}


def rename_attention(name: str) -> str | None:
    """Map the name of a tensor in the authors' ``attentionLayer`` to our name."""
    part, _, tensor = name.partition(".")
    return f"{_ATTENTION_PARTS[part]}.{tensor}" if part in _ATTENTION_PARTS else None


def rename_common(name: str) -> str | None:
    """Map the authors' name of a tensor to ours, in the parts that TalkNet and LoCoNet share."""
    if match := re.fullmatch(r"model\.visualFrontend\.frontend3D\.(\d\.\w+)", name):
        return f"visual.pictures.stem.{match[1]}"
    if match := re.fullmatch(r"model\.visualFrontend\.resnet\.layer(\d)\.(\w+)\.(\w+)", name):
        stage, part, tensor = match.groups()
        if part in _UNIT_PARTS:
            return f"visual.pictures.trunk.{int(stage) - 1}.{_UNIT_PARTS[part]}.{tensor}"
    if match := re.fullmatch(r"model\.visualTCN\.net\.(\d)\.net\.(\d)\.(\w+)", name):
        unit, layer, tensor = match.groups()
        tensor = {"gamma": "weight", "beta": "bias"}.get(tensor, tensor)
        return f"visual.temporal.units.{unit}.layers.{layer}.{tensor}"
    if match := re.fullmatch(r"model\.visualConv1D\.net\.(\d\.\w+)", name):
        return f"visual.temporal.reduce.{match[1]}"
    if match := re.fullmatch(r"model\.cross(A2V|V2A)\.(.+)", name):
        branch = {"A2V": "acoustic", "V2A": "visual"}[match[1]]
        part = rename_attention(match[2])
        return part and f"fusion.{branch}.{part}"
    if match := re.fullmatch(r"loss(AV|A|V)\.FC\.(\w+)", name):
        branch = {"AV": "", "A": "acoustic_", "V": "visual_"}[match[1]]
        return f"{branch}classifier.{match[2]}"
    return None


def _rename_acoustic(name: str) -> str | None:
    """Map the name of a tensor in the authors' ``audioEncoder`` to our name."""
    if match := re.fullmatch(r"(conv1|bn1)\.(\w+)", name):
        return f"acoustic.stem.{ {'conv1': 0, 'bn1': 1}[match[1]] }.{match[2]}"
    if match := re.fullmatch(r"layer(\d)\.(\d)\.(.+)", name):
        stage, block, tensor = match.groups()
        for theirs, ours in (
            (r"bn(\d)", r"norm\1"),
            (r"se\.fc", "excitation.gate"),
            ("downsample", "shortcut"),
        ):
            tensor = re.sub(rf"^{theirs}\.", rf"{ours}.", tensor)
        return f"acoustic.stages.{int(stage) - 1}.{block}.{tensor}"
    return None


class TalkNet(ActiveSpeakerModel):
    """TalkNet; see :class:`~pyannote_av.models.active_speaker.base.ActiveSpeakerModel`.

    The published score, to which calibration thresholds refer, is the raw logit of "speaking".

    Parameters
    ----------
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``; the network is defined for 16 kHz mono.
    per_clip_conv3d : bool, optional
        Whether to process each item of a batch as a separate clip. The published code concatenates
        the clips of a batch in time before the first convolution. The first and last two frames of
        a clip then include frames of neighbouring clips, and scores depend on the rest of the
        batch. ``False`` reproduces this. Scores of a single clip, as in the published evaluation,
        are the same either way, so imported checkpoints keep ``True``. In training, the statistics
        of batch normalisation depend on the whole batch in both cases, as in any such network.

    Notes
    -----
    The authors' checkpoints (and the published number of parameters) include the unused layer
    ``visual.pictures.trunk.0.shortcut``. It is kept, without gradient.
    """

    loss_weights: ClassVar = {"fused": 1.0, "acoustic": 0.4, "visual": 0.4}
    learning_rate: ClassVar[float] = 1e-4

    def __init__(
        self,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
        per_clip_conv3d: bool = True,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("per_clip_conv3d")
        self.spectrum = MFCC(sample_rate)
        self.acoustic = SEResNet()
        self.visual = VisualEncoder(per_clip_conv3d, unused_shortcut=True)
        self.fusion = CrossAttention(_DIMENSION)
        self.decoder = AttentionLayer(2 * _DIMENSION)
        self.classifier = nn.Linear(2 * _DIMENSION, 2)
        self.acoustic_classifier = nn.Linear(_DIMENSION, 2)
        self.visual_classifier = nn.Linear(_DIMENSION, 2)

    @staticmethod
    def rename(name: str) -> str | None:
        """See :meth:`ActiveSpeakerModel.rename`."""
        if name.startswith("model.audioEncoder."):
            return _rename_acoustic(name.removeprefix("model.audioEncoder."))
        if name.startswith("model.selfAV."):
            part = rename_attention(name.removeprefix("model.selfAV."))
            return part and f"decoder.{part}"
        return rename_common(name)

    def heads(self, spectra: torch.Tensor, faces: torch.Tensor) -> Heads:
        """See :meth:`ActiveSpeakerModel.heads`; spectra are MFCC with 13 coefficients."""
        features = self.acoustic(spectra), self.visual(faces)
        acoustic, visual = self.fusion(*features)
        fused = self.decoder(torch.cat([acoustic, visual], dim=-1))
        return Heads(
            self.classifier(fused),
            self.acoustic_classifier(acoustic),
            self.visual_classifier(visual),
            *features,
        )
