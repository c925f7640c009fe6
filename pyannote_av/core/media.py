"""Safe opening and probing of media files.

All times are seconds on the *container clock*. As in ffmpeg and common players, its zero is the
earliest timestamp of the file. A stream that starts 1.5 s after the other one starts at 1.5, and an
MPEG transport stream that begins at 1.4 s starts at 0. The policy for time is in
:mod:`pyannote_av.core.clock`.
"""

from __future__ import annotations

import ctypes
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.clock import (
    MAX_SCAN,
    UNDECLARED,
    Joint,
    Packet,
    Parts,
    Scan,
    is_declared,
    next_recording,
    origin_of,
)
from pyannote_av.core.display import Orientation, orientation_of, square_size
from pyannote_av.core.encryption import refuse_encrypted
from pyannote_av.core.files import MAX_DURATION, MediaError, check_path, longest
from pyannote_av.core.streams import StreamInfo, describe, rank_audio, rank_video
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    import av

MAX_SIDE = 16384
"""Maximum width and height of a picture, in pixels"""

MAX_PIXELS = 36_000_000
"""Maximum number of pixels of a picture; 8K (8192x4320) fits"""

MAX_CHANNELS = 64
"""Maximum number of audio channels; FFmpeg cannot resample more"""

MAX_FRAME_SAMPLES = 2**24
"""Maximum number of samples, over all channels, in one packet of sound"""

MAX_STREAMS = 256
"""Maximum number of streams in a file; a television multiplex has a hundred"""

FRAME_RATES = (1 / 3600, 10_000)
"""Range of declared frame rates that are used (Hz); others are ignored"""

MAX_ALLOCATION = 2**29
"""Maximum size of one allocation by FFmpeg, in bytes, a quarter of FFmpeg's own limit. The tables
of a day of pictures at 60 Hz take a quarter of this."""

# Playlists and lists of files (hls, dash, concat, image sequences...) can refer to other files and
# to addresses. Therefore only containers that hold their own media are opened, and only from disk.
# https://ffmpeg.org/ffmpeg-formats.html#Format-Options
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,"
    "mxf,dv,ivf,nut,rm,gif,wtv,wav,w64,rf64,aiff,au,caf,mp3,flac,aac,ac3,eac3,amr,wv,nistsphere"
)
#: maximum time to open a file and to inspect its streams, in seconds
OPENING = 120.0
# PyAV also passes these options to the decoders that inspect the streams while a file is opened
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": FORMATS,
    "max_streams": str(MAX_STREAMS),
    "max_pixels": str(MAX_PIXELS),
}
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS), "max_samples": str(MAX_FRAME_SAMPLES)}


@dataclass(frozen=True)
class VideoStream:
    """Video stream of a file

    `width` and `height` are those of the displayed picture: with square pixels, mirrored left to
    right if `mirrored`, and then turned by `rotation` degrees counter-clockwise (0, 90, 180 or
    270). `start` is the time of the first picture. `duration` is the duration that the header
    declares, or None. `frame_rate` is the average frame rate. `constant_rate` is whether pictures
    are equally spaced according to the header. `num_frames` is the declared number of pictures.
    `pixel_aspect` is the width of a stored pixel divided by its height. `coded_aspect` is the same
    ratio according to the decoder, whatever the container says. `interlaced` is whether the first
    picture is interlaced. `transfer` is the transfer characteristic of H.273 (16 is PQ, 18 is HLG).
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
    mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)
    coded_aspect: Fraction = Fraction(1)
    interlaced: bool = False
    transfer: int = 2


@dataclass(frozen=True)
class AudioStream:
    """Audio stream of a file

    `sample_rate` is in Hz. `start` is the time of the first sample (s), and `duration` is the
    duration that the header declares (s), or None.
    """

    index: int
    codec: str
    sample_rate: int
    channels: int
    start: float
    duration: float | None


@dataclass(frozen=True)
class MediaInfo:
    """Contents of a file

    `origin` is the container's timestamp at time 0, and `duration` the end of the last stream.
    `declared` is the duration of the file that the header declares, or None. `joints` are the
    places where other recordings begin, as far as they are known before decoding. If only one audio
    stream is read, it is the first of `audio`: the default track if there is one, and otherwise the
    first track of the file, with commentaries last
    (:func:`pyannote_av.core.streams.choose_audio`). `streams` are all streams, in the order of the
    file.
    """

    path: str
    format: str
    origin: float
    duration: float
    video: VideoStream | None
    audio: tuple[AudioStream, ...]
    declared: float | None = None
    joints: tuple[Joint, ...] = ()
    streams: tuple[StreamInfo, ...] = ()


def report(problems: list[str] | None, sentence: str) -> None:
    """Append a sentence about a problem to `problems`, or issue a warning if that is None

    Control characters in the sentence are escaped.
    """
    sentence = printable(sentence, one_line=True)
    if problems is None:
        warnings.warn(sentence, stacklevel=3)
    elif sentence not in problems:
        problems.append(sentence)


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a local container file

    Raises
    ------
    MediaError
        If it is not a media file, or has a format that can refer to other files.
    """
    import av

    path = check_path(path)
    _limit_allocations()
    try:
        # an absolute path cannot be mistaken for a protocol ("concat:...")
        container = av.open(
            str(path.absolute()), options=_OPTIONS, timeout=(OPENING, None), **_metadata()
        )
        for stream in container.streams:
            if stream.codec_context is not None:
                stream.codec_context.options = _DECODER_OPTIONS
        return container
    except av.error.ExitError as error:
        raise MediaError(
            f"{path} cannot be opened within {OPENING:g} s: copy it to a faster disk, or remux it "
            "(`ffmpeg -i FILE -c copy NEW`)"
        ) from error
    except MemoryError as error:
        raise MediaError(
            f"{path} needs too much memory, or has more than {MAX_STREAMS} streams: if its "
            "header is not damaged, keep only the streams you need (`ffmpeg -i FILE -c copy NEW`)"
        ) from error
    except av.error.ArgumentError as error:
        raise MediaError(
            f"{path} is a playlist, a list of pictures or another kind of file that is not read: "
            "convert it to mp4 or wav"
        ) from error
    except faults() as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path} cannot be opened ({reason}): it is not a media file, or its header is damaged "
            "or missing (an mp4 whose recording was interrupted)"
        ) from error


