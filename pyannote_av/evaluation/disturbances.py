"""Disturbances of recordings: missing faces, sound out of sync with the picture, and noise.

Each function returns a changed copy of a file, on which any pipeline can run.
:mod:`~pyannote_av.evaluation.sweeps` applies one of them over a range of values.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from pyannote_av.core.tracks import FaceTracks


def without_faces(
    tracks: FaceTracks, rate: float, seed: int = 0, window: float = 2.0
) -> FaceTracks:
    """Remove each window of `window` s of each track with probability `rate`.

    Windows that are removed at one rate are also removed at every higher rate.

    Parameters
    ----------
    tracks : FaceTracks
    rate : float
        Probability of removal. 0 keeps everything, 1 removes everything.
    seed : int, optional
    window : float, optional
        Duration of a window in seconds. AVR-Net uses 2 s.

    References
    ----------
    Xu et al., "AVA-AVD: audio-visual speaker diarization in the wild", 2022, figure 6, and
    ``datasets/builders/avaavd/dataset.py`` of https://github.com/zcxu-eric/AVA-AVD
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, not {rate}")
    # seeded by file, so that files differ and each file always gives the same result
    random = np.random.default_rng([seed, zlib.crc32((tracks.uri or "").encode())])
    place = np.stack([tracks.track, np.floor(tracks.time / window).astype(np.int64)], axis=1)
    places, index = np.unique(place, axis=0, return_inverse=True)
    return tracks.take(random.random(len(places))[index.ravel()] >= rate)


def missing_faces(file: Mapping, rate: float, seed: int = 0) -> dict[str, Any]:
    """Remove part of the ``face_tracks`` of `file` (FaceTracks, or their path)."""
    from pyannote_av.core.tracks import FaceTracks

    tracks = file.get("face_tracks")
    if tracks is None:
        raise ValueError(
            f"file {file.get('uri')!r} has no face_tracks to remove faces from; "
            "run FaceTracking on it first"
        )
    if isinstance(tracks, (str, Path)):
        tracks = FaceTracks.read(tracks)
    # the random numbers depend on the uri, which tracks from other sources may lack
    kept = without_faces(replace(tracks, uri=file.get("uri") or tracks.uri), rate, seed)
    return {**file, "face_tracks": kept}


def _sound(file: Mapping) -> tuple[Tensor, int]:
    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video

    return Video().waveform(file), SAMPLE_RATE


def desync(file: Mapping, offset: float) -> dict[str, Any]:
    """Delay the sound of `file` by `offset` s against its picture (advance it if negative).

    The sound keeps its length. It is cut at one end and padded with zeros at the other. The
    reference turns and the scored regions are shifted with the sound.
    """
    import torch
    from pyannote.core import Annotation, Segment, Timeline

    waveform, rate = _sound(file)
    samples = round(offset * rate)
    shifted = torch.zeros_like(waveform)
    if abs(samples) < waveform.shape[1]:
        into, out = max(samples, 0), max(-samples, 0)
        length = waveform.shape[1] - abs(samples)
        shifted[:, into : into + length] = waveform[:, out : out + length]
    changed = {**file, "waveform": shifted, "sample_rate": rate}
    whole = Timeline([Segment(0, waveform.shape[1] / rate)])
    step = samples / rate
    if (annotation := file.get("annotation")) is not None:
        moved = Annotation(uri=annotation.uri, modality=annotation.modality)
        for segment, track, label in annotation.itertracks(yield_label=True):
            moved[Segment(segment.start + step, segment.end + step), track] = label
        changed["annotation"] = moved.crop(whole)
    if (annotated := file.get("annotated")) is not None:
        moved = Timeline([Segment(s.start + step, s.end + step) for s in annotated])
        changed["annotated"] = moved.crop(whole)
    return changed


def noisy(
    file: Mapping, snr: float, noise: Tensor | np.ndarray | None = None, seed: int = 0
) -> dict[str, Any]:
    """Add noise to the sound of `file`.

    Parameters
    ----------
    file : mapping
    snr : float
        Signal-to-noise ratio over the whole file in dB. Infinity adds no noise.
    noise : (N,) or (1, N) array, optional
        Noise at 16 kHz. It begins at a position that depends on `seed` and on the uri of the file,
        and is repeated as needed. Defaults to pink noise.
    seed : int, optional
    """
    import torch

    waveform, rate = _sound(file)
    length = waveform.shape[1]
    random = np.random.default_rng([seed, zlib.crc32(str(file.get("uri")).encode())])
    if noise is None:
        # pink noise: power falls with frequency, as in most natural noise
        spectrum = np.fft.rfft(random.standard_normal(length))
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        samples = np.fft.irfft(spectrum, length)
    else:
        given = np.asarray(noise, float).ravel()
        samples = np.resize(np.roll(given, -int(random.integers(len(given)))), length)
    added = torch.from_numpy(samples).to(waveform)[None]
    power, disturbing = waveform.square().mean(), added.square().mean()
    gain = (power / disturbing / 10 ** (snr / 10)).sqrt() if disturbing > 0 else 0.0
    return {**file, "waveform": waveform + gain * added, "sample_rate": rate}
