"""``pyannote-av demo``: diarize the sample and score the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyannote_av.cli._output import say


def run(folder: Path) -> list[str]:
    """Make the sample in `folder`, diarize it, write the outputs; return the lines to print."""
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av import FaceTracks, Pipeline
    from pyannote_av.formats.annotations import read_rttm
    from pyannote_av.formats.json import write_json
    from pyannote_av.formats.rttm import write_rttm
    from pyannote_av.player.page import write_page
    from pyannote_av.simulation.sample import make_sample

    made = make_sample(folder)
    output = Pipeline.from_pretrained()(made["video"])
    into = folder / "output"
    files = [
        write_rttm(output.speaker_diarization, into / "sample.rttm"),
        write_json(output, into / "sample.json"),
        write_page(output, into / "sample.html", made["video"]),
        into / "sample.tracks.npz",
    ]
    output.face_tracks.write(files[-1])

    reference = read_rttm(made["rttm"])["sample"]
    score = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    uem = Timeline([Segment(0.0, output.report.duration)])
    name = score.optimal_mapping(reference, output.speaker_diarization, uem=uem)
    fused, alone = (
        100 * score(reference, turns, uem=uem)
        for turns in (output.speaker_diarization, output.audio_only)
    )
    lines = [
        f"DER {fused:.1f} %, from sound alone {alone:.1f} % "
        "(automatic VAD, no collar, overlap scored, tracks found)"
    ]
    truth = FaceTracks.read(made["tracks"])
    faces = output.face_tracks
    for track in faces.tracks:
        centre = faces.of(track).box[:, [0, 2]].mean()
        nearest = min(truth.tracks, key=lambda t: abs(truth.of(t).box[:, [0, 2]].mean() - centre))
        found = name.get(faces.speaker.get(track))
        verdict = "right" if found == truth.speaker.get(nearest) else "WRONG"
        side = "left" if centre < 0.5 else "right"
        lines.append(f"face on the {side}: {faces.speaker.get(track)} ({verdict} speaker)")
    lines += [str(output.report), "written: " + ", ".join(map(str, files))]
    return [*lines, f"see and hear it: open {into / 'sample.html'} in a browser"]


def command(
    folder: Annotated[Path, typer.Argument(help="Output folder.")] = Path("sample"),
) -> None:
    """Make the sample, diarize it, and print the error against its reference.

    Example: pyannote-av demo sample
    """
    for line in run(folder):
        say(line)
