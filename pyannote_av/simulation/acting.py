"""Motion of simulated faces: speaking, listening, and silent mouth movements."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.simulation.portrait import Motion, act, drift, loudness

#: silent mouth movements, and the range of their durations in seconds
GESTURES = {"chew": (2.0, 6.0), "yawn": (1.5, 3.0), "laugh": (0.8, 2.0), "murmur": (1.0, 4.0)}
#: face height in pixels for which :func:`~pyannote_av.simulation.portrait.act` computes head sway
SWAY_HEIGHT = 142.0
_BLOCK = 40
#: ranges: frames by which a mouth opens before its sound; standard deviation of the smoothing over
#: frames; standard deviation of the factor between loudness and opening
_LEAD, _BLUR, _FREE = (0.0, 2.5), (0.2, 1.2), (0.1, 0.6)
#: relative change of a mouth's width when speaking, silent and smiling; seconds of a smile
_WIDTH, _REST, _SMILE, _SMILES = 0.12, 0.02, (0.08, 0.22), (1.0, 5.0)


@dataclass(frozen=True)
class Acting:
    """Options of the motion of faces.

    Attributes
    ----------
    gestures : float
        Mouth movements without speech per minute and face, as hard negatives.
    desync : float
        Delay of the video in seconds (negative if it is early).
    """

    gestures: float = 1.5
    desync: float = 0.0


def gesture(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Opening of a mouth in `count` frames of a silent movement: (count,) in [0, 1]."""
    time = np.arange(count) / FRAME_RATE
    fade = np.sin(np.pi * (np.arange(count) + 0.5) / count)
    phase = rng.uniform(0, 2 * np.pi)
    if kind == "chew":
        wave = np.sin(2 * np.pi * rng.uniform(1.0, 1.8) * time + phase) ** 2
        return rng.uniform(0.2, 0.45) * wave * np.minimum(1, 3 * fade)
    if kind == "yawn":
        return rng.uniform(0.8, 1.1) * fade**1.5
    if kind == "laugh":
        wave = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(4.0, 5.5) * time + phase)
        return rng.uniform(0.3, 0.6) * wave * np.minimum(1, 3 * fade)
    # like speech: syllables of random height, 3 to 6 per second
    knots = rng.uniform(0, 1, max(2, int(count / FRAME_RATE * rng.uniform(6, 12))))
    wave = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots)
    return rng.uniform(0.4, 0.9) * wave * np.minimum(1, 3 * fade)


def gestures(speaking: np.ndarray, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """Opening of a mouth by silent movements: (T,), zero where `speaking` (T,) bool.

    These movements keep a distance of 0.2 s from speech.
    """
    count, opened = len(speaking), np.zeros(len(speaking))
    margin = int(0.2 * FRAME_RATE)
    for _ in range(rng.poisson(per_minute * count / FRAME_RATE / 60)):
        kind = str(rng.choice(list(GESTURES)))
        length = int(rng.uniform(*GESTURES[kind]) * FRAME_RATE)
        first = int(rng.integers(max(1, count - length)))
        moved = gesture(kind, length, rng)[: count - first]
        if not speaking[max(0, first - margin) : first + length + margin].any():
            opened[first : first + len(moved)] = np.maximum(
                opened[first : first + len(moved)], moved
            )
    return opened


def late(values: np.ndarray, frames: int) -> np.ndarray:
    """Shift `values` (T, ...) by `frames` (earlier if negative), and fill with zeros."""
    moved = np.zeros_like(values)
    if frames >= 0:
        moved[frames:] = values[: len(values) - frames]
    else:
        moved[:frames] = values[-frames:]
    return moved


def articulate(loud: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Opening of a mouth that produces speech of loudness `loud` (T,).

    The opening differs from the loudness: lips open before the sound, close for sounds in between,
    and vary by person.
    """
    from scipy.ndimage import gaussian_filter1d

    frames = np.arange(len(loud))
    opened = np.interp(frames + rng.uniform(*_LEAD), frames, loud)
    opened = gaussian_filter1d(opened, rng.uniform(*_BLUR), mode="nearest")
    return opened * np.clip(1 + rng.uniform(*_FREE) * drift(rng, len(loud), 2.0), 0, 2)


def stretch(speaking: np.ndarray, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """Relative change of a mouth's width: (T,), with smiles where not `speaking` (T,)."""
    from scipy.ndimage import gaussian_filter1d

    count = len(speaking)
    talks = gaussian_filter1d(speaking.astype(float), 2.0)
    width = drift(rng, count, 2.5) * (_REST + (_WIDTH - _REST) * talks)
    for _ in range(rng.poisson(per_minute * count / FRAME_RATE / 60)):
        length = int(rng.uniform(*_SMILES) * FRAME_RATE)
        first = int(rng.integers(max(1, count - length)))
        rise = np.minimum(1, 4 * np.sin(np.pi * (np.arange(length) + 0.5) / length))
        smile = (rng.uniform(*_SMILE) * rise)[: count - first]
        width[first : first + len(smile)] += smile * (1 - talks[first : first + len(smile)])
    return np.clip(width, -0.3, 0.3)


def perform(
    stem: np.ndarray | None,
    num_frames: int,
    rng: np.random.Generator,
    acting: Acting | None = None,
) -> Motion:
    """Motion of one face throughout a conversation.

    Parameters
    ----------
    stem : (N,) float or None
        Voice of the person at 16 kHz, zero between turns; None for a person who never speaks.
    num_frames : int
        Number of frames, at 25 per second.
    rng : numpy.random.Generator
    acting : Acting, optional

    Returns
    -------
    motion : Motion
        The sway is computed for a face with a height of :data:`SWAY_HEIGHT` pixels.
    """
    acting = acting or Acting()
    loud = np.zeros(num_frames)
    if stem is not None and stem.any():
        # average blocks of 2.5 ms: filtering is 40 times faster, with practically the same result
        blocks = np.abs(stem[: len(stem) // _BLOCK * _BLOCK]).reshape(-1, _BLOCK).mean(axis=1)
        loud = loudness(blocks, SAMPLE_RATE // _BLOCK, num_frames, FRAME_RATE)
        loud = rng.uniform(0.65, 1.1) * articulate(loud, rng)
    loud = late(loud, round(acting.desync * FRAME_RATE))
    motion = act(loud, rng, FRAME_RATE)
    silent = gestures(loud > 0, acting.gestures, rng)
    lively = np.array([*rng.uniform(0.7, 4.0, 2), rng.uniform(0.7, 4.0)])
    return replace(
        motion,
        mouth=np.maximum(motion.mouth, silent),
        sway=motion.sway * lively,
        width=stretch(loud > 0.05, acting.gestures, rng),
    )
