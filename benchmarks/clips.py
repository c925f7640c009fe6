"""A pipeline on real clips: speakers, faces, errors, time and memory, clip by clip.

    python benchmarks/clips.py DATA_FOLDER [--pipeline NAME] [--talkers] [--only NAME ...]
                               [--reasons] [--json FILE]

DATA_FOLDER holds ``clips/several``, ``clips/single`` and, for ``--talkers``, ``clips/talkers``;
``NAME.rttm`` beside a clip is its reference. Weights are looked for in ``DATA_FOLDER/weights`` too.
Every clip runs in a fresh process, on one thread; one that fails is a row with its error.

Error rates are without collar, with overlap, on the voices and faces found. Where one person does
all the talking (``clips/single``, ``clips/talkers``), "others" is the share of speech time that is
given to anybody else. Real-time factors leave out loading; the one of the processor (user + system)
does not count other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

from pyannote_av.cli.apply import expand

#: who sits where, in names of the reference, where that is known
SEATS = {"meeting_table": {"left": "1", "right": "0"}}

#: heading of the table to key of a row
COLUMNS = {
    "clip": "clip",
    "s": "duration",
    "speakers": "speakers",
    "tracks": "tracks",
    "with speaker": "tracks_with_speaker",
    "visible %": "visible_share",
    "DER %": "der",
    "audio DER %": "audio_der",
    "others %": "others",
    "audio others %": "audio_others",
    "right face %": "right_face",
    "moved s": "moved",
    "RTF": "real_time_factor",
    "RTF cpu": "cpu_real_time_factor",
    "MB": "peak_memory",
}


def visible_share(turns, tracks) -> float:
    """Percentage of speech time (overlap counted twice) given to somebody visible right then."""
    visible = tracks.to_annotation(by="speaker")
    total = sum(turns.label_duration(label) for label in turns.labels())
    shown = sum(
        turns.label_timeline(label).crop(visible.label_timeline(label).support()).duration()
        for label in turns.labels()
    )
    return 100 * shown / total if total else float("nan")


def error_rates(reference, output, duration: float) -> dict:
    """Diarization error rates in percent, with and without the picture."""
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    uem = Timeline([Segment(0, duration)])
    return {
        "der": 100 * metric(reference, output.speaker_diarization, uem=uem),
        "audio_der": 100 * metric(reference, output.audio_only, uem=uem),
        "reference_speakers": len(reference.labels()),
    }


def given_to_others(turns) -> float:
    """Percentage of speech time (overlap counted twice) not of who speaks most."""
    times = [turns.label_duration(label) for label in turns.labels()]
    return 100 * (1 - max(times) / sum(times)) if times else float("nan")


def right_face(reference, output, seats: dict[str, str]) -> dict:
    """Percentage of the time of faces given a speaker for which it is the one who sits there."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    name = DiarizationErrorRate().optimal_mapping(reference, output.speaker_diarization)
    right = given = 0
    faces = {}
    for track, label in sorted(output.face_tracks.speaker.items()):
        face = output.face_tracks.of(track)
        side = "left" if face.box[:, [0, 2]].mean() < 0.5 else "right"
        faces[track] = {"side": side, "speaker": name.get(label), "sits there": seats[side]}
        given += len(face)
        right += len(face) * (name.get(label) == seats[side])
    return {"right_face": 100 * right / given if given else float("nan"), "faces": faces}


def process(path: Path, pipeline: str) -> dict:
    """The row of one clip."""
    import torch
    from pyannote.database.util import load_rttm
    from pyannote.metrics.identification import IdentificationErrorRate

    from pyannote_av import Pipeline

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fusion = Pipeline.from_pretrained(pipeline)
    loaded = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    output = fusion(str(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    turns, tracks, report = output.speaker_diarization, output.face_tracks, output.report
    # labels of the audio branch are kept: seconds that were given to somebody else
    moved = IdentificationErrorRate()(output.audio_only, turns, detailed=True)["confusion"]
    row = {
        "duration": report.duration,
        "speakers": len(turns.labels()),
        "audio_speakers": len(output.audio_only.labels()),
        "tracks": len(tracks.tracks),
        "tracks_with_speaker": len(tracks.speaker),
        "visible_share": visible_share(turns, tracks),
        "moved": moved,
        "real_time_factor": wall / report.duration,
        "cpu_real_time_factor": cpu / report.duration,
        "peak_memory": peak_memory(),
        "memory_when_loaded": loaded,
        "report": report.to_dict(),
    }
    if path.parent.name in ("single", "talkers"):
        row["others"] = given_to_others(turns)
        row["audio_others"] = given_to_others(output.audio_only)
    rttm = path.with_suffix(".rttm")
    if rttm.is_file():
        reference = next(iter(load_rttm(rttm).values()))
        row |= error_rates(reference, output, report.duration)
        if path.stem in SEATS:
            row |= right_face(reference, output, SEATS[path.stem])
    return row


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB of 1024 x 1024 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 / (1024 if sys.platform == "darwin" else 1)


def look_for_weights(folder: Path) -> None:
    """Have this process and its children look for weights in one more folder."""
    known = os.environ.get("PYANNOTE_AV_WEIGHTS")
    folders = [str(folder), *([known] if known else [])]
    os.environ["PYANNOTE_AV_WEIGHTS"] = os.pathsep.join(folders)


def in_fresh_process(script: str, *options: str, timeout: float | None = None) -> dict:
    """What a script prints last, as JSON; what goes wrong there becomes the row's ``error``."""
    command = [sys.executable, script, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"error": f"exit code {done.returncode}: {last}"}


def table(rows: list[dict], columns: dict[str, str] = COLUMNS) -> list[str]:
    """Rows as aligned Markdown."""
    cells = [list(columns), *([text(row.get(key)) for key in columns.values()] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line, row in zip(cells, [None, *rows], strict=True):
        if row and "error" in row:
            lines.append(f"| {line[0].ljust(widths[0])} | FAILED: {row['error']} |")
            continue
        padded = [line[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return lines


def text(value) -> str:
    """One cell."""
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--talkers", action="store_true", help="clips of one talker each as well")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these clips only")
    parser.add_argument("--pipeline", default="hmsanet", help="name, folder or YAML file")
    parser.add_argument("--reasons", action="store_true", help="print what the reports say")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds per clip")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    if arguments.one:
        print(json.dumps(process(arguments.one, arguments.pipeline)))
        return
    if arguments.data is None or not (arguments.data / "clips").is_dir():
        parser.error("DATA_FOLDER with a folder clips is needed")
    look_for_weights(arguments.data / "weights")
    groups = ["several", "single", *(["talkers"] if arguments.talkers else [])]
    clips = expand(arguments.data / "clips" / group for group in groups)
    clips = [clip for clip in clips if not arguments.only or clip.stem in arguments.only]
    rows = []
    for number, clip in enumerate(clips, start=1):
        print(f"[{number}/{len(clips)}] {clip.name}", file=sys.stderr)
        options = ("--one", str(clip), "--pipeline", arguments.pipeline)
        row = in_fresh_process(__file__, *options, timeout=arguments.timeout)
        rows.append({"clip": clip.stem, "folder": clip.parent.name, **row})
    print("\n".join(table(rows)))
    if arguments.reasons:
        for row in rows:
            report = row.get("report", {})
            print(f"\n{row['clip']}")
            for key in ("reasons", "changes", "problems"):
                for note in report.get(key, []):
                    print(f"  {note}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
