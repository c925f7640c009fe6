"""Buzzing voices for simulated conversations."""

from pathlib import Path

import numpy as np
from pyannote.core import Segment, Timeline

from pyannote_av.core.runs import true_runs
from pyannote_av.simulation.speech import STEP, sounding

RATE = 16000


def voice(pitch: float, seconds: float, seed: int) -> np.ndarray:
    """Syllables of a buzzing voice with pauses between words, silence before and after, hiss."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    envelope, at = np.zeros(len(time)), 0.4
    while at < seconds - 0.8:
        for _ in range(rng.integers(1, 5)):
            lasts = rng.uniform(0.12, 0.3)
            inside = (time >= at) & (time < at + lasts)
            envelope[inside] = rng.uniform(0.4, 1) * np.sin(np.pi * (time[inside] - at) / lasts)
            at += lasts
        at += rng.uniform(0.1, 0.7)
    envelope[time > seconds - 0.4] = 0
    return 0.2 * buzz * envelope + 1e-4 * rng.standard_normal(len(time))


def write_wav(path: Path, waveform: np.ndarray) -> Path:
    from scipy.io import wavfile

    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, RATE, (np.clip(waveform, -1, 1) * 32767).astype(np.int16))
    return path


def write_speech(folder: Path) -> Path:
    """Speech of five speakers, 8 s each."""
    for i, pitch in enumerate((90, 120, 160, 210, 250)):
        write_wav(folder / f"{100 + i}-1-000{i}.wav", voice(pitch, 8.0, i))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of all files below a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def energy_turns(stem: np.ndarray, bridge: float = 0.3) -> Timeline:
    """Regions with energy in a clean stem, (N,); silences of up to `bridge` seconds are bridged."""
    timeline = Timeline(
        Segment(first * STEP / RATE, end * STEP / RATE)
        for first, end in true_runs(sounding(stem, 45.0))
    )
    return timeline.support(collar=bridge)
