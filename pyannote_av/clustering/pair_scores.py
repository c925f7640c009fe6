"""Scores of all pairs of windows, computed in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from pyannote_av.clustering.fast_relation import PairScorer
from pyannote_av.clustering.relation_network import RelationNetwork

#: pairs per forward pass, as published
BLOCK = 256


class RelationModel(Protocol):
    """Model that scores whether two windows have the same speaker, such as AVR-Net.

    ``audio_map`` and ``face_map`` turn each window into maps once. ``relate`` then compares maps.
    Depending on the model, inputs are waveforms and face crops, or embeddings.
    """

    def audio_map(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(windows, ...) waveforms or voice embeddings to (windows, ...) maps."""
        ...

    def face_map(self, faces: torch.Tensor, face_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(windows, ...) face crops or embeddings to (windows, ...) maps, also without faces."""
        ...

    def relate(self, audio_a, face_a, audio_b, face_b, visible_a, visible_b) -> torch.Tensor:
        """(pairs, ...) maps and (pairs,) visibility to (pairs,) scores in (0, 1)."""
        ...


def pair_scorer(
    model: RelationModel,
    audio: torch.Tensor,
    face: torch.Tensor,
    visible: torch.Tensor,
    window: torch.Tensor,
    precision: str = "fp32",
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Create a function that scores pairs (first, second) of items; see :func:`score_pairs`."""
    network = getattr(model, "relation", None)
    if isinstance(network, RelationNetwork) and not torch.is_grad_enabled():
        maps = torch.cat([face, audio[window]], dim=1)
        maps = maps if maps.ndim == 4 else maps[..., None, None]
        return PairScorer(model.mask, network, maps, visible, model.hparams.siamese, precision)

    if callable(embed := getattr(model, "embed_all", None)):  # items are compared by cosine
        unit = embed(audio[window], face, visible)
        return lambda a, b: (unit[a] * unit[b]).sum(dim=1)

    def relate(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        i, j = window[a], window[b]
        return model.relate(audio[i], face[a], audio[j], face[b], visible[a], visible[b])

    return relate


def score_pairs(
    model: RelationModel,
    audio: torch.Tensor,
    face: torch.Tensor,
    visible: torch.Tensor,
    window: torch.Tensor | None = None,
    block: int = BLOCK,
    progress: Callable[[int, int], None] | None = None,
    precision: str = "fp32",
) -> torch.Tensor:
    """Score all pairs of `n` items.

    Memory use is that of all maps, one block of pairs, and one number per pair.

    Parameters
    ----------
    model : RelationModel
    audio : (windows, ...) tensor
        Output of ``audio_map``.
    face : (n, ...) tensor
        Output of ``face_map``.
    visible : (n,) bool tensor
        Items with a face.
    window : (n,) int tensor, optional
        Row of `audio` of each item. Defaults to one item per window, in order.
    block : int, optional
        Pairs per forward pass.
    progress : callable, optional
        ``progress(done, total)``, in pairs.
    precision : {"fp32", "bf16"}, optional
        See :class:`~pyannote_av.clustering.fast_relation.PairScorer`.

    Returns
    -------
    scores : (n (n - 1) / 2,) tensor
        In the order of ``scipy.spatial.distance.pdist``.
    """
    count = len(face)
    if window is None:
        window = torch.arange(count, device=face.device)
    first, second = torch.triu_indices(count, count, offset=1, device=face.device)
    scores, score = [], pair_scorer(model, audio, face, visible, window, precision)
    for a, b in zip(first.split(block), second.split(block), strict=True):
        scores.append(score(a, b))
        if progress is not None:
            progress(min(len(scores) * block, len(first)), len(first))
    return torch.cat(scores) if scores else face.new_zeros(0)


def square(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Convert scores of pairs to a symmetric matrix (count, count), with 1 on the diagonal."""
    first, second = torch.triu_indices(count, count, offset=1, device=scores.device)
    matrix = torch.eye(count, device=scores.device, dtype=scores.dtype)
    matrix = matrix.index_put((first, second), scores)
    return matrix.index_put((second, first), scores)


def episode_scores(
    model: RelationModel,
    audio: torch.Tensor,
    face: torch.Tensor,
    visible: torch.Tensor,
    speakers: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all pairs of a first and a second window of each episode, for training.

    Parameters
    ----------
    model : RelationModel
        With ``relate_in_order``.
    audio, face : (episodes, 2, speakers, ...) tensors
        Maps of two windows of each speaker.
    visible : (episodes, 2, speakers) bool tensor
    speakers : (episodes, speakers) tensor

    Returns
    -------
    scores : (orders, episodes x speakers x speakers) tensor
    same : (episodes x speakers x speakers,) bool tensor
        Whether the two windows have the same speaker.
    """
    ways, items = visible.shape[2], (audio, face, visible)
    a = [x[:, 0].repeat_interleave(ways, dim=1).flatten(0, 1) for x in items]
    b = [x[:, 1].repeat(1, ways, *[1] * (x.ndim - 3)).flatten(0, 1) for x in items]
    scores = model.relate_in_order(a[0], a[1], b[0], b[1], a[2], b[2])
    return scores, (speakers.unsqueeze(2) == speakers.unsqueeze(1)).flatten()
