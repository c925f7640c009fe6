"""Sound of a file as one waveform on the container clock"""

from __future__ import annotations

import numpy as np

from pyannote_av.core.decoding import Damage, decode
from pyannote_av.core.files import MediaError
from pyannote_av.core.media import AudioStream, MediaInfo, open_media

GAP = 0.015
"""Timestamps that stray from the count of samples by more than this are a gap (s). Shorter than any
codec's frame (20 ms and more), longer than the rounding of any container (1 ms)."""


class _Run:
    """Decoded frames without a gap between them, downmixed and resampled as they come"""

    def __init__(self, time: float, frame, sample_rate: int):
        import av

        self.time = time
        self.rate = frame.sample_rate
        self.kind = self.kind_of(frame)
        self.count = 0  # samples at the native rate
        self._sample_rate = sample_rate
        # Channels are averaged below, as pyannote.audio does: left to itself the resampler would
        # add them up (+3 dB for stereo). Interleaved, because PyAV crashes on more than 8 planes.
        self._resampler = av.AudioResampler(format="flt", rate=sample_rate)
        self._chunks: list[np.ndarray] = []

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
            samples = part.to_ndarray().reshape(part.samples, -1)
            self._chunks.append(samples.mean(axis=1, dtype=np.float32))

    def samples(self) -> np.ndarray:
        """Samples (n,) at the target rate"""
        self._collect(None)
        samples = np.concatenate([np.zeros(0, np.float32), *self._chunks])
        return samples[: round(self.count * self._sample_rate / self.rate)]


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
    pieces: list[tuple[float, np.ndarray]] = []
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
                pieces.append((run.time, run.samples()))
                run = None
            run = run or _Run(time, frame, sample_rate)
            run.add(frame)
            damage.advance(time, run.end, GAP)
    if run is None:
        raise MediaError(
            f"audio stream of {info.path}: nothing of it could be decoded ({stream.codec}, "
            f"{damage.errors} errors): the file is damaged"
        )
    pieces.append((run.time, run.samples()))
    return _place(pieces, sample_rate), damage.describe("audio", info, stream)


def _place(pieces: list[tuple[float, np.ndarray]], sample_rate: int) -> np.ndarray:
    """Lay pieces (time in seconds, samples (n,)) on one time line that starts at 0

    Where pieces overlap the earlier one is kept.
    """
    size = max(round(time * sample_rate) + len(samples) for time, samples in pieces)
    waveform = np.zeros(max(size, 0), np.float32)
    filled = 0
    for time, samples in pieces:
        first = round(time * sample_rate)
        skip = max(filled - first, 0)
        if skip < len(samples):
            filled = first + len(samples)
            waveform[first + skip : filled] = samples[skip:]
    return waveform
