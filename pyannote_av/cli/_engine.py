"""Options shared by the commands that process many files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pyannote_av.batch.engines import Engine

Manifest = Annotated[
    Path | None,
    typer.Option(
        help="CSV list of files. Columns: uri, video and/or audio, optionally num_speakers, ..."
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", help="Where to run: local (processes on this machine) or ray (a Ray cluster)."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0, help="Number of parallel processes. 0: the current process, without time limits."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Time limit per file in seconds, after which its process is killed. Default: 20 times "
        "the duration of the file, but at least 600.",
    ),
]
Retries = Annotated[
    int,
    typer.Option(min=0, help="Number of further attempts for a file that failed, over all runs."),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Also retry files that have used up their attempts.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Allow loading of classes and pickles, which can run any code. Use it only with files "
        "that you trust.",
    ),
]
Database = Annotated[
    Path | None, typer.Option("--database", help="database.yml that defines the protocol.")
]


def _existing(device: str) -> str:
    """Replace "auto" by the best kind of device of this machine"""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


Device = Annotated[
    str,
    typer.Option(
        "--device",
        callback=_existing,
        help="Device: cpu, cuda, cuda:1, ..., or auto (a GPU if there is one).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Address of a Ray cluster, or auto. Default: start Ray on this machine."),
]
Gpus = Annotated[float, typer.Option(min=0, help="Number of GPUs per Ray worker, such as 0.25.")]


def make_engine(
    name: str, workers: int, address: str | None = None, gpus: float = 0.0, device: str = "cpu"
) -> Engine:
    """Engine described by the options; raises ValueError if they contradict each other."""
    from pyannote_av.batch.engines import Engine

    if name == "ray" and (gpus > 0) != (device != "cpu"):
        raise ValueError(
            "on Ray, --device cuda and --gpus-per-worker go together: workers see only the "
            "GPUs that they request"
        )
    return Engine(name, workers, address, gpus)
