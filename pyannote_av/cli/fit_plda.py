"""``pyannote-av fit-plda``: fit the PLDA of speaker embeddings for VBx clustering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def command(
    protocol: Annotated[str, typer.Argument(help="Such as AMI.SpeakerDiarization.only_words.")],
    into: Annotated[Path, typer.Option("--into", help="Folder to write, for `plda=`.")],
    subset: Annotated[str, typer.Option(help="train, development or test.")] = "train",
    database: Annotated[
        Path | None, typer.Option(help="database.yml that has the protocol.")
    ] = None,
    embedding: Annotated[
        str, typer.Option(help="Model that embeds speakers: a name, a path or a hub identifier.")
    ] = "campplus",
    dimension: Annotated[
        int, typer.Option(min=1, help="Of the LDA; fewer where there are fewer speakers.")
    ] = 128,
    duration: Annotated[
        float, typer.Option(min=1.0, help="Seconds of speech embedded at once, at most.")
    ] = 3.0,
) -> None:
    """Fit the PLDA with which VBx clustering compares speaker embeddings.

    Embeddings are computed where one speaker speaks alone. Use the same embedding model later:
    AudioDiarization(embedding=..., plda=FOLDER). A file that cannot be read is reported and does
    not stop the others; the exit code is then 1.

    Example: pyannote-av fit-plda AMI.SpeakerDiarization.only_words --into plda
    """
    import sys

    from pyannote_av.cli.prepare import files_of
    from pyannote_av.clustering.plda import fit_plda, plda_embeddings, save_plda

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
