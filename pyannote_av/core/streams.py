"""Which streams of a file are used, and why"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyannote_av.core.files import MediaError

if TYPE_CHECKING:
    from pyannote_av.core.media import AudioStream, MediaInfo

AUTO, MIX = "auto", "mix"

AudioTrack = int | str
"""What selects the audio of a file: "auto", "mix", the index of a stream, or a language ("deu")"""

MAX_MIXED = 32
"""Maximum number of audio tracks that are mixed; a broadcast file has 16 at most"""

PREVIEW = 9
"""A video stream is a preview if another one has more than this many times its area"""

_STILL = {"attached_pic", "timed_thumbnails", "still_image"}
_STILL_CODECS = {"mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegxl"}
_COMMENTARY = {"comment", "visual_impaired", "descriptions", "karaoke", "clean_effects"}
# some muxers set no flag, and only the title of a track says that it is a commentary
_COMMENTARY_TITLE = re.compile(r"comment|kommentar|audio.?descri|descriptive", re.IGNORECASE)
# AV_DISPOSITION_... of libavformat/avformat.h
_FLAGS = {
    "default": 0x1,
    "dub": 0x2,
    "original": 0x4,
    "comment": 0x8,
    "lyrics": 0x10,
    "karaoke": 0x20,
    "forced": 0x40,
    "hearing_impaired": 0x80,
    "visual_impaired": 0x100,
    "clean_effects": 0x200,
    "attached_pic": 0x400,
    "timed_thumbnails": 0x800,
    "non_diegetic": 0x1000,
    "captions": 0x10000,
    "descriptions": 0x20000,
    "metadata": 0x40000,
    "dependent": 0x80000,
    "still_image": 0x100000,
    "multilayer": 0x200000,
}
_UNKNOWN_LANGUAGES = {"", "und", "unk", "mis", "zxx"}


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a file, used or not

    Parameters
    ----------
    index : int
        Position in the file, from 0.
    kind : str
        "video", "audio", "subtitle", "data", "attachment" or "unknown".
    codec : str
        Name of the decoder, "unknown" without one.
    language : str
        Language code in the file, such as "eng"; empty if there is none.
    title : str
    flags : tuple of str
        Dispositions of ffmpeg: "default", "original", "dub", "comment", "attached_pic", ...
    decodable : bool
        Whether there is a decoder.
    num_frames : int, optional
        Number of pictures or packets, where the header declares it.
    size : tuple of int
        Declared width and height of the coded pictures, in pixels; (0, 0) for other streams.
    details : str
        Size of the picture, or sample rate and channels.
    """

    index: int
    kind: str
    codec: str
    language: str = ""
    title: str = ""
    flags: tuple[str, ...] = ()
    decodable: bool = True
    num_frames: int | None = None
    size: tuple[int, int] = (0, 0)
    details: str = ""

    @property
    def is_commentary(self) -> bool:
        """Whether this is a commentary, an audio description or another addition"""
        return bool(_COMMENTARY & set(self.flags) or _COMMENTARY_TITLE.search(self.title))


class AudioChoice(NamedTuple):
    """Audio streams that are mixed (mostly one), and the reason as the end of a sentence"""

    streams: tuple[AudioStream, ...]
    reason: str


def read_flags(stream: Any) -> tuple[str, ...]:
    """Names of the disposition flags of a stream of PyAV, such as ("default", "original")

    Each bit is tested by itself, with ffmpeg's own numbers: before Python 3.11 combined flags have
    no name and cannot be iterated, bits that PyAV does not know raise an error, and its first
    versions have no names at all.
    """
    flags = getattr(stream, "disposition", 0)
    try:
        bits = int(flags)
    except (TypeError, ValueError):
        bits = getattr(flags, "value", 0)
    return tuple(name for name, bit in _FLAGS.items() if bits & bit)


def describe(stream: Any) -> StreamInfo:
    """Description of a stream of PyAV"""
    context, kind = stream.codec_context, stream.type or "unknown"
    metadata = {str(key).lower(): str(value) for key, value in stream.metadata.items()}
    language = metadata.get("language", "").strip().lower()
    size, details = (0, 0), ""
    if context is not None and kind == "video":
        size = (context.width, context.height)
        details = f"{context.width}x{context.height}"
    elif context is not None and kind == "audio":
        plural = "" if context.channels == 1 else "s"
        details = f"{context.sample_rate} Hz, {context.channels} channel{plural}"
    return StreamInfo(
        index=stream.index,
        kind=kind,
        codec="unknown" if context is None else context.name,
        language="" if language in _UNKNOWN_LANGUAGES else language[:16],
        title=metadata.get("title", "").strip()[:200],
        flags=read_flags(stream),
        decodable=context is not None,
        num_frames=getattr(stream, "frames", 0) or None,
        size=size,
        details=details,
    )


# --- pictures -----------------------------------------------------------------------------------


