"""Media of a prepared corpus: links, cuts of longer files, or grids of several cameras."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.io import Video

_STEP = round(SAMPLE_RATE / FRAME_RATE)  # audio samples per video frame


def _require(uri: str, paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"file {uri!r}: no such media file: {path}")


@dataclass(frozen=True)
class Link:
    """A symbolic link to an unmodified file."""

    path: Path

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files that the output depends on."""
        return (self.path,)

    @property
    def key(self) -> str:
        """Identifies the output, apart from the content of `sources`."""
        return f"link to {self.path.resolve()}"

    def write(self, uri: str, target: Path, problems: list[str]) -> None:
        """Write the output to `target`."""
        _require(uri, self.sources)
        os.symlink(self.path.resolve(), target)


@dataclass(frozen=True)
class Cut:
    """Video and audio of a file from `start` to `end` (seconds), on a clock that starts at 0.

    The video is encoded again at 25 Hz (H.264, nearly lossless), and the audio at 16 kHz (FLAC).
    A copy of the streams could only be cut at key frames, which may be seconds away.
    """

    path: Path
    start: float
    end: float

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files that the output depends on."""
        return (self.path,)

    @property
    def key(self) -> str:
        """Identifies the output, apart from the content of `sources`."""
        return f"cut {self.start:.3f} to {self.end:.3f}"

    def write(self, uri: str, target: Path, problems: list[str]) -> None:
        """Write the output to `target`."""
        _require(uri, self.sources)
        video = Video()
        pictures = video.frames(self.path, self.start, self.end, problems)
        first = math.ceil(self.start * FRAME_RATE - 1e-6)
        sound = _sound(self.path, self.start, self.end)
        steps = math.ceil((self.end - self.start) * FRAME_RATE - 1e-6)
        shown = _encode(target, ((f.index - first, f.image) for f in pictures), sound, steps)
        if shown < steps - FRAME_RATE:
            problems.append(
                f"file {uri!r}: {self.path} has pictures of {shown / FRAME_RATE:.2f} s between "
                f"{self.start:g} and {self.end:g} s"
            )


@dataclass(frozen=True)
class Gallery:
    """Videos of several cameras in a grid, with the audio of another file."""

    cameras: tuple[Path, ...]
    sound: Path

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files that the output depends on."""
        return (*self.cameras, self.sound)

    @property
    def key(self) -> str:
        """Identifies the output, apart from the content of `sources`."""
        return f"gallery of {len(self.cameras)}"

    def write(self, uri: str, target: Path, problems: list[str]) -> None:
        """Write the output to `target`."""
        _require(uri, self.sources)
        video, columns = Video(), math.ceil(math.sqrt(len(self.cameras)))
        infos = [video.probe(path).video for path in self.cameras]
        if blind := [path for path, info in zip(self.cameras, infos, strict=True) if info is None]:
            raise ValueError(f"file {uri!r}: {blind[0]} has no picture")
        height, width = (max(getattr(i, side) for i in infos if i) for side in ("height", "width"))
        rows = math.ceil(len(self.cameras) / columns)
        end = video.get_duration(self.sound)
        streams = [_every_step(video.frames(path, 0, end, problems)) for path in self.cameras]

        def tiled() -> Iterator[tuple[int, np.ndarray]]:
            for step, images in enumerate(zip_longest(*streams)):
                whole = np.zeros((rows * height, columns * width, 3), np.uint8)
                for place, image in enumerate(images):
                    if image is not None:
                        top, left = place // columns * height, place % columns * width
                        whole[top : top + image.shape[0], left : left + image.shape[1]] = image
                yield step, whole

        steps = math.ceil(end * FRAME_RATE - 1e-6)
        shown = _encode(target, tiled(), _sound(self.sound, 0, end), steps)
        if shown < steps - FRAME_RATE:
            problems.append(
                f"file {uri!r}: pictures end at {shown / FRAME_RATE:.2f} s, sound at {end:.2f} s"
            )


Media = Link | Cut | Gallery


def _every_step(frames) -> Iterator[np.ndarray | None]:
    """Image of each step of the 25 Hz grid, or None where there is no frame"""
    step = 0
    for frame in frames:
        for _ in range(step, frame.index):
            yield None
        yield frame.image
        step = frame.index + 1


def _sound(path: Path, start: float, end: float) -> np.ndarray:
    """(samples,) int16 at 16 kHz from `start` to `end`, with silence where audio is missing

    ``Video.waveform`` is not used because it decodes the whole file.
    """
    import av

    info = Video().probe(path)
    sound = np.zeros(round((end - start) * SAMPLE_RATE), np.int16)
    if not info.audio:
        return sound
    with av.open(str(path)) as container:
        stream = container.streams[info.audio[0].index]
        first = start + info.origin
        if start > 0:
            container.seek(int(max(0.0, first - 1) / stream.time_base), stream=stream)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        position = None
        for frame in container.decode(stream):
            time = float(frame.pts * stream.time_base) if frame.pts is not None else None
            if time is not None and time > first + (end - start):
                break
            if position is None:
                if time is None:
                    continue
                position = round((time - first) * SAMPLE_RATE)
            for part in resampler.resample(frame):
                position = _lay(sound, position, part.to_ndarray()[0])
        if position is not None:
            for part in resampler.resample(None):
                position = _lay(sound, position, part.to_ndarray()[0])
    return sound


def _lay(sound: np.ndarray, position: int, samples: np.ndarray) -> int:
    """Copy the part of `samples` that fits to `position` of `sound`; returns the end position"""
    end = position + len(samples)
    low, high = max(position, 0), min(end, len(sound))
    if low < high:
        sound[low:high] = samples[low - position : high - position]
    return end


def _encode(
    target: Path, pictures: Iterator[tuple[int, np.ndarray]], sound: np.ndarray, steps: int
) -> int:
    """Write a reproducible Matroska file; returns the number of steps with a picture"""
    import av

    shown, written = 0, 0
    options = {"fflags": "+bitexact"}
    with av.open(str(target), "w", format="matroska", options=options) as container:
        video = container.add_stream("libx264", rate=round(FRAME_RATE))
        video.pix_fmt = "yuv420p"
        video.options = {"preset": "veryfast", "crf": "18"}
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact.value
        audio = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        audio.codec_context.flags |= av.codec.context.Flags.bitexact.value

        def hear(until: int) -> None:
            nonlocal written
            while written < min(until, len(sound)):
                part = sound[written : written + _STEP]
                frame = av.AudioFrame.from_ndarray(part[None].copy(), "s16", "mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, written
                container.mux(audio.encode(frame))
                written += len(part)

        for step, image in pictures:
            if step >= steps:
                break
            even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
            if not shown:
                video.height, video.width = even.shape[:2]
            hear(step * _STEP)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24")
            frame.pts = step
            container.mux(video.encode(frame))
            shown += 1
        if not shown:
            raise ValueError(f"{target.name}: there is no picture to write")
        container.mux(video.encode(None))
        hear(len(sound))
        container.mux(audio.encode(None))
    return shown
