"""``pyannote-av push``: share a pipeline or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    source: Annotated[
        str, typer.Argument(help="Name of a shipped pipeline, a pipeline folder, or a model file.")
    ],
    destination: Annotated[
        str,
        typer.Argument(
            help="A folder, or a repository on the Hugging Face hub (hub:organisation/name)."
        ),
    ],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Scores for the model card, from `pyannote-av evaluate --json`. Can be repeated."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="Name of the scored system, if several were scored.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Licence of the weights, as abbreviated by the hub: mit, cc-by-4.0, ...",
        ),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="Markdown file for the model card: training data and its licences."),
    ] = None,
    private: Annotated[
        bool, typer.Option(help="If the repository is created, make it private.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch of the repository. It is created if missing.")
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
    """Share a pipeline or a model, with everything it needs and a model card.

    Models are saved as safetensors files next to config.yaml, which refers to them as $model/...
    Only data files are shared, never code.

    Example: pyannote-av push tuned/best hub:me/interviews --evaluation test.json --license mit
    """
    from pyannote_av.core.reading import read_text
    from pyannote_av.sharing.folders import CONFIG
    from pyannote_av.sharing.hub import HUB, push

    try:
        say("collecting files, and checking that the copy loads ...", err=True)
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
    if not destination.startswith(HUB) and not (Path(destination) / CONFIG).is_file():
        say(
            "This is a model. To share a pipeline with these weights: "
            f'save_pipeline(Pipeline.from_pretrained("hmsanet", segmentation="{source}"), FOLDER), '
            "then push FOLDER."
        )
