"""VGGish with features at 25 Hz: the acoustic branch of LoCoNet.

References
----------
Hershey, Chaudhuri, Ellis, Gemmeke, Jansen, Moore et al. CNN architectures for large-scale audio
classification. ICASSP 2017.

Wang, Cheng, Bertasius. LoCoNet: long-short context network for active speaker detection. CVPR 2024.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def _convolutions(*channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class VGGish(nn.Module):
    """Log-mel spectra at 100 Hz to one 128-d feature per video frame.

    Features of the third block (25 Hz) are concatenated with upsampled features of the fourth
    (12.5 Hz), whose receptive field is about 0.3 s on either side.

    The authors start from VGGish trained on AudioSet. Those weights are not part of this package.
    For training from scratch, weights are initialised such that activations keep their scale,
    because there are no normalisation layers.
    """

    def __init__(self):
        super().__init__()
        self.block1 = _convolutions(1, 64)
        self.block2 = _convolutions(64, 128)
        self.block3 = _convolutions(128, 256, 256)
        self.block4 = _convolutions(256, 512, 512)
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.ConvTranspose2d(512, 256, 2, stride=2)
        self.reduce = nn.Sequential(nn.Conv2d(512, 256, 1), nn.Conv2d(256, 128, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """(batch, 4 x frames, 64) to (batch, frames, 128)."""
        num_spectra = spectra.shape[1]
        # the slowest block needs a multiple of 8; like the published code, always add some padding
        spectra = nn.functional.pad(spectra, (0, 0, 0, 8 - num_spectra % 8))
        x = self.pool(self.block1(spectra.unsqueeze(1)))
        x = self.pool(self.block2(x))
        fast = self.block3(x)
        slow = self.upsample(self.block4(self.pool(fast)))
        features = self.reduce(torch.cat([fast, slow], dim=1)).mean(dim=3)
        return features[:, :, : num_spectra // 4].transpose(1, 2)
