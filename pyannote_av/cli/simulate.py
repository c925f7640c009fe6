"""``pyannote-av simulate``: write simulated videos of conversations."""

from __future__ import annotations

import sys
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
    into: Annotated[Path, typer.Option("--into", "-o", help="Output folder.")],
    speech: Annotated[
        Path | None,
        typer.Option(help="Speech: a folder per speaker, or files SPEAKER-WHATEVER.flac."),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Videos of one talking person each: one per person, or a folder per person."
        ),
    ] = None,
    portraits: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures of faces. Default: two public-domain pictures."),
    ] = None,
    files: Annotated[int, typer.Option(min=1, help="Number of files to simulate.")] = 10,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Duration of each file, in minutes.")
    ] = 5.0,
    speakers: Annotated[
        str | None,
        typer.Option(
            help="Number of speakers, or a range such as 2-5. Default: drawn from the statistics."
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="Layout of the video: film (cuts), meeting (seats) or gallery (split screen)."
        ),
    ] = "film",
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Turn-taking statistics: ava_avd, ami, or a file written by fit-statistics. "
            "Default: ava_avd for film, else ami."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Number of parallel processes. 0: the current process.")
    ] = 0,
    subset: Annotated[
        str, typer.Option(help="Subset to write: train, development or test.")
    ] = "train",
    noises: Annotated[
        Path | None, typer.Option(help="Folder of recordings of background noise.")
    ] = None,
    responses: Annotated[
        Path | None, typer.Option(help="Folder of room impulse responses.")
    ] = None,
    desync: Annotated[
        float, typer.Option(help="Delay of the video relative to the sound, in seconds.")
    ] = 0.0,
    dropped: Annotated[float, typer.Option(help="Share of video frames that are dropped.")] = 0.0,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Write face crops for training instead of videos, which is faster."
        ),
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
            raise ValueError("there are no speakers: give --speech, --clips, or both")
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
            cast,
            into,
            files,
            duration=60 * minutes,
            options=options,
            seed=seed,
            workers=workers,
            subset=subset,
            progress=sys.stderr.isatty(),
            store=store,
        )
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for uri, reason in report.failed.items():
        say(f"error: {uri}: {reason}", err=True)
    say(f"{into}: {len(report.written)} files written, {len(report.kept)} kept")
    if report.failed:
        raise typer.Exit(1)
