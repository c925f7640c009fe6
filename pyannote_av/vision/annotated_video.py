"""A video with the faces, names and turns of a result drawn into it, and its own sound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyannote_av.core.atomic import replacing
from pyannote_av.core.decoding import Damage, decode
from pyannote_av.core.files import MediaError
from pyannote_av.core.media import AudioStream, MediaInfo, Reading, faults, open_media, probe
from pyannote_av.core.sources import PyAVSource
from pyannote_av.vision.drawing import Painter

if TYPE_CHECKING:
    from pyannote_av.core.output import AVDiarizeOutput

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""Containers that are written"""

_MADE_BY = "drawn by pyannote-av"  # in the comment of the file
_TICKS = 60_000  # of the clock of pictures, per second; MPEG-4 allows up to 65535
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz
_LATE = 1.0  # turns may end this much after the video (s)


def is_drawn(path: str | Path) -> bool:
    """Whether :func:`draw_video` wrote a file, and it may therefore be replaced."""
    try:
        with open_media(path) as container:
            return container.metadata.get("comment", container.metadata.get("COMMENT")) == _MADE_BY
    except MediaError:
        return False


def draw_video(
    output: AVDiarizeOutput,
    video: str | Path,
    path: str | Path,
    overwrite: bool = False,
    progress: Callable[[float, float], object] = lambda done, total: None,
) -> list[str]:
    """Write a video with boxes and names of the speakers, and a strip with the sound.

    The box of a face is thick and bright while its speaker speaks. The strip below the picture
    names those who speak off screen, and shows the sound around the present, in the colours of
    those who speak. Pictures are drawn as players show them, and keep their times. The sound is
    copied where the container holds it, and otherwise encoded as AAC.

    Parameters
    ----------
    output : AVDiarizeOutput
    video : str or Path
    path : str or Path
        New file, ``.mp4``, ``.m4v``, ``.mov`` or ``.mkv``. It appears when it is complete.
    overwrite : bool, optional
        Replace a file that this function did not write.
    progress : callable, optional
        Called with the seconds of video drawn so far, and the duration.

    Returns
    -------
    problems : list of str
        Damage of the video, and turns that lie outside of it.

    Raises
    ------
    MediaError
        If the file has no pictures, or cannot be decoded.
    FileExistsError
        If `path` exists and may not be replaced.
    ValueError
        If the container is not supported.
    """
    info, path = probe(video), Path(path)
    if info.video is None:
        raise MediaError(f"{info.path} has no pictures, so there is nothing to draw into")
    check_target(path, Path(info.path), overwrite)
    size = (info.video.width, info.video.height)
    turns = output.speaker_diarization
    painter = Painter(turns, output.face_tracks, size)
    if info.audio:
        painter.peaks = _peaks(info, info.audio[0], painter.column)
    problems = []
    end = turns.get_timeline().extent().end if turns else 0.0
    if end > info.duration + _LATE:
        problems.append(
            f"turns end at {end:.2f} s, but {info.path} at {info.duration:.2f} s: is it the right "
            "video?"
        )
    with replacing(path) as temporary:
        source = PyAVSource(info)
        _write(temporary, info, source, painter, progress)
        if not temporary.exists():
            raise MediaError(f"video stream of {info.path}: nothing of it could be decoded")
    return problems + source.damage.describe("video", info, info.video) + source.notes


