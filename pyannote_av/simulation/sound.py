"""Sound of a conversation: voices placed in their turns, room reverberation and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pyannote.core import Annotation, Segment

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.simulation.speech import SUFFIXES, Speech

_PEAK = 0.9
#: samples of synthetic noise before it repeats (one minute)
_NOISE = 60 * SAMPLE_RATE


@dataclass(frozen=True)
class SoundOptions:
    """Options of the sound. Ranges are drawn from uniformly, once per conversation.

    Attributes
    ----------
    speaker_level : float
        Standard deviation of the level of speakers in dB.
    turn_level : float
        Standard deviation of the level of one speaker's turns in dB.
    reverberation : (float, float) or None
        Range of the reverberation time (decay by 60 dB) of synthetic room responses, in seconds;
        None for no reverberation.
    responses : str or None
        Folder of room responses to use instead of synthetic ones.
    snr : (float, float) or None
        Range of the signal-to-noise ratio in dB; None for no noise.
    noises : str or None
        Folder of noises to use instead of synthetic noise.
    """

    speaker_level: float = 3.0
    turn_level: float = 1.5
    reverberation: tuple[float, float] | None = (0.1, 0.6)
    responses: str | None = None
    snr: tuple[float, float] | None = (8.0, 30.0)
    noises: str | None = None


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound of a conversation, at 16 kHz.

    Attributes
    ----------
    turns : Annotation
        Exact reference: turns end where speech ends.
    mixture : (N,) float32
    stems : dict of str to (N,) float32
        Voice of each speaker without reverberation, at its level in the mixture; zero between
        turns.
    snr : float or None
        Signal-to-noise ratio in dB.
    sources : dict of str to list of (int, (n, 2) int)
        For each voice, the first sample of every turn, and the source of each step of 10 ms; see
        :class:`~pyannote_av.simulation.speech.Take`.
    """

    turns: Annotation
    mixture: np.ndarray
    stems: dict[str, np.ndarray]
    snr: float | None
    sources: dict[str, list[tuple[int, np.ndarray]]]


@lru_cache(maxsize=8)
def _recordings(folder: str) -> tuple[np.ndarray, ...]:
    """All sound files of a folder, at 16 kHz"""
    from pyannote_av.core.io import Video

    paths = [p for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"{folder}: no sound file ({', '.join(SUFFIXES)})")
    return tuple(Video().waveform(path)[0].numpy() for path in paths)