@lru_cache(maxsize=1)
def _metadata() -> dict[str, str]:
    """Options that make PyAV accept metadata that is not UTF-8; later versions always do"""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def faults() -> tuple[type[Exception], ...]:
    """Exceptions that PyAV raises for damaged files: errors of FFmpeg, and its own for odd values

    An IndexError means a packet of a stream that did not exist at the beginning (MPEG-TS).
    """
    import av

    return (
        av.error.FFmpegError,
        ArithmeticError,
        AssertionError,
        LookupError,
        MemoryError,
        OSError,
        ValueError,
    )


@lru_cache(maxsize=1)
def _limit_allocations() -> None:
    """Make FFmpeg refuse the huge tables that a damaged header declares

    PyAV does not expose the function of FFmpeg. If the function is not found, FFmpeg's own limit
    applies.
    """
    import av

    with suppress(AttributeError, OSError):
        # finds the symbols of the libraries that PyAV is linked to
        limit = ctypes.CDLL(av._core.__file__).av_max_alloc
        limit.argtypes, limit.restype = [ctypes.c_size_t], None
        limit(MAX_ALLOCATION)


class Reading:
    """Limit on the bytes read from a file, relative to its size

    The tables of a crafted file can refer to the same bytes again and again.

    Parameters
    ----------
    container : av.container.InputContainer
    """

    def __init__(self, container: av.container.InputContainer):
        # generous, because packed tracks expand and there may be several streams
        self._left = 4 * container.size + 2**20

    def go_on(self, packet: av.packet.Packet) -> bool:
        """Count a packet; return False once the limit is exceeded."""
        self._left -= max(packet.size, 8)
        return self._left > 0


