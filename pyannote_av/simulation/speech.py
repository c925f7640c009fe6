"""Speech of single speakers: folders of recordings, and excerpts cut by energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.runs import true_runs

#: suffixes of sound files
SUFFIXES = (".flac", ".wav", ".mp3", ".m4a", ".ogg", ".opus", ".mp4")
#: samples in a step of the energy detection (10 ms), and its threshold in dB below loud speech
STEP = SAMPLE_RATE // 100
SILENCE = 32.0
#: in steps: longest silence to keep within a turn, and shortest sound that is not a click
_PAUSE, _CLICK = 20, 5
#: steps of silence between recordings
_BETWEEN = 15
#: dB below loud speech of sounds that count as breath
_BREATH = 20.0
#: target level of speech: RMS of its loud half
LEVEL = 0.06
_FADE = SAMPLE_RATE // 100
_LONGEST = 120.0


def levels(waveform: np.ndarray) -> np.ndarray:
    """Level in dB of every 10 ms of a waveform (N,), as (ceil(N / 160),)."""
    count = -(-len(waveform) // STEP)
    padded = np.zeros(count * STEP, np.float64)
    padded[: len(waveform)] = waveform
    power = (padded.reshape(count, STEP) ** 2).mean(axis=1)
    return 10 * np.log10(power + 1e-12)


def sounding(waveform: np.ndarray, silence: float = SILENCE) -> np.ndarray:
    """Which steps of 10 ms contain sound: bool, with the length of :func:`levels`.

    Parameters
    ----------
    waveform : (N,) float
        At 16 kHz.
    silence : float
        Threshold in dB below the loud steps. These are at the 95th percentile of all steps that
        are not digital silence.
    """
    level = levels(waveform)
    audible = level[level > -90]
    return (
        level > np.percentile(audible, 95) - silence if len(audible) else np.zeros(len(level), bool)
    )


class Recording(NamedTuple):
    """Speech without long silences, in n steps of 10 ms.

    Attributes
    ----------
    speech : (160 n,) float32
    mask : (n,) bool
        Which steps contain sound.
    steps : (n,) int
        Index of each step in the original.
    """

    speech: np.ndarray
    mask: np.ndarray
    steps: np.ndarray


class Take(NamedTuple):
    """Speech that fills a turn, in n steps of 10 ms.

    Attributes
    ----------
    waveform : (160 n,) float32
    source : (n, 2) int
        Index of the speaker's recording, and of its step; -1 in pauses between recordings.
    """

    waveform: np.ndarray
    source: np.ndarray


def condensed(waveform: np.ndarray) -> Recording:
    """Remove long silences from speech.

    Silence before the first sound and after the last one is removed. Other silences are shortened
    to 0.2 s.

    Parameters
    ----------
    waveform : (N,) float
        At 16 kHz.
    """
    mask = sounding(waveform)
    runs = true_runs(mask)
    level = levels(waveform)
    loud = np.percentile(level[mask], 95) - _BREATH if mask.any() else 0.0
    runs = [run for run in runs if run[1] - run[0] >= _CLICK and level[slice(*run)].max() > loud]
    if not runs:
        return Recording(np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, int))
    kept, sound, last = [], [], None
    for first, end in runs:
        if last is not None:
            half = min(first - last, _PAUSE) // 2
            kept += [np.arange(last, last + half), np.arange(first - half, first)]
            sound.append(np.zeros(2 * half, bool))
        kept.append(np.arange(first, end))
        sound.append(np.ones(end - first, bool))
        last = end
    steps = np.concatenate(kept)
    padded = np.zeros(len(mask) * STEP, np.float32)
    padded[: len(waveform)] = waveform
    return Recording(padded.reshape(-1, STEP)[steps].reshape(-1), np.concatenate(sound), steps)


def faded(waveform: np.ndarray) -> np.ndarray:
    """A copy that is faded in and out within 10 ms, so that cuts do not click."""
    waveform, size = waveform.copy(), min(_FADE, len(waveform) // 2)
    ramp = np.linspace(0, 1, size, endpoint=False, dtype=np.float32) + np.float32(0.5 / (size or 1))
    waveform[:size] *= ramp
    waveform[len(waveform) - size :] *= ramp[::-1]
    return waveform


def recording(waveform: np.ndarray, name: str | Path) -> Recording:
    """Condensed speech at :data:`LEVEL`; `name` is the file name for messages."""
    found = condensed(waveform)
    if not len(found.speech):
        raise ValueError(f"{name}: only silence")
    power = np.sort((found.speech.reshape(-1, STEP) ** 2).mean(axis=1))
    level = np.sqrt(power[len(power) // 2 :].mean())
    return found._replace(speech=found.speech * np.float32(LEVEL / level))


@lru_cache(maxsize=32)
def _read(path: Path) -> Recording:
    from pyannote_av.core.io import Video

    return recording(Video().waveform(path)[0, : int(_LONGEST * SAMPLE_RATE)].numpy(), path)


def take(
    read: Callable[[int], Recording], number: int, duration: float, rng: np.random.Generator
) -> Take:
    """Draw speech that starts and ends with sound.

    Parameters
    ----------
    read : callable
        Returns the recording of one speaker with a given index.
    number : int
        Number of recordings.
    duration : float
        Duration in seconds. The result may be up to 0.2 s shorter, because it ends before a
        silence, not within it. If there is too little speech, it is repeated.
    rng : numpy.random.Generator
    """
    first = int(rng.integers(number))
    one, steps = read(first), max(1, round(duration * SAMPLE_RATE / STEP))
    begins = true_runs(one.mask)[:, 0]
    # start at the beginning if any other start would make the recording too short
    fitting = begins[begins + steps <= len(one.mask)]
    parts = [_part(one, first, int(rng.choice(fitting)) if len(fitting) else 0)]
    while sum(len(mask) for _, mask, _ in parts) < steps:
        # add another recording after 0.15 s of silence
        silence = np.zeros((_BETWEEN, STEP), np.float32)
        parts.append((silence, np.zeros(_BETWEEN, bool), np.full((_BETWEEN, 2), -1)))
        other = int(rng.integers(number))
        parts.append(_part(read(other), other, 0))
    speech, mask, source = (np.concatenate(column)[:steps] for column in zip(*parts, strict=True))
    end = np.flatnonzero(mask)[-1] + 1
    return Take(faded(speech[:end].reshape(-1)), source[:end])


def _part(one: Recording, index: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Speech (n, 160), mask (n,) and source (n, 2) of a recording from a given step on"""
    source = np.stack([np.full(len(one.steps), index), one.steps], axis=1)
    return one.speech.reshape(-1, STEP)[first:], one.mask[first:], source[first:]


