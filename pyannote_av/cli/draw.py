"""``pyannote-av draw``: draw a result into its video."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say
from pyannote_av.cli.view import find_recording, stem_of


@contextmanager
def _bar(visible: bool) -> Iterator[Callable[[float, float], object]]:
    """Progress bar with the remaining time; yields a function of seconds done and in total"""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("drawing"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not visible) as bars:
        task = bars.add_task("drawing", total=1)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def command(
    result: Annotated[Path, typer.Argument(help="Result of apply (.json).")],
    video: Annotated[
        Path | None,
        typer.Option(help="The video. Default: next to the result, or where apply found it."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="New file. Default: NAME.annotated.mp4, beside the result."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a file that pyannote-av did not draw.")
    ] = False,
) -> None:
    """Draw boxes, names and a strip with the sound into a video. The sound is kept.

    Example: pyannote-av draw output/talk.json --video talk.mp4
    """
    from pyannote_av.formats.json import read_json
    from pyannote_av.vision.annotated_video import draw_video

    try:
        content = read_json(result)
        video = video or find_recording(result)
        if video is None:
            raise FileNotFoundError(
                f"the video of {result} is not next to it: name it with --video"
            )
        path = output or result.with_name(f"{stem_of(result)}.annotated.mp4")
        with _bar(sys.stderr.isatty()) as progress:
            problems = draw_video(content, video, path, overwrite, progress)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        say("stopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    say(path)
    for problem in problems:
        say(f"    {problem}")
