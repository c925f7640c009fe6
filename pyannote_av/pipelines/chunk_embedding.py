"""Speaker embeddings of overlapping chunks, with one forward pass per chunk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pyannote.core import SlidingWindowFeature

#: minimum duration of an embedded chunk in seconds; a shorter remainder of a file is padded
MIN_CHUNK = 0.5


def frame_and_pool(model: object) -> tuple[Callable, Callable] | None:
    """Split an embedding model into its frame encoder and its pooling.

    Parameters
    ----------
    model : Model
        A model with ``frame_features`` and ``pool`` (this package), or with ``forward_frames``
        and ``forward_embedding`` (pyannote.audio's WeSpeaker models).

    Returns
    -------
    encode, pool : callable
        (batch, 1, samples) -> frames; frames, (batch, speakers, frames) weights ->
        (batch, speakers, dimension). None if the model has no such methods.
    """
    for encode, pool in (("frame_features", "pool"), ("forward_frames", "forward_embedding")):
        if hasattr(model, encode) and hasattr(model, pool):
            return getattr(model, encode), getattr(model, pool)
    return None


def embedding_masks(
    segmentations: np.ndarray, exclude_overlap: bool = False, min_num_frames: int = 0
) -> np.ndarray:
    """Frames that are pooled for each local speaker of each chunk.

    Parameters
    ----------
    segmentations : (num_chunks, num_frames, num_speakers) array
        Binary; NaN counts as inactive.
    exclude_overlap : bool, optional
        Exclude frames with overlapping speech, unless at most `min_num_frames` remain.

    Returns
    -------
    masks : (num_chunks, num_frames, num_speakers) array
    """
    active = np.nan_to_num(segmentations, nan=0.0)
    if not exclude_overlap:
        return active
    alone = active * (active.sum(axis=2, keepdims=True) < 2)
    enough = alone.sum(axis=1, keepdims=True) > min_num_frames
    return np.where(enough, alone, active)


def embed_chunks(
    encode: Callable,
    pool: Callable,
    waveform: torch.Tensor,
    segmentations: SlidingWindowFeature,
    dimension: int,
    sample_rate: int,
    exclude_overlap: bool = False,
    min_num_samples: int = 0,
    batch_size: int = 1,
    device: torch.device | None = None,
    progress: Callable | None = None,
) -> np.ndarray:
    """Embed each local speaker of each chunk.

    Parameters
    ----------
    encode, pool : callable
        See :func:`frame_and_pool`.
    waveform : (1, num_samples) tensor
        Audio of the whole file.
    segmentations : (num_chunks, num_frames, num_speakers) SlidingWindowFeature
        Binary.
    dimension : int
        Dimension of the embeddings.
    sample_rate : int
        Sample rate of the waveform.
    exclude_overlap : bool, optional
        See :func:`embedding_masks`.
    min_num_samples : int, optional
        Overlap is excluded only if more samples than this remain.
    batch_size : int, optional
        Chunks per forward pass.
    device : torch.device, optional
        Device of the model.
    progress : callable, optional
        Called with keywords ``completed`` and ``total``, in chunks.

    Returns
    -------
    embeddings : (num_chunks, num_speakers, dimension) float32 array
        NaN for inactive local speakers.
    """
    window = segmentations.sliding_window
    num_chunks, num_frames, num_speakers = segmentations.data.shape
    length = round(window.duration * sample_rate)
    min_num_frames = int(np.ceil(num_frames * min_num_samples / length))

    active = (segmentations.data > 0).any(axis=1)
    todo = np.flatnonzero(active.any(axis=1))
    embeddings = np.full((num_chunks, num_speakers, dimension), np.nan, dtype=np.float32)
    done = 0
    while True:
        if progress is not None:
            progress(completed=done, total=len(todo))
        batch = todo[done : done + batch_size]
        if len(batch) == 0:
            break
        starts = [round(window[int(c)].start * sample_rate) for c in batch]
        # the last chunk is cut at the end of the file: padding would bias its features
        rest = waveform.shape[1] - starts[-1]
        if rest < length and len(batch) > 1:
            batch, starts, rest = batch[:-1], starts[:-1], length
        extent = min(length, max(rest, round(MIN_CHUNK * sample_rate)))
        chunks = [waveform[:, start : start + extent] for start in starts]
        chunks = torch.stack([F.pad(chunk, (0, extent - chunk.shape[1])) for chunk in chunks])
        masks = embedding_masks(segmentations.data[batch], exclude_overlap, min_num_frames)
        masks = masks[:, : max(1, round(num_frames * extent / length))]
        weights = torch.from_numpy(masks.transpose(0, 2, 1).astype(np.float32))
        with torch.inference_mode():
            output = pool(encode(chunks.to(device)), weights.to(device))
        embeddings[batch] = output.cpu().numpy()
        done += len(batch)
    embeddings[~active] = np.nan
    return embeddings
