"""Visual encoder of TalkNet and LoCoNet: face crops to one feature per frame.

References
----------
Tao, Pan, Das, Qian, Shou, Li. Is someone speaking? Exploring long-term temporal features for
audio-visual active speaker detection. ACM MM 2021. https://github.com/TaoRuijie/TalkNet-ASD (MIT)

Afouras, Chung, Senior, Vinyals, Zisserman. Deep audio-visual speech recognition. TPAMI 2018.
"""

from __future__ import annotations

import torch
from torch import nn

#: frames on either side that the first convolution covers
REACH = 2

_PICTURE_FEATURES = 512
_FEATURES = 128


def normalise(faces: torch.Tensor) -> torch.Tensor:
    """Scale grey crops in [0, 255] to the range that the networks were trained on."""
    return (faces / 255 - 0.4161) / 0.1688


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.01, eps=0.001)


class _Unit(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum, before and after normalisation and ReLU."""
        x = self.conv2(self.norm1(self.conv1(x)).relu()) + shortcut
        return x, self.norm2(x).relu()


class _Stage(nn.Module):
    """Two units. The shortcut of the second is the sum in the first, before normalisation."""

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, unused_shortcut: bool = False
    ):
        super().__init__()
        self.first = _Unit(in_channels, channels, stride)
        self.second = _Unit(channels, channels)
        self.is_resized = stride != 1
        if self.is_resized or unused_shortcut:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            # disable the gradient of an unused layer: distributed training would wait for it
            self.shortcut.requires_grad_(self.is_resized)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summed, x = self.first(x, self.shortcut(x) if self.is_resized else x)
        return self.second(x, summed)[1]


class PictureEncoder(nn.Module):
    """One 512-d feature per face crop, from this crop and two on either side.

    The first convolution covers five crops (a "Conv3d" in the published code). Crops have one
    channel, so it is computed as a two-dimensional convolution over windows of five crops.

    Parameters
    ----------
    unused_shortcut : bool, optional
        Keep an unused convolution whose weights are in TalkNet's checkpoints.
    """

    def __init__(self, unused_shortcut: bool = False):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2 * REACH + 1, 64, 7, stride=2, padding=3, bias=False),
            _norm(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.trunk = nn.Sequential(
            _Stage(64, 64, unused_shortcut=unused_shortcut),
            _Stage(64, 128, stride=2),
            _Stage(128, 256, stride=2),
            _Stage(256, _PICTURE_FEATURES, stride=2),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalised windows (n, 5, 112, 112) to features (n, 512) of their centre crops."""
        windows = windows.contiguous(memory_format=torch.channels_last)
        return self.trunk(self.stem(windows)).mean(dim=(2, 3))


class _TemporalUnit(nn.Module):
    """Depthwise separable convolution over time with a shortcut (V-TCN)."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.PReLU(),
            # over channels and the whole sequence
            nn.GroupNorm(1, channels, eps=1e-8),
            nn.Conv1d(channels, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class TemporalEncoder(nn.Module):
    """Features of single crops to features with context of the whole clip (V-TCN, V-Conv1D)."""

    def __init__(self):
        super().__init__()
        self.units = nn.Sequential(*(_TemporalUnit(_PICTURE_FEATURES) for _ in range(5)))
        self.reduce = nn.Sequential(
            nn.Conv1d(_PICTURE_FEATURES, 256, 5, padding=2),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Conv1d(256, _FEATURES, 1),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, frames, 512) to (batch, frames, 128)."""
        return self.reduce(self.units(features.transpose(1, 2))).transpose(1, 2)


class VisualEncoder(nn.Module):
    """Grey face crops to one 128-d feature per crop.

    Parameters
    ----------
    per_clip_conv3d : bool, optional
        Whether to process each item of a batch as a separate clip. The published code concatenates
        them in time before the first convolution, which covers five frames. The first and last two
        frames of an item then include frames of its neighbours in the batch. ``False`` reproduces
        this.
    unused_shortcut : bool, optional
        See :class:`PictureEncoder`.
    """

    def __init__(self, per_clip_conv3d: bool = True, unused_shortcut: bool = False):
        super().__init__()
        self.per_clip_conv3d = per_clip_conv3d
        self.pictures = PictureEncoder(unused_shortcut)
        self.temporal = TemporalEncoder()

    def forward(self, faces: torch.Tensor, joined: int | None = None) -> torch.Tensor:
        """(batch, frames, 112, 112) in [0, 255] to (batch, frames, 128).

        `joined` is the number of consecutive items that form one clip. It defaults to 1, or to the
        whole batch without `per_clip_conv3d`.
        """
        batch, num_frames, height, width = faces.shape
        if joined is None:
            joined = 1 if self.per_clip_conv3d else batch
        clips = normalise(faces).reshape(-1, joined * num_frames, height, width)
        count = clips.shape[1]
        padded = nn.functional.pad(clips, (0, 0, 0, 0, REACH, REACH))
        windows = torch.stack([padded[:, i : i + count] for i in range(2 * REACH + 1)], dim=2)
        features = self.pictures(windows.reshape(batch * num_frames, -1, height, width))
        return self.temporal(features.reshape(batch, num_frames, _PICTURE_FEATURES))
