"""Faults of sound and of the clock: what is made, what is expected, and the message.

`FAULTS` is data. `tests/test_sound_faults.py` checks each row, and `docs/faults.md` shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import media
import numpy as np

RATE = 16000
WRAP = 2**33 / 90000  # seconds until the clock of a transport stream wraps


@dataclass(frozen=True)
class Fault:
    """One fault

    `outcome` and `message` are for readers; `message` is also what one sentence has to contain, or
    None if there is no message because nothing is lost. `make` writes the file into a folder, or
    returns a file in memory. Sound made at the times `sound_at` is found there, or at the times
    `found_at`, within `within` seconds; the spans `silent` hold silence. The sound lasts `duration`
    seconds.
    """

    id: str
    fault: str
    outcome: str
    message: str | None
    make: Callable[[Path], object]
    duration: float = 6.0
    sound_at: tuple[float, ...] = (0.6, 2.0, 3.5, 5.0)
    found_at: tuple[float, ...] | None = None
    silent: tuple[tuple[float, float], ...] = ()
    level: float | None = 0.3
    within: float = 0.005


# --- sound ------------------------------------------------------------------------------------


def _floats(folder: Path, change: Callable[[np.ndarray], np.ndarray | None], channels: int = 1):
    """Six seconds of sound (n,) or (n, channels), changed in place or replaced"""
    samples = media.chirps(np.arange(6 * RATE) / RATE)
    if channels > 1:
        samples = np.repeat(samples[:, None], channels, axis=1)
    changed = change(samples)
    return media.write_floats(folder / "sound.wav", samples if changed is None else changed)


def _memory(folder: Path, change, channels: int = 1) -> dict:
    import torch

    samples = media.chirps(np.arange(6 * RATE) / RATE)
    samples = np.repeat(samples[None], channels, axis=0)
    changed = change(samples)
    samples = samples if changed is None else changed
    return {"waveform": torch.from_numpy(samples), "sample_rate": RATE, "uri": "talk"}


def _set(where, value: float) -> Callable[[np.ndarray], None]:
    def change(samples):
        samples[where] = value

    return change


def _times(where, factor: float) -> Callable[[np.ndarray], None]:
    def change(samples):
        samples[where] *= factor

    return change


def _click(samples: np.ndarray) -> np.ndarray:
    silence = np.zeros_like(samples)
    silence[3 * RATE : 3 * RATE + 20] = 0.9
    return silence


def _spikes(samples: np.ndarray) -> None:
    samples[[20_000, 70_000]] = 5e4, -3e3


# --- the clock --------------------------------------------------------------------------------


def _stamped(folder: Path, stamp, name: str = "stamped.mka", **how) -> Path:
    return media.write_stamped(folder / name, stamp, **how)


def _wobble(milliseconds: int):
    rng = np.random.default_rng(0)
    return lambda t, k: t + float(rng.integers(-milliseconds, milliseconds + 1)) / 1000


def _wobbling(folder: Path, milliseconds: int) -> Path:
    return _stamped(folder, _wobble(milliseconds))


def _gap_and_wobble(folder: Path) -> Path:
    return _stamped(folder, _lost(2.0, 2.7, 20))


def _lost(first: float, last: float, milliseconds: int = 0):
    wobble = _wobble(milliseconds) if milliseconds else lambda t, k: t
    return lambda t, k: None if first <= t < last else wobble(t, k)


def _stall(t: float, number: int) -> float:
    """Nothing arrives for two seconds; then all of it arrives at once"""
    return 4.0 + (t - 2.0) / 100 if 2.0 <= t < 4.0 else t


def _film(folder: Path, name: str, start: float = 0.0, duration: float = 3.0, **how) -> Path:
    if Path(name).suffix in (".ts", ".mpg"):
        how = {"clock_offset": start, **how}
    signal = how.pop("signal", media.chirps)
    return media.write_media(folder / name, duration=duration, audio_signal=signal, **how)


def _joined(folder: Path, name: str, starts: tuple[float, float] = (0.0, 0.0), **how) -> Path:
    """Two recordings of three seconds; what the second one says is made at 3 s to 6 s"""
    suffix = Path(name).suffix
    parts = [
        _film(folder, "one" + suffix, starts[0], **how),
        _film(folder, "two" + suffix, starts[1], signal=lambda t: media.chirps(t + 3.0), **how),
    ]
    return media.join(folder / name, *parts)


def _trimmed(folder: Path) -> Path:
    """A copy of an mp4 from a picture between two key pictures on: an edit list hides the first"""
    import av

    source = _film(folder, "whole.mp4", duration=8.0, gop=100)
    path = folder / "trimmed.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        streams = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            if packet.dts is None:
                continue
            shift = round(2.0 / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.stream.type == "audio" and packet.pts < 0:
                continue
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return path


def _one_track_shorter(folder: Path, name: str, **how) -> Path:
    """Pictures for two seconds, sound for six"""
    times = [k / 25 for k in range(50)]
    return _film(folder, name, duration=6.0, timestamps=times, **how)


def _quiet_first(t: np.ndarray) -> np.ndarray:
    """Silence, then sound: what a bit rate of the first packets says is wrong"""
    return np.where(t < 1.0, 0.0, media.chirps(t)).astype(np.float32)


def _mp3(folder: Path, name: str = "vbr.mp3", signal=_quiet_first, **how) -> Path:
    how = {"codec_options": {"q:a": "2"}, "write_xing": "0", **how}
    return media.write_encoded(folder / name, "libmp3lame", signal, **how)


def _truncated(folder: Path) -> Path:
    return media.truncate(_film(folder, "cut.mp4", duration=6.0, faststart=True), 0.6)


RESTART = "inconsistent timestamps"
NOT_READ = "holds another recording"
HALF = (0.6, 1.5, 2.4)
PARTS = (0.6, 2.0, 3.6, 5.0)

SOUND = [
    Fault(
        "nan-sample",
        "one NaN in a float WAV",
        "the sample is interpolated",
        "1 samples are NaN",
        partial(_floats, change=_set(50_000, np.nan)),
    ),
    Fault(
        "infinite-samples",
        "infinite samples in a float WAV",
        "they are interpolated",
        "3 samples are NaN",
        partial(_floats, change=_set([100, 50_000, 50_001], np.inf)),
    ),
    Fault(
        "nan-second",
        "half a second of NaN in a float WAV",
        "half a second of silence",
        "from 2.50 to 3.00 s",
        partial(_floats, change=_set(slice(40_000, 48_000), np.nan)),
        sound_at=(0.6, 1.5, 3.5, 5.0),
        silent=((2.52, 2.98),),
    ),
    Fault(
        "nan-memory",
        "one NaN in a waveform in memory",
        "the sample is interpolated; the caller's waveform is not changed",
        "1 samples are NaN",
        partial(_memory, change=_set((0, 50_000), np.nan)),
    ),
    Fault(
        "inverted-channel",
        "one of two channels is inverted",
        "the loudest channel is used",
        "channels that cancel each other for 6.00 s",
        partial(_floats, change=_times((slice(None), 1), -0.9), channels=2),
    ),
    Fault(
        "inverted-part",
        "one channel is inverted for two seconds",
        "the loudest channel is used there, the average elsewhere",
        "cancel each other for 2.0",
        partial(_floats, change=_times((slice(32_000, 64_000), 1), -1.0), channels=2),
    ),
    Fault(
        "inverted-memory",
        "one of two channels in memory is inverted",
        "the loudest channel is used",
        "cancel each other",
        partial(_memory, change=_times((1, slice(None)), -1.0), channels=2),
    ),
    Fault(
        "dead-channel",
        "one of two channels is silent",
        "the other channel is used, at its own level",
        "2 channels, of which 1 is silent",
        partial(_floats, change=_times((slice(None), 0), 0.0), channels=2),
    ),
    Fault(
        "dead-memory",
        "seven of eight channels in memory are silent",
        "the other channel is used, at its own level",
        "8 channels, of which 7 are silent",
        partial(_memory, change=_times((slice(1, None), slice(None)), 0.0), channels=8),
    ),
    Fault(
        "faint-channel",
        "one of two channels is 30 dB fainter",
        "both are averaged",
        "more than 20 dB fainter",
        partial(_floats, change=_times((slice(None), 1), 0.03), channels=2),
        level=0.15,
    ),
    Fault(
        "clipped",
        "sound is clipped",
        "it is used as it is",
        "is clipped",
        partial(_floats, change=lambda samples: np.clip(5 * samples, -1, 1)),
        level=None,
    ),
    Fault(
        "offset",
        "a constant offset of 0.3",
        "the offset is removed",
        "has an offset of +0.30",
        partial(_floats, change=lambda samples: samples + 0.3),
    ),
    Fault(
        "silent",
        "silence from beginning to end",
        "no speakers",
        "no speakers can be found",
        partial(_floats, change=_times(slice(None), 0.0)),
        sound_at=(),
        silent=((0.0, 6.0),),
    ),
    Fault(
        "click",
        "a click in silence",
        "no speakers",
        "a click: no speakers",
        partial(_floats, change=_click),
        sound_at=(),
        silent=((0.0, 2.9), (3.1, 6.0)),
    ),
    Fault(
        "quiet",
        "sound at -60 dB",
        "it is amplified",
        "is very quiet",
        partial(_floats, change=_times(slice(None), 1 / 300)),
        level=0.5,
    ),
    Fault(
        "other-units",
        "floats from -32768 to 32767",
        "it is scaled down to full scale",
        "is scaled down",
        partial(_floats, change=_times(slice(None), 32768.0)),
        level=1.0,
    ),
    Fault(
        "spikes",
        "two samples of thousands of times full scale",
        "two milliseconds around them are silence",
        "where full scale is 1; they are silence",
        partial(_floats, change=_spikes),
    ),
    Fault(
        "integers",
        "16-bit integers in memory",
        "they are divided by their full scale",
        None,
        partial(_memory, change=lambda samples: np.round(32767 * samples).astype(np.int16)),
    ),
]

CLOCK = [
    Fault(
        "wrapped",
        "the 33-bit clock of a transport stream wraps after 2 s",
        "time goes on; nothing is lost",
        None,
        partial(_film, name="wrap.ts", start=WRAP - 2.0, duration=6.0),
        within=0.03,
    ),
    Fault(
        "huge-start",
        "time stamps begin at 20,000 hours",
        "the first one is time 0",
        None,
        partial(_stamped, stamp=lambda t, k: 7.2e7 + t),
    ),
    Fault(
        "negative-start",
        "FLV whose time stamps begin at -4 s",
        "the first one is time 0; samples go on at 0, where stamps leap",
        RESTART,
        partial(
            _stamped,
            stamp=lambda t, k: t - 4.0,
            name="negative.flv",
            rate=44100,
            options={"avoid_negative_ts": "disabled"},
        ),
    ),
    *(
        Fault(
            f"wobble-{ms}",
            f"time stamps that wobble by {ms} ms",
            "samples are trusted: continuous sound",
            None,
            partial(_wobbling, milliseconds=ms),
            within=ms / 1000,
        )
        for ms in (20, 40, 100)
    ),
    Fault(
        "bursts",
        "packets stamped on arrival, in bursts of ten",
        "samples are trusted: continuous sound",
        None,
        partial(_stamped, stamp=lambda t, k: t - (k % 10) * 1024 / 48000 + (k % 10) / 1000),
        within=0.2,
    ),
    Fault(
        "stall",
        "packets stamped on arrival, after a stall of two seconds",
        "samples are trusted: continuous sound",
        "time stamps that wobble",
        partial(_stamped, stamp=_stall),
    ),
    Fault(
        "slow-clock",
        "samples are made 1% too slowly for their time stamps",
        "the sound is stretched to fit",
        None,
        partial(_stamped, stamp=lambda t, k: t, clock=0.99),
        sound_at=(),
        level=None,
    ),
    Fault(
        "fast-clock",
        "samples are made 6% too fast for their time stamps",
        "the sound is shortened to fit",
        "drifts from its time stamps by 0.3",
        partial(_stamped, stamp=lambda t, k: t, clock=1.06),
        sound_at=(),
        level=None,
    ),
    Fault(
        "gap",
        "0.7 s of packets are missing",
        "0.7 s of silence",
        "has gaps of 0.7",
        partial(_stamped, stamp=_lost(2.0, 2.7)),
        sound_at=(0.6, 1.2, 3.5, 5.0),
        silent=((2.06, 2.66),),
    ),
    Fault(
        "gap-and-wobble",
        "0.7 s of packets are missing, and time stamps wobble by 20 ms",
        "about 0.7 s of silence; elsewhere continuous sound",
        "has gaps of 0.",
        _gap_and_wobble,
        sound_at=(0.6, 1.2, 3.5, 5.0),
        silent=((2.1, 2.6),),
        within=0.045,
    ),
    *(
        Fault(
            f"joined-{name}",
            f"two recordings joined byte by byte: {what}",
            "the second one follows the first",
            message,
            partial(_joined, name=f"joined.{name}", **how),
            sound_at=PARTS,
            within=within,
        )
        for name, what, message, within, how in (
            ("ts", "MPEG-TS", RESTART, 0.07, {}),
            ("mpg", "MPEG-PS", RESTART, 0.07, {"video_codec": "mpeg2video", "audio_codec": "mp2"}),
            ("mkv", "Matroska", RESTART, 0.04, {}),
            ("avi", "AVI", None, 0.06, {"audio_codec": "libmp3lame"}),
            ("mp3", "MP3", "decoding errors", 0.06, {"video": False, "audio_codec": "libmp3lame"}),
            ("aac", "ADTS", None, 0.06, {"video": False}),
            ("opus", "chained Ogg", RESTART, 0.02, {"video": False, "audio_codec": "libopus"}),
            ("flac", "FLAC", RESTART, 0.005, {"video": False, "audio_codec": "flac"}),
        )
    ),
    Fault(
        "leap-ts",
        "two transport streams joined byte by byte, the second an hour later",
        "the second one follows the first",
        RESTART,
        partial(_joined, name="leap.ts", starts=(0.0, 3600.0)),
        sound_at=PARTS,
        within=0.07,
    ),
    Fault(
        "earlier-ts",
        "two transport streams joined byte by byte, the second an hour earlier",
        "the second one follows the first",
        RESTART,
        partial(_joined, name="earlier.ts", starts=(3600.0, 0.0)),
        sound_at=PARTS,
        within=0.07,
    ),
    *(
        Fault(
            f"joined-{name}",
            f"two recordings joined byte by byte: {what}",
            "the first one is read, as players do",
            NOT_READ,
            partial(_joined, name=f"joined.{name}", **how),
            duration=3.0,
            sound_at=HALF,
            within=0.03,
        )
        for name, what, how in (
            ("wav", "WAV", {"video": False, "audio_codec": "pcm_s16le"}),
            ("mp4", "MP4", {}),
            ("flv", "FLV", {"audio_rate": 44100}),
        )
    ),
    Fault(
        "edit-list",
        "a stream copy that begins between two key pictures",
        "what is shown is read; the file is whole",
        None,
        _trimmed,
        sound_at=(2.6, 4.0, 7.0),
        found_at=(0.6, 2.0, 5.0),
        within=0.03,
    ),
    Fault(
        "vbr-mp3",
        "MP3 of a variable rate whose header is missing",
        "packets are counted to know its duration",
        None,
        _mp3,
        sound_at=(1.6, 3.0, 5.0),
        within=0.03,
    ),
    Fault(
        "adts-quiet-first",
        "ADTS that begins with silence",
        "packets are counted to know its duration",
        None,
        lambda folder: media.write_encoded(folder / "quiet.aac", "aac", _quiet_first),
        sound_at=(1.6, 3.0, 5.0),
        within=0.03,
    ),
    Fault(
        "short-pictures-flv",
        "FLV whose pictures end after 2 of 6 s",
        "both are read; the file is whole",
        None,
        partial(_one_track_shorter, name="short.flv", audio_rate=44100),
        within=0.03,
    ),
    Fault(
        "short-pictures-asf",
        "WMV whose pictures end after 2 of 6 s",
        "both are read; the file is whole",
        None,
        partial(
            _one_track_shorter,
            name="short.wmv",
            video_codec="mpeg4",
            audio_codec="libmp3lame",
            audio_rate=44100,
        ),
        within=0.03,
    ),
    Fault(
        "still-picture",
        "Matroska with one picture and six seconds of sound",
        "both are read; the file is whole",
        None,
        partial(_film, name="still.mkv", duration=6.0, timestamps=[0.0]),
    ),
    Fault(
        "cut-short",
        "an mp4 of which 60% are there",
        "what is there is read",
        "s of 6.0",
        _truncated,
        duration=3.4,
        sound_at=(0.6, 2.0),
    ),
]

FAULTS = SOUND + CLOCK
