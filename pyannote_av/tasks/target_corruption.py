"""Corruption of target speakers in training, so that models tolerate the same faults in use.

Faces are shifted in time, swapped, lost for some frames or removed. Voiceprints are made of few
windows, include wrong ones, or are missing. The sound may fail. No target loses both its voice and
its face, so that one of them always identifies the speaker. Labels are always those of that
speaker.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from math import ceil
from typing import ClassVar

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.embedding.voiceprints import voiceprint

#: seconds by which shifted faces are early or late
SHIFT = (0.5, 2.0)
#: share of the frames of a face that are lost
DELETED = (0.1, 0.6)
#: share of a chunk in which a face must be visible to identify a target without a voiceprint
ENOUGH = 0.5
#: largest share of wrong windows in a voiceprint, and largest norm of the noise added to it
CONTAMINATION, NOISE = 0.2, 0.3
#: octaves below 8 kHz, and gain in dB, of the filter that simulates another microphone
_OCTAVES, _GAIN = 6, 10.0
#: parameter of the beta distribution of the weight of mixed faces
_BETA = 0.2


@dataclass(frozen=True)
class Corruption:
    """Probability of each corruption.

    Attributes
    ----------
    voice_dropped : float
        Remove the voiceprint of a target whose face is visible most of the time.
    voice_varied : float
        Compute the voiceprint from some of the speaker's turns, a few wrong windows and noise.
        Otherwise it is computed from all turns.
    voices_mirrored : float
        Mirror all voices of a chunk: flip the signs of random dimensions of its voiceprints and
        speaker features. Similar voices stay similar, but a model cannot memorise speakers.
    face_dropped, face_swapped, face_shifted : float
        Remove the face, replace it by another face of the chunk, or shift it by 0.5 to 2 s. At
        most one of these happens to a target, and only to one that keeps its voiceprint.
    face_mixed : float
        Blend the face with another one of the recording (lip MixUp, with a weight from
        Beta(0.2, 0.2) of at most half). Labels remain those of the dominant face.
    frames_deleted : float
        Remove 10 to 60 % of the frames of a face.
    views_varied, cameras_varied : float
        Mirror, crop or rotate faces, or change their light, contrast, sharpness and noise. Has no
        effect on precomputed features.
    heads_turned : float
        Turn faces to the side by up to 60 degrees. Has no effect on precomputed features.
    sound_dropped : float
        Replace the sound of a whole chunk by silence.
    sound_mixed : float
        Add the sound of another recording, unless one of its speakers sounds like a speaker of
        this recording.
    sound_coloured : float
        Filter the sound to simulate another microphone: gains of up to 10 dB that vary smoothly
        with frequency.
    dummies : float
        Add a speaker of another recording, up to twice, if targets are left.
    dummies_visible : float
        Give such a target a silent face ("negative sampling").
    first_pass_dropped : float
        Remove the first pass of a whole chunk.
    first_pass_swapped : float
        Exchange the first pass of two targets of a chunk.

    Notes
    -----
    Where the sound is dropped or mixed, the first pass is unknown.

    Defaults follow the published systems of the MISP 2022 challenge: swapped faces (baseline),
    deleted frames (SJTU), silent lips in empty targets (WHU-Alibaba). The others are guesses.
    """

    FORMER_PARAMS: ClassVar = {"dummies_seen": "dummies_visible"}

    voice_dropped: float = 0.3
    voice_varied: float = 0.8
    voices_mirrored: float = 0.9
    face_dropped: float = 0.3
    face_swapped: float = 0.15
    face_shifted: float = 0.15
    face_mixed: float = 0.0
    frames_deleted: float = 0.5
    views_varied: float = 0.75
    cameras_varied: float = 0.5
    heads_turned: float = 0.3
    sound_dropped: float = 0.05
    sound_mixed: float = 0.2
    sound_coloured: float = 0.5
    dummies: float = 0.5
    dummies_visible: float = 0.5
    first_pass_dropped: float = 0.2
    first_pass_swapped: float = 0.1

    def __post_init__(self):
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(
                    f"{field.name} must be a probability, not {getattr(self, field.name)}"
                )
        if self.face_dropped + self.face_swapped + self.face_shifted > 1:
            raise ValueError("only one thing happens to a face: probabilities add up to 1 at most")

    @classmethod
    def none(cls, **given: float) -> Corruption:
        """No corruption, except for the given probabilities."""
        return cls(**{**{field.name: 0.0 for field in fields(cls)}, **given})


class Fate(Enum):
    """Corruption of a target as a whole."""

    SPARED = "spared"
    VOICE_DROPPED = "voice dropped"
    FACE_DROPPED = "face dropped"
    FACE_SWAPPED = "face swapped"
    FACE_SHIFTED = "face shifted"


def fate(corruption: Corruption, voiced: bool, visible: float, rng: np.random.Generator) -> Fate:
    """Draw the corruption of a target: at most one, which leaves the speaker identifiable.

    Parameters
    ----------
    corruption : Corruption
    voiced : bool
        Whether its voiceprint is known.
    visible : float
        Share of frames in which its face is visible.
    rng : numpy.random.Generator
    """
    if not voiced or not visible:
        return Fate.SPARED
    if visible >= ENOUGH and rng.random() < corruption.voice_dropped:
        return Fate.VOICE_DROPPED
    left = rng.random()
    for outcome, probability in (
        (Fate.FACE_DROPPED, corruption.face_dropped),
        (Fate.FACE_SWAPPED, corruption.face_swapped),
        (Fate.FACE_SHIFTED, corruption.face_shifted),
    ):
        if left < probability:
            return outcome
        left -= probability
    return Fate.SPARED


def shift(rng: np.random.Generator) -> int:
    """Frames by which a face is early (negative) or late: 0.5 to 2 s."""
    low, high = ceil(SHIFT[0] * FRAME_RATE), int(SHIFT[1] * FRAME_RATE)
    return int(rng.integers(low, high + 1) * rng.choice([-1, 1]))


def delete(present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove 10 to 60 % of the frames of a face, in gaps of up to a second.

    Parameters
    ----------
    present : (T,) bool array

    Returns
    -------
    present : (T,) bool array
        At least 40 % of the frames in which it was present.
    """
    visible = np.flatnonzero(present)
    goal = int(rng.uniform(*DELETED) * len(visible))
    kept = np.ones(len(visible), bool)
    while (lost := int((~kept).sum())) < goal:
        length = min(int(rng.integers(1, round(FRAME_RATE) + 1)), goal - lost)
        first = int(rng.integers(len(visible)))
        kept[first : first + length] = False
    remaining = np.zeros_like(present)
    remaining[visible[kept]] = True
    return remaining


