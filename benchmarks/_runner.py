"""What benchmarks share: arguments, result files, tables, fresh processes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.evaluation.tables import plain

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
#: packages whose version is in every result
PACKAGES = ("pyannote.audio", "torch", "numpy")
#: arguments that several benchmarks have
ARGUMENTS: dict[str, dict[str, Any]] = {
    "data": {
        "type": Path,
        "metavar": "DATA",
        "help": "folder with the media; see the description for its content",
    },
    "work": {
        "type": Path,
        "metavar": "WORK",
        "help": "folder for intermediate results; an interrupted run continues there",
    },
    "corpus": {
        "type": Path,
        "metavar": "CORPUS",
        "help": "conversations made by `python -m recipes.simulated.corpus DATA CORPUS`",
    },
    "--pipeline": {
        "default": "hmsanet",
        "metavar": "NAME",
        "help": "shipped pipeline, folder or YAML file (default: %(default)s)",
    },
    "--workers": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "processes that work at the same time (default: %(default)s)",
    },
    "--seeds": {
        "type": int,
        "nargs": "+",
        "default": [0, 1, 2],
        "metavar": "N",
        "help": "random seeds (default: 0 1 2)",
    },
    "--limit": {
        "type": int,
        "metavar": "N",
        "help": "use the first N files only (default: all)",
    },
    "--only": {"nargs": "+", "metavar": "PART", "help": "run these parts only (default: all)"},
    "--repeats": {
        "type": int,
        "default": 3,
        "metavar": "N",
        "help": "number of measurements (default: %(default)s)",
    },
    "--into": {
        "type": Path,
        "default": RESULTS,
        "metavar": "INTO",
        "help": "folder for the results (default: benchmarks/results)",
    },
}


def add(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Add shared arguments to a parser.

    Parameters
    ----------
    names : str
        Keys of :data:`ARGUMENTS`.
    changes : optional
        Keywords of ``add_argument`` that differ from :data:`ARGUMENTS`, for all of `names`.
    """
    for name in names:
        parser.add_argument(name, **{**ARGUMENTS[name], **changes})


def find_weights(given: argparse.Namespace) -> None:
    """Let this process and its children find the weights in ``DATA/weights`` too."""
    folder = getattr(given, "data", None)
    if folder is not None and (folder / "weights").is_dir():
        known = os.environ.get("PYANNOTE_AV_WEIGHTS")
        folders = [str((folder / "weights").resolve()), *([known] if known else [])]
        os.environ["PYANNOTE_AV_WEIGHTS"] = os.pathsep.join(folders)


# ------------------------------------------------------------------------------------ results


def command_line(name: str, words: Sequence[str], given: argparse.Namespace) -> str:
    """The command that was run, without paths of this machine.

    A path becomes the name of its argument (DATA, WORK, ...), any other path its last part.
    """
    paths = {value: key.upper() for key, value in vars(given).items() if isinstance(value, Path)}

    def portable(word: str) -> str:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if not value or flag + equals == word:
            return word
        if Path(value) in paths:
            value = paths[Path(value)]
        elif os.sep in value:
            value = Path(value).name
        return flag + equals + (value if equals else shlex.quote(value))

    return " ".join(["python -m benchmarks", name, *map(portable, words)])


