"""What happens to slots in training, so that models know what to do when it happens to users.

Faces are late, of somebody else, lost now and then or altogether; voiceprints are made of few and
wrong windows, or missing; the sound fails. No slot loses both: one of voice and face always tells
who it is, and labels are always those of that person.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from math import ceil

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.models.embedding.voiceprints import voiceprint

#: seconds by which shifted faces are early or late
SHIFT = (0.5, 2.0)
#: share of the frames of a face that are lost
DELETED = (0.1, 0.6)
#: share of a chunk in which a face must be seen to tell by itself who a slot is
ENOUGH = 0.5
#: largest share of wrong windows in a voiceprint, and largest length of the noise added to it
CONTAMINATION, NOISE = 0.2, 0.3
#: octaves below 8 kHz, and dB, of the filter of another microphone
_OCTAVES, _GAIN = 6, 10.0
#: parameter of the distribution of how faces are mixed
_BETA = 0.2


@dataclass(frozen=True)
class Corruption:
    """How probable each corruption is.

    Attributes
    ----------
    voice_dropped : float
        Of the voiceprint of a slot whose face is seen for most of the time.
    voice_varied : float
        Of a voiceprint made of some of the speaker's turns, of a few wrong windows, and of noise.
        Otherwise it is made of all turns.
    voices_mirrored : float
        Of all voices of a chunk being mirrored: signs of dimensions of voiceprints and speaker
        features are drawn anew. Who sounds alike still does, but nobody can be known by heart.
    face_dropped, face_swapped, face_shifted : float
        Of a face that is never seen, that is another one of the chunk, or that is 0.5 to 2 s early
        or late. At most one of them happens to a slot, and only to one that keeps its voiceprint.
    face_mixed : float
        Of a face with another one of the recording shining through (lip MixUp, with a weight from
        Beta(0.2, 0.2) of at most half); labels remain those of the face that prevails.
    frames_deleted : float
        Of 10 to 60 % of the frames being lost, where a face is seen.
    views_varied, cameras_varied : float
        Of faces being mirrored, cropped or rotated, and of other light, contrast, sharpness and
        noise. Does nothing to precomputed features.
    sound_dropped : float
        Of silence instead of the sound of a whole chunk.
    sound_mixed : float
        Of the sound of another recording being added, unless somebody in it sounds like one of this
        recording's people.
    sound_coloured : float
        Of the sound as another microphone hears it: louder and softer by up to 10 dB, smoothly over
        frequency.
    dummies : float
        Of each of two more slots, as far as there is room, for somebody of another recording.
    dummies_seen : float
        Of such a slot showing a silent face ("negative sampling").

    Notes
    -----
    Defaults are those of the systems of the MISP 2022 challenge where they are published: faces
    swapped (baseline), frames deleted (SJTU), silent lips in empty slots (WHU-Alibaba). The others
    are guesses.
    """

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
    sound_dropped: float = 0.05
    sound_mixed: float = 0.2
    sound_coloured: float = 0.5
    dummies: float = 0.5
    dummies_seen: float = 0.5

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
        """Nothing happens, except what is given."""
        return cls(**{**{field.name: 0.0 for field in fields(cls)}, **given})


class Fate(Enum):
    """What happens to a slot as a whole."""

    SPARED = "spared"
    VOICE_DROPPED = "voice dropped"
    FACE_DROPPED = "face dropped"
    FACE_SWAPPED = "face swapped"
    FACE_SHIFTED = "face shifted"


def fate(corruption: Corruption, voiced: bool, seen: float, rng: np.random.Generator) -> Fate:
    """What happens to a slot: one thing at most, and nothing that leaves it unknown.

    Parameters
    ----------
    corruption : Corruption
    voiced : bool
        Whether its voice is known.
    seen : float
        Share of frames in which its face is seen.
    rng : numpy.random.Generator
    """
    if not voiced or not seen:
        return Fate.SPARED
    if seen >= ENOUGH and rng.random() < corruption.voice_dropped:
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
    """Lose 10 to 60 % of the frames of a face, in gaps of up to a second.

    Parameters
    ----------
    present : (T,) bool array

    Returns
    -------
    present : (T,) bool array
        Never less than 40 % of what it was.
    """
    shown = np.flatnonzero(present)
    goal = int(rng.uniform(*DELETED) * len(shown))
    kept = np.ones(len(shown), bool)
    while (lost := int((~kept).sum())) < goal:
        length = min(int(rng.integers(1, round(FRAME_RATE) + 1)), goal - lost)
        first = int(rng.integers(len(shown)))
        kept[first : first + length] = False
    remaining = np.zeros_like(present)
    remaining[shown[kept]] = True
    return remaining


def mix_faces(
    face: np.ndarray, other: np.ndarray, both: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Let another face shine through: lip MixUp.

    Parameters
    ----------
    face, other : (T, ...) arrays
        Pictures or features.
    both : (T,) bool array
        Where both are seen.
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
    """A voiceprint as a first pass may have found it.

    Of some of the speaker's turns, at least one, as likely few as many; up to a fifth of it are
    windows of others; and noise on top.

    Parameters
    ----------
    features : (L, E) array
        Of the recording.
    windows, others : (n,), (m,) int arrays
        Windows of the speaker, in order, and of everybody else.
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
    """A unit vector (E,) with noise of up to 0.3 times its length."""
    noise = rng.standard_normal(len(vector)).astype(np.float32) / np.sqrt(len(vector))
    return voiceprint((vector + rng.uniform(0, NOISE) * noise)[None])


def coloured(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sound (n,) after a filter without phase: gains of up to 10 dB, smooth over octaves."""
    if not len(sound):
        return sound
    spectrum = np.fft.rfft(sound)
    octave = np.log2(np.linspace(1, 2**_OCTAVES, len(spectrum)))
    gains = np.interp(octave, np.arange(_OCTAVES + 1), rng.uniform(-1, 1, _OCTAVES + 1) * _GAIN)
    filtered = np.fft.irfft(spectrum * 10 ** (gains / 20), len(sound))
    return filtered.astype(np.float32)


def mix_features(features: np.ndarray, other: np.ndarray, snr: float) -> np.ndarray:
    """Roughly what speaker features become when another recording is added `snr` dB below.

    Parameters
    ----------
    features, other : (L, E) arrays
        Unit length.

    Returns
    -------
    features : (L, E) float32 array
        Mean of both by how loud they are, of unit length.
    """
    total = features.astype(np.float32) + np.float32(10 ** (-snr / 20)) * other
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6)
