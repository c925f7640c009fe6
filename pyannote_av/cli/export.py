"""``pyannote-av export``: convert a model to ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    model: Annotated[
        str,
        typer.Argument(help="Model file or folder, or the name of known weights (campplus, ...)."),
    ],
    into: Annotated[Path, typer.Option("--into", "-o", help="Output folder.")],
    trust: _engine.Trust = False,
) -> None:
    """Convert a model to ONNX, and compare both on random inputs of several sizes.

    Writes one .onnx file for each part of the model, and export.json, which lists the inputs, the
    outputs, the dynamic axes, and the largest difference between the outputs of both. If this
    difference exceeds 0.0001, nothing is written.

    Example: pyannote-av export trained/model.safetensors --into onnx
    """
    from pyannote_av.core.reading import read_json
    from pyannote_av.core.trust import trusting
    from pyannote_av.sharing.export.files import export, load

    try:
        with trusting(trust):
            loaded = load(model)
        path = export(loaded, into)
    except (OSError, ValueError, ImportError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for graph in read_json(path)["graphs"].values():
        size = (into / graph["file"]).stat().st_size / 1e6
        differs = graph["parity"]["largest_difference"]
        say(f"{into / graph['file']}: {size:.1f} MB, differs by {differs:.1e} at most")
    say(path)
