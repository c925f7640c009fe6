"""A pipeline on real clips: speakers, faces, errors, time and memory of each clip.

Examples:
    python -m benchmarks clips DATA
    python -m benchmarks clips DATA --pipeline late_fusion --only meeting_table --reasons

DATA contains ``clips/several``, ``clips/single`` and, for ``--talkers``, ``clips/talkers``. The
reference of a clip is ``NAME.rttm`` beside it. Every clip runs in a process of its own, on one
thread. A clip that fails is a row with its error.

DER is without collar, with overlap scored, and with automatic VAD and face tracks. Where one person
is the only speaker (``single``, ``talkers``), "others" is the share of speech time that is assigned
to anybody else. Real-time factors leave out loading. "RTF CPU" is CPU time (user + system), to
which other work on the machine adds little. Writes clips_PIPELINE.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks._data import clips
from benchmarks._runner import Results, add, in_fresh_process, peak_memory, table

#: who sits where, by labels of the reference, where that is known
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
    "RTF CPU": "cpu_real_time_factor",
    "MB": "peak_memory",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "--pipeline")
    add(parser, "--only", metavar="CLIP", help="use these clips only (default: all)")
    parser.add_argument("--talkers", action="store_true", help="clips of one talker each as well")
    parser.add_argument("--reasons", action="store_true", help="print notes of the reports")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds per clip")


def visible_share(turns, tracks) -> float:
    """Percentage of speech time (overlap counted twice) whose speaker is visible."""
    visible = tracks.to_annotation(by="speaker")
    total = sum(turns.label_duration(label) for label in turns.labels())
    shown = sum(
        turns.label_timeline(label).crop(visible.label_timeline(label).support()).duration()
        for label in turns.labels()
    )
    return 100 * shown / total if total else float("nan")


def error_rates(reference, output, duration: float) -> dict:
    """DER in percent, with and without the video."""
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    uem = Timeline([Segment(0, duration)])
    return {
        "der": 100 * metric(reference, output.speaker_diarization, uem=uem),
        "audio_der": 100 * metric(reference, output.audio_only, uem=uem),
        "reference_speakers": len(reference.labels()),
    }


def assigned_to_others(turns) -> float:
    """Percentage of speech time (overlap counted twice) not of the most frequent speaker."""
    times = [turns.label_duration(label) for label in turns.labels()]
    return 100 * (1 - max(times) / sum(times)) if times else float("nan")


def right_face(reference, output, seats: dict[str, str]) -> dict:
    """Percentage of the time of assigned faces with the speaker who sits there."""
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


def diarize(path: Path, name: str) -> dict:
    """Row of one clip."""
    import torch
    from pyannote.database.util import load_rttm
    from pyannote.metrics.identification import IdentificationErrorRate

    from pyannote_av import Pipeline

    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(name)
    loaded = peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    output = pipeline(str(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    turns, tracks, report = output.speaker_diarization, output.face_tracks, output.report
    # labels of the audio branch are kept: this is the time assigned to another speaker
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
        row["others"] = assigned_to_others(turns)
        row["audio_others"] = assigned_to_others(output.audio_only)
    rttm = path.with_suffix(".rttm")
    if rttm.is_file():
        reference = next(iter(load_rttm(rttm).values()))
        row |= error_rates(reference, output, report.duration)
        if path.stem in SEATS:
            row |= right_face(reference, output, SEATS[path.stem])
    return row


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize all clips."""
    groups = ["several", "single", *(["talkers"] if given.talkers else [])]
    rows, paths = [], clips(given.data, groups, given.only)
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.name}", file=sys.stderr)
        row = in_fresh_process(diarize, path, given.pipeline, timeout=given.timeout)
        rows.append({"clip": path.stem, "folder": path.parent.name, **row})
    print(table(rows, COLUMNS))
    for row in rows if given.reasons else ():
        print(f"\n{row['clip']}")
        for key in ("reasons", "changes", "problems"):
            for note in row.get("report", {}).get(key, []):
                print(f"  {note}")
    results.write(f"clips_{Path(given.pipeline).name}", {"clips": rows})
