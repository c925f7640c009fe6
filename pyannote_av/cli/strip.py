"""``pyannote-av strip``: remove from a checkpoint everything that only training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Training checkpoint (.ckpt, .bin).")],
    into: Annotated[
        Path,
        typer.Option(
            "--into", "-o", help="Output file: .safetensors, or .ckpt for models of pyannote.audio."
        ),
    ],
    trust: _engine.Trust = False,
) -> None:
    """Keep only the weights, hyper-parameters and lineage of a training checkpoint.

    No code in the checkpoint is executed unless --trust is given.

    Example: pyannote-av strip trained/05-all/last.ckpt --into model.safetensors
    """
    from pyannote_av.sharing.strip import strip

    try:
        before = checkpoint.stat().st_size
        path = strip(checkpoint, into, trust)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    megabytes = (size / 1e6 for size in (before, path.stat().st_size))
    say("{}: {:.1f} MB became {:.1f} MB".format(path, *megabytes))
