"""What is in a media file: opened safely, probed once, before anything is decoded.

All times handed out are seconds on the *container clock*: zero is the earliest timestamp of the
file (never below zero), as in ffmpeg and common players, so that a stream which starts 1.5 s after
the other one starts at 1.5, and an MPEG transport stream that begins at 1.4 s starts at 0.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.files import MediaError, check_path

if TYPE_CHECKING:
    import av

MAX_SIDE = 16384
"""Largest picture side that is decoded, in pixels"""

MAX_DURATION = 7 * 24 * 3600.0
"""Files that declare to be longer than this are taken for damaged (s)"""

# Playlists and lists of files (hls, dash, concat, image sequences...) can name other files and
# addresses: only containers that hold their media themselves are opened, and those from disk only.
# https://ffmpeg.org/ffmpeg-formats.html#Format-Options
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,"
    "mxf,dv,ivf,nut,rm,gif,wtv,wav,w64,rf64,aiff,au,caf,mp3,flac,aac,ac3,eac3,amr,wv,nistsphere"
)
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}


@dataclass(frozen=True)
class VideoStream:
    """Video stream of a file

    `width` and `height` are those of the displayed picture, that is, after turning it by `rotation`
    degrees counter-clockwise (0, 90, 180 or 270). `start` is the time of the first picture,
    `duration` what the header declares (None where it does not), `frame_rate` the average one,
    `constant_rate` whether pictures are equally spaced as far as the header tells, and `num_frames`
    the declared number of pictures.
    """

    index: int
    codec: str
    width: int
    height: int
    rotation: int
    start: float
    duration: float | None
    frame_rate: float
    constant_rate: bool
    num_frames: int | None


@dataclass(frozen=True)
class AudioStream:
    """Audio stream of a file; `duration` is what the header declares (None where it does not)"""

    index: int
    codec: str
    sample_rate: int
    channels: int
    start: float
    duration: float | None


@dataclass(frozen=True)
class MediaInfo:
    """Contents of a file

    `origin` is the container's timestamp at time 0, `duration` the end of the last stream. The
    first of the `audio` streams is the one that is read: the default track, or else the first.
    """

    path: str
    format: str
    origin: float
    duration: float
    video: VideoStream | None
    audio: tuple[AudioStream, ...]


def report(problems: list[str] | None, sentence: str) -> None:
    """Append a sentence about a fault to `problems`, or warn where the caller does not collect"""
    if problems is None:
        warnings.warn(sentence, stacklevel=3)
    elif sentence not in problems:
        problems.append(sentence)


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a local container file

    Raises
    ------
    MediaError
        If it is no media file, or of a kind that refers to other files.
    """
    import av

    path = check_path(path)
    try:
        # an absolute path never reads as a protocol ("concat:...")
        return av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise MediaError(
            f"{path} is a playlist, a list of pictures or another kind of file that is not read: "
            "convert it to mp4 or wav"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path} cannot be opened ({error.strerror or error}): it is no media file, or its "
            "header is damaged or missing (an mp4 whose recording was interrupted)"
        ) from error


