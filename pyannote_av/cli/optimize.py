"""``pyannote-av optimize``: tune the hyper-parameters of a pipeline on a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="Name of a shipped pipeline, pipeline folder, YAML file or hub identifier."
        ),
    ],
    protocol: Annotated[
        str, typer.Argument(help="Protocol, such as AVA-AVD.SpeakerDiarization.Clips.")
    ],
    into: Annotated[
        Path,
        typer.Option("--into", "-o", help="Folder of the study. An existing study is continued."),
    ],
    subset: Annotated[
        str, typer.Option(help="Subset of the protocol: train, development or test.")
    ] = "development",
    database: Annotated[
        Path | None, typer.Option(help="database.yml that defines the protocol.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Number of trials in total, including those of earlier runs.")
    ] = 100,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of parallel processes, with one thread each.")
    ] = 1,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            help="Hyper-parameter to exclude: NAME=VALUE, or NAME (or a group) to keep its current "
            "value. Can be repeated."
        ),
    ] = None,
    num_speakers: Annotated[
        str, typer.Option(help="auto, or oracle to give the pipeline the true number of speakers.")
    ] = "auto",
    cost: Annotated[
        bool,
        typer.Option(
            "--cost", help="Also minimise the processing time. The result is then a Pareto front."
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Stop trials early if they are worse than the median of earlier trials."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the sampler.")] = 0,
    sampler: Annotated[
        str, typer.Option(help="Sampler of Optuna: TPESampler or RandomSampler.")
    ] = "TPESampler",
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Cache folder for stages without tuned hyper-parameters. Studies can share it."
        ),
    ] = None,
    device: _engine.Device = "cpu",
    trust: _engine.Trust = False,
) -> None:
    """Tune a pipeline on a corpus, and write the result as a pipeline folder.

    Steps that do not depend on the hyper-parameters are computed once. An interrupted run can be
    started again with the same command: it continues, and gives the same result.

    Examples:

    pyannote-av optimize audio AMI.SpeakerDiarization.only_words --into tuned --trials 50

    pyannote-av optimize late_fusion AVA-AVD.SpeakerDiarization.Clips --into tuned --processes 4
    --freeze audio --freeze faces --freeze active_speaker.smoothing=5
    """
    import sys

    from pyannote_av.core.protocols import files_of
    from pyannote_av.tuning.search import optimize

    try:
        files = files_of(protocol, [subset], database)[subset]
        result = optimize(
            pipeline,
            files,
            into,
            trials=trials,
            processes=processes,
            seed=seed,
            sampler=sampler,
            prune=prune,
            cost=cost,
            num_speakers=num_speakers,
            freeze=freeze or (),
            cache=cache,
            device=device,
            progress=sys.stderr.isatty(),
            trust=trust,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    say(f"{result.best}: {100 * result.value:.2f} % after {result.trials} trials")
    for folder, (rate, seconds) in result.front.items():
        say(f"{folder}: {100 * rate:.2f} %, {seconds:.4f} s per second of media")
