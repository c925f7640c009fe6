"""Options shared by the commands that process many files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pyannote_av.batch.engines import Engine

Manifest = Annotated[
    Path | None,
    typer.Option(help="CSV list of files: uri, video and/or audio, and perhaps num_speakers, ..."),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="local: processes of this machine; ray: a Ray cluster.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes at work at once; 0: this one, without time limits.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        help="Seconds for each file, after which its process is killed; 20 times its duration, "
        "but 600 at least, unless given.",
    ),
]
Retries = Annotated[
    int, typer.Option(min=0, help="How often a file that failed is tried again, over all runs.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try files again that have failed as often as that.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load classes and pickles that the pipeline names. Only for files whose origin you "
        "know.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster, or auto; without, Ray is started on this machine."),
]
Gpus = Annotated[
    float, typer.Option(min=0, help="Share of a GPU for each worker of Ray, such as 0.25.")
]


def make_engine(
    name: str, workers: int, address: str | None = None, gpus: float = 0.0, device: str = "cpu"
) -> Engine:
    """Engine described by the options; raises ValueError if they contradict each other."""
    from pyannote_av.batch.engines import Engine

    if name == "ray" and (gpus > 0) != (device != "cpu"):
        raise ValueError(
            "on Ray, --device cuda and --gpus-per-worker go together: workers see the GPUs that "
            "they ask for, and no others"
        )
    return Engine(name, workers, address, gpus)