def check_target(path: Path, video: Path, overwrite: bool) -> None:
    """Raise an exception if `path` is no place for an annotated video."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is not a supported container: choose {', '.join(SUFFIXES)}")
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_file():
        raise FileExistsError(f"{path} is a link or a folder: choose another name")
    if path.samefile(video):
        raise FileExistsError(f"{path} is the video itself: choose another name with -o")
    if not overwrite and not is_drawn(path):
        raise FileExistsError(
            f"{path} exists and was not drawn by pyannote-av: move it, or use --overwrite"
        )


def _peaks(info: MediaInfo, stream: AudioStream, column: float) -> np.ndarray:
    """Largest absolute value in each column of `column` seconds, in one pass over the sound

    Scaled so that one column in twenty reaches 1: a click does not flatten the speech.
    """
    import av

    count = math.ceil(info.duration / column) + 1
    peaks = np.zeros(count, np.float32)
    damage = Damage.of(info)
    with open_media(info.path) as container:
        source = container.streams[stream.index]
        source.thread_type = "AUTO"
        resampler = av.AudioResampler(format="flt", layout="mono")
        for frame in decode(container, source, damage, info):
            if frame.pts is None or not frame.samples:
                continue
            time = float(frame.pts * frame.time_base) - info.origin
            rate = frame.sample_rate
            try:
                parts = [one.to_ndarray().ravel() for one in resampler.resample(frame)]
            except faults():
                resampler = av.AudioResampler(format="flt", layout="mono")
                continue
            samples = np.abs(np.concatenate(parts)) if parts else np.zeros(0)
            where = ((time + np.arange(len(samples)) / rate) / column).astype(int)
            inside = (where >= 0) & (where < count) & np.isfinite(samples)
            np.maximum.at(peaks, where[inside], samples[inside])
    loud = np.percentile(peaks[peaks > 0], 95, method="lower") if peaks.any() else 1.0
    return np.minimum(peaks / max(float(loud), 1e-6), 1.0)


def _write(
    path: Path,
    info: MediaInfo,
    source: PyAVSource,
    painter: Painter,
    progress: Callable[[float, float], object],
) -> None:
    """Decode, draw and encode picture by picture, with the sound in step"""
    import av

    time = 0.0
    try:
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            container.metadata["comment"] = _MADE_BY
            video = _video_stream(container, painter.canvas, info.video.frame_rate)
            sounds = [_Sound(container, info, stream) for stream in sorted_tracks(info)]
            lengths: dict[int, int] = {}
            last = -1
            for picture in source(0.0):
                time = picture.time
                ticks = round(time * _TICKS)
                if ticks <= last:
                    continue
                last = ticks
                image = painter.paint(picture.converted("rgb24"), time)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
                frame.pts, frame.time_base = ticks, Fraction(1, _TICKS)
                lengths[ticks] = max(1, round(picture.duration * _TICKS))
                _mux(container, video.encode(frame), lengths)
                for sound in sounds:
                    sound.write_until(time)
                progress(time, info.duration)
            _mux(container, video.encode(None), lengths)
            for sound in sounds:
                sound.write_until(math.inf)
    except MediaError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{info.path} cannot be drawn and encoded at {time:.2f} s ({error})"
        ) from error


def _mux(container: Any, packets: list, lengths: dict[int, int]) -> None:
    """Write pictures with their own durations, which encoders do not keep"""
    for packet in packets:
        packet.duration = lengths.pop(
            round(packet.pts * packet.time_base * _TICKS), packet.duration
        ) / (packet.time_base * _TICKS)
        container.mux(packet)


def sorted_tracks(info: MediaInfo) -> list[AudioStream]:
    """Audio streams in the order of the file."""
    return sorted(info.audio, key=lambda stream: stream.index)


def _video_stream(container: Any, size: tuple[int, int], rate: float) -> Any:
    import av

    try:
        av.Codec("libx264", "w")
        codec, options = "libx264", {"preset": "veryfast", "crf": "20"}
    except ValueError:
        codec, options = "mpeg4", {"qscale": "3"}
    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt, stream.options = "yuv420p", options
    context = stream.codec_context
    context.time_base = Fraction(1, _TICKS)
    # BT.709, as players assume of large pictures
    context.colorspace = context.color_primaries = context.color_trc = 1
    return stream


class _Sound:
    """One audio stream, copied packet by packet, or encoded anew

    Parameters
    ----------
    container : av.container.OutputContainer
    info : MediaInfo
    stream : AudioStream
    """

    def __init__(self, container: Any, info: MediaInfo, stream: AudioStream):
        self._container = container
        self._info = info
        self._index = stream.index
        with open_media(info.path) as source:
            template = source.streams[stream.index]
            # joined recordings have clocks of their own
            copied = template.codec_context.codec.canonical_name in container.supported_codecs
            if copied and not info.joints:
                self._stream = container.add_stream_from_template(template)
                self._packets = self._copied()
            else:
                rate = min(_AAC_RATES, key=lambda one: abs(one - stream.sample_rate))
                layout = "mono" if stream.channels == 1 else "stereo"
                self._stream = container.add_stream("aac", rate=rate, layout=layout)
                self._packets = self._encoded(rate, layout)
        self._next: tuple[float, Any] | None = None

    def write_until(self, time: float) -> None:
        """Write all packets that begin before a time (s)."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None or self._next[0] > time:
                return
            packet = self._next[1]
            self._next = None
            self._container.mux(packet)

    def _copied(self) -> Iterator[tuple[float, Any]]:
        with open_media(self._info.path) as source:
            stream = source.streams[self._index]
            reading, last = Reading(source), None
            shift = round(self._info.origin / stream.time_base)
            packets = source.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except faults():
                    return
                if not reading.go_on(packet):
                    return
                if not packet.size or packet.dts is None or packet.pts is None:
                    continue
                if last is not None and packet.dts <= last:
                    continue
                last = packet.dts
                packet.pts -= shift
                packet.dts -= shift
                time = float(packet.pts * packet.time_base)
                packet.stream = self._stream
                yield time, packet

    def _encoded(self, rate: int, layout: str) -> Iterator[tuple[float, Any]]:
        import av

        base, end = Fraction(1, rate), 0
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        with open_media(self._info.path) as source:
            stream = source.streams[self._index]
            damage = Damage.of(self._info)
            for frame in decode(source, stream, damage, self._info):
                if frame.pts is None or not frame.samples:
                    continue
                time = float(frame.pts * frame.time_base) - self._info.origin
                begin = round(time * rate)
                frame.pts = None
                try:
                    parts = resampler.resample(frame)
                except faults():
                    continue
                for part in parts:
                    # samples follow one another, but for gaps
                    end = begin if abs(begin - end) > rate // 10 and begin > end else end
                    part.pts, part.time_base = end, base
                    end += part.samples
                    for packet in self._stream.encode(part):
                        yield float(packet.pts * packet.time_base), packet
            for packet in self._stream.encode(None):
                yield float(packet.pts * packet.time_base), packet