def is_still(stream: StreamInfo, streams: Sequence[StreamInfo]) -> bool:
    """Whether a video stream is cover art or a thumbnail, rather than a video"""
    if _STILL & set(stream.flags):
        return True
    others = [s for s in streams if s.kind == "video" and s.decodable and s is not stream]
    single = stream.num_frames == 1
    moving = any(not _STILL & set(s.flags) and s.num_frames != 1 for s in others)
    return single and moving


def _is_preview(stream: StreamInfo, usable: Sequence[StreamInfo]) -> bool:
    """Whether a video stream is a tiny copy of another one

    Many programs mark the first stream as default, whatever it is. On a later stream, the mark is
    deliberate.
    """
    area = max((s.size[0] * s.size[1] for s in usable), default=0)
    marked = "default" in stream.flags and stream is not usable[0]
    return stream.size[0] * stream.size[1] * PREVIEW < area and not marked


def rank_video(streams: Sequence[StreamInfo]) -> list[StreamInfo]:
    """Video streams that can be used, the best one first

    Cover art and thumbnails are left out. A codec of moving pictures goes before one of
    photographs, then the default stream before others, then the larger picture, then the earlier
    stream. Tiny copies of a larger stream come last.
    """
    usable = [s for s in streams if s.kind == "video" and s.decodable and not is_still(s, streams)]
    return sorted(
        usable,
        key=lambda s: (
            s.codec in _STILL_CODECS,
            _is_preview(s, usable),
            "default" not in s.flags,
            "dependent" in s.flags or s.is_commentary,
            -s.size[0] * s.size[1],
            s.index,
        ),
    )


# --- sound --------------------------------------------------------------------------------------


def rank_audio(streams: Sequence[StreamInfo]) -> list[StreamInfo]:
    """Audio streams that can be decoded, the best one first

    Commentaries and audio descriptions come last; then the default track goes first, then the
    original language, then the order of the file.
    """
    usable = [s for s in streams if s.kind == "audio" and s.decodable]
    return sorted(
        usable,
        key=lambda s: (
            s.is_commentary,
            "default" not in s.flags,
            "original" not in s.flags,
            "dub" in s.flags,
            s.index,
        ),
    )


def choose_audio(info: MediaInfo, track: AudioTrack = AUTO) -> AudioChoice:
    """Audio tracks to read

    Parameters
    ----------
    info : MediaInfo
    track : int or str, optional
        "auto" takes the default track. Where several tracks have one channel each and neither
        flags nor languages tell them apart, each is one microphone, and all are mixed.
        "mix" mixes all tracks. A number is the index of a stream, and another string is a
        language.

    Raises
    ------
    MediaError
        If the file has no such track. The message says which it has.
    """
    if not info.audio:
        raise MediaError(f"file {info.path} has no audio stream")
    by_index = {stream.index: stream for stream in info.audio}
    ranked = rank_audio(info.streams)
    if track == MIX:
        chosen = tuple(sorted(info.audio, key=lambda s: s.index))[:MAX_MIXED]
        return AudioChoice(chosen, f"the mix of {_list(chosen)} is used, as requested")
    if isinstance(track, int):
        if track not in by_index:
            raise MediaError(
                f"stream {track} of {info.path} is not an audio stream: choose {_options(ranked)}"
            )
        return AudioChoice((by_index[track],), f"stream {track} is used, as requested")
    if track != AUTO:
        spoken = [s for s in ranked if _same_language(s.language, track)]
        if not spoken:
            raise MediaError(
                f"no audio track of {info.path} is in {track!r}: choose {_options(ranked)}"
            )
        best = spoken[0].index
        return AudioChoice(
            (by_index[best],), f"stream {best} is used, because {track!r} was requested"
        )
    microphones = _microphones(ranked, by_index)
    if microphones:
        mixed = tuple(by_index[s.index] for s in microphones)[:MAX_MIXED]
        return AudioChoice(
            mixed, f"each is treated as one microphone, and the mix of {_list(mixed)} is used"
        )
    first = info.audio[0]
    return AudioChoice((first,), _reason(first.index, ranked))


def _microphones(
    ranked: Sequence[StreamInfo], by_index: dict[int, AudioStream]
) -> list[StreamInfo]:
    """Tracks of one microphone each, in the order of the file; empty if they are alternatives"""
    tracks = sorted((s for s in ranked if not s.is_commentary), key=lambda s: s.index)
    if len(tracks) < 2 or any(by_index[s.index].channels != 1 for s in tracks):
        return []
    if len({s.language for s in tracks if s.language}) > 1:
        return []
    if len({frozenset(s.flags) - {"default"} for s in tracks}) > 1:
        return []
    defaults = [s for s in tracks if "default" in s.flags]
    # many programs mark the first track; on another track, the mark is deliberate
    if defaults and len(defaults) < len(tracks) and defaults != tracks[:1]:
        return []
    return tracks


