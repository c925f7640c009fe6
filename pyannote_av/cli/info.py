"""``pyannote-av info``: show the contents of a media file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pyannote_av.cli._output import say


def describe(path: Path, num_glances: int = 5) -> list[str]:
    """Streams, clock and number of faces, as lines of text.

    Parameters
    ----------
    path : Path
    num_glances : int, optional
        Number of pictures, spread over the file, in which faces are detected.
    """
    from pyannote.core import Segment

    from pyannote_av.core.grid import FRAME_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.vision.detection import get_detector

    video = Video()
    info = video.probe(path)
    lines = [f"{path}: {info.format}, {info.duration:.2f} s (clock starts at {info.origin:.3f} s)"]
    for stream in info.audio:
        lines.append(
            f"  sound {stream.index}: {stream.codec}, {stream.sample_rate} Hz, "
            f"{stream.channels} channels, starts at {stream.start:.3f} s"
        )
    if not info.audio:
        lines.append("  no sound")
    if info.video is None:
        return [*lines, "  no picture"]
    stream = info.video
    rate = f"{stream.frame_rate:.2f}" if stream.frame_rate else "unknown"
    lines.append(
        f"  picture {stream.index}: {stream.codec}, {stream.width}x{stream.height}, rotated by "
        f"{stream.rotation}, {rate} pictures a second, starts at {stream.start:.3f} s"
    )
    detector = get_detector("auto")
    counts = []
    first = stream.start
    for time in np.linspace(first, max(first, info.duration - 0.5), num_glances):
        frames, _ = video.crop(path, Segment(time, time + 2 / FRAME_RATE))
        if len(frames):
            counts.append(len(detector(frames[0]).box))
    lines.append(f"  faces in {len(counts)} pictures: {', '.join(map(str, counts))}")
    return lines


def command(path: Annotated[Path, typer.Argument(help="Media file.")]) -> None:
    """Show the streams, the clock and the number of faces of a media file.

    Example: pyannote-av info interview.mp4
    """
    try:
        for line in describe(path):
            say(line)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
