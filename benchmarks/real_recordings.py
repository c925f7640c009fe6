"""HMSA-Net, late fusion and sound alone on real recordings that have a reference.

    python benchmarks/real_recordings.py DATA [--only table] [--pipeline hmsanet]
                                              [--into benchmarks/results]

DATA has ``ami`` (13 excerpts of meetings, sound only: everybody is off-screen) and
``clips/several/meeting_table`` (two women at a table). Nothing is known of them but what is in the
file; faces are found. Writes ``real_ami.json`` and ``real_table.json``, as ``pyannote-av evaluate``
does, and prints them; names end in that of the pipeline if it is another one.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path


def ami(folder: Path) -> Iterator[dict]:
    """The excerpts of meetings."""
    from pyannote.database.util import load_rttm, load_uem

    for subset in ("train", "development", "test"):
        turns = load_rttm(folder / f"debug.{subset}.rttm")
        maps = load_uem(folder / f"debug.{subset}.uem")
        for uri in sorted(uri for uri in maps if (folder / f"{uri}.flac").is_file()):
            yield {
                "uri": uri,
                "audio": str(folder / f"{uri}.flac"),
                "annotation": turns[uri],
                "annotated": maps[uri],
            }


def table(folder: Path) -> Iterator[dict]:
    """The clip."""
    from pyannote.core import Segment, Timeline
    from pyannote.database.util import load_rttm

    from pyannote_av.core.io import Video

    path = folder / "meeting_table.mp4"
    duration = Video().get_duration(str(path))
    yield {
        "uri": path.stem,
        "video": str(path),
        "annotation": next(iter(load_rttm(path.with_suffix(".rttm")).values())),
        "annotated": Timeline([Segment(0, duration)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("ami", "table"))
    parser.add_argument("--pipeline", default="hmsanet", help="name or folder")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYANNOTE_METRICS_ENABLED="0")
    warnings.simplefilter("ignore")
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.cli.evaluate import score
    from pyannote_av.evaluation import report

    torch.set_num_threads(1)
    pipelines = {"late_fusion": "late_fusion", "hmsanet": given.pipeline}
    pipelines = {name: Pipeline.from_pretrained(what) for name, what in pipelines.items()}
    own = Path(given.pipeline).name
    command = f"python benchmarks/real_recordings.py DATA --pipeline {own}"
    recordings = {
        "ami": partial(ami, given.data / "ami"),
        "table": partial(table, given.data / "clips" / "several"),
    }
    for name in recordings if given.only is None else [given.only]:
        files = list(recordings[name]())
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
        found = score(references, systems, maps, tracks="found")
        print(report.to_text(*found))
        stem = f"real_{name}" if own == "hmsanet" else f"real_{name}_{own}"
        report.write_json(given.into / f"{stem}.json", *found, command=command)


if __name__ == "__main__":
    main()
