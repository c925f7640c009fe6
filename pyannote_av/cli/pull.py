"""``pyannote-av pull``: download a shared pipeline or model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="Repository on the Hugging Face hub (hub:organisation/name), or a folder."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Output folder.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the repository.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Access token of the hub. Default: that of `hf auth login`, or $HF_TOKEN."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
    trust: _engine.Trust = False,
) -> None:
    """Download a shared pipeline or model, and check it by loading it.

    Only data files are downloaded, never code. A pipeline or model that must be trusted in order
    to load is refused unless --trust is given.

    Example: pyannote-av pull hub:somebody/interviews interviews
    """
    from pyannote_av.sharing.hub import pull

    try:
        folder = pull(source, destination, revision, token, overwrite, trust)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    say(f'{folder}: load it by from_pretrained("{folder}")')
