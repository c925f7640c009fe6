"""Number of speakers from the linkage tree of windows: the count of CYS-MSD, for any similarity."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pyannote_av.clustering.linkage_tree import NUM_FEATURES, features_of_tree
from pyannote_av.core.model import AVModel


class TreeCounter(AVModel):
    """Number of speakers from the linkage tree of windows.

    The tree shows how similar windows are. It does not show who speaks. A network that was trained
    on few people can therefore count others. It can only be used with the similarity that it was
    trained for.

    Parameters
    ----------
    max_speakers : int, optional
        Largest number that can be predicted.
    width : int, optional
        Width of the hidden layer.
    dropout : float, optional
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``.

    References
    ----------
    Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker
    diarization. Interspeech 2025. The paper predicts the number from the mean embedding of all
    windows.
    """

    def __init__(
        self,
        max_speakers: int = 10,
        width: int = 256,
        dropout: float = 0.3,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("max_speakers", "width", "dropout")
        self.norm = nn.BatchNorm1d(NUM_FEATURES)
        self.head = nn.Sequential(
            nn.Linear(NUM_FEATURES, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, max_speakers),
        )

    @property
    def example_input_array(self) -> dict[str, torch.Tensor]:
        """Noise, with which Lightning computes shapes."""
        return {"features": torch.randn(2, NUM_FEATURES, device=self.device)}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Parameters
        ----------
        features : (batch, 25) tensor
            See :func:`~pyannote_av.clustering.linkage_tree.features_of_tree`.

        Returns
        -------
        logits : (batch, max_speakers) tensor
            For 1, 2, ... speakers.
        """
        return self.head(self.norm(features))

    def count(self, tree: np.ndarray) -> int:
        """Count the speakers of one recording.

        Parameters
        ----------
        tree : (n - 1, 4) float array
            Average linkage of n windows, as scipy returns it.

        Returns
        -------
        count : int
            From 1 to `max_speakers`.
        """
        features = torch.from_numpy(features_of_tree(tree)).to(self.device)
        with torch.inference_mode():
            return 1 + int(self(features.unsqueeze(0)).argmax())
