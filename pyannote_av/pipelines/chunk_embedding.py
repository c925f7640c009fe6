"""Speaker embeddings of overlapping chunks, with one forward pass over the audio."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from pyannote.core import SlidingWindowFeature

from pyannote_av.core.threads import on_all_cores

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
    """Embed each local speaker of each chunk, although every part of the audio is encoded once.

    The audio is encoded in blocks that do not overlap and are as long as chunks. An embedding is
    pooled from the frames of the two blocks that its chunk overlaps with.

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
        Blocks per forward pass.
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
    starts = np.array([round(window[int(chunk)].start * sample_rate) for chunk in todo], int)
    # only blocks in which someone speaks
    row, frame = np.nonzero((segmentations.data[todo] > 0).any(axis=2))
    needed = np.unique((starts[row] + (frame + 0.5) * length / num_frames) // length)
    blocks = _Blocks(encode, waveform, length, sample_rate, needed, batch_size, device)
    embeddings = np.full((num_chunks, num_speakers, dimension), np.nan, dtype=np.float32)
    for done, (chunk, start) in enumerate(zip(todo, starts.tolist(), strict=True)):
        if progress is not None:
            progress(completed=done, total=len(todo))
        frames, position = blocks.frames(start)
        masks = embedding_masks(segmentations.data[[chunk]], exclude_overlap, min_num_frames)[0]
        masks = masks[(position * num_frames).astype(int)]
        weights = torch.from_numpy(masks.T.astype(np.float32))
        with torch.inference_mode():
            embeddings[chunk] = pool(frames[None], weights[None].to(frames))[0].cpu().numpy()
    if progress is not None:
        progress(completed=len(todo), total=len(todo))
    embeddings[~active] = np.nan
    return embeddings


class _Blocks:
    """Encoded blocks of audio that do not overlap, of which only a few are in memory.

    Parameters
    ----------
    encode : callable
        (batch, 1, samples) -> (batch, ..., frames)
    waveform : (1, num_samples) tensor
    length : int
        Samples per block.
    sample_rate : int
    needed : (n,) array
        Numbers of blocks that are encoded. All others are left out.
    batch_size : int
    device : torch.device, optional
        Where blocks are encoded.
    """

    def __init__(
        self,
        encode: Callable,
        waveform: torch.Tensor,
        length: int,
        sample_rate: int,
        needed: np.ndarray,
        batch_size: int,
        device: torch.device | None = None,
    ):
        self._encode, self._length, self._device = encode, length, device
        lack = round(MIN_CHUNK * sample_rate) - waveform.shape[1]
        self._waveform = F.pad(waveform, (0, lack)) if lack > 0 else waveform
        last = (self._waveform.shape[1] - 1) // length
        self._needed = np.unique(needed.clip(0, last)).astype(int).tolist()
        self._kept: dict[int, tuple[torch.Tensor, np.ndarray]] = {}
        batches = (
            self._needed[first : first + batch_size]
            for first in range(0, len(self._needed), batch_size)
        )
        self._batches = on_all_cores(self._encoded, batches, device)

    def frames(self, start: int) -> tuple[torch.Tensor, np.ndarray]:
        """Frames of one chunk. Chunks must be asked for in the order of time.

        Parameters
        ----------
        start : int
            First sample of the chunk.

        Returns
        -------
        frames : (..., num_frames) tensor
        position : (num_frames,) array
            Middle of each frame, as a fraction of the chunk.
        """
        first, last = start // self._length, (start + self._length - 1) // self._length
        self._kept = {k: block for k, block in self._kept.items() if k >= first}
        wanted = [k for k in self._needed if first <= k <= last]
        while not all(k in self._kept for k in wanted):
            self._kept.update(next(self._batches))
        frames = torch.cat([self._kept[k][0] for k in wanted], dim=-1)
        position = np.concatenate([self._kept[k][1] for k in wanted])
        position = (position - start) / self._length
        low, high = np.searchsorted(position, [0, 1])
        return frames[..., low:high], position[low:high]

    def _encoded(self, numbers: list[int]) -> dict[int, tuple[torch.Tensor, np.ndarray]]:
        """Frames of a batch of blocks, and their middles in samples"""
        # the last block begins earlier, so that it has as much context as the others
        end = self._waveform.shape[1]
        starts = [max(0, min(k * self._length, end - self._length)) for k in numbers]
        audio = torch.stack([self._waveform[:, s : s + self._length] for s in starts]).float()
        with torch.inference_mode():
            encoded = self._encode(audio.to(self._device))
        count = encoded.shape[-1]
        middle = (np.arange(count) + 0.5) * audio.shape[-1] / count
        found = {}
        for k, start, frames in zip(numbers, starts, encoded, strict=True):
            new = start + middle >= k * self._length
            found[k] = frames[..., new.argmax() :], (start + middle)[new]
        return found