def _reason(index: int, ranked: Sequence[StreamInfo]) -> str:
    ours = next((s for s in ranked if s.index == index), None)
    others = [s for s in ranked if s.index != index]
    if not others or ours is None:
        return f"stream {index} is used, the only one"
    if "default" in ours.flags:
        return f"the default one (stream {index}) is used"
    if "original" in ours.flags:
        return f"the one in the original language (stream {index}) is used"
    if all(s.is_commentary for s in others):
        return f"stream {index} is used, the only one that is not a commentary"
    return f"the default one (stream {index}, the first) is used"


def _same_language(one: str, other: str) -> bool:
    """Whether two codes name one language; files use "de", "deu", "ger" and "de-AT" alike"""
    one, other = (_CODES.get(code[:3].rstrip("-_"), code) for code in (one.lower(), other.lower()))
    return bool(one) and one == other


# codes of one language, ISO 639-2 and 639-1
_LANGUAGES = (
    "eng en, deu ger de, fra fre fr, spa es, ita it, por pt, nld dut nl, swe sv, dan da, "
    "nor no nob nb, fin fi, pol pl, ces cze cs, slk slo sk, hun hu, ron rum ro, ell gre el, "
    "rus ru, ukr uk, tur tr, ara ar, heb he, hin hi, zho chi zh cmn, jpn ja, kor ko, vie vi, "
    "tha th, ind id, msa may ms, fas per fa, cat ca, eus baq eu"
)
_CODES = {code: one.split()[0] for one in _LANGUAGES.split(",") for code in one.split()}


def _list(streams: Sequence[AudioStream]) -> str:
    indices = [str(stream.index) for stream in streams]
    if len(indices) == 1:
        return f"stream {indices[0]}"
    return f"streams {', '.join(indices[:-1])} and {indices[-1]}"


def _options(ranked: Sequence[StreamInfo]) -> str:
    parts = []
    for stream in sorted(ranked, key=lambda s: s.index):
        about = ", ".join(part for part in (stream.language, stream.title) if part)
        parts.append(f"{stream.index}{f' ({about})' if about else ''}")
    return f"'auto', 'mix' or one of the audio streams {', '.join(parts)}"


def unreadable(info: MediaInfo) -> list[str]:
    """Sentences about streams of sound or pictures for which there is no decoder"""
    return [
        f"{stream.kind} stream {stream.index} of {info.path} is left out: its codec is unknown, or "
        "it is encrypted; convert it (`ffmpeg -i FILE NEW.mp4`)"
        for stream in info.streams
        if stream.kind in ("audio", "video") and not stream.decodable
    ]


# --- both ---------------------------------------------------------------------------------------


def explain(info: MediaInfo, track: AudioTrack = AUTO) -> list[dict[str, Any]]:
    """All streams of a file, which are used, and why

    Parameters
    ----------
    info : MediaInfo
    track : int or str, optional
        See :func:`choose_audio`.

    Returns
    -------
    streams : list of dict
        Per stream, in the order of the file: ``index``, ``kind``, ``codec``, ``details``,
        ``language``, ``title``, ``flags`` (list), ``used`` (bool) and ``reason``.
    """
    choice = choose_audio(info, track) if info.audio else AudioChoice((), "")
    audio = {stream.index for stream in choice.streams}
    video = None if info.video is None else info.video.index
    rows = []
    for stream in info.streams:
        used = stream.index in audio if stream.kind == "audio" else stream.index == video
        rows.append(
            {
                "index": stream.index,
                "kind": stream.kind,
                "codec": stream.codec,
                "details": stream.details,
                "language": stream.language,
                "title": stream.title,
                "flags": list(stream.flags),
                "used": used,
                "reason": _why(stream, used, info, choice, track),
            }
        )
    return rows


def _why(
    stream: StreamInfo, used: bool, info: MediaInfo, choice: AudioChoice, track: AudioTrack
) -> str:
    """Reason why a stream is used or not, for :func:`explain`"""
    if stream.kind not in ("audio", "video"):
        return "neither audio nor video"
    if not stream.decodable:
        return "no decoder for it"
    same = [s for s in info.streams if s.kind == stream.kind and s.decodable]
    if stream.kind == "audio":
        if used and track != AUTO:
            return "requested"
        if used and len(choice.streams) > 1:
            return "mixed, one microphone per track"
        if not used and track == AUTO and stream.is_commentary:
            return "a commentary or description"
    elif is_still(stream, info.streams):
        return "cover art or thumbnail"
    if used and len(same) == 1:
        return f"the only {stream.kind} stream"
    if used and "default" in stream.flags:
        return "the default one"
    if used and "original" in stream.flags:
        return "the original language"
    if used and stream.kind == "video" and any(s.size != stream.size for s in same):
        return "the largest"
    return "the first" if used else "another one is used"
