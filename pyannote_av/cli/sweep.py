"""``pyannote-av sweep``: evaluate pipelines on recordings of decreasing quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import command_line, say


def numbers(text: str | None, kind: type, option: str) -> list:
    """Parse "0,0.5,inf" as numbers."""
    try:
        return [kind(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ValueError(f"{option} takes numbers with commas between them, not {text!r}") from (
            error
        )


def load_pipelines(names: Sequence[str], device: str, trust: bool = False) -> dict[str, Any]:
    """Load pipelines on a device, by name; see ``Pipeline.from_pretrained`` for `trust`."""
    import torch

    from pyannote_av import Pipeline

    if len(set(names)) < len(names):
        raise ValueError("the same pipeline is given twice")
    loaded = {name: Pipeline.from_pretrained(name, trust=trust) for name in names}
    return {name: one.to(torch.device(device)) for name, one in loaded.items()}


def command(
    what: Annotated[str, typer.Argument(help="Disturbance: missing-faces, desync or noise.")],
    protocol: Annotated[str, typer.Option(help="Name of a pyannote.database protocol.")],
    pipeline: Annotated[
        list[str], typer.Option(help="Pipeline to run on the protocol. Can be repeated.")
    ],
    subset: Annotated[
        str, typer.Option(help="Subset of the protocol: train, development or test.")
    ] = "test",
    values: Annotated[
        str | None,
        typer.Option(
            help="Levels of the disturbance: shares of faces (0,0.5,1), delays of the sound in "
            "seconds (-0.2,0,0.2) or signal-to-noise ratios in dB (inf,10,0)."
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Random seeds for missing faces and noise: one run per seed.")
    ] = "0",
    json: Annotated[
        Path | None, typer.Option(help="Write all scores and comparisons as JSON.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all scores as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot the error rates (.png, .svg).")] = None,
    database: _engine.Database = None,
    device: _engine.Device = "cpu",
    trust: _engine.Trust = False,
) -> None:
    """Run pipelines on increasingly disturbed recordings, and compare their error rates.

    missing-faces removes faces 2 s at a time, as in figure 6 of AVR-Net; the protocol must have
    face_tracks. desync shifts the sound against the picture, and noise adds pink noise to the
    sound; both work with any protocol.

    Example: pyannote-av sweep missing-faces --protocol Simulated.SpeakerDiarization.Conversations
    --pipeline audio --pipeline late_fusion --seeds 0,1,2 --plot missing.png
    """
    from pyannote_av.core.protocols import files_of
    from pyannote_av.evaluation import sweeps
    from pyannote_av.evaluation.significance import describe

    if what not in sweeps.DISTURBANCES:
        raise typer.BadParameter(
            f"{what!r} is not a disturbance; choose from {', '.join(sweeps.DISTURBANCES)}"
        )
    usual = sweeps.DISTURBANCES[what]
    try:
        chosen = numbers(values, float, "--values") or usual.values
        drawn = numbers(seeds, int, "--seeds") if usual.random else ()
        files = files_of(protocol, [subset], database)[subset]
        found = []
        for name, loaded in load_pipelines(pipeline, device, trust).items():
            one = sweeps.sweep(loaded, files, usual.change, chosen, what, name, drawn)
            found.append(one)
            say(f"{one}\n")
        if len(found) > 1:
            say(describe(sweeps.compare_sweeps(found)))
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if json is not None:
        sweeps.write_json(json, found, command_line())
    if csv is not None:
        sweeps.write_csv(csv, found)
    if plot is not None:
        sweeps.plot_sweeps(found, plot)
