"""Sound of a file as one waveform on the container clock"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pyannote_av.core.clock import GAP, STRETCH, Settling, next_recording
from pyannote_av.core.decoding import SHORT, Damage, decode, name_of
from pyannote_av.core.files import SAMPLE_RATES, MediaError, is_sample_rate
from pyannote_av.core.media import MAX_CHANNELS, AudioStream, MediaInfo, faults, open_media
from pyannote_av.core.mixing import Mixer, bad_samples, level, no_numbers, peak_of, repair

REPAIRED = ("pcm_f", "wavpack")
"""Codecs that store floats unchanged, including NaN and infinity"""

HALF_PEAK = 1000.0
"""Maximum absolute value of samples at half precision. Larger ones have another scale, and the sum
of several tracks could be too large"""

RESERVED = 3600.0
"""Maximum duration for which memory is reserved in advance (s); declared durations can be wrong"""


class _Waveform:
    """Buffer that grows as samples are written to it, without ever being copied

    Parameters
    ----------
    capacity : int
        Expected number of samples.
    sample_rate : int
    repairs : _Repairs
        Is told about samples that are not finite.
    half : bool, optional
        Keep samples at half precision, unless some are too large for it.
    """

    def __init__(self, capacity: int, sample_rate: int, repairs: _Repairs, half: bool = False):
        self._buffer = np.zeros(capacity, np.float16 if half else np.float32)
        self._sample_rate = sample_rate
        self._repairs = repairs
        self.filled = 0
        self.spans: list[tuple[int, int]] = []  # ranges that were written; the rest are gaps

    def lay(self, first: int, samples: np.ndarray) -> None:
        """Write samples (n,) at index `first`; samples written before are not overwritten

        Infinite and NaN samples become zeros, because they would spread to everything computed
        from the waveform.
        """
        skip = max(self.filled - first, 0)
        if skip >= len(samples):
            return
        end = first + len(samples)
        if self._buffer.dtype == np.float16 and peak_of(samples) > HALF_PEAK:
            self._buffer = self._buffer.astype(np.float32)
        if end > len(self._buffer):
            # in place, because realloc moves pages instead of copying them
            self._buffer.resize(end + len(self._buffer) // 8, refcheck=False)
        laid = self._buffer[first + skip : end]
        laid[:] = samples[skip:]
        if self.spans and self.spans[-1][1] >= first:
            self.spans[-1] = (self.spans[-1][0], end)
        else:
            self.spans.append((first + skip, end))
        self.filled = end
        bad = np.flatnonzero(~np.isfinite(laid))
        if len(bad):
            laid[bad] = 0.0
            times = (first + skip + bad[[0, -1]]) / self._sample_rate
            self._repairs.add(len(bad), *times.tolist())

    def finish(self) -> np.ndarray:
        """The samples (n,)"""
        self._buffer.resize(self.filled, refcheck=False)
        return self._buffer


class _Run:
    """Consecutive decoded frames without a gap, downmixed and resampled one by one"""

    def __init__(
        self,
        time: float,
        frame,
        sample_rate: int,
        waveform: _Waveform,
        mixer: Mixer,
        channel: int | None = None,
    ):
        import av

        self.time = time
        self.rate = frame.sample_rate
        self.kind = self.kind_of(frame)
        self.count = 0  # samples at the native rate
        self._sample_rate = sample_rate
        # Channels are averaged below, as in pyannote.audio, because the resampler would add them
        # (+3 dB for stereo). Interleaved, because PyAV crashes on more than 8 planes.
        self._resampler = av.AudioResampler(format="flt", rate=sample_rate)
        self._waveform = waveform
        self._mixer = mixer
        self._held: list[np.ndarray] = []  # channels that are not mixed yet
        self._channel = slice(None) if channel is None else slice(channel, channel + 1)
        self._first = round(time * sample_rate)
        self._taken = 0  # samples at the target rate
        self._laid = 0  # the same after stretching
        self._stretched = 0.0
        self._owed = 0  # samples still to be inserted, or left out if negative

    @staticmethod
    def kind_of(frame) -> tuple:
        return frame.sample_rate, frame.format.name, frame.layout.name

    @property
    def end(self) -> float:
        return self.time + self.count / self.rate + self._stretched

    def add(self, frame, stretch: float = 0.0) -> None:
        """Write a frame; from here on, `stretch` seconds are inserted bit by bit"""
        self.count += frame.samples
        self._stretched += stretch
        self._owed += round(stretch * self._sample_rate)
        frame.pts = None
        self._collect(frame)

    def _collect(self, frame) -> None:
        for part in self._resampler.resample(frame):
            samples = part.to_ndarray().reshape(part.samples, -1)[:, self._channel]
            # resamplers return a few samples too many
            samples = samples[: round(self.count * self._sample_rate / self.rate) - self._taken]
            self._taken += len(samples)
            self._held.append(samples)
        if sum(map(len, self._held)) >= self._mixer.block or frame is None:
            self._lay()

    def _lay(self) -> None:
        """Mix and write the buffered samples"""
        if not self._held:
            return
        whole = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held = []
        samples = self._mixer.mix(whole, self.time + self._laid / self._sample_rate)
        if self._owed and len(samples):
            samples = self._stretch(samples)
        self._waveform.lay(self._first + self._laid, samples)
        self._laid += len(samples)

    def _stretch(self, samples: np.ndarray) -> np.ndarray:
        """Insert or leave out some of the samples that are due, by interpolation"""
        most = round(STRETCH * len(samples))
        more = min(max(self._owed, -most), most)
        self._owed -= more
        count = len(samples) + more
        where = (np.arange(count) + 0.5) * (len(samples) / count) - 0.5
        return np.interp(where, np.arange(len(samples)), samples).astype(np.float32)

    def finish(self) -> None:
        """Write the samples that are left in the resampler"""
        self._collect(None)


def resample(samples: np.ndarray, rate: int, sample_rate: int, chunk: int = 65536) -> np.ndarray:
    """Resample sound in memory in the same way as the sound of files, for any two rates

    Parameters
    ----------
    samples : (n,) float32
    rate, sample_rate : int
        Sample rates of the input and of the output (Hz).

    Returns
    -------
    resampled : (m,) float32
    """
    import av

    waveform, mixer = _Waveform(0, sample_rate, _Repairs()), Mixer(sample_rate)
    run: _Run | None = None
    for first in range(0, len(samples), chunk):
        part = np.ascontiguousarray(samples[None, first : first + chunk])
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
        frame.sample_rate = rate
        run = run or _Run(0.0, frame, sample_rate, waveform, mixer)
        run.add(frame)
    if run is not None:
        run.finish()
    return waveform.finish()


def no_such_channel(where: str, channel: int, channels: int) -> str:
    """Sentence about a channel that does not exist, with the channels that do."""
    there = f"channels 0 to {channels - 1}" if channels > 1 else "one channel, 0"
    return f"{where} has no channel {channel}: it has {there}"


def decode_sound(
    info: MediaInfo,
    stream: AudioStream,
    sample_rate: int,
    channel: int | None = None,
    scaled: bool = True,
    half: bool = False,
) -> tuple[np.ndarray, list]:
    """Decode an audio stream once, downmixed and resampled

    Parameters
    ----------
    info : MediaInfo
    stream : AudioStream
        One of `info.audio`.
    sample_rate : int
        Sample rate of the output (Hz).
    channel : int, optional
        The only channel to use. By default, channels are averaged.
    scaled : bool, optional
        See :func:`pyannote_av.core.mixing.level`.
    half : bool, optional
        Keep the sound at half precision, which takes half of the memory, unless samples are larger
        than :data:`HALF_PEAK`.

    Returns
    -------
    waveform : (num_samples,) float32 or float16
        Sample 0 is at time 0 of the container clock. If the sound starts later, zeros come first;
        gaps are filled with zeros, and sound before time 0 is cut. Channels are averaged, unless
        they cancel each other. Bad samples are repaired (:mod:`pyannote_av.core.mixing`).
    problems : list of str

    Raises
    ------
    MediaError
        If nothing can be decoded, if there is no such channel, or if the header declares a sample
        rate or a number of channels that is not supported.
    """
    name = f"audio stream {stream.index} of {info.path}"
    if stream.sample_rate and not is_sample_rate(stream.sample_rate):
        lowest, highest = SAMPLE_RATES
        raise MediaError(
            f"{name} declares a sample rate of {stream.sample_rate} Hz ({lowest} to {highest} are "
            "read): if its header is not damaged, resample it (`ffmpeg -i FILE -ar 16000 NEW`)"
        )
    if stream.channels > MAX_CHANNELS:
        raise MediaError(
            f"{name} declares {stream.channels} channels ({MAX_CHANNELS} are read at most): if its "
            "header is not damaged, mix it down (`ffmpeg -i FILE -ac 1 NEW`)"
        )
    if channel is not None and channel >= stream.channels:
        raise MediaError(no_such_channel(name, channel, stream.channels))
    damage = Damage.of(info)
    mixer, repairs = Mixer(sample_rate), _Repairs()
    capacity = round(min(info.duration, RESERVED) * sample_rate)
    waveform = _Waveform(capacity, sample_rate, repairs, half)
    settling = Settling(
        lambda time: damage.is_plausible(time, info.duration), damage.misplace, damage.join
    )
    run: _Run | None = None
    with open_media(info.path) as container:
        source = container.streams[stream.index]
        source.thread_type = "AUTO"
        frames = _stamped(decode(container, source, damage, info), info, damage, channel or 0)
        for time, stretch, frame in settling(frames, max(stream.start, 0.0)):
            if stream.codec.startswith(REPAIRED):
                frame = repairs(frame, time)
            try:
                if run and (abs(time - run.end) > GAP or run.kind != _Run.kind_of(frame)):
                    run.finish()
                    run = None
                run = run or _Run(time, frame, sample_rate, waveform, mixer, channel)
                run.add(frame, stretch)
            except faults() as error:
                raise MediaError(
                    f"{name} cannot be resampled at {time:.2f} s ({error}): convert it to wav"
                ) from error
            damage.advance(time, run.end, GAP)
    if run is None:
        raise MediaError(
            f"{name_of('audio', info, stream)}: nothing of it could be decoded ({stream.codec}, "
            f"{damage.errors} errors): the file is damaged"
        )
    run.finish()
    sentences = damage.describe("audio", info, stream)
    name = name_of("audio", info, stream)
    sentences += [f"{name} {sentence}" for sentence in repairs.describe()]
    if settling.drift > SHORT:
        sentences.append(
            f"{name} drifts from its time stamps by {settling.drift:.2f} s in all; it is stretched "
            "or shortened to fit them"
        )
    if settling.stood:
        sentences.append(
            f"{name} has inconsistent timestamps: they stand still for {settling.stood:.2f} s of "
            "sound; its samples are trusted instead"
        )
    if settling.wobble > SHORT:
        sentences.append(
            f"{name} has time stamps that wobble by up to {settling.wobble:.2f} s; its samples are "
            "trusted instead"
        )
    following = next_recording(info.path, info.format, damage.position)
    if following is not None and damage.position < following:
        sentences.append(
            f"{info.path} holds another recording from byte {following} on, which is not read: "
            "split the file"
        )
    samples, found = level(waveform.finish(), mixer, waveform.spans, scaled)
    return samples, sentences + [f"{name} {sentence}" for sentence in found]


def _stamped(
    frames, info: MediaInfo, damage: Damage, channel: int
) -> Iterator[tuple[float | None, float, Any]]:
    """Usable decoded frames that have the channel, with their stamps and lengths (s)"""
    for frame in frames:
        if not frame.samples or not frame.sample_rate:
            continue
        # rate and channels may change in midstream
        channels = frame.layout.nb_channels
        if not is_sample_rate(frame.sample_rate) or not channel < channels <= MAX_CHANNELS:
            damage.error()
            continue
        stamp = None
        if frame.pts is not None:
            stamp = float(frame.pts * frame.time_base) - info.origin
        yield stamp, frame.samples / frame.sample_rate, frame


class _Repairs:
    """Repairs bad samples of decoded frames before resampling spreads them, and counts them"""

    def __init__(self):
        self._count = 0
        self._first = np.inf
        self._last = 0.0

    def add(self, count: int, first: float, last: float) -> None:
        """Count repaired samples between two times (s)"""
        self._count += count
        self._first, self._last = min(self._first, first), max(self._last, last)

    def __call__(self, frame, time: float):
        """The frame, or a repaired one"""
        import av

        channels = frame.layout.nb_channels
        # PyAV crashes on more than 8 planes
        if frame.format.name not in ("flt", "fltp", "dbl", "dblp") or (
            frame.format.is_planar and channels > 8
        ):
            return frame
        samples = frame.to_ndarray()
        bad = bad_samples(samples)
        if not bad.any():
            return frame
        if not frame.format.is_planar:
            samples, bad = (array.reshape(-1, channels).T for array in (samples, bad))
        where = np.flatnonzero(bad.any(axis=0))[[0, -1]] / frame.sample_rate
        self.add(int(np.count_nonzero(bad)), *(time + where).tolist())
        samples = np.stack(
            [
                repair(one, frame.sample_rate, mask) if mask.any() else one
                for one, mask in zip(samples, bad, strict=True)
            ]
        )
        if not frame.format.is_planar:
            samples = samples.T.reshape(1, -1)
        repaired = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format=frame.format.name, layout=frame.layout.name
        )
        repaired.sample_rate = frame.sample_rate
        return repaired

    def describe(self) -> list[str]:
        """Sentence about the repaired samples, if there are any"""
        return [no_numbers(self._count, self._first, self._last)] if self._count else []