def versions() -> dict[str, str | None]:
    """Versions of the package, with its commit, of Python and of the main libraries."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
        commit = done.stdout.strip() or None
    except FileNotFoundError:
        commit = None
    found: dict[str, str | None] = {"pyannote_av": _version("pyannote-av"), "commit": commit}
    found |= {package: _version(package) for package in PACKAGES}
    return {**found, "python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Model name of the processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Results:
    """Result files of one run. All are replaced atomically.

    Every JSON file starts with the command, the versions and the environment of the run that made
    it: date, processor, cores, threads, load averages.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    words : sequence of str
        Its command line.
    given : Namespace
        Its parsed arguments; ``given.into`` is the folder of the results.
    """

    def __init__(self, name: str, words: Sequence[str], given: argparse.Namespace):
        self.folder: Path = given.into
        self.command = command_line(name, words, given)
        self._versions, self._load = versions(), os.getloadavg()[0]

    def head(self) -> dict[str, Any]:
        """Command, versions and environment."""
        torch = sys.modules.get("torch")
        return {
            "command": self.command,
            "versions": self._versions,
            "environment": {
                "date": datetime.now(timezone.utc).date().isoformat(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
                "torch threads": torch.get_num_threads() if torch else None,
                "load average before and after": [
                    round(self._load, 1),
                    round(os.getloadavg()[0], 1),
                ],
            },
        }

    def write(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write ``NAME.json``."""
        return write_text(self.folder / f"{name}.json", to_json({**self.head(), **content}))

    def update(self, name: str, part: str, content: Mapping[str, Any]) -> Path:
        """Replace one part of ``NAME.json``, which has a head of its own, and keep the others."""
        path = self.folder / f"{name}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return write_text(path, to_json({**known, part: {**self.head(), **content}}))

    def adopt(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write ``NAME.json`` with a function that takes the path of a JSON file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.json"
            write(path)
            return self.write(name, {**json.loads(path.read_text(encoding="utf-8")), **self.head()})

    def text(self, name: str, text: str) -> Path:
        """Write a text file, and print it."""
        print(text, flush=True)
        return write_text(self.folder / name, text.rstrip("\n") + "\n")

    def plot(self, name: str, save: Callable[[Path], object]) -> Path:
        """Write a figure with a function that takes its path."""
        with replacing(self.folder / name) as temporary:
            save(temporary)
        return self.folder / name


def to_json(content: Mapping[str, Any]) -> str:
    """JSON with one line for each row of a table, and for everything that fits on one.

    Floats have 6 digits. NaN and infinity become null.
    """
    return _pretty(plain(content), 0) + "\n"


def _pretty(value: Any, depth: int) -> str:
    flat = json.dumps(value, default=_number)
    if not isinstance(value, (dict, list)) or (depth and len(flat) + depth < 100):
        return flat
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_pretty(one, depth + 1)}" for key, one in value.items()]
        is_row = depth > 1 and not any(isinstance(one, (dict, list)) for one in value.values())
        return flat if is_row else f"{{{inner}{f',{inner}'.join(items)}{outer}}}"
    return f"[{inner}{f',{inner}'.join(_pretty(one, depth + 1) for one in value)}{outer}]"


def _number(value: Any) -> float | int:
    """Scalars of numpy as numbers of Python."""
    return value.item()


def rounded(value: Any, digits: int = 3) -> Any:
    """Round floats, in containers too."""
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item, digits) for item in value]
    return round(value, digits) if isinstance(value, float) else value


# ------------------------------------------------------------------------------------ tables


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> str:
    """Rows as an aligned Markdown table.

    Parameters
    ----------
    rows : sequence of mapping
        A row with the key ``error`` shows its first column and the error.
    columns : mapping, optional
        Heading to key of a row. Defaults to the keys of the first row.
    """
    columns = dict(columns) if columns else {key: key for key in rows[0]}
    cells = [list(columns), *([_cell(row.get(key)) for key in columns.values()] for row in rows)]
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
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------ processes


def in_fresh_process(
    function: Callable[..., dict], *values: Any, timeout: float | None = None, start: str = "spawn"
) -> dict:
    """Run a function in a process of its own.

    Returns
    -------
    row : dict
        What `function` returns, or ``{"error": message}`` if it raises or exceeds `timeout`
        (seconds).
    """
    from concurrent.futures import TimeoutError as Late
    from multiprocessing import get_context

    from pebble import ProcessPool

    with ProcessPool(max_workers=1, max_tasks=1, context=get_context(start)) as pool:
        try:
            return pool.schedule(function, values, timeout=timeout).result()
        except (Late, TimeoutError):
            return {"error": f"not finished after {timeout:g} s"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}


def resident_memory(field: str = "VmRSS") -> float | None:
    """Resident size of this process, in MB of 1024 x 1024 bytes; None if Linux does not tell."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return None


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB of 1024 x 1024 bytes."""
    # unlike ru_maxrss, this leaves out the process that started this one
    if (peak := resident_memory("VmHWM")) is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 / (1024 if sys.platform == "darwin" else 1)
