"""Sound of a file as one waveform on the container clock"""

from __future__ import annotations

import numpy as np

from pyannote_av.core.decoding import Damage, decode
from pyannote_av.core.files import SAMPLE_RATES, MediaError, is_sample_rate
from pyannote_av.core.media import MAX_CHANNELS, AudioStream, MediaInfo, faults, open_media

GAP = 0.015
"""Timestamps that differ from the count of samples by more than this mean a gap (s). It is shorter
than the frames of all codecs (20 ms and more) and longer than the rounding of all containers
(1 ms)."""

RESERVED = 3600.0
"""Maximum duration for which memory is reserved in advance (s); declared durations can be wrong"""


class _Waveform:
    """Buffer that grows as samples are written to it, without ever being copied

    Parameters
    ----------
    capacity : int
        Expected number of samples.
    """

    def __init__(self, capacity: int):
        self._buffer = np.zeros(capacity, np.float32)
        self.filled = 0
        self.no_numbers = 0

    def lay(self, first: int, samples: np.ndarray) -> None:
        """Write samples (n,) at index `first`; samples written before are not overwritten

        Infinite and NaN samples become zeros, because they would spread to everything computed
        from the waveform. `no_numbers` counts them.
        """
        skip = max(self.filled - first, 0)
        if skip >= len(samples):
            return
        end = first + len(samples)
        if end > len(self._buffer):
            # in place, because realloc moves pages instead of copying them
            self._buffer.resize(end + len(self._buffer) // 8, refcheck=False)
        laid = self._buffer[first + skip : end]
        laid[:] = samples[skip:]
        self.filled = end
        finite = np.isfinite(laid)
        if not finite.all():
            laid[~finite] = 0.0
            self.no_numbers += int(np.count_nonzero(~finite))

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
        self._channel = slice(None) if channel is None else slice(channel, channel + 1)
        self._first = round(time * sample_rate)
        self._laid = 0  # samples at the target rate

    @staticmethod
    def kind_of(frame) -> tuple:
        return frame.sample_rate, frame.format.name, frame.layout.name

    @property
    def end(self) -> float:
        return self.time + self.count / self.rate

    def add(self, frame) -> None:
        self.count += frame.samples
        frame.pts = None
        self._collect(frame)

    def _collect(self, frame) -> None:
        for part in self._resampler.resample(frame):
            channels = part.to_ndarray().reshape(part.samples, -1)[:, self._channel]
            samples = channels.mean(axis=1, dtype=np.float32)
            # resamplers return a few samples too many
            samples = samples[: round(self.count * self._sample_rate / self.rate) - self._laid]
            self._waveform.lay(self._first + self._laid, samples)
            self._laid += len(samples)

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

    waveform = _Waveform(0)
    run: _Run | None = None
    for first in range(0, len(samples), chunk):
        part = np.ascontiguousarray(samples[None, first : first + chunk])
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
        frame.sample_rate = rate
        run = run or _Run(0.0, frame, sample_rate, waveform)
        run.add(frame)
    if run is not None:
        run.finish()
    return waveform.finish()


def no_such_channel(where: str, channel: int, channels: int) -> str:
    """Sentence that says which channels there are."""
    there = f"channels 0 to {channels - 1}" if channels > 1 else "one channel, 0"
    return f"{where} has no channel {channel}: it has {there}"


def decode_sound(
    info: MediaInfo, stream: AudioStream, sample_rate: int, channel: int | None = None
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

    Returns
    -------
    waveform : (num_samples,) float32
        Sample 0 is at time 0 of the container clock. If the sound starts later, zeros come first;
        gaps are filled with zeros, and sound before time 0 is cut.
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
            "read): its header is damaged, or resample it (`ffmpeg -i FILE -ar 16000 NEW`)"
        )
    if stream.channels > MAX_CHANNELS:
        raise MediaError(
            f"{name} declares {stream.channels} channels ({MAX_CHANNELS} are read at most): its "
            "header is damaged, or mix it down (`ffmpeg -i FILE -ac 1 NEW`)"
        )
    if channel is not None and channel >= stream.channels:
        raise MediaError(no_such_channel(name, channel, stream.channels))
    damage = Damage.of(info)
    waveform = _Waveform(round(min(info.duration, RESERVED) * sample_rate))
    run: _Run | None = None
    with open_media(info.path) as container:
        source = container.streams[stream.index]
        source.thread_type = "AUTO"
        for frame in decode(container, source, damage):
            if not frame.samples or not frame.sample_rate:
                continue
            # rate and channels may change in midstream
            channels = frame.layout.nb_channels
            if (
                not is_sample_rate(frame.sample_rate)
                or not (channel or 0) < channels <= MAX_CHANNELS
            ):
                damage.error()
                continue
            expected = run.end if run else max(stream.start, 0.0)
            time = expected
            if frame.pts is not None:
                time = float(frame.pts * frame.time_base) - info.origin
            if not damage.accepts(time, info.duration):
                continue
            end = time + frame.samples / frame.sample_rate
            if run and time < expected - GAP and end < expected + GAP:
                damage.misplace()
                continue
            try:
                if run and (abs(time - run.end) > GAP or run.kind != _Run.kind_of(frame)):
                    run.finish()
                    run = None
                run = run or _Run(time, frame, sample_rate, waveform, channel)
                run.add(frame)
            except faults() as error:
                raise MediaError(
                    f"{name} cannot be resampled at {time:.2f} s ({error}): convert it to wav"
                ) from error
            damage.advance(time, run.end, GAP)
    if run is None:
        raise MediaError(
            f"audio stream of {info.path}: nothing of it could be decoded ({stream.codec}, "
            f"{damage.errors} errors): the file is damaged"
        )
    run.finish()
    sentences = damage.describe("audio", info, stream)
    if waveform.no_numbers:
        sentences.append(
            f"audio stream of {info.path} is damaged ({waveform.no_numbers} samples are no "
            "numbers); they are silence"
        )
    return waveform.finish(), sentences
