"""``pyannote-av push``: a pipeline or a model, for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    source: Annotated[
        str, typer.Argument(help="A shipped pipeline by name, a pipeline folder, or a model file.")
    ],
    destination: Annotated[
        str, typer.Argument(help="A folder, or hub:organisation/name on the Hugging Face hub.")
    ],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `pyannote-av evaluate --json` wrote: figures for the card; again for more."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="Whose figures they are, if several systems were scored.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights in it, as the hub abbreviates it."),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="Markdown for the card: data it was trained on, their licences."),
    ] = None,
    private: Annotated[bool, typer.Option(help="If a repository has to be created.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch of the repository.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Of the hub; else that of `hf auth login`, or $HF_TOKEN.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a folder that is there.")] = False,
    trust: _engine.Trust = False,
) -> None:
    """Share a pipeline or a model, with all that it needs and a model card.

    Models become safetensors next to config.yaml, where they are $model/...; nothing that would
    have to be executed is shared.

    Example: pyannote-av push tuned/best hub:me/interviews --evaluation test.json --license mit
    """
    from pyannote_av.core.reading import read_text
    from pyannote_av.sharing.hub import push

    try:
        where = push(
            source,
            destination,
            evaluation or None,
            system,
            licence,
            private,
            revision,
            token,
            overwrite,
            None if about is None else read_text(about),
            trust,
        )
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    say(where)
