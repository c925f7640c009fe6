"""``pyannote-av fit-plda``: fit the PLDA of speaker embeddings for VBx clustering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def command(
    protocol: Annotated[
        str, typer.Argument(help="Protocol, such as AMI.SpeakerDiarization.only_words.")
    ],
    into: Annotated[
        Path, typer.Option("--into", "-o", help="Output folder, to be passed as `plda=`.")
    ],
    subset: Annotated[
        str, typer.Option(help="Subset of the protocol: train, development or test.")
    ] = "train",
    database: Annotated[
        Path | None, typer.Option(help="database.yml that defines the protocol.")
    ] = None,
    embedding: Annotated[
        str, typer.Option(help="Speaker embedding model: a name, a path or a hub identifier.")
    ] = "campplus",
    dimension: Annotated[
        int,
        typer.Option(min=1, help="Dimension of the LDA, reduced if there are too few speakers."),
    ] = 128,
    duration: Annotated[
        float,
        typer.Option(min=1.0, help="Maximum duration of the speech in one embedding, in seconds."),
    ] = 3.0,
) -> None:
    """Fit the PLDA with which VBx clustering compares speaker embeddings.

    Embeddings are computed where one speaker speaks alone. Use the same embedding model later:
    AudioDiarization(embedding=..., plda=FOLDER). A file that cannot be read is reported and does
    not stop the others; the exit code is then 1.

    Example: pyannote-av fit-plda AMI.SpeakerDiarization.only_words --into plda
    """
    import sys

    from pyannote_av.clustering.plda import fit_plda, plda_embeddings, save_plda
    from pyannote_av.core.protocols import files_of

    try:
        into.mkdir(parents=True, exist_ok=True)  # fail now, not after an hour of embedding
        files = files_of(protocol, [subset], database)[subset]
        found = plda_embeddings(files, embedding, duration, progress=sys.stderr.isatty())
        for uri, reason in found.failed.items():
            say(f"error: {uri}: {reason}", err=True)
        parameters = fit_plda(found.embeddings, found.speakers, dimension)
        save_plda(into, parameters)
    except (OSError, ValueError, RuntimeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    speakers = len(set(found.speakers.tolist()))
    say(
        f"{into}: PLDA of {len(parameters.psi)} dimensions, from {len(found.embeddings)} "
        f"embeddings of {speakers} speakers"
    )
    if found.failed:
        raise typer.Exit(1)
