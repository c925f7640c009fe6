"""Ways to specify a file, and checks before it is opened"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.paths import what_is_there
from pyannote_av.core.text import field_name, printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

VideoFile = str | Path | Mapping

VideoFileDocString = """
Files can be provided to the Video class using different types:
    - a "str" or "Path" instance: "movie.mp4" or Path("movie.mp4")
    - a "Mapping" with any of these keys:
        "video": path of a file with pictures, and with sound where "audio" is missing
        "audio": path of the file with the sound; its beginning is the beginning of the video
        "audio_track": "auto", "mix", the index of an audio stream, or a language ("deu")
        "frames" and "timestamps": pictures in memory, (T, H, W, 3) uint8 RGB and (T,) seconds
        "waveform" and "sample_rate": sound in memory, from time 0: (channel, time) torch.Tensor or
            array, or (time,) for one channel; floats within [-1, 1], or int16, int32 or uint8
        "channel": number of the only channel of the sound that is used, from 0 (default: all)
        "uri": name of the file in outputs, which may contain folders ("a/b"); by default, the name
            of the file without suffix, with "_" for spaces
Data in memory take precedence over files on disk.
"""

#: suffixes of media files, in lower case, that folder searches and protocols recognise
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".mts")
VIDEO_SUFFIXES += (".m2ts", ".vob", ".3gp", ".3g2", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".mxf")
VIDEO_SUFFIXES += (".dv", ".m2v", ".rm", ".rmvb", ".wtv", ".nut", ".qt")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac", ".mka", ".amr", ".wma")
AUDIO_SUFFIXES += (".caf", ".aiff", ".aif", ".aifc", ".oga", ".ac3", ".eac3", ".au", ".m4b", ".mp2")
AUDIO_SUFFIXES += (".w64", ".rf64", ".wv", ".weba", ".sph")

PLAYLISTS = {".m3u8", ".m3u", ".pls", ".mpd", ".ffconcat", ".concat", ".xspf", ".sdp", ".asx"}

MAX_DURATION = 7 * 24 * 3600.0
"""Maximum actual or declared duration of media (s)"""

FREE_DURATION = 2 * 3600.0
"""Duration that is accepted for files of any size (s)"""

BYTES_PER_SECOND = 50
"""Beyond `FREE_DURATION`, a file must have this many bytes per second. Silence needs about as much
in FLAC and Opus; speech needs ten times as much in most codecs."""

SAMPLE_RATES = (2_000, 768_000)
"""Lowest and highest accepted sample rate (Hz)"""

MAX_SAMPLE = 64.0
"""Maximum absolute value of floating-point samples in memory. Sound that is too loud exceeds 1 only
slightly, while 8-bit samples stored as floats reach 127."""


class MediaError(ValueError):
    """A media file cannot be used; the message names the file and says why

    Control characters in the message are escaped, because file names are not trusted.
    """

    def __init__(self, message: str):
        # names of files may contain line feeds
        super().__init__(printable(message, one_line=VideoFileDocString not in message))


def longest(size: int) -> float:
    """Longest plausible duration (s) of media of `size` bytes; longer ones are damaged or crafted

    >>> longest(1000), longest(16000 * 2 * 3600)
    (7220.0, 604800.0)
    """
    return min(FREE_DURATION + size / BYTES_PER_SECOND, MAX_DURATION)


def validate_file(file: VideoFile) -> dict[str, Any]:
    """Validate file for use with the other Video methods

    Parameters
    ----------
    file : VideoFile

    Returns
    -------
    validated_file : dict
        "uri" (str), and those of "video" (str), "audio" (str), "audio_track" (int or str),
        "frames" with "timestamps" (numpy arrays), "waveform" with "sample_rate" and "channel"
        (int) that were given.

    Raises
    ------
    MediaError
        If a file is missing, empty, a directory, a playlist or an address, if arrays have the
        wrong shape, if the channel is not a whole number of at least 0, or if the uri cannot be the
        name of a file.
    """
    if hasattr(file, "read"):
        raise MediaError(f"{_ON_DISK}, not an open file (pipelines take open files)")
    if isinstance(file, (str, Path)):
        file = {"video": file}
    elif not isinstance(file, Mapping):
        raise MediaError(VideoFileDocString)

    valid: dict[str, Any] = {}
    for key in ("video", "audio"):
        if file.get(key) is not None:
            valid[key] = str(check_path(file[key]))
    if file.get("frames") is not None:
        valid["frames"], valid["timestamps"] = _check_frames(file["frames"], file.get("timestamps"))
    if file.get("waveform") is not None:
        valid["waveform"], valid["sample_rate"] = _check_waveform(
            file["waveform"], file.get("sample_rate")
        )
    if not valid:
        raise MediaError(
            "none of 'video', 'audio', 'frames' and 'waveform' is available for this file."
            + VideoFileDocString
        )
    if file.get("audio_track") is not None:
        valid["audio_track"] = check_audio_track(file["audio_track"])
    if file.get("channel") is not None:
        valid["channel"] = _check_channel(file["channel"])
    uri = file.get("uri")
    valid["uri"] = _default_uri(valid) if uri is None else _check_uri(uri)
    return valid


_ON_DISK = "a file is the path of a file on disk, a str or a Path"


def refuse_address(path: str | Path) -> None:
    """Raise MediaError for an address of the web in place of a path."""
    # a single letter is a drive of Windows; Path() has merged the two slashes
    address = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(path), re.DOTALL)
    if address and not Path(path).is_file():
        raise MediaError(
            printable(
                f"{address[1]}://{address[2]} is an address: download it first and pass the local "
                "file",
                one_line=True,
            )
        )


def check_path(path: str | Path) -> Path:
    """Return the path of a plain, local, non-empty file, and refuse everything else

    Raises
    ------
    MediaError
    """
    if hasattr(path, "read"):
        raise MediaError(f"{_ON_DISK}, not an open file (pipelines take open files)")
    if not isinstance(path, (str, os.PathLike)):
        raise MediaError(
            f"{_ON_DISK}, not a {type(path).__name__}. For sound in memory, pass "
            "{'waveform': ..., 'sample_rate': ...}; for the bytes of a file, io.BytesIO(...)"
        )
    refuse_address(path)
    if "\0" in str(path):
        raise MediaError(f"{str(path)!r} is not a file name")
    path = Path(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(f"{path}: no such file{what_is_there(path)}") from error
    except (OSError, ValueError) as error:
        raise MediaError(
            f"{path} cannot be read ({error}): check its name and permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path} is a directory: pass one file at a time")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    if path.suffix.lower() in PLAYLISTS:
        raise MediaError(f"{path} is a playlist: pass the media file that it names")
    return path


def check_audio_track(track: Any) -> int | str:
    """Validate the choice of an audio track: "auto", "mix", an index or a language

    A string of digits is an index.

    Raises
    ------
    MediaError
    """
    if isinstance(track, str):
        word = track.strip().lower()
        if word.isascii() and word.isdigit() and len(word) < 6:
            return int(word)
        if word in ("auto", "mix") or re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]{2,8})?", word):
            return word
    elif isinstance(track, Integral) and not isinstance(track, bool) and track >= 0:
        return int(track)
    raise MediaError(
        f"audio_track must be 'auto', 'mix', the number of an audio stream, or a language such as "
        f"'deu', not {track!r}"
    )


def _default_uri(valid: dict[str, Any]) -> str:
    path = valid.get("video", valid.get("audio"))
    if path is None:
        return "frames" if "frames" in valid else "waveform"
    # a name for RTTM files, too
    return re.sub(r"\.\.|\\", "_", field_name(Path(path).stem))


def _check_uri(uri: Any) -> str:
    """Validate a uri, which becomes the name of output files and may contain folders"""
    uri = str(uri)
    empty = not all(part.strip(" .") for part in uri.split("/"))
    if empty or ".." in uri or any(character in uri for character in "\\\0"):
        raise MediaError(
            f"uri {uri!r} cannot be used: it and its folders must not be empty nor contain '..', "
            "'\\' or NUL"
        )
    return uri


def _check_channel(channel: Any) -> int:
    try:
        number = int(channel)
        if type(channel) is not bool and number == float(channel) and number >= 0:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise MediaError(f"'channel' is {channel!r}: it must be a whole number of at least 0")


def _check_frames(frames: Any, timestamps: Any) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    try:
        frames = np.asarray(frames)
    except (TypeError, ValueError) as error:
        raise MediaError(f"'frames' must be provided as one array: {error}") from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(
            "'frames' must be provided as a non-empty (time, height, width, 3) uint8 array, not "
            f"{frames.dtype} {frames.shape}"
        )
    if timestamps is None:
        raise MediaError("'frames' must be provided with their 'timestamps' in seconds")
    try:
        timestamps = np.asarray(timestamps, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MediaError(f"'timestamps' must be numbers of seconds: {error}") from error
    if timestamps.shape != frames.shape[:1]:
        raise MediaError(
            f"'timestamps' must have one time per frame ({len(frames)}), not {timestamps.shape}"
        )
    if not np.isfinite(timestamps).all() or (np.diff(timestamps) <= 0).any():
        raise MediaError("'timestamps' must be finite and increase from frame to frame")
    if np.abs(timestamps).max() > MAX_DURATION:
        raise MediaError(
            f"'timestamps' must lie within {MAX_DURATION:.0f} s of 0: are they in other units than "
            "seconds, or dates?"
        )
    span, limit = timestamps[-1] - timestamps[0], longest(frames.nbytes)
    if span > limit:
        raise MediaError(
            f"'timestamps' span {span:.0f} s, more than {len(frames)} 'frames' can last "
            f"({limit:.0f} s): pass the parts between long pauses one by one"
        )
    return frames, timestamps


def _check_waveform(waveform: Any, sample_rate: Any) -> tuple[Tensor, int]:
    import numpy as np
    import torch

    try:
        if isinstance(waveform, np.ndarray):
            # torch knows neither other byte orders nor negative strides
            waveform = np.ascontiguousarray(waveform, waveform.dtype.newbyteorder("="))
        waveform = torch.as_tensor(waveform).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MediaError(f"'waveform' must be provided as a torch Tensor: {error}") from error
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2 or not 0 < waveform.shape[0] <= waveform.shape[1]:
        shape = tuple(waveform.shape)
        turned = (
            ": it is (time, channel); pass its transpose, waveform.T" if _is_turned(shape) else ""
        )
        raise MediaError(
            f"'waveform' must be provided as a (channel, time) torch Tensor, not {shape}{turned}"
        )
    if waveform.is_complex():
        raise MediaError("'waveform' must hold real numbers, not complex ones")
    waveform = _scaled(waveform)
    if not is_sample_rate(sample_rate):
        lowest, highest = SAMPLE_RATES
        raise MediaError(
            "'waveform' must be provided with its 'sample_rate', a whole number of Hz from "
            f"{lowest} to {highest}, not {sample_rate!r}"
        )
    return waveform, int(sample_rate)


def _is_turned(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of a few channels, as libraries for WAV files return them"""
    return len(shape) == 2 and 0 < shape[1] < shape[0]


def _scaled(waveform: Tensor) -> Tensor:
    """Samples within [-1, 1], from floats or from whole numbers as in WAV files"""
    import torch

    if waveform.is_floating_point():
        peak = max(float(waveform.max()), -float(waveform.min()))
        if MAX_SAMPLE < peak < math.inf:
            raise MediaError(
                f"'waveform' reaches {peak:g}, but samples lie within [-1, 1]: divide them by "
                "their largest possible value (32768 for 16 bits), or pass whole numbers as int16"
            )
        return waveform
    if waveform.dtype == torch.uint8:
        return (waveform.to(torch.float32) - 128) / 128
    bits = {torch.int8: 7, torch.int16: 15, torch.int32: 31}.get(waveform.dtype)
    if bits is None:
        raise MediaError(
            f"'waveform' holds {waveform.dtype} samples: pass floats within [-1, 1], or int16, "
            "int32 or uint8"
        )
    return (waveform.to(torch.float64) / 2**bits).to(torch.float32)


def is_sample_rate(rate: Any) -> bool:
    """Whether a sample rate is accepted: a whole number of Hz within `SAMPLE_RATES`"""
    try:
        return int(rate) == rate and SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False