def synthetic_response(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Room response (N,): the direct sound at 0, then noise that decays by 60 dB in `seconds`."""
    count = max(1, int(seconds * SAMPLE_RATE))
    time = np.arange(count) / SAMPLE_RATE
    tail = rng.standard_normal(count) * 10 ** (-3 * time / seconds)
    tail[: int(rng.uniform(0.002, 0.01) * SAMPLE_RATE)] = 0
    # the direct sound is 0 to 12 dB above the reverberation
    tail *= 10 ** (-rng.uniform(0, 12) / 20) / max(np.sqrt((tail**2).sum()), 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def given_response(response: np.ndarray) -> np.ndarray:
    """A recorded room response (N,) from its direct sound on, which is normalised to 1."""
    direct = int(np.argmax(np.abs(response)))
    if not response[direct]:
        raise ValueError("a room response is all zero")
    return (response[direct:] / response[direct]).astype(np.float32)


def synthetic_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (count,) with a falling spectrum and slowly varying level, as in rooms or streets."""
    from scipy.fft import irfft, rfft

    slope, length = rng.uniform(0.5, 1.5), min(count, _NOISE)
    spectrum = rfft(rng.standard_normal(length, np.float32))
    # flat below 50 Hz
    falling = np.maximum(np.arange(len(spectrum)), length * 50 / SAMPLE_RATE) ** (-slope / 2)
    noise = np.resize(irfft(spectrum * falling.astype(np.float32), length), count)
    knots = rng.uniform(-3, 3, max(2, count // SAMPLE_RATE // 3))
    swell = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots)
    return noise * 10 ** (swell / 20)


def given_noise(recordings: tuple[np.ndarray, ...], count: int, rng) -> np.ndarray:
    """An excerpt (count,) of a random recording, repeated if it is too short."""
    noise = recordings[int(rng.integers(len(recordings)))]
    first = int(rng.integers(len(noise)))
    return np.resize(np.roll(noise, -first), count)


def compose(
    turns: Annotation,
    library: Speech,
    voices: Mapping[str, str],
    duration: float,
    options: SoundOptions | None = None,
    seed: int | list[int] = 0,
) -> Sound:
    """Compose the sound of a conversation from speech of its speakers.

    Parameters
    ----------
    turns : Annotation
        Planned turns.
    library : Speech
        For example a :class:`~pyannote_av.simulation.speech.SpeechLibrary`.
    voices : mapping of label to speaker of the library
    duration : float
        Duration in seconds.
    options : SoundOptions, optional
    seed : int or list of int

    Returns
    -------
    sound : Sound
        Its turns are up to 0.2 s shorter than planned, so that they end with speech.
    """
    options, rng = options or SoundOptions(), np.random.default_rng(seed)
    count = round(duration * SAMPLE_RATE)
    spoken = Annotation(uri=turns.uri)
    stems = {str(label): np.zeros(count, np.float32) for label in sorted(turns.labels())}
    sources: dict[str, list[tuple[int, np.ndarray]]] = {label: [] for label in stems}
    loud = {label: 10 ** (rng.normal(0, options.speaker_level) / 20) for label in stems}
    for segment, track, label in turns.itertracks(yield_label=True):
        gain = loud[label] * 10 ** (rng.normal(0, options.turn_level) / 20)
        first = round(segment.start * SAMPLE_RATE)
        piece, source = library.take(voices[label], segment.duration, rng)
        piece = piece[: count - first]
        sources[label].append((first, source))
        stems[label][first : first + len(piece)] += np.float32(gain) * piece
        end = round((first + len(piece)) / SAMPLE_RATE, 6)
        spoken[Segment(segment.start, end), track] = label
    mixture = _in_a_room(stems, options, rng)
    snr = None
    if options.snr is not None:
        snr = float(rng.uniform(*options.snr))
        mixture += _noise(mixture, stems, snr, options, rng)
    peak = max(float(np.abs(mixture).max(initial=0)), *(np.abs(s).max() for s in stems.values()))
    scale = np.float32(min(1.0, _PEAK / max(peak, 1e-9)))
    stems = {label: stem * scale for label, stem in stems.items()}
    return Sound(spoken, (mixture * scale).astype(np.float32), stems, snr, sources)


def _in_a_room(stems, options: SoundOptions, rng) -> np.ndarray:
    """Sum of the stems as recorded in one room, at different positions"""
    from scipy.signal import oaconvolve

    mixture = np.zeros(len(next(iter(stems.values()))))
    seconds = rng.uniform(*options.reverberation) if options.reverberation else 0.0
    for stem in stems.values():
        if options.responses is not None:
            given = _recordings(options.responses)
            response = given_response(given[int(rng.integers(len(given)))])
        elif seconds > 0:
            response = synthetic_response(seconds, rng)
        else:
            response = np.ones(1, np.float32)
        mixture += oaconvolve(stem, response)[: len(mixture)]
    return mixture


def _noise(mixture, stems, snr: float, options: SoundOptions, rng) -> np.ndarray:
    """Noise `snr` dB below the speech in the mixture"""
    if options.noises is not None:
        noise = given_noise(_recordings(options.noises), len(mixture), rng).astype(float)
    else:
        noise = synthetic_noise(len(mixture), rng)
    speech = np.any([stem != 0 for stem in stems.values()], axis=0)
    power = (mixture[speech] ** 2).mean() if speech.any() else 0.0
    return noise * np.sqrt(power / max((noise**2).mean(), 1e-20)) * 10 ** (-snr / 20)
