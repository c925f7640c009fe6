"""What a file is: the ways one can be given, and what is refused before anything is opened"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

VideoFile = str | Path | Mapping

VideoFileDocString = """
Files can be provided to the Video class using different types:
    - a "str" or "Path" instance: "movie.mp4" or Path("movie.mp4")
    - a "Mapping" with any of these keys:
        "video": path of a file with pictures, and with sound where "audio" is missing
        "audio": path of the file with the sound; its beginning is the beginning of the video
        "frames" and "timestamps": pictures in memory, (T, H, W, 3) uint8 RGB and (T,) seconds
        "waveform" and "sample_rate": sound in memory, (channel, time) torch.Tensor, from time 0
        "uri": name of the file in what is written (default: file name without suffix)
What is in memory goes before what is on disk.
"""

PLAYLISTS = {".m3u8", ".m3u", ".pls", ".mpd", ".ffconcat", ".concat", ".xspf", ".sdp", ".asx"}


class MediaError(ValueError):
    """A media file cannot be used; the message names the file and says why"""


def validate_file(file: VideoFile) -> dict[str, Any]:
    """Validate file for use with the other Video methods

    Parameters
    ----------
    file : VideoFile

    Returns
    -------
    validated_file : dict
        "uri" (str) and whichever of "video" (str), "audio" (str), "frames" with "timestamps"
        (numpy arrays), "waveform" with "sample_rate" were given.

    Raises
    ------
    MediaError
        If a file is missing, empty, a directory, a playlist or an address, if arrays have the
        wrong shape, or if the uri could not be part of a file name.
    """
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
    uri = file.get("uri")
    valid["uri"] = _default_uri(valid) if uri is None else _check_uri(uri)
    return valid


def check_path(path: str | Path) -> Path:
    """Refuse what is not a plain, local, non-empty file

    Raises
    ------
    MediaError
    """
    # Path() would fold the two slashes of an address
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(path)) and not Path(path).is_file():
        raise MediaError(f"{path} is an address: download it first and pass the local file")
    if "\0" in str(path):
        raise MediaError(f"{str(path)!r} is not a file name")
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path} is a directory: pass one file at a time")
    if not path.exists():
        raise MediaError(f"{path}: no such file")
    if not path.is_file():
        raise MediaError(f"{path} is not a regular file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    if path.suffix.lower() in PLAYLISTS:
        raise MediaError(f"{path} is a playlist: pass the media file that it names")
    return path


def _default_uri(valid: dict[str, Any]) -> str:
    path = valid.get("video", valid.get("audio"))
    if path is None:
        return "frames" if "frames" in valid else "waveform"
    return re.sub(r"\.\.|\\", "_", Path(path).stem)


def _check_uri(uri: Any) -> str:
    """uri as a string; it becomes part of the names of output files"""
    uri = str(uri)
    if not uri.strip() or ".." in uri or any(character in uri for character in "/\\\0"):
        raise MediaError(
            f"uri {uri!r} cannot be used: it must not be empty nor contain '..', '/', '\\' or NUL"
        )
    return uri


def _check_frames(frames: Any, timestamps: Any) -> tuple[np.ndarray, np.ndarray]:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise MediaError(
            "'frames' must be provided as a non-empty (time, height, width, 3) uint8 array, not "
            f"{frames.dtype} {frames.shape}"
        )
    if timestamps is None:
        raise MediaError("'frames' must be provided with their 'timestamps' in seconds")
    timestamps = np.asarray(timestamps, np.float64)
    if timestamps.shape != frames.shape[:1]:
        raise MediaError(
            f"'timestamps' must have one time per frame ({len(frames)}), not {timestamps.shape}"
        )
    if not np.isfinite(timestamps).all() or (np.diff(timestamps) <= 0).any():
        raise MediaError("'timestamps' must be finite and increase from frame to frame")
    return frames, timestamps


def _check_waveform(waveform: Any, sample_rate: Any) -> tuple[Tensor, int]:
    import torch

    waveform = torch.as_tensor(waveform)
    if waveform.ndim != 2 or waveform.shape[0] > waveform.shape[1]:
        raise MediaError("'waveform' must be provided as a (channel, time) torch Tensor.")
    if sample_rate is None or sample_rate <= 0:
        raise MediaError("'waveform' must be provided with their 'sample_rate'.")
    return waveform, int(sample_rate)