def probe(path: str | Path) -> MediaInfo:
    """Streams, start times, rotation, rates and duration of a file

    Nothing is decoded but the first picture, which alone carries the rotation. A file is probed
    once as long as it does not change.

    Raises
    ------
    MediaError
    """
    path = check_path(path)
    status = path.stat()
    return _probe(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _probe(path: str, size: int, modified: int) -> MediaInfo:
    with open_media(path) as container:
        origin = max((container.start_time or 0) / 1e6, 0.0)
        pictures = [
            stream
            for stream in container.streams.video
            # cover art is no video
            if stream.codec_context is not None and "attached_pic" not in _flags(stream)
        ]
        sounds = [stream for stream in container.streams.audio if stream.codec_context is not None]
        sounds.sort(key=lambda stream: "default" not in _flags(stream))
        if not pictures and not sounds:
            raise MediaError(f"{path} has neither a video nor an audio stream that can be decoded")

        audio = tuple(_audio_stream(stream, origin) for stream in sounds)
        pictures.sort(key=lambda stream: "default" not in _flags(stream))
        video = _video_stream(container, pictures[0], origin, path) if pictures else None
        streams = [stream for stream in (video, *audio) if stream is not None]
        ends = [None if s.duration is None else s.start + s.duration for s in streams]
        duration = max((end for end in ends if end is not None), default=0.0)
        if None in ends and container.duration is not None:
            duration = max(duration, container.duration / 1e6)
        format_name = container.format.name
    if duration <= 0:
        duration = _scan_duration(path, origin)
    if duration > MAX_DURATION:
        raise MediaError(
            f"{path} declares to last {duration / 3600:.0f} hours: its header or timestamps are "
            "damaged, write it anew (`ffmpeg -i FILE -c copy NEW`)"
        )
    return MediaInfo(path, format_name, origin, duration, video, audio)


def _flags(stream) -> str:
    """Names of the disposition flags of a stream, e.g. 'default|attached_pic'"""
    return (stream.disposition.name or "") if stream.disposition else ""


def _start(stream, origin: float) -> float:
    if stream.start_time is None:
        return 0.0
    return float(stream.start_time * stream.time_base) - origin


def _duration(stream, origin: float) -> float | None:
    """Declared duration of a stream in seconds"""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # Matroska keeps the end of each stream as a tag, "00:01:02.345000000"
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "").strip("\0 "))
    if tag:
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return hours * 3600 + minutes * 60 + seconds - origin - _start(stream, origin)
    return None


def _audio_stream(stream, origin: float) -> AudioStream:
    context = stream.codec_context
    return AudioStream(
        index=stream.index,
        codec=context.name,
        sample_rate=context.sample_rate,
        channels=context.channels,
        start=_start(stream, origin),
        duration=_duration(stream, origin),
    )


def _video_stream(container, stream, origin: float, path: str) -> VideoStream:
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > MAX_SIDE:
        raise MediaError(
            f"video stream of {path} declares pictures of {width}x{height} pixels "
            f"(the limit is {MAX_SIDE} a side): damaged, or scale it down"
        )
    start, duration = _start(stream, origin), _duration(stream, origin)
    rate = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
    picture, packet_time = _first_picture(container, stream)
    rotation = 0
    if picture is not None:
        width, height = picture.width, picture.height
        rotation = round(picture.rotation / 90) * 90 % 360
        first = start
        if picture.pts is not None:
            first = float(picture.pts * picture.time_base) - origin
        if container.format.name == "avi" and abs(first - packet_time) < 2.5 / rate:
            # AVI stores no presentation times, and ffmpeg's guess is a picture or two late
            first = packet_time
        duration = None if duration is None else duration - (first - start)
        start = first
    if rotation in (90, 270):
        width, height = height, width
    base = float(stream.base_rate or 0)
    return VideoStream(
        index=stream.index,
        codec=stream.codec_context.name,
        width=width,
        height=height,
        rotation=rotation,
        start=start,
        duration=duration,
        frame_rate=rate,
        constant_rate=abs(base - rate) < 0.01 * rate,
        num_frames=stream.frames or None,
    )


def _first_picture(container, stream, patience: int = 100):
    """First picture that decodes, if any in `patience` packets, and the first decoding time (s)"""
    import av

    time = 0.0
    known = False
    try:
        for packet, _ in zip(container.demux(stream), range(patience), strict=False):
            if not known and packet.dts is not None:
                time, known = float(packet.dts * packet.time_base), True
            try:
                for picture in packet.decode():
                    return picture, time
            except av.error.FFmpegError:
                continue
    except (av.error.FFmpegError, IndexError):
        pass
    return None, time


def _scan_duration(path: str, origin: float) -> float:
    """End of the last packet, for live recordings whose header holds no duration"""
    import av

    end = origin
    with open_media(path) as container:
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    ticks = packet.pts + (packet.duration or 0)
                    end = max(end, float(ticks * packet.time_base))
        except (av.error.FFmpegError, IndexError):
            pass
    return end - origin
