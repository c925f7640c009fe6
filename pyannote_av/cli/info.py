"""``pyannote-av info``: show the contents of a media file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyannote_av.cli._output import say

if TYPE_CHECKING:
    from pyannote_av.core.io import VideoStream


def describe(path: Path, num_pictures: int = 5, audio_track: int | str = "auto") -> list[str]:
    """Streams, clock and number of faces, as lines of text.

    Parameters
    ----------
    path : Path
    num_pictures : int, optional
        Number of pictures, spread over the file, in which faces are detected.
    audio_track : int or str, optional
        See :class:`pyannote_av.Video`.
    """
    import numpy as np

    from pyannote_av.core.files import MediaError, check_audio_track
    from pyannote_av.core.grid import FRAME_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.core.streams import explain
    from pyannote_av.vision.detection import get_detector

    video = Video(audio_track=audio_track)
    info = video.probe(path)
    lines = [f"{path}: {info.format}, {info.duration:.2f} s (clock starts at {info.origin:.3f} s)"]
    starts = {stream.index: stream.start for stream in info.audio}
    rows = explain(info, check_audio_track(audio_track)) if info.audio else explain(info)
    lines += [stream_line(row, starts.get(row["index"])) for row in rows]
    if not info.audio:
        lines.append("  no sound")
    if info.video is None:
        return [*lines, "  no picture"]
    stream = info.video
    lines.append(f"  picture as shown: {picture_line(stream)}")
    detector = get_detector("auto")
    counts = []
    first = stream.start
    try:
        for time in np.linspace(first, max(first, info.duration - 0.5), num_pictures):
            # at most two pictures: not every step of the grid shows one
            frame = next(iter(video.frames(path, time, time + 2 / FRAME_RATE)), None)
            if frame is not None:
                counts.append(len(detector(frame.image).box))
    except MediaError as error:
        lines.append(f"  {error}")
    lines.append(f"  faces in {len(counts)} pictures: {', '.join(map(str, counts))}")
    return lines


def stream_line(row: Mapping[str, Any], start: float | None = None) -> str:
    """One stream as a line of text; see :func:`pyannote_av.core.streams.explain`."""
    name = {"audio": "sound", "video": "picture"}.get(row["kind"], row["kind"])
    about = [row["codec"], row["details"], row["language"], row["title"] and repr(row["title"])]
    about += [" ".join(row["flags"]), "" if start is None else f"starts at {start:.3f} s"]
    state = "used" if row["used"] else "not used"
    facts = ", ".join(part for part in about if part)
    return f"  {name} {row['index']}: {facts}; {state}: {row['reason']}"


def picture_line(stream: VideoStream) -> str:
    """How pictures are shown, as text."""
    rate = f"{stream.frame_rate:.2f}" if stream.frame_rate else "unknown"
    parts = [f"{stream.width}x{stream.height}"]
    parts += ["mirrored"] * stream.mirrored
    parts += [f"rotated by {stream.rotation}"]
    if stream.pixel_aspect != 1:
        aspect = stream.pixel_aspect
        parts.append(f"pixels {aspect.numerator}:{aspect.denominator} made square")
    parts += ["interlaced"] * stream.interlaced
    parts += [f"{rate} pictures a second", f"starts at {stream.start:.3f} s"]
    return ", ".join(parts)


def command(
    path: Annotated[Path, typer.Argument(help="Media file.")],
    audio_track: Annotated[str, typer.Option(help="As for `apply`.")] = "auto",
) -> None:
    """Show the streams of a media file and which are used, the clock, and the number of faces.

    Example: pyannote-av info interview.mp4
    """
    try:
        for line in describe(path, audio_track=audio_track):
            say(line)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
