"""The audio pipeline against pyannote.audio's own: DER and time, with the same weights.

Example:
    python -m benchmarks audio_branch DATA --repeats 3

DATA contains ``ami``, 13 excerpts of AMI meetings. Both pipelines get the decoded waveform, in
turn (A B A B ...), on one thread, with the same hyper-parameters. Times are CPU times (user +
system), so that other work on the machine does not count. Writes audio_branch.json.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks._data import ami
from benchmarks._runner import Results, add, table
from benchmarks._systems import stock_pipeline

COLUMNS = {
    "subset": "subset",
    "file": "uri",
    "duration (s)": "duration",
    "speakers": "speakers",
    "stock speakers": "stock_speakers",
    "our speakers": "our_speakers",
    "stock DER %": "stock_der",
    "our DER %": "our_der",
    "difference %": "difference",
    "stock s": "stock_best",
    "our s": "our_best",
    "ratio": "ratio",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data", "--limit")
    add(parser, "--repeats", help="runs of each pipeline per file (default: %(default)s)")


def timed(pipeline, file):
    """Diarization, and seconds of CPU time."""
    file = dict(file)
    start = time.process_time()
    output = pipeline(file)
    return output.speaker_diarization, time.process_time() - start


def compare(stock, ours, file: dict, repeats: int) -> dict:
    """Row of one file: error rates of both pipelines, and the ratio of their times."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av.core.grid import SAMPLE_RATE
    from pyannote_av.core.io import Video

    waveform = Video().waveform({"audio": file["audio"], "uri": file["uri"]})
    sound = {"waveform": waveform, "sample_rate": SAMPLE_RATE, "uri": file["uri"]}
    row = {
        "subset": file["subset"],
        "uri": file["uri"],
        "duration": waveform.shape[1] / SAMPLE_RATE,
        "speakers": len(file["annotation"].labels()),
    }
    times: dict[str, list[float]] = {"stock": [], "our": []}
    turns = {}
    for _ in range(repeats):
        for name, pipeline in (("stock", stock), ("our", ours)):
            turns[name], seconds = timed(pipeline, sound)
            times[name].append(seconds)
    for name, hypothesis in turns.items():
        metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
        details = metric(file["annotation"], hypothesis, uem=file["annotated"], detailed=True)
        row["total"] = details["total"] or float("nan")
        row[f"{name}_der"] = 100 * details["diarization error rate"]
        row[f"{name}_errors"] = sum(
            details[key] for key in ("missed detection", "false alarm", "confusion")
        )
        row[f"{name}_speakers"] = len(hypothesis.labels())
        row[f"{name}_seconds"], row[f"{name}_best"] = times[name], min(times[name])
    difference = DiarizationErrorRate(collar=0.0)
    row["difference"] = 100 * difference(turns["stock"], turns["our"], uem=file["annotated"])
    row["ratio"] = statistics.median(
        a / b for a, b in zip(times["stock"], times["our"], strict=True)
    )
    return row


def summary(rows: list[dict]) -> dict:
    """Pooled error rates per subset, and medians of times."""
    result: dict = {}
    for subset in dict.fromkeys(row["subset"] for row in rows):
        # a file without reference speech has no error rate
        chosen = [r for r in rows if r["subset"] == subset and r["total"] == r["total"]]
        total = sum(r["total"] for r in chosen)
        if chosen:
            result[subset] = {
                f"{name}_der": 100 * sum(r[f"{name}_errors"] for r in chosen) / total
                for name in ("stock", "our")
            }
    result["ratio"] = statistics.median(r["ratio"] for r in rows)
    result["our_real_time_factor"] = statistics.median(r["our_best"] / r["duration"] for r in rows)
    return result


def run(given: argparse.Namespace, results: Results) -> None:
    """Compare both pipelines on all excerpts."""
    import torch

    from pyannote_av.pipelines.audio_diarization import AudioDiarization

    torch.set_num_threads(1)
    ours = AudioDiarization()
    ours.instantiate(ours.default_parameters())
    stock = stock_pipeline(ours)
    rows = [compare(stock, ours, file, given.repeats) for file in ami(given.data, given.limit)]
    figures = summary(rows)
    print(table(rows, COLUMNS))
    print(figures)
    results.write("audio_branch", {"summary": figures, "files": rows})
