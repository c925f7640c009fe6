"""``pyannote-av optimize``: tune the hyper-parameters of a pipeline on a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli import _engine
from pyannote_av.cli._output import say


def command(
    pipeline: Annotated[str, typer.Argument(help="Shipped name, folder, YAML file, or hub id.")],
    protocol: Annotated[str, typer.Argument(help="Such as AVA-AVD.SpeakerDiarization.Clips.")],
    into: Annotated[Path, typer.Option("--into", help="Folder of the study; again to go on.")],
    subset: Annotated[str, typer.Option(help="train, development or test.")] = "development",
    database: Annotated[
        Path | None, typer.Option(help="database.yml that has the protocol.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Number in the end, those of earlier runs included.")
    ] = 100,
    processes: Annotated[int, typer.Option(min=1, help="At work at once, one thread each.")] = 1,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="What is not tuned: NAME=VALUE, NAME as it is, or a group of them."),
    ] = None,
    num_speakers: Annotated[
        str, typer.Option(help="auto, or oracle: the pipeline is told how many there are.")
    ] = "auto",
    cost: Annotated[
        bool, typer.Option("--cost", help="Minimise processing time, too: a front, not one best.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Give trials up early that do badly on first files.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
    sampler: Annotated[str, typer.Option(help="TPESampler or RandomSampler.")] = "TPESampler",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of stages that several studies share.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of the pipeline: cpu, cuda, ...")] = "cpu",
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
