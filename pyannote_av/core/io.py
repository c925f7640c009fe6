"""
# Video IO

The counterpart of `pyannote.audio.core.io.Audio`: it reads the pictures and the sound of a file
on a common time line.

Pictures are those that players show: upright, with square pixels, in the size of the first one.
Positions in them are fractions of the width and the height of the shown picture.

Times are those of the container clock, whose 0 is the earliest timestamp of the file. Pictures are
placed by their timestamps, sound by its samples as long as these agree with its timestamps
(:mod:`pyannote_av.core.clock`). Pictures are put on a regular grid (25 Hz by default). Sound is one
mono waveform (16 kHz) whose sample 0 is at time 0.

"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pyannote_av.core.decoding import JUMP
from pyannote_av.core.files import (
    MAX_DURATION,
    SAMPLE_RATES,
    MediaError,
    VideoFile,
    check_audio_track,
    is_sample_rate,
    validate_file,
)
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.media import (
    MAX_PIXELS,
    AudioStream,
    MediaInfo,
    VideoStream,
    probe,
    report,
)
from pyannote_av.core.mixing import clean
from pyannote_av.core.pictures import Frame, Picture, on_grid
from pyannote_av.core.sound import no_such_channel, resample
from pyannote_av.core.sources import open_source
from pyannote_av.core.streams import AUTO, AudioTrack, choose_audio, explain, unreadable
from pyannote_av.core.track_mix import decode_tracks

if TYPE_CHECKING:
    from pyannote.core import Segment
    from torch import Tensor

__all__ = [
    "FRAME_RATE",
    "SAMPLE_RATE",
    "AudioStream",
    "Frame",
    "MediaError",
    "MediaInfo",
    "Video",
    "VideoFile",
    "VideoStream",
]

MAX_FRAME_RATE = 1000.0
"""Highest rate of the grid (Hz)"""

MAX_CROP = 4 * 2**30
"""Maximum size of the pictures returned by `Video.crop`, in bytes"""

MAX_KERNEL = 2**24
"""Maximum number of weights of the filter that resamples a waveform in memory. Rates without a
common divisor, such as 44101 and 16000 Hz, would need a filter of gigabytes."""


class Video:
    """Video IO

    Parameters
    ----------
    frame_rate : float, optional
        Rate of the grid on which pictures are put, in Hz. Defaults to 25.
    sample_rate : int, optional
        Target sampling rate. Defaults to 16000.
    backend : {"auto", "pyav", "decord"}, optional
        Library that decodes the pictures. "auto" selects PyAV, which reads intact and damaged
        files alike; decord is not faster on CPU. "decord" is used for files of constant rate whose
        header declares the number of pictures. Other files are read with PyAV, and a warning is
        logged.
    audio_track : int or str, optional
        Audio track of files that have several: "auto", "mix" for all of them, the index of a
        stream, or a language such as "deu". "auto" takes the default track, or the mix of tracks
        that are one microphone each. The key "audio_track" of a file takes precedence.

    Usage
    -----
    >>> video = Video()
    >>> waveform = video.waveform("movie.mp4")  # (1, num_samples) at 16 kHz
    >>> for frame in video.frames("movie.mp4", start=10.0, end=20.0):
    ...     frame.time, frame.image  # seconds, (height, width, 3) uint8 RGB
    """

    def __init__(
        self,
        frame_rate: float = FRAME_RATE,
        sample_rate: int = SAMPLE_RATE,
        backend: Literal["auto", "pyav", "decord"] = "auto",
        audio_track: AudioTrack = AUTO,
    ):
        if backend not in ("auto", "pyav", "decord"):
            raise ValueError(f"backend must be 'auto', 'pyav' or 'decord', not {backend!r}")
        if not 0 < frame_rate <= MAX_FRAME_RATE:
            raise ValueError(
                f"frame_rate must be positive and at most {MAX_FRAME_RATE:.0f}, not {frame_rate}"
            )
        if not is_sample_rate(sample_rate):
            lowest, highest = SAMPLE_RATES
            raise ValueError(
                f"sample_rate must be a whole number from {lowest} to {highest}, not {sample_rate}"
            )
        self.frame_rate = frame_rate
        self.sample_rate = int(sample_rate)
        self.backend = backend
        self.audio_track = check_audio_track(audio_track)

    validate_file = staticmethod(validate_file)

    def probe(self, file: VideoFile) -> MediaInfo:
        """Streams, start times, rotation, rates and duration of the video file (or audio file)

        Raises
        ------
        MediaError
            If the file cannot be opened, or exists in memory only.
        """
        file = self.validate_file(file)
        if "video" not in file and "audio" not in file:
            raise MediaError(f"{file['uri']} is in memory: there is no file to probe")
        return probe(file.get("video", file.get("audio")))

    def get_duration(self, file: VideoFile) -> float:
        """Duration in seconds, up to the end of the pictures or the sound, whichever is later"""
        file = self.validate_file(file)
        ends = []
        if "frames" in file:
            last = self._in_memory(file)[-1]
            ends.append(last.time + last.duration)
        elif "video" in file:
            ends.append(probe(file["video"]).duration)
        if "waveform" in file:
            ends.append(file["waveform"].shape[1] / file["sample_rate"])
        elif "audio" in file:
            ends.append(probe(file["audio"]).duration)
        return max(ends)

    def waveform(
        self, file: VideoFile, problems: list[str] | None = None, half: bool = False
    ) -> Tensor:
        """Sound of the whole file, decoded once

        Parameters
        ----------
        file : VideoFile
        problems : list of str, optional
            List to which a sentence is appended for each missing or damaged part. By default,
            warnings are issued instead.
        half : bool, optional
            Keep the sound of files at half precision, which takes half of the memory, unless
            samples are larger than 1000.

        Returns
        -------
        waveform : (1, num_samples) float32 or, if `half`, float16 Tensor
            Average of all channels, and of all tracks that are mixed; or the channel that the file
            names. Sample 0 is at time 0. If the sound starts later, zeros come first; gaps are
            filled with zeros. The waveform ends where the sound ends. Clean sound is not changed
            otherwise, and every repair is reported (``docs/media.md``).

        Raises
        ------
        MediaError
            If there is no audio stream, if the requested track or channel does not exist, or if
            nothing can be decoded.
        """
        import torch

        file = self.validate_file(file)
        if "waveform" in file:
            waveform, found = clean(self._channel(file), file["sample_rate"])
            for sentence in found:
                report(problems, f"waveform of {file['uri']} {sentence}")
            return self._resample(waveform, file["sample_rate"])

        path = file.get("audio", file.get("video"))
        info = probe(path) if path else None
        if info is None or not info.audio:
            reasons = [] if info is None else unreadable(info)
            raise MediaError(
                "; ".join([f"file {path or file['uri']} has no audio stream", *reasons])
            )
        track = file.get("audio_track", self.audio_track)
        choice = choose_audio(info, track)
        if len(info.audio) > 1 and track == AUTO:
            report(problems, f"{path} has {len(info.audio)} audio tracks: {choice.reason}")
        samples, sentences = decode_tracks(
            info, choice.streams, self.sample_rate, file.get("channel"), half
        )
        for sentence in [*unreadable(info), *sentences]:
            report(problems, sentence)
        return torch.from_numpy(samples)[None]

    def streams(self, file: VideoFile) -> list[dict[str, Any]]:
        """Streams of the files, which of them are used, and why

        Returns
        -------
        streams : list of dict
            See :func:`pyannote_av.core.streams.explain`. Of two files, those of the video come
            first; each has its ``file``. Empty for a file in memory.
        """
        file = self.validate_file(file)
        track, rows = file.get("audio_track", self.audio_track), []
        paths = {file[kind] for kind in ("video", "audio") if kind in file}
        audio = None if "waveform" in file else file.get("audio", file.get("video"))
        video = None if "frames" in file else file.get("video")
        for path in sorted(paths, key=lambda path: path != video):
            for row in explain(probe(path), track if path == audio else AUTO):
                wanted = {"audio": path == audio, "video": path == video}
                if row["used"] and not wanted.get(row["kind"], False):
                    row |= {"used": False, "reason": "another file is used"}
                rows.append({"file": path, **row} if len(paths) > 1 else row)
        return rows

    def frames(
        self,
        file: VideoFile,
        start: float = 0.0,
        end: float | None = None,
        problems: list[str] | None = None,
    ) -> Iterator[Frame]:
        """Iterate over the pictures on the grid, decoding them on demand

        Grid step k is at `k / frame_rate` seconds. It shows the last picture before the midpoint
        between steps k and k + 1. The first step is that of the first picture, and the last step
        that of the last picture.

        Parameters
        ----------
        file : VideoFile
        start, end : float, optional
            Yield only steps with `start <= time < end` (seconds). Frames are bit-identical to
            those of a pass over the whole file.
        problems : list of str, optional
            List to which a sentence is appended for each missing or damaged part, when the end of
            the file is reached. By default, warnings are issued instead.

        Yields
        ------
        frame : Frame
            Its picture is converted when it is first asked for.

        Raises
        ------
        MediaError
            If there is no video stream, if none of it can be decoded, or if `start` or `end` is
            NaN.
        """
        # validate now, not at the first step of the generator
        file = self.validate_file(file)
        first = self._first_step(start)
        last = None if end is None else self._first_step(end)
        if "frames" in file:
            return on_grid(self._in_memory(file), self.frame_rate, first, last)
        info = probe(file["video"]) if "video" in file else None
        if info is None or info.video is None:
            where = file.get("video", file["uri"])
            reasons = [] if info is None else unreadable(info)
            raise MediaError("; ".join([f"file {where} has no video stream", *reasons]))
        return self._decode(info, first, last, problems)

    def crop(self, file: VideoFile, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        """Pictures of a part of a file

        Parameters
        ----------
        file : VideoFile
        segment : `pyannote.core.Segment`
            Temporal segment to load.

        Returns
        -------
        frames : (num_frames, height, width, 3) uint8 array
            Grid steps within the segment that show a picture.
        times : (num_frames,) array
            Their times in seconds.

        Raises
        ------
        MediaError
            As in `frames`, and if the pictures take more than `MAX_CROP` bytes.
        """
        self._check_crop(file, segment)
        images, times = [], []
        for frame in self.frames(file, segment.start, segment.end):
            images.append(frame.image)
            times.append(frame.time)
            # the file may hold more pictures than it declares
            self._check_size(len(images), frame.image.nbytes, segment)
        if not images:
            return np.zeros((0, 0, 0, 3), np.uint8), np.array(times)
        return np.stack(images), np.array(times)

    def _check_crop(self, file: VideoFile, segment: Segment) -> None:
        """Refuse a segment that is too large according to the header"""
        file = self.validate_file(file)
        if "frames" in file:
            size, duration = file["frames"][0].nbytes, self.get_duration({"uri": "", **file})
        elif "video" in file and (info := self.probe(file)).video is not None:
            size, duration = 3 * info.video.width * info.video.height, info.duration + JUMP
        else:
            return
        first = self._first_step(segment.start)
        count = self._first_step(min(segment.end, duration)) - first
        self._check_size(count, size, segment)

    def _check_size(self, count: int, size: int, segment: Segment) -> None:
        if count * size > MAX_CROP:
            raise MediaError(
                f"the pictures from {segment.start:.2f} to {segment.end:.2f} s take "
                f"{count * size / 2**30:.1f} GiB of memory, more than the {MAX_CROP / 2**30:.0f} "
                "GiB that are cropped at once: take them one by one with `Video.frames`"
            )

    def _channel(self, file: dict[str, Any]) -> Tensor:
        """Channels (n, num_samples) of a waveform in memory that are used"""
        waveform, channel = file["waveform"], file.get("channel")
        if channel is None:
            return waveform
        if channel >= len(waveform):
            raise MediaError(no_such_channel(f"waveform of {file['uri']}", channel, len(waveform)))
        return waveform[channel : channel + 1]

    def _resample(self, waveform: Tensor, rate: int) -> Tensor:
        """Waveform (1, n) at `rate` Hz, resampled"""
        import torch
        from torchaudio import functional

        divisor = math.gcd(rate, self.sample_rate)
        if (rate // divisor) * (self.sample_rate // divisor) > MAX_KERNEL:
            return torch.from_numpy(resample(waveform[0].numpy(), rate, self.sample_rate))[None]
        return functional.resample(waveform, rate, self.sample_rate)

    def _first_step(self, time: float) -> int:
        """First grid step at or after a time in seconds"""
        if math.isnan(time):
            raise MediaError("the start and the end of a part must be numbers of seconds, not NaN")
        # no accepted file lasts longer
        time = min(max(time, 0.0), 2 * MAX_DURATION)
        return max(0, math.ceil(time * self.frame_rate - 1e-6))

    def _decode(
        self, info: MediaInfo, first: int, last: int | None, problems: list[str] | None
    ) -> Iterator[Frame]:
        source = open_source(info, self.backend)
        reached_end = False

        def pictures() -> Iterator[Picture]:
            nonlocal reached_end
            yield from source(first / self.frame_rate)
            reached_end = True

        yield from on_grid(pictures(), self.frame_rate, first, last)
        if not reached_end:
            return
        if source.damage.end is None:
            raise MediaError(
                f"video stream of {info.path}: no picture of it could be decoded "
                f"({info.video.codec}, {source.damage.errors} errors): the file is damaged, or its "
                f"pictures are larger than {MAX_PIXELS} pixels"
            )
        for sentence in [*source.damage.describe("video", info, info.video), *source.notes]:
            report(problems, sentence)

    def _in_memory(self, file: dict[str, Any]) -> list[Picture]:
        frames, timestamps = file["frames"], file["timestamps"]
        steps = np.diff(timestamps)
        final = float(np.median(steps)) if len(steps) else 1 / self.frame_rate
        return [
            Picture.of(image, float(time), float(step))
            for image, time, step in zip(frames, timestamps, [*steps, final], strict=True)
        ]
