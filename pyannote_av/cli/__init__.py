"""``pyannote-av``: each command is a thin wrapper around one Python function."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Audio-visual speaker diarization: who spoke when, and where they are in the picture.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # tracebacks are printed by escape_everything
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the ``pyannote-av`` command."""
    from pyannote_av.cli import (
        apply,
        demo,
        doctor,
        download,
        draw,
        evaluate,
        export,
        fit_plda,
        fit_statistics,
        import_checkpoint,
        info,
        optimize,
        prepare,
        pull,
        push,
        sample,
        simulate,
        strip,
        sweep,
        train,
    )
    from pyannote_av.cli._output import escape_everything

    commands = (apply, evaluate, sweep, prepare, train, optimize, simulate, fit_statistics)
    commands += (fit_plda, info, doctor, download, import_checkpoint, strip, export, push, pull)
    commands += (sample, demo, draw)
    for module in commands:
        name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        app.command(name)(module.command)
    app.registered_commands = list({c.name: c for c in app.registered_commands}.values())
    escape_everything()
    # completion of the shell is named after the program, however it is started
    app(prog_name="pyannote-av")
