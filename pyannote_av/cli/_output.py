"""Output of commands. Control characters are escaped, because names come from untrusted files."""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import typer

from pyannote_av.core.text import printable


def say(message: Any, err: bool = False, nl: bool = True) -> None:
    """Print a line with control characters escaped; see :func:`typer.echo`."""
    typer.echo(printable(str(message)), err=err, nl=nl)


def command_line() -> str:
    """The command line of this process. Absolute paths are reduced to file names."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["pyannote-av", *words])


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def escape_everything() -> None:
    """Escape control characters in the warnings, log messages and tracebacks of this process."""
    format_warning = warnings.formatwarning

    def formatted(*args: Any, **kwargs: Any) -> str:
        return printable(format_warning(*args, **kwargs))

    warnings.formatwarning = formatted
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())
    sys.excepthook = _print_exception


def _print_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    lines = traceback.format_exception(kind, error, trace)
    print(printable("".join(lines)), end="", file=sys.stderr)  # noqa: T201
