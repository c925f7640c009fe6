"""Speech of one person at a time: folders of it, and pieces cut where there is energy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from pyannote_av.core.io import SAMPLE_RATE

#: endings of sound files
SUFFIXES = (".flac", ".wav", ".mp3", ".m4a", ".ogg", ".opus", ".mp4")
#: samples of a step of the energy check (10 ms), and how far below loud speech silence is, in dB
STEP = SAMPLE_RATE // 100
SILENCE = 32.0
#: steps: longest silence left within a turn, and shortest sound that is more than a click
_PAUSE, _CLICK = 20, 5
#: dB below loud speech of what is but a breath
_BREATH = 20.0
#: level speech is brought to: RMS of its loud half
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
    """Which steps of 10 ms hold sound: bool of the length of :func:`levels`.

    Parameters
    ----------
    waveform : (N,) float
        At 16 kHz.
    silence : float
        Sound is what is less than that many dB below the loud steps (the 95th percentile of those
        that are no digital silence).
    """
    level = levels(waveform)
    heard = level[level > -90]
    return level > np.percentile(heard, 95) - silence if len(heard) else np.zeros(len(level), bool)


def stretches(mask: np.ndarray) -> np.ndarray:
    """(n, 2) first and behind-last index of the runs of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return edges.reshape(-1, 2)


def condensed(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Speech without its long silences, and which of its steps of 10 ms hold sound.

    What is before the first sound and after the last goes, and of silences inside all but 0.2 s.

    Returns
    -------
    waveform : (N,) float32
    mask : (N / 160,) bool
    """
    mask = sounding(waveform)
    runs = stretches(mask)
    level = levels(waveform)
    loud = np.percentile(level[mask], 95) - _BREATH if mask.any() else 0.0
    runs = [run for run in runs if run[1] - run[0] >= _CLICK and level[slice(*run)].max() > loud]
    if not runs:
        return np.zeros(0, np.float32), np.zeros(0, bool)
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
    return padded.reshape(-1, STEP)[steps].reshape(-1), np.concatenate(sound)


def faded(waveform: np.ndarray) -> np.ndarray:
    """A copy whose ends rise and fall within 10 ms, so that cuts do not click."""
    waveform, size = waveform.copy(), min(_FADE, len(waveform) // 2)
    ramp = np.linspace(0, 1, size, endpoint=False, dtype=np.float32) + np.float32(0.5 / (size or 1))
    waveform[:size] *= ramp
    waveform[len(waveform) - size :] *= ramp[::-1]
    return waveform


@lru_cache(maxsize=32)
def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Condensed speech of a file at :data:`LEVEL`"""
    from pyannote_av.core.io import Video

    waveform = Video().waveform(path)[0, : int(_LONGEST * SAMPLE_RATE)].numpy()
    speech, mask = condensed(waveform)
    if not len(speech):
        raise ValueError(f"{path}: nothing but silence")
    power = np.sort((speech.reshape(-1, STEP) ** 2).mean(axis=1))
    return speech * np.float32(LEVEL / np.sqrt(power[len(power) // 2 :].mean())), mask


class SpeechLibrary:
    """Recordings of single speakers.

    Parameters
    ----------
    folder : str or Path
        Either a folder per speaker, with sound files anywhere in it, or files named
        ``SPEAKER-WHATEVER.flac`` (.wav, .mp3, ...).
    speakers : sequence of str, optional
        Those that may be used; all unless given.

    Raises
    ------
    ValueError
        Without sound files, or with those of fewer than two speakers.
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

    def piece(self, speaker: str, duration: float, rng: np.random.Generator) -> np.ndarray:
        """Speech that sounds at its very beginning and at its very end.

        Parameters
        ----------
        speaker : str
        duration : float
            Seconds. What comes back may be up to 0.2 s shorter: it ends before a silence rather
            than in it. Speech repeats where there is less of it.
        rng : numpy.random.Generator

        Returns
        -------
        waveform : (N,) float32
            At 16 kHz and at :data:`LEVEL`.
        """
        files = self.files[speaker]
        speech, mask = _read(files[int(rng.integers(len(files)))])
        steps = max(1, round(duration * SAMPLE_RATE / STEP))
        begins = stretches(mask)[:, 0]
        # from its beginning where that is the only way not to repeat anything
        fitting = begins[begins + steps <= len(mask)]
        first = int(rng.choice(fitting)) if len(fitting) else 0
        chosen = [np.arange(first, len(mask))]
        while sum(map(len, chosen)) < steps:
            speech, mask, chosen = self._more(speech, mask, chosen, files, rng)
        index = np.concatenate(chosen)[:steps]
        index = index[: np.flatnonzero(mask[index])[-1] + 1]
        return faded(speech.reshape(-1, STEP)[index].reshape(-1))

    @staticmethod
    def _more(speech, mask, chosen, files, rng):
        """Another file of the same speaker behind this one, after 0.15 s of silence"""
        other, sound = _read(files[int(rng.integers(len(files)))])
        begin = len(mask)
        speech = np.concatenate([speech, np.zeros(15 * STEP, np.float32), other])
        mask = np.concatenate([mask, np.zeros(15, bool), sound])
        return speech, mask, [*chosen, np.arange(begin, len(mask))]
