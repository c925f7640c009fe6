"""``pyannote-av sample``: write the two-person sample file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def command(folder: Annotated[Path, typer.Argument(help="Output folder.")]) -> None:
    """Write a synthetic sample to try things on: sample.mp4, sample.rttm and its face tracks.

    Example: pyannote-av sample sample
    """
    from pyannote_av.simulation.sample import make_sample

    for path in make_sample(folder).values():
        say(path)
