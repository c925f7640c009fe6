"""``pyannote-av simulate``: write simulated videos of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def number_range(text: str | None) -> tuple[int, int] | None:
    """Parse "2-5" or "3" as a range."""
    if text is None:
        return None
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise ValueError(f"--speakers takes a number or a range such as 2-5, not {text!r}") from (
            error
        )


def command(
    into: Annotated[Path, typer.Option("--into", help="Folder to write to.")],
    speech: Annotated[
        Path | None, typer.Option(help="A folder per speaker, or files SPEAKER-WHATEVER.flac.")
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="Videos of a person each, who talks, or a folder of them per person."),
    ] = None,
    portraits: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures with faces; two public-domain ones unless given."),
    ] = None,
    files: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of each.")] = 5.0,
    speakers: Annotated[
        str | None, typer.Option(help="Number or range (2-5); as the statistics unless given.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="film (cuts), meeting (seats) or gallery (split screen).")
    ] = "film",
    statistics: Annotated[
        str | None,
        typer.Option(help="ava_avd, ami, or a file of fit-statistics; by layout unless given."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes at once.")] = 0,
    subset: Annotated[str, typer.Option(help="train, development or test.")] = "train",
    noises: Annotated[Path | None, typer.Option(help="Folder of background noises.")] = None,
    responses: Annotated[Path | None, typer.Option(help="Folder of room responses.")] = None,
    desync: Annotated[float, typer.Option(help="Seconds by which the picture is late.")] = 0.0,
    dropped: Annotated[float, typer.Option(help="Share of pictures that are lost.")] = 0.0,
    store: Annotated[
        bool, typer.Option("--store", help="Write crops to train with instead of videos: faster.")
    ] = False,
) -> None:
    """Simulate videos of conversations, with references and a protocol, as training data.

    Turns are sampled from statistics of real conversations. Speech comes from a folder of
    recordings and faces from a folder of pictures, or both come from clips of people talking.
    After an interruption, run the same command again to continue.

    Example: pyannote-av simulate --into simulated --speech librispeech --files 100 --workers 4
    """
    from pyannote_av.simulation.acting import Acting
    from pyannote_av.simulation.cast import Cast
    from pyannote_av.simulation.conversation import Options
    from pyannote_av.simulation.faces import find_portraits, public_portraits
    from pyannote_av.simulation.files import simulate_files
    from pyannote_av.simulation.scene import SceneOptions
    from pyannote_av.simulation.sound import SoundOptions
    from pyannote_av.simulation.speech import SpeechLibrary
    from pyannote_av.simulation.statistics import ConversationStatistics
    from pyannote_av.simulation.talkers import find_talkers

    try:
        if speech is None and clips is None:
            raise ValueError("nobody would speak: give --speech, --clips, or both")
        options = Options(
            speakers=number_range(speakers),
            sound=SoundOptions(
                noises=str(noises) if noises else None,
                responses=str(responses) if responses else None,
            ),
            scene=SceneOptions(layout=layout, dropped=dropped),
            acting=Acting(desync=desync),
        )
        cast = Cast(
            ConversationStatistics.read(statistics or ("ava_avd" if layout == "film" else "ami")),
            SpeechLibrary(speech) if speech is not None else None,
            find_portraits(portraits) if portraits is not None else public_portraits(),
            find_talkers(clips) if clips is not None else None,
        )
        report = simulate_files(
            cast, into, files, 60 * minutes, options, seed, workers, subset, True, store
        )
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for uri, reason in report.failed.items():
        say(f"error: {uri}: {reason}", err=True)
    say(f"{into}: {len(report.written)} files written, {len(report.kept)} kept")
    if report.failed:
        raise typer.Exit(1)
