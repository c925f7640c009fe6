"""``pyannote-av download``: fetch optional weights."""

from __future__ import annotations

from typing import Annotated

import typer

from pyannote_av.cli._output import say


def command(
    name: Annotated[
        str | None, typer.Argument(help="Name of the weights. Default: all that can be downloaded.")
    ] = None,
) -> None:
    """Download optional weights into the cache and check their SHA-256.

    Example: pyannote-av download lr-asd
    """
    from pyannote_av.core.weights import REGISTRY, download

    failed = False
    for each in [name] if name else [n for n, entry in REGISTRY.items() if entry.url]:
        try:
            say(f"{each}: {download(each)}")
        except (OSError, ValueError) as error:
            failed = True
            say(f"{each}: {error}", err=True)
    if failed:
        raise typer.Exit(1)
