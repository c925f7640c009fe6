"""Small files that ask for much: what becomes of each, in how much memory and time.

    python benchmarks/bounds.py [--into benchmarks/results] [--only WORD]

Makes every file of ``tests/hostile_media.py`` and ``tests/hostile_data.py`` and reads each in a
process of its own. Writes ``bounds.json`` and ``bounds.txt``: bytes of the file, with those that
belong to it, peak of the memory above that of the process before it reads, seconds, and outcome.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hostile_data
import hostile_media

from pyannote_av.core.atomic import write_text
from pyannote_av.core.files import MediaError
from pyannote_av.core.io import Video
from pyannote_av.core.text import printable

ROOT = Path(__file__).resolve().parents[1]
#: seconds after which a case is given up
PATIENCE = 300.0


def read_media(path: Path) -> str:
    """Decode all that a media file has, and say what came out."""
    video, problems, found = Video(), [], []
    info = video.probe(path)
    if info.audio:
        found.append(f"{video.waveform(path, problems).shape[1] / 16000:.1f} s of sound")
    if info.video is not None:
        found.append(f"{sum(1 for _ in video.frames(path, problems=problems))} pictures")
    return "; ".join([*found, *problems])


def cases() -> dict[str, Callable[[Path], tuple[Path, Callable[[Path], object]]]]:
    """All cases by name: what writes a file into a folder, and gives it with its reader."""
    media = {
        f"media: {name}": lambda folder, make=make: (make(folder), read_media)
        for name, make in hostile_media.CASES.items()
    }
    return {**media, **hostile_data.CASES}


def measure(name: str, folder: str, answers: multiprocessing.Queue) -> None:
    """Read a file, and say how that went."""
    path, reader = cases()[name](Path(folder))
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    before = _resident()
    start = time.perf_counter()
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    where = str(Path(folder))
    answers.put(
        {
            "file": name,
            "bytes": size,
            "outcome": printable(outcome.replace(where, "FOLDER"), one_line=True)[:400],
            "peak_mb": round(max(0.0, peak - before), 1),
            "seconds": round(seconds, 3),
        }
    )


def _resident() -> float:
    """Memory of this process (MB)"""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--only", default="", help="cases whose name has this word")
    options = parser.parse_args()
    # a child begins with all that is imported here, so that its peak is that of the reading
    context = multiprocessing.get_context("fork")
    rows = []
    for name in cases():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            answers = context.Queue()
            process = context.Process(target=measure, args=(name, folder, answers))
            process.start()
            try:
                row = answers.get(timeout=PATIENCE)
            except Exception:
                row = {"file": name, "outcome": f"NOT BOUNDED: ended, or over {PATIENCE:g} s"}
            process.kill()
            process.join()
        rows.append(row)
        print(f"{row['file']:60} {row.get('peak_mb', '-'):>8} MB {row.get('seconds', '-'):>8} s")
    worst = sorted(rows, key=lambda row: -row.get("peak_mb", float("inf")))
    command = f"python benchmarks/bounds.py {' '.join(sys.argv[1:])}".strip()
    write_text(
        options.into / "bounds.json",
        json.dumps({"command": command, "cases": rows}, indent=1) + "\n",
    )
    lines = [
        f"{row['file']} | {row.get('bytes', '-')} | {row.get('peak_mb', '-')} | "
        f"{row.get('seconds', '-')} | {row['outcome']}"
        for row in worst
    ]
    write_text(
        options.into / "bounds.txt",
        "\n".join(["file | bytes | peak MB | seconds | outcome", *lines]) + "\n",
    )
    failed = [row["file"] for row in rows if row["outcome"].startswith("NOT BOUNDED")]
    print(f"{len(rows)} cases, {len(failed)} not bounded: {', '.join(failed)}")


if __name__ == "__main__":
    main()
