"""``pyannote-av fit-statistics``: turn-taking statistics of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def command(
    rttm: Annotated[list[Path], typer.Argument(help="RTTM files, or folders of them.")],
    into: Annotated[Path, typer.Option("--into", "-o", help="Output file (.json).")],
    tracks: Annotated[
        Path | None,
        typer.Option(help="Face tracks (URI.npz, ...), to measure the share of off-screen speech."),
    ] = None,
) -> None:
    """Fit the turn-taking statistics from which conversations are simulated.

    Example: pyannote-av fit-statistics train.rttm --into my_meetings.json
    """
    from pyannote_av.formats.annotations import read_rttm
    from pyannote_av.formats.tracks import read_tracks
    from pyannote_av.simulation.statistics import fit
    from pyannote_av.simulation.turns import calibrated

    if into.suffix != ".json":
        say(f"error: --into takes a .json file, not {into}", err=True)
        raise typer.Exit(1)
    try:
        turns = {}
        for path in rttm:
            for uri, annotation in read_rttm(path).items():
                if uri in turns:
                    raise ValueError(f"{path}: {uri!r} is already in another file")
                turns[uri] = annotation
        faces = read_tracks(tracks, sorted(turns)) if tracks is not None else None
        statistics = calibrated(fit(turns, faces))
        statistics.write(into)
    except (OSError, ValueError) as error:
        say(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    hidden = statistics.off_screen_share
    say(
        f"{into}: {statistics.files} files, {statistics.mean_speakers:.1f} speakers each, turns of "
        f"{statistics.mean_turn:.2f} s, {100 * statistics.overlap_share:.1f} % overlap"
        + (f", {100 * hidden:.0f} % off-screen" if hidden is not None else "")
    )
