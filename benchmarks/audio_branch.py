"""Audio branch against pyannote.audio's own pipeline: same weights, same hyper-parameters.

    OMP_NUM_THREADS=1 python benchmarks/audio_branch.py FOLDER [--pairs 3] [--json OUT.json]

FOLDER holds a ``database.yml`` with protocol ``Debug.SpeakerDiarization.Debug``. Both pipelines are
given the decoded waveform, one after the other (A B A B ...), on one thread; times are those of
the process (user + system), so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from pathlib import Path

os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")

PROTOCOL = "Debug.SpeakerDiarization.Debug"


def stock_pipeline(ours):
    """pyannote's pipeline with the models and hyper-parameters of `ours`."""
    from pyannote.audio.core.plda import PLDA
    from pyannote.audio.pipelines import SpeakerDiarization

    stock = SpeakerDiarization(
        segmentation=ours.segmentation_model,
        segmentation_step=ours.segmentation_step,
        embedding=ours.embedding,
        embedding_exclude_overlap=ours.embedding_exclude_overlap,
        plda=PLDA.__new__(PLDA),  # required but not used
        clustering="AgglomerativeClustering",
    )
    return stock.instantiate(ours.parameters(instantiated=True))


def timed(pipeline, file):
    """(diarization, seconds of processor time)"""
    file = dict(file)
    start = time.process_time()
    output = pipeline(file)
    return output.speaker_diarization, time.process_time() - start


def run(folder: Path, pairs: int, subsets: list[str], limit: int | None) -> list[dict]:
    """One row per file: error rates of both pipelines and ratio of their times."""
    import torch
    from pyannote.database import FileFinder, registry
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video
    from pyannote_av.pipelines.audio_diarization import AudioDiarization

    torch.set_num_threads(1)
    registry.load_database(folder / "database.yml")
    protocol = registry.get_protocol(PROTOCOL, preprocessors={"audio": FileFinder()})
    ours = AudioDiarization()
    ours.instantiate(ours.default_parameters())
    stock = stock_pipeline(ours)

    rows = []
    for subset in subsets:
        for file in list(getattr(protocol, subset)())[:limit]:
            waveform = Video().waveform({"audio": file["audio"], "uri": file["uri"]})
            sound = {"waveform": waveform, "sample_rate": SAMPLE_RATE, "uri": file["uri"]}
            row = {
                "subset": subset,
                "uri": file["uri"],
                "duration": waveform.shape[1] / SAMPLE_RATE,
                "speakers": len(file["annotation"].labels()),
                "stock_seconds": [],
                "our_seconds": [],
            }
            for _ in range(pairs):
                theirs, seconds = timed(stock, sound)
                row["stock_seconds"].append(seconds)
                mine, seconds = timed(ours, sound)
                row["our_seconds"].append(seconds)
            for name, hypothesis in (("stock", theirs), ("our", mine)):
                metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
                details = metric(
                    file["annotation"], hypothesis, uem=file["annotated"], detailed=True
                )
                total = details["total"] or float("nan")
                row[f"{name}_der"] = 100 * details["diarization error rate"]
                row[f"{name}_errors"] = {
                    key: details[key] for key in ("missed detection", "false alarm", "confusion")
                }
                row[f"{name}_speakers"] = len(hypothesis.labels())
            row["total"] = total
            difference = DiarizationErrorRate(collar=0.0)
            row["difference"] = 100 * difference(theirs, mine, uem=file["annotated"])
            row["ratio"] = statistics.median(
                a / b for a, b in zip(row["stock_seconds"], row["our_seconds"], strict=True)
            )
            rows.append(row)
            print(line(row))
    return rows


def line(row: dict) -> str:
    """A row of the table."""
    return (
        f"{row['subset']:<12} {row['uri']:<8} {row['duration']:6.1f} {row['speakers']:>4}"
        f" {row['stock_speakers']:>6} {row['our_speakers']:>4}"
        f" {row['stock_der']:9.2f} {row['our_der']:8.2f} {row['difference']:8.2f}"
        f" {min(row['stock_seconds']):8.2f} {min(row['our_seconds']):7.2f} {row['ratio']:6.2f}"
    )


def summary(rows: list[dict]) -> dict:
    """Pooled error rates per subset, and the median ratio of times."""
    result = {}
    for subset in dict.fromkeys(row["subset"] for row in rows):
        # a file without reference speech has no error rate
        chosen = [r for r in rows if r["subset"] == subset and r["total"] == r["total"]]
        total = sum(r["total"] for r in chosen)
        result[subset] = {
            f"{name}_der": 100 * sum(sum(r[f"{name}_errors"].values()) for r in chosen) / total
            for name in ("stock", "our")
        }
    result["ratio"] = statistics.median(r["ratio"] for r in rows)
    result["our_real_time_factor"] = statistics.median(
        min(r["our_seconds"]) / r["duration"] for r in rows
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=3, help="runs of either pipeline per file")
    parser.add_argument("--limit", type=int, help="files per subset")
    parser.add_argument("--subsets", nargs="+", default=["test", "development", "train"])
    parser.add_argument("--json", type=Path, help="write rows and summary there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    print(f"{'':<35}{'speakers':<14}{'DER %':>10}{'differ':>16}{'seconds':>17}")
    print(
        f"{'subset':<12} {'uri':<8} {'length':>6} {'ref':>4} {'stock':>6} {'ours':>4}"
        f" {'stock':>9} {'ours':>8} {'%':>8} {'stock':>8} {'ours':>7} {'ratio':>6}"
    )
    rows = run(arguments.folder, arguments.pairs, arguments.subsets, arguments.limit)
    figures = summary(rows)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({"summary": figures, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
