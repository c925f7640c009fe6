"""Small files that ask for a lot: outcome, peak memory and time of reading each.

Examples:
    python -m benchmarks bounds
    python -m benchmarks bounds --only wav

Makes every file of ``tests/hostile_media.py`` and ``tests/hostile_data.py``, and reads each in a
process of its own. The size includes files that belong to it. The peak is the memory above that of
the process before it reads. Writes bounds.json and bounds.txt.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks._runner import ROOT, Results, add, in_fresh_process, peak_memory

#: seconds after which reading a file is given up
PATIENCE = 300.0


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "--only", metavar="WORD", help="cases whose name contains one of these words")


def read_media(path: Path) -> str:
    """Decode everything in a media file, and summarize it."""
    from pyannote_av.core.io import Video

    video, problems, found = Video(), [], []
    info = video.probe(path)
    if info.audio:
        found.append(f"{video.waveform(path, problems).shape[1] / 16000:.1f} s of sound")
    if info.video is not None:
        shapes = [frame.image.shape for frame in video.frames(path, problems=problems)]
        found.append(f"{len(shapes)} pictures")
    return "; ".join([*found, *problems])


@cache
def cases() -> dict[str, Callable[[Path], tuple[Path, Callable[[Path], object]]]]:
    """By name: functions that write a file into a folder, and return it with its reader."""
    sys.path.insert(0, str(ROOT / "tests"))
    import hostile_data
    import hostile_media

    media = {
        f"media: {name}": lambda folder, make=make: (make(folder), read_media)
        for name, make in hostile_media.CASES.items()
    }
    return {**media, **hostile_data.CASES}


def measure(name: str) -> dict:
    """Row of one case."""
    from pyannote_av.core.files import MediaError
    from pyannote_av.core.text import printable

    with tempfile.TemporaryDirectory() as folder:
        path, reader = cases()[name](Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        before, start = peak_memory(), time.perf_counter()
        try:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                value = reader(path)
            outcome = "read" + (f": {value}" if isinstance(value, str) else "")
        except (MediaError, ValueError, OSError) as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"NOT BOUNDED: {type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
    outcome = outcome.replace(folder, "FOLDER")
    return {
        "file": name,
        "bytes": size,
        "outcome": printable(outcome, one_line=True)[:400],
        "peak_mb": round(max(0.0, peak_memory() - before), 1),
        "seconds": round(seconds, 3),
    }


def run(given: argparse.Namespace, results: Results) -> None:
    """Read all files."""
    words, rows = given.only or [""], []
    for name in cases():
        if not any(word in name for word in words):
            continue
        # a fork has everything imported, so that its peak is that of reading
        row = in_fresh_process(measure, name, timeout=PATIENCE, start="fork")
        if "error" in row:
            row = {"file": name, "outcome": f"NOT BOUNDED: {row['error']}"}
        rows.append(row)
        print(f"{name:60} {row.get('peak_mb', '-'):>8} MB {row.get('seconds', '-'):>8} s")
    results.write("bounds", {"cases": rows})
    worst = sorted(rows, key=lambda row: -row.get("peak_mb", float("inf")))
    lines = [
        " | ".join(str(row.get(key, "-")) for key in ("file", "bytes", "peak_mb", "seconds"))
        + f" | {row['outcome']}"
        for row in worst
    ]
    results.text("bounds.txt", "\n".join(["file | bytes | peak MB | seconds | outcome", *lines]))
    failed = [row["file"] for row in rows if row["outcome"].startswith("NOT BOUNDED")]
    print(f"{len(rows)} cases, {len(failed)} not bounded: {', '.join(failed)}")
