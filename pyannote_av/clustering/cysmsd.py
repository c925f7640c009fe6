"""CYS-MSD ("count your speakers"): embeddings of windows, and the number of speakers.

The equations, with ``E_a`` the voice and ``E_v`` the face embedding of each window of a recording:

====  ====================================================  ============================
(0)   modality masking: ``E`` becomes 0 with probability p  :func:`mask_modality`
(1)   ``E_a' = ReLU(W_a E_a)``                              ``acoustic``
(2)   ``E_v' = ReLU(W_2 Drop(ReLU(W_1 E_v)))``              ``visual``
(3)   ``A = MultiHead(Q=E_a', K=V=E_v')``                   ``fusion``
(4)   ``R = alpha E_a' + (1 - alpha) A``                    :attr:`CYSOutput.embeddings`
(5)   ``p = sigmoid(FC(Drop(ReLU(FC(R)))))``                ``activity``
(6)   ``L_cls``, binary cross entropy                       ``activity_loss``
(7)   ``L_cont``, NT-Xent in a temporal window              ``nt_xent``
(8)   ``n = MLP(mean over windows of R)``                   ``counter``
(9)   ``L_count``, squared error                            ``count_loss``
(10)  ``L = beta (L_cls + L_cont) + (1 - beta) L_count``    ``total_loss``
====  ====================================================  ============================

The equation numbers are ours, and follow the order of the method. Two options are not published.
With ``counter="tree"``, (8) is ``n = argmax(MLP(tree of the voices))``, and (9) is cross entropy.
With ``corrects``, the embeddings of windows are not R but ``E_a + W R``, where W starts at 0.
Losses are in :mod:`pyannote_av.clustering.counting_losses`. The clustering into the predicted
number of speakers is in :mod:`pyannote_av.clustering.linkage`.

References
----------
Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker diarization.
Interspeech 2025. https://www.isca-archive.org/interspeech_2025/singh25_interspeech.html
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pyannote_av.clustering.linkage_tree import NUM_FEATURES, tree_features
from pyannote_av.core.model import AVModel


class CYSOutput(NamedTuple):
    """Output of the network.

    Attributes
    ----------
    embeddings : (batch, windows, width or voice_dimension) tensor
        Speaker embeddings of windows, to be compared by cosine similarity. 0 for padding.
    activity_logits : (batch, windows, max_speakers) tensor
        Logits of speaker activity. The order of speakers is arbitrary, and values of padding are
        undefined.
    count : (batch,) tensor
        Number of speakers, not rounded.
    count_logits : (batch, max_speakers) tensor or None
        Logits of 1, 2, ... speakers, with ``counter="tree"`` only.
    """

    embeddings: torch.Tensor
    activity_logits: torch.Tensor
    count: torch.Tensor
    count_logits: torch.Tensor | None = None


def mask_modality(
    x: torch.Tensor, probability: float, scope: Literal["window", "batch"] = "window"
) -> torch.Tensor:
    """Set one modality to 0, at random.

    Parameters
    ----------
    x : (batch, windows, dimension) tensor
    probability : float
        Probability that a window, or the whole batch, is masked.
    scope : {"window", "batch"}, optional

    Returns
    -------
    x : (batch, windows, dimension) tensor
        0 for masked windows.
    """
    shape = x.shape[:2] if scope == "window" else (1, 1)
    kept = torch.rand(shape, device=x.device) >= probability
    return torch.where(kept.unsqueeze(2), x, 0.0)


class CYSMSD(AVModel):
    """Embeddings of windows from voices and faces, and the number of speakers.

    Missing inputs are 0, and no layer before :attr:`CYSOutput.embeddings` has a bias. Without any
    face, the embeddings therefore depend on the voices only.

    Parameters
    ----------
    voice_dimension : int, optional
        Dimension of the input voice embeddings. CAM++ has 192.
    face_dimension : int, optional
        Dimension of the input face embeddings. InceptionResnetV1 has 512.
    width : int, optional
        Dimension of all layers, and of the output embeddings.
    heads : int, optional
        Number of attention heads. Must divide `width`.
    alpha : float, optional
        Weight of the voice in the output embedding. The weight of the face is ``1 - alpha``.
    max_speakers : int, optional
        Number of activity outputs. It limits the predicted number of speakers only with
        ``counter="tree"``.
    counter : {"mean", "tree"}, optional
        Input of the speaker counter: the mean embedding of all windows, as published, or the
        linkage tree of voices, see :mod:`pyannote_av.clustering.linkage_tree`.
    masking : float, optional
        Probability that the voice of a window is masked in training, and likewise its face.
    dropout : float, optional
    masking_scope : {"window", "batch"}, optional
        What is masked at once: the voice (or face) of a window, or those of a whole batch, as
        published.
    face_hidden : {"width", "half"}, optional
        Hidden dimension of the two layers for faces: `width`, or half of `face_dimension`, as
        published. For faces of 512 dimensions, both are 256.
    normalised : bool, optional
        Scale input embeddings to the norm of a vector of ones. The paper does not.
    corrects : bool, optional
        Add a linear map of the published embeddings to the voice embeddings of unit length, instead
        of using them alone. The map starts at zero, so that the embeddings are the voice embeddings
        before any training, and a distance threshold suits them.
    sample_rate, num_channels, task : optional
        As in ``pyannote.audio.Model``.

    Notes
    -----
    Width, heads, alpha and masking are as published. The paper leaves open what is chosen here:
    `max_speakers` (the largest number of speakers in a training file of AVA-AVD), `dropout`, no
    biases before (4), and attention over all windows of the recording. There is no positional
    encoding, so the order of windows does not matter.

    Three defaults are ours; the published way is ``masking_scope="batch", face_hidden="half",
    normalised=False``. Masking by window hides one modality in every recording, instead of all of
    it in one batch of ten, which leaves nothing to learn from when both are hidden. The hidden
    dimension only differs for face embeddings that are smaller than the paper's. With embeddings
    of unit length, the count is learned much more slowly. docs/papers.md compares the switches.

    Weights are initialised as in He et al., "Delving deep into rectifiers" (ICCV 2015). With the
    smaller default initialisation of PyTorch, the count is learned much more slowly, because the
    input of (8) differs between recordings only by the distance of their mean to the global mean.
    """

    def __init__(
        self,
        voice_dimension: int = 192,
        face_dimension: int = 512,
        width: int = 256,
        heads: int = 4,
        alpha: float = 0.6,
        max_speakers: int = 24,
        counter: Literal["mean", "tree"] = "mean",
        masking: float = 0.1,
        dropout: float = 0.1,
        masking_scope: Literal["window", "batch"] = "window",
        face_hidden: Literal["width", "half"] = "width",
        normalised: bool = True,
        corrects: bool = False,
        sample_rate: int = 16000,
        num_channels: int = 1,
        task=None,
    ):
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters(ignore=["task"])
        for name, value, known in (
            ("counter", counter, ("mean", "tree")),
            ("masking_scope", masking_scope, ("window", "batch")),
            ("face_hidden", face_hidden, ("width", "half")),
        ):
            if value not in known:
                raise ValueError(f'{name} must be "{known[0]}" or "{known[1]}", not {value!r}')
        hidden = width if face_hidden == "width" else max(1, face_dimension // 2)
        self.acoustic = nn.Sequential(nn.Linear(voice_dimension, width, bias=False), nn.ReLU())
        self.visual = nn.Sequential(
            nn.Linear(face_dimension, hidden, bias=False),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width, bias=False),
            nn.ReLU(),
        )
        self.fusion = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
        self.activity = _head(width, max_speakers, dropout)
        by_mean = counter == "mean"
        self.tree_norm = nn.Identity() if by_mean else nn.BatchNorm1d(NUM_FEATURES)
        self.counter = _head(
            width, 1 if by_mean else max_speakers, dropout, None if by_mean else NUM_FEATURES
        )
        for branch in (self.acoustic, self.visual, self.activity, self.counter):
            for layer in branch:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if corrects:
            self.correction = nn.Linear(width, voice_dimension, bias=False)
            nn.init.zeros_(self.correction.weight)

    @property
    def example_input_array(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ten windows of noise, with which Lightning computes shapes."""
        dimensions = self.hparams.voice_dimension, self.hparams.face_dimension
        return tuple(torch.randn(1, 10, d, device=self.device) for d in dimensions)

    def forward(
        self,
        speaker_embeddings: torch.Tensor,
        faces: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
        window_mask: torch.Tensor | None = None,
    ) -> CYSOutput:
        """Compute embeddings and speaker activity of windows, and the number of speakers.

        Parameters
        ----------
        speaker_embeddings : (batch, windows, voice_dimension) tensor
            Voice embeddings of windows of speech, of any norm if `normalised`. 0 where unknown.
        faces : (batch, windows, face_dimension) tensor, optional
            Face embeddings of the same windows, likewise. Mean over visible faces.
        face_mask : (batch, windows) tensor, optional
            Windows with a visible face. `faces` is not read elsewhere. Defaults to all.
        window_mask : (batch, windows) tensor, optional
            Windows that are not padding. Padding does not change the output. Defaults to all.

        Returns
        -------
        output : CYSOutput

        Raises
        ------
        ValueError
            If shapes do not match.
        """
        shape = speaker_embeddings.shape[:2]
        if faces is None:
            faces = speaker_embeddings.new_zeros(*shape, self.hparams.face_dimension)
        self._check(speaker_embeddings, faces, face_mask, window_mask)
        real = (
            speaker_embeddings.new_ones(shape).bool() if window_mask is None else window_mask.bool()
        )
        visible = real if face_mask is None else real & face_mask.bool()

        voices = self._enter(speaker_embeddings, real)
        a = self.acoustic(voices)
        v = self.visual(self._enter(faces, visible))
        # mask padding, except in items of padding only: attention may return NaN if all is masked
        ignored = ~real & real.any(dim=1, keepdim=True)
        attended, _ = self.fusion(a, v, v, key_padding_mask=ignored, need_weights=False)
        r = self.hparams.alpha * a + (1 - self.hparams.alpha) * attended
        r = torch.where(real.unsqueeze(2), r, 0.0)
        embeddings = r
        if self.hparams.corrects:
            embeddings = F.normalize(voices, dim=2) + self.correction(r)

        if self.hparams.counter == "tree":
            features = tree_features(speaker_embeddings, real).to(r)
            # a single recording has no variance: use running statistics
            alone = self.tree_norm.training and len(features) == 1
            norm = self._by_running(features) if alone else self.tree_norm(features)
            logits = self.counter(norm)
            return CYSOutput(embeddings, self.activity(r), 1.0 + logits.argmax(dim=1), logits)
        mean = r.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)
        return CYSOutput(embeddings, self.activity(r), self.counter(mean).squeeze(1))

    def _by_running(self, features: torch.Tensor) -> torch.Tensor:
        """Apply `tree_norm` with its running statistics, as in evaluation"""
        norm = self.tree_norm
        return F.batch_norm(
            features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )

    def _enter(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Scale embeddings to the norm of a vector of ones; 0 where unknown; mask in training."""
        x = torch.where(known.unsqueeze(2), x.to(self.dtype), 0.0)
        if self.hparams.normalised:
            x = F.normalize(x, dim=2) * x.shape[2] ** 0.5
        if not self.training:
            return x
        return mask_modality(x, self.hparams.masking, self.hparams.masking_scope)

    def _check(self, speaker_embeddings, faces, face_mask, window_mask) -> None:
        batch, windows = speaker_embeddings.shape[:2]
        expected = {
            "speaker_embeddings": (
                speaker_embeddings,
                (batch, windows, self.hparams.voice_dimension),
            ),
            "faces": (faces, (batch, windows, self.hparams.face_dimension)),
            "face_mask": (face_mask, (batch, windows)),
            "window_mask": (window_mask, (batch, windows)),
        }
        for name, (value, shape) in expected.items():
            if value is not None and value.shape != shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)}: expected {shape}")


def _head(width: int, dimension: int, dropout: float, inputs: int | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs or width, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, dimension),
    )
