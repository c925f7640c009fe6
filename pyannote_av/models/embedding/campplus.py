"""CAM++: speaker embedding by a densely connected TDNN with context-aware masking.

Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware
Masking", Interspeech 2023 (https://arxiv.org/abs/2303.00332). Parameters have the same names as in
the public checkpoints of the 3D-Speaker project, which can be loaded unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.blocks.pooling import StatsPool
from pyannote.audio.utils.receptive_field import (
    multi_conv_num_frames,
    multi_conv_receptive_field_center,
    multi_conv_receptive_field_size,
)
from torch import nn

from pyannote_av.core.checkpoint import CheckpointError, load_checkpoint
from pyannote_av.core.model import AVModel
from pyannote_av.models.blocks.dtdnn import (
    TDNN,
    DenseBlock,
    FrontEnd,
    Projection,
    Transition,
    activation,
)
from pyannote_av.models.blocks.fbank import Fbank


class CAMPPlus(AVModel):
    """CAM++ speaker embedding as a pyannote.audio model.

    A waveform is encoded once by :meth:`frame_features`; :meth:`pool` then yields the embedding
    of any number of speakers, each given by the frames where that speaker is active.

    Parameters
    ----------
    dimension : int, optional
        Dimension of the embedding.
    num_filters : int, optional
        Number of mel filters, a multiple of 8.
    growth : int, optional
        Channels added by every dense layer.
    channels : int, optional
        Channels between the front end and the first dense block.
    sample_rate, num_channels, task
        As in ``pyannote.audio.Model``.
    """

    #: (layers, dilation) of the dense blocks
    BLOCKS = ((12, 1), (24, 2), (16, 2))
    #: minimum number of pooled frames (20 ms each), since a standard deviation needs two
    MIN_FRAMES = 2

    def __init__(
        self,
        dimension: int = 192,
        num_filters: int = 80,
        growth: int = 32,
        channels: int = 128,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("dimension", "num_filters", "growth", "channels")
        self.fbank = Fbank(num_filters, sample_rate)
        front_end_channels = 32
        self.head = FrontEnd(front_end_channels)

        layers = OrderedDict(tdnn=TDNN(front_end_channels * num_filters // 8, channels))
        for i, (num_layers, dilation) in enumerate(self.BLOCKS, 1):
            layers[f"block{i}"] = DenseBlock(num_layers, channels, growth, dilation)
            channels += num_layers * growth
            layers[f"transit{i}"] = Transition(channels, channels // 2)
            channels //= 2
        layers["out_nonlinear"] = activation(channels)
        layers["dense"] = Projection(2 * channels, dimension)
        self.xvector = nn.ModuleDict(layers)
        self._pool = StatsPool()

        if task is None:
            self.specifications = Specifications(
                problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=10.0
            )

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> CAMPPlus:
        """Load a state dictionary published by the 3D-Speaker project.

        Parameters
        ----------
        path : str or Path
            For instance ``campplus_cn_en_common.pt``.

        Returns
        -------
        model : CAMPPlus
            In evaluation mode.

        Raises
        ------
        CheckpointError
            If the file contains anything else.
        """
        model, state = cls(), load_checkpoint(path)
        try:
            model.load_state_dict(state, strict=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} holds no weights of CAM++: {error}") from error
        return model.eval()

    @property
    def dimension(self) -> int:
        """Dimension of the embedding."""
        return self.hparams.dimension

    @property
    def _convolutions(self) -> dict[str, list[int]]:
        """Filterbank, front end and TDNN, described as convolutions over time."""
        return {
            "kernel_size": [self.fbank.window_size, 5],
            "stride": [self.fbank.step, 2],
            "padding": [0, 2],
            "dilation": [1, 1],
        }

    def num_frames(self, num_samples: int) -> int:
        """Number of frames of :meth:`frame_features` for `num_samples` samples."""
        if num_samples < self.fbank.window_size:
            return 0
        return multi_conv_num_frames(num_samples, **self._convolutions)

    def receptive_field_size(self, num_frames: int = 1) -> int:
        """Number of samples that `num_frames` frames represent when they are pooled.

        The true receptive field is larger: dense layers have a wider context, and masking uses
        the whole signal.
        """
        return multi_conv_receptive_field_size(
            num_frames,
            **{k: v for k, v in self._convolutions.items() if k != "padding"},
            padding=[0, 0],
        )

    def receptive_field_center(self, frame: int = 0) -> int:
        """Index of the sample at the centre of frame `frame`."""
        return multi_conv_receptive_field_center(frame, **self._convolutions)

    def frame_features(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Encode waveforms, independently of who speaks.

        Parameters
        ----------
        waveforms : (batch, 1, num_samples) tensor

        Returns
        -------
        features : (batch, channels, num_frames) tensor
            One frame every 20 ms.

        Raises
        ------
        ValueError
            If the waveforms are shorter than :attr:`MIN_FRAMES` frames (45 ms).
        """
        if self.num_frames(waveforms.shape[-1]) < self.MIN_FRAMES:
            raise ValueError(
                f"{waveforms.shape[-1] / self.hparams.sample_rate:.3f} s are too short for a "
                "speaker embedding (at least 0.045 s)"
            )
        fbank = self.fbank(waveforms.squeeze(1))
        x = self.head((fbank - fbank.mean(dim=1, keepdim=True)).transpose(1, 2))
        for name, layer in self.xvector.items():
            if name != "dense":
                x = layer(x)
        return x

    def pool(self, features: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Embed speakers, given the frames where they are active.

        Parameters
        ----------
        features : (batch, channels, num_frames) tensor
            Output of :meth:`frame_features`.
        weights : (batch, num_weights) or (batch, speakers, num_weights) tensor, optional
            Activity in [0, 1] over the same time span, at any frame rate. Defaults to 1.

        Returns
        -------
        embeddings : (batch, dimension) or (batch, speakers, dimension) tensor
            NaN for speakers who are active in fewer than :attr:`MIN_FRAMES` frames.
        """
        if weights is None:
            return self.xvector["dense"](self._pool(features))
        weights = weights.to(features)
        by_speaker = weights if weights.ndim == 3 else weights.unsqueeze(1)
        by_speaker = F.interpolate(by_speaker, size=features.shape[-1], mode="nearest")
        statistics = self._pool(features, by_speaker)
        embeddings = self.xvector["dense"](statistics.flatten(0, 1))
        embeddings = embeddings.unflatten(0, by_speaker.shape[:2])
        too_short = (by_speaker > 0).sum(dim=-1, keepdim=True) < self.MIN_FRAMES
        embeddings = embeddings.masked_fill(too_short, torch.nan)
        return embeddings if weights.ndim == 3 else embeddings.squeeze(1)

    def forward(self, waveforms: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Embed waveforms.

        Parameters
        ----------
        waveforms : (batch, 1, num_samples) tensor
        weights : (batch, num_weights) or (batch, speakers, num_weights) tensor, optional
            See :meth:`pool`.

        Returns
        -------
        embeddings : (batch, dimension) or (batch, speakers, dimension) tensor
        """
        return self.pool(self.frame_features(waveforms), weights)
