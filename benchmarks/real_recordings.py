"""HMSA-Net, late fusion and audio alone on real recordings with a reference.

Examples:
    python -m benchmarks real_recordings DATA
    python -m benchmarks real_recordings DATA --pipeline hmsanet-lrasd --only table

DATA contains ``ami`` (13 excerpts of meetings without video, so everybody is off-screen) and
``clips/several/meeting_table`` (two women at a table, faces found). The results are those of
``pyannote-av evaluate``. Writes real_ami.json and real_table.json, with the name of the pipeline
appended unless it is hmsanet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._data import ami, meeting_table
from benchmarks._runner import Results, add


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "--pipeline", "--limit")
    add(parser, "--only", choices=("ami", "table"), default=["ami", "table"])


def run(given: argparse.Namespace, results: Results) -> None:
    """Diarize and score all recordings."""
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.evaluation import diarization_report as report

    torch.set_num_threads(1)
    pipelines = {"late_fusion": "late_fusion", "hmsanet": given.pipeline}
    pipelines = {name: Pipeline.from_pretrained(one) for name, one in pipelines.items()}
    own = Path(given.pipeline).name
    for name in given.only:
        files = ami(given.data, given.limit) if name == "ami" else meeting_table(given.data)
        systems: dict[str, dict] = {"audio": {}, "late_fusion": {}, "hmsanet": {}}
        for file in files:
            media = {key: file[key] for key in ("uri", "audio", "video") if key in file}
            for system, pipeline in pipelines.items():
                output = pipeline(dict(media))
                systems[system][file["uri"]] = output.speaker_diarization
                systems["audio"][file["uri"]] = output.audio_only
                print(file["uri"], system, output.report.reasons, output.report.changes, flush=True)
        references = {file["uri"]: file["annotation"] for file in files}
        maps = {file["uri"]: file["annotated"] for file in files}
        found = report.evaluate_systems(references, systems, maps, tracks="found")
        print(report.to_text(*found))
        stem = f"real_{name}" if own == "hmsanet" else f"real_{name}_{own}"
        results.adopt(stem, lambda path, found=found: report.write_json(path, *found))