def probe(path: str | Path) -> MediaInfo:
    """Streams, start times, rotation, rates and duration of a file

    Only the first picture is decoded, because the rotation is stored there. The result is cached
    until the file changes.

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
        origin = origin_of(container.start_time)
        streams = tuple(describe(stream) for stream in container.streams)
        pictures = [container.streams[stream.index] for stream in rank_video(streams)]
        sounds = [container.streams[stream.index] for stream in rank_audio(streams)]
        if not pictures and not sounds:
            raise MediaError(f"{path} has neither a video nor an audio stream that can be decoded")

        audio = tuple(_audio_stream(stream, origin) for stream in sounds)
        video = _video_stream(container, pictures[0], origin, path) if pictures else None
        if video is not None and not video.width * video.height and not audio:
            raise MediaError(
                f"video stream of {path} declares no picture size, or one of more than "
                f"{MAX_PIXELS} pixels: if it is not damaged, scale it down"
            )
        used = [stream for stream in (video, *audio) if stream is not None]
        ends = [None if s.duration is None else s.start + s.duration for s in used]
        duration = max((end for end in ends if end is not None), default=0.0)
        if None in ends and container.duration is not None:
            duration = max(duration, container.duration / 1e6)
        format_name = container.format.name
        refuse_encrypted(container, path)
    limit = min(longest(size), MAX_DURATION)
    declared, joints = duration or None, ()
    if _must_scan(path, format_name, size):
        trusted = is_declared(path, format_name)
        if not trusted:
            declared = None
            audio = tuple(replace(stream, duration=None) for stream in audio)
            video = video and replace(video, duration=None, num_frames=None)
        found = scan(path)
        joints = found.joints
        ends = [(found.end or origin) - origin]
        # decoding detects an absurd count in a header
        duration = max(ends + [duration] * (trusted and duration <= limit))
    elif not 0 < duration <= limit:
        found = scan(path)
        joints, declared, duration = found.joints, None, (found.end or origin) - origin
    if duration > limit:
        raise MediaError(
            f"{path} declares to last {duration / 3600:.1f} hours, too long for its {size} bytes "
            f"({limit / 3600:.1f} hours at most): its header or timestamps are damaged, or it "
            "has very long pauses; remux it (`ffmpeg -i FILE -c copy NEW`) or cut it into parts"
        )
    return MediaInfo(path, format_name, origin, duration, video, audio, declared, joints, streams)


def _must_scan(path: str, format_name: str, size: int) -> bool:
    """Whether the header does not declare the duration of the file, or other recordings follow"""
    kind = format_name.split(",")[0]
    if kind in UNDECLARED and size <= MAX_SCAN:
        return True
    return kind in ("matroska", "avi") and next_recording(path, format_name) is not None


def _start(stream, origin: float) -> float:
    if stream.start_time is None:
        return 0.0
    return float(stream.start_time * stream.time_base) - origin


def _duration(stream, origin: float) -> float | None:
    """Declared duration of a stream in seconds"""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # Matroska keeps the end of each stream as a tag, "00:01:02.345000000"
    tag = re.fullmatch(
        r"(\d{1,6}):(\d\d):(\d\d(?:\.\d*)?)", stream.metadata.get("DURATION", "").strip("\0 ")
    )
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
    if is_too_large(width, height):
        raise MediaError(
            f"video stream of {path} declares pictures of {width}x{height} pixels (the limit is "
            f"{MAX_SIDE} a side and {MAX_PIXELS} in all): if it is not damaged, scale it down"
        )
    start, duration = _start(stream, origin), _duration(stream, origin)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    if not FRAME_RATES[0] <= rate <= FRAME_RATES[1]:
        rate = 25.0
    picture, packet_time = _first_picture(container, stream)
    way = Orientation()
    aspect = _positive(stream.sample_aspect_ratio)
    if picture is not None:
        width, height = picture.width, picture.height
        way = orientation_of(picture)
        first = start
        if picture.pts is not None:
            first = float(picture.pts * picture.time_base) - origin
        if container.format.name == "avi" and abs(first - packet_time) < 2.5 / rate:
            # AVI stores no presentation times, and ffmpeg's estimate is one or two pictures late
            first = packet_time
        duration = None if duration is None else duration - (first - start)
        start = first
    width, height = square_size(width, height, aspect)
    if way.sideways:
        width, height = height, width
    base = float(stream.base_rate or 0)
    return VideoStream(
        index=stream.index,
        codec=stream.codec_context.name,
        width=width,
        height=height,
        rotation=way.rotation,
        start=start,
        duration=duration,
        frame_rate=rate,
        # Matroska declares the rate of the encoder, and holds pictures at any times
        constant_rate=abs(base - rate) < 0.01 * rate and "matroska" not in container.format.name,
        num_frames=stream.frames or None,
        mirrored=way.mirrored,
        pixel_aspect=aspect,
        coded_aspect=_positive(stream.codec_context.sample_aspect_ratio),
        interlaced=picture is not None and bool(picture.interlaced_frame),
        transfer=int(getattr(picture, "color_trc", 2)),
    )


def _positive(aspect: Fraction | None) -> Fraction:
    """Aspect ratio of pixels, square if unknown"""
    return aspect if aspect is not None and aspect > 0 else Fraction(1)


def is_too_large(width: int, height: int) -> bool:
    """Whether pictures of this size (pixels) are refused"""
    return max(width, height) > MAX_SIDE or width * height > MAX_PIXELS


def _first_picture(container, stream, patience: int = 100):
    """First picture decoded within `patience` packets (or None), and first decoding time (s)"""
    time = 0.0
    known = False
    try:
        for packet, _ in zip(container.demux(stream), range(patience), strict=False):
            if not known and packet.dts is not None:
                time, known = float(packet.dts * packet.time_base), True
            try:
                for picture in packet.decode():
                    return picture, time
            except faults():
                continue
    except faults():
        pass
    return None, time


def scan(path: str | Path) -> Scan:
    """Read the time stamps of all packets, without decoding them

    The result is cached until the file changes.
    """
    status = Path(path).stat()
    return _scan(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _scan(path: str, size: int, modified: int) -> Scan:
    with open_media(path) as container:
        bases = {
            stream.index: float(stream.time_base)
            for stream in container.streams
            if stream.type in ("video", "audio") and stream.time_base
        }
        parts = Parts(container.format.name, single=len(bases) == 1)
        reading = Reading(container)
        with suppress(*faults()):
            for packet in container.demux():
                if not reading.go_on(packet):
                    break
                index, pts, dts = packet.stream.index, packet.pts, packet.dts
                base = bases.get(index)
                if base is None or not packet.size:
                    continue
                position = parts.position(index, packet.pos)
                if pts is None and dts is None:
                    continue
                first = (dts if pts is None else pts) * base
                time = first if dts is None else dts * base
                end = first + (packet.duration or 0) * base
                parts.add(index, Packet(position, time, first, end))
    return parts.finish()
