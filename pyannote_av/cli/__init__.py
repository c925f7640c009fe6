"""``pyannote-av``: each command a thin shell over one Python function."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Who spoke when, and where they are in the picture.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the ``pyannote-av`` command."""
    from pyannote_av.cli import (
        apply,
        demo,
        doctor,
        download,
        evaluate,
        fit_plda,
        fit_statistics,
        import_checkpoint,
        info,
        prepare,
        sample,
        simulate,
        sweep,
        train,
    )

    commands = (apply, evaluate, sweep, prepare, train, simulate, fit_statistics, info, doctor, download)
    commands += (fit_plda, import_checkpoint, sample, demo)
    for module in commands:
        name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        app.command(name)(module.command)
    app.registered_commands = list({c.name: c for c in app.registered_commands}.values())
    app()
