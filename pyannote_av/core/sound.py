"""Sound of a file as one waveform on the container clock"""

from __future__ import annotations

import numpy as np

from pyannote_av.core.decoding import Damage, decode
from pyannote_av.core.files import MediaError
from pyannote_av.core.media import AudioStream, MediaInfo, open_media

GAP = 0.015
"""Timestamps that stray from the count of samples by more than this are a gap (s). Shorter than any
codec's frame (20 ms and more), longer than the rounding of any container (1 ms)."""

LONGEST = 4 * 3600.0
"""Seconds that are reserved at once at most: declared durations can be wrong"""


class _Waveform:
    """One buffer that grows as samples are laid on it: at no time are there two copies

    Parameters
    ----------
    capacity : int
        Expected number of samples.
    """

    def __init__(self, capacity: int):
        self._buffer = np.zeros(capacity, np.float32)
        self.filled = 0

    def lay(self, first: int, samples: np.ndarray) -> None:
        """Put samples (n,) at index `first`; what was there before is kept"""
        skip = max(self.filled - first, 0)
        if skip >= len(samples):
            return
        end = first + len(samples)
        if end > len(self._buffer):
            # in place: realloc moves pages instead of copying them
            self._buffer.resize(end + len(self._buffer) // 8, refcheck=False)
        self._buffer[first + skip : end] = samples[skip:]
        self.filled = end

    def finish(self) -> np.ndarray:
        """The samples (n,)"""
        self._buffer.resize(self.filled, refcheck=False)
        return self._buffer


class _Run:
    """Decoded frames without a gap between them, downmixed and resampled as they come"""

    def __init__(self, time: float, frame, sample_rate: int, waveform: _Waveform):
        import av

        self.time = time
        self.rate = frame.sample_rate
        self.kind = self.kind_of(frame)
        self.count = 0  # samples at the native rate
        self._sample_rate = sample_rate
        # Channels are averaged below, as pyannote.audio does: left to itself the resampler would
        # add them up (+3 dB for stereo). Interleaved, because PyAV crashes on more than 8 planes.
        self._resampler = av.AudioResampler(format="flt", rate=sample_rate)
        self._waveform = waveform
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
            samples = part.to_ndarray().reshape(part.samples, -1).mean(axis=1, dtype=np.float32)
            # resamplers give some samples more than there are
            samples = samples[: round(self.count * self._sample_rate / self.rate) - self._laid]
            self._waveform.lay(self._first + self._laid, samples)
            self._laid += len(samples)

    def finish(self) -> None:
        """Lay what the resampler still holds"""
        self._collect(None)


def decode_sound(info: MediaInfo, stream: AudioStream, sample_rate: int) -> tuple[np.ndarray, list]:
    """Decode an audio stream once, downmixed and resampled

    Parameters
    ----------
    info : MediaInfo
    stream : AudioStream
        One of `info.audio`.
    sample_rate : int
        Of the output, in Hz.

    Returns
    -------
    waveform : (num_samples,) float32
        Sample 0 is time 0 of the container clock: what starts late is preceded by zeros, gaps are
        filled with zeros, and what lies before time 0 is cut. Channels are averaged.
    problems : list of str

    Raises
    ------
    MediaError
        If nothing decodes at all.
    """
    damage = Damage()
    waveform = _Waveform(round(min(info.duration, LONGEST) * sample_rate))
    run: _Run | None = None
    with open_media(info.path) as container:
        source = container.streams[stream.index]
        source.thread_type = "AUTO"
        for frame in decode(container, source, damage):
            if not frame.samples or not frame.sample_rate:
                continue
            expected = run.end if run else max(stream.start, 0.0)
            time = expected
            if frame.pts is not None:
                time = float(frame.pts * frame.time_base) - info.origin
            if not damage.accepts(time, info.duration):
                continue
            if time + frame.samples / frame.sample_rate < expected - GAP and run:
                damage.misplace()
                continue
            if run and (abs(time - run.end) > GAP or run.kind != _Run.kind_of(frame)):
                run.finish()
                run = None
            run = run or _Run(time, frame, sample_rate, waveform)
            run.add(frame)
            damage.advance(time, run.end, GAP)
    if run is None:
        raise MediaError(
            f"audio stream of {info.path}: nothing of it could be decoded ({stream.codec}, "
            f"{damage.errors} errors): the file is damaged"
        )
    run.finish()
    return waveform.finish(), damage.describe("audio", info, stream)