class Speech(Protocol):
    """Source of voices for conversations."""

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of a speaker; see :func:`take`."""


class SpeechLibrary:
    """Recordings of single speakers.

    Parameters
    ----------
    folder : str or Path
        Either a folder per speaker, with sound files at any depth, or files named
        ``SPEAKER-WHATEVER.flac`` (.wav, .mp3, ...).
    speakers : sequence of str, optional
        Speakers to use. Defaults to all.

    Raises
    ------
    ValueError
        If there are no sound files, or only those of one speaker.
    """

    def __init__(self, folder: str | Path, speakers: Sequence[str] | None = None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of speech")
        self.files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                inside = path.relative_to(self.folder).parts
                name = inside[0] if len(inside) > 1 else path.stem.split("-")[0]
                self.files.setdefault(name, []).append(path)
        if speakers is not None:
            if unknown := sorted(set(speakers) - set(self.files)):
                raise ValueError(f"{folder}: no speech of {', '.join(unknown)}")
            self.files = {name: self.files[name] for name in sorted(speakers)}
        if not self.files:
            raise ValueError(f"{folder}: no speech file ({', '.join(SUFFIXES)})")
        if len(self.files) < 2:
            raise ValueError(
                f"{folder}: speech of one speaker only ({next(iter(self.files))}), a conversation "
                "needs two; make a folder per speaker, or name files SPEAKER-WHATEVER.flac"
            )

    @property
    def speakers(self) -> list[str]:
        """Names, sorted."""
        return sorted(self.files)

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of a speaker; see :func:`take`."""
        files = self.files[speaker]
        return take(lambda i: _read(files[i]), len(files), duration, rng)