def mix_faces(
    face: np.ndarray, other: np.ndarray, both: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Blend a face with another one: lip MixUp.

    Parameters
    ----------
    face, other : (T, ...) arrays
        Pictures or features.
    both : (T,) bool array
        Where both faces are visible.
    rng : numpy.random.Generator

    Returns
    -------
    face : (T, ...) array
    """
    weight = rng.beta(_BETA, _BETA)
    weight = min(weight, 1 - weight)
    mixed = face.copy()
    blend = (1 - weight) * face[both].astype(np.float32) + weight * other[both]
    mixed[both] = np.rint(blend) if face.dtype == np.uint8 else blend
    return mixed


def varied_voiceprint(
    features: np.ndarray,
    windows: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """A voiceprint with the errors of a first diarization pass.

    It averages a random number of the speaker's turns, at least one, where small numbers are more
    likely. Up to a fifth of its windows belong to other speakers. Noise is added to the result.

    Parameters
    ----------
    features : (L, E) array
        Speaker embeddings of the windows of the recording.
    windows, others : (n,), (m,) int arrays
        Windows of the speaker, in order, and windows of all other speakers.
    rng : numpy.random.Generator

    Returns
    -------
    voiceprint : (E,) float32 array
        Unit length.
    """
    turns = np.split(windows, np.flatnonzero(np.diff(windows) > 1) + 1)
    count = int(np.exp(rng.uniform(0, np.log(len(turns) + 1))))
    chosen = np.concatenate([turns[i] for i in rng.permutation(len(turns))[:count]])
    if len(others):
        share = rng.uniform(0, CONTAMINATION)
        wrong = rng.choice(others, rng.binomial(len(chosen), share / (1 - share)))
        chosen = np.concatenate([chosen, wrong])
    return noisy(voiceprint(features[chosen]), rng)


def noisy(vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A unit vector (E,) with added noise of a norm up to 0.3, normalised again."""
    noise = rng.standard_normal(len(vector)).astype(np.float32) / np.sqrt(len(vector))
    return voiceprint((vector + rng.uniform(0, NOISE) * noise)[None])


def coloured(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter sound (n,) with zero phase: gains of up to 10 dB, smooth over octaves."""
    if not len(sound):
        return sound
    spectrum = np.fft.rfft(sound)
    octave = np.log2(np.linspace(1, 2**_OCTAVES, len(spectrum)))
    gains = np.interp(octave, np.arange(_OCTAVES + 1), rng.uniform(-1, 1, _OCTAVES + 1) * _GAIN)
    filtered = np.fft.irfft(spectrum * 10 ** (gains / 20), len(sound))
    return filtered.astype(np.float32)


def mix_features(features: np.ndarray, other: np.ndarray, snr: float) -> np.ndarray:
    """Approximate speaker features after another recording is added `snr` dB below.

    Parameters
    ----------
    features, other : (L, E) arrays
        Unit length.

    Returns
    -------
    features : (L, E) float32 array
        Mean of both, weighted by their amplitudes, of unit length.
    """
    total = features.astype(np.float32) + np.float32(10 ** (-snr / 20)) * other
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6)
