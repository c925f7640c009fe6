"""``pyannote-av``: each command is a thin wrapper around one Python function."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

# commands that continue where they were interrupted
_CONTINUE = ("apply", "evaluate", "prepare", "train", "optimize", "simulate")

app = typer.Typer(
    help="Audio-visual speaker diarization: who spoke when, and where they are in the picture.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # tracebacks are printed by escape_everything
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from pyannote_av import __version__

        typer.echo(f"pyannote-av {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _interruptible(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that says how to continue when it is interrupted, and then exits with 130"""
    advice = ": run the same command again to continue" if name in _CONTINUE else ""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            typer.echo(f"interrupted{advice}", err=True)
            raise typer.Exit(130) from error

    return run


def main() -> None:
    """Entry point of the ``pyannote-av`` command."""
    try:
        _main()
    except KeyboardInterrupt:  # while it starts; see `_interruptible` for the rest
        typer.echo("interrupted", err=True)
        raise SystemExit(130) from None


def _main() -> None:
    from pyannote_av.cli import (
        apply,
        convert,
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
        view,
    )
    from pyannote_av.cli._output import escape_everything

    commands = (apply, view, evaluate, sweep, prepare, train, optimize, simulate, fit_statistics)
    commands += (fit_plda, info, doctor, download, import_checkpoint, strip, export, push, pull)
    commands += (sample, demo, convert, draw)
    for module in commands:
        name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        app.command(name)(_interruptible(name, module.command))
    app.registered_commands = list({c.name: c for c in app.registered_commands}.values())
    escape_everything()
    # completion of the shell is named after the program, however it is started
    app(prog_name="pyannote-av")
