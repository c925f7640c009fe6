"""Processing time and memory of our pipelines and of what is usually used instead.

Examples:
    python -m benchmarks speed WORK --weights WEIGHTS
    python -m benchmarks speed WORK --only cost --minutes 0.5 5
    python -m benchmarks speed WORK --seconds 10 --repeats 1 --files sample --only compare

compare: each repeat runs every system once, in turn (A B C, A B C, ...). For each file, each system
has a process of its own, which loads the models and processes a short file before the first repeat.
Ratios are computed within repeats, so that other work on the machine affects all systems alike. The
peak memory is that of the first repeat. Systems:

    audio, late_fusion, hmsanet  our pipelines, with the models that are on this machine
    avrnet, similarity, enrolment, joint, vbx  those that cluster windows; only if asked for
    stock        pyannote's audio pipeline with the same weights and settings
    stock-0.1    the same, with pyannote's own step between chunks
    senko        on CPU; gets the sound as WAV, while all others decode it from the video; its
                 library may need AVX-512, and crash on processors without it
    naive        YuNet on every picture, Light-ASD on every face, stock; tracks and crops are ours
    naive-mtcnn  the same, with MTCNN

WEIGHTS contains the public weights of Light-ASD, or else of LR-ASD. A system that fails, for
example for lack of weights, has its error in its row. All files are made from the sample file, see
`pyannote_av.simulation.sample`:

    sample  the file itself: 640x360, two faces, 30 s
    clip    1280x720, three faces, 60 s
    long    640x360, two faces, 10 minutes; all systems but ours and senko run once only
    talk    640x360, two faces, 5 minutes; only if asked for

cost: growth with the duration (three faces, 1280x720), with the number of faces (1280x720) and with
the size of the picture (two faces). Each file is processed in a process of its own. The peak memory
is also given without 2 bytes for each of the 16,000 samples a second.

The number of threads applies to torch and OpenCV. Video decoders and ONNX Runtime choose their own;
CPU times show what they use. Writes speed.json after each part, and speed.png.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from benchmarks._data import cut_sample, join_copies, split_screen, write_wav
from benchmarks._runner import Results, add, in_fresh_process, peak_memory, table, versions
from benchmarks._systems import OURS, SYSTEMS, WINDOWS, Medium, Settings, System, load

#: faces, height of the picture and duration (in copies of the piece that is repeated) of files;
#: the sample file is not composed
FILES = {"sample": (2, 360, 1), "clip": (3, 720, 2), "long": (2, 360, 20), "talk": (2, 360, 10)}
#: systems that run only once on files of more than this number of copies
SLOW, MANY_COPIES = ("stock", "stock-0.1", "naive", "naive-mtcnn"), 4
#: pipelines whose cost is measured
COST = {
    "duration": ("audio", "late_fusion", "hmsanet"),
    "faces": ("late_fusion", "hmsanet"),
    "picture": ("late_fusion", "hmsanet"),
}
DEFAULT = [name for name in SYSTEMS if name not in (*WINDOWS, "stock-0.1", "naive-mtcnn")]


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "work", "--repeats")
    add(parser, "--only", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=DEFAULT,
        metavar="NAME",
        help=f"systems to measure, of {', '.join(SYSTEMS)} (default: {' '.join(DEFAULT)})",
    )
    parser.add_argument(
        "--files",
        nargs="+",
        choices=FILES,
        default=["sample", "clip", "long"],
        help="files (default: sample clip long)",
    )
    parser.add_argument("--weights", type=Path, help="folder with public weights of Light-ASD")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), metavar="N", help="default: all cores"
    )
    parser.add_argument(
        "--seconds",
        type=int,
        default=30,
        metavar="S",
        help="use only this part of the sample file, for shorter runs (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        nargs="+",
        default=[0.5, 2, 5, 20, 60],
        help="durations for `cost`, rounded to multiples of --seconds",
    )
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument(
        "--heights", type=int, nargs="+", default=[360, 720, 1080, 2160], help="in pixels"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what speed.json in INTO holds already, of the same versions and settings",
    )


# ------------------------------------------------------------------------------------ media


def sample_medium(work: Path, seconds: int) -> Medium:
    """The sample file, or its beginning."""
    from pyannote_av.simulation.sample import sample

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"sample-{seconds}s.mp4"
    if not path.is_file():
        if seconds == 30:
            shutil.copyfile(sample(), path)
        else:
            (cut,) = cut_sample(work / "cut", 1, seconds)
            cut.replace(path)
    return with_sound(Medium("sample", path, path.with_suffix(".wav"), seconds))


def composed_medium(
    work: Path, seconds: int, faces: int, height: int, copies: int, name: str = ""
) -> Medium:
    """A split screen of some faces, repeated without a break."""
    work.mkdir(parents=True, exist_ok=True)
    width = 2 * round(height * 8 / 9)
    part = work / f"{faces}-faces-{height}p-{seconds}s.mkv"
    path = part if copies == 1 else part.with_stem(f"{part.stem}-{copies}-times")
    if not part.is_file():
        split_screen(part, faces, (width, height), seconds)
    if not path.is_file():
        join_copies(part, copies, seconds, path)
    return Medium(name or path.stem, path, path.with_suffix(".wav"), seconds * copies)


def medium_of(given: argparse.Namespace, name: str) -> Medium:
    """One of ``FILES``, with its WAV file."""
    if name == "sample":
        return sample_medium(given.work, given.seconds)
    return with_sound(composed_medium(given.work, given.seconds, *FILES[name], name))


def with_sound(medium: Medium) -> Medium:
    """Write the WAV file of a medium."""
    if not medium.wav.is_file():
        write_wav(medium.wav, medium.path)
    return medium


# ------------------------------------------------------------------------------------ measurement


def timed(system: System, medium: Medium, settings: Settings) -> dict:
    """Wall-clock and CPU seconds of one run, with its stages."""
    settings.apply()
    # nothing that was found out about the file in an earlier run may be used
    medium.path.touch()
    gc.collect()
    cpu, begin = process_time(), perf_counter()
    outcome = system(medium)
    return {
        "seconds": perf_counter() - begin,
        "CPU seconds": process_time() - cpu,
        "speakers": outcome.speakers,
        "stages": outcome.report.seconds,
        "components": outcome.report.components,
    }


#: system that is loaded in this process
_loaded: list[System] = []


def get_ready(name: str, settings: Settings, warm_up: Medium) -> float:
    """Load a system in this process and run it once; returns the seconds of loading."""
    begin = perf_counter()
    _loaded[:] = [load(name, settings)]
    seconds = perf_counter() - begin
    timed(_loaded[0], warm_up, settings)
    return seconds


def run_loaded(medium: Medium, settings: Settings) -> dict:
    """Run the system that is loaded in this process; see `timed`."""
    run = timed(_loaded[0], medium, settings)
    return {**run, "MB, peak": round(peak_memory())}


class Systems:
    """Systems that are loaded, each in a process of its own, to run one at a time.

    A system that crashes does not take others with it.

    Parameters
    ----------
    names : iterable of str
    settings : Settings
    warm_up : Medium
        Each system processes it once.

    Attributes
    ----------
    loading : dict of str to float
        Seconds of loading of each system.
    errors : dict of str to str
        Why systems could not be loaded.
    """

    def __init__(self, names: Iterable[str], settings: Settings, warm_up: Medium):
        self.names, self._settings = list(names), settings
        self.loading: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self._processes = {
            name: ProcessPoolExecutor(1, get_context("spawn")) for name in self.names
        }
        for name, process in self._processes.items():
            try:
                self.loading[name] = process.submit(get_ready, name, settings, warm_up).result()
                print(f"{name}: loaded in {self.loading[name]:.1f} s", flush=True)
            except Exception as error:
                self.errors[name] = described(error)
                print(f"{name}: {self.errors[name]}", flush=True)

    def run(self, name: str, medium: Medium) -> dict:
        """Measure one run."""
        return self._processes[name].submit(run_loaded, medium, self._settings).result()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.shutdown()


def described(error: Exception) -> str:
    """Type and message of an error, in one line without paths of this machine."""
    if isinstance(error, BrokenProcessPool):
        return "its process crashed"
    text = f"{type(error).__name__}: {error}".replace(str(Path.home()), "~")
    return " ".join(text.split())


def measure(systems: Systems, medium: Medium, repeats: int, once: Iterable[str]) -> dict:
    """Run all systems in turn.

    Parameters
    ----------
    once : iterable of str
        Systems that run in the first repeat only.

    Returns
    -------
    content : dict
        ``rows`` of a table, and ``stages``, ``components`` and ``runs`` by system.
    """
    runs: dict[str, list[dict]] = {name: [] for name in systems.names}
    errors = dict(systems.errors)
    for repeat in range(repeats):
        for name in systems.names:
            if name in errors or (repeat and name in once):
                continue
            try:
                runs[name].append(systems.run(name, medium))
                print(f"{medium.name}: {name} {runs[name][-1]['seconds']:.1f} s", flush=True)
            except Exception as error:
                errors[name] = described(error)
                print(f"{medium.name}: {name}: {errors[name]}", flush=True)
    done = {name: each for name, each in runs.items() if name not in errors}
    return {
        "loading (s)": systems.loading,
        "rows": [
            {"system": name, "error": errors[name]}
            if name in errors
            else {"system": name, **summary(name, done, medium)}
            for name in systems.names
        ],
        "stages": {name: stages(each) for name, each in done.items()},
        "components": {name: each[0]["components"] for name, each in done.items()},
        "runs": {
            name: {key: [run[key] for run in each] for key in ("seconds", "CPU seconds")}
            for name, each in done.items()
        },
    }


def summary(name: str, runs: Mapping[str, list[dict]], medium: Medium) -> dict:
    """Medians of one system, and medians of its ratios to our pipelines in the same repeat."""
    own = runs[name]
    row = {
        "runs": len(own),
        "MB, peak": own[0]["MB, peak"],
        "real-time factor": median(run["seconds"] for run in own) / medium.seconds,
        "CPU seconds per second": median(run["CPU seconds"] for run in own) / medium.seconds,
        "speakers": own[0]["speakers"],
    }
    for other in OURS:
        if other in runs:
            # a system that runs once is compared with the first repeat
            pairs = zip(own, runs[other], strict=False)
            row[f"x {other}"] = median(a["seconds"] / b["seconds"] for a, b in pairs)
    return row


def stages(runs: list[dict]) -> dict[str, float]:
    """Median seconds of each stage."""
    names = dict.fromkeys(name for run in runs for name in run["stages"])
    return {name: median(run["stages"].get(name, 0.0) for run in runs) for name in names}


def in_own_process(name: str, medium: Medium, settings: Settings) -> dict:
    """Load a system and run it once, in this process; see `in_fresh_process`."""
    begin = perf_counter()
    system = load(name, settings)
    loading, loaded = perf_counter() - begin, peak_memory()
    run = timed(system, medium, settings)
    peak = peak_memory()
    return {
        "seconds of loading": loading,
        "real-time factor": run["seconds"] / medium.seconds,
        "CPU seconds per second": run["CPU seconds"] / medium.seconds,
        "speakers": run["speakers"],
        "MB, models loaded": round(loaded),
        "MB, peak": round(peak),
        "MB, peak without 2 bytes a sample": round(peak - medium.seconds * 16000 * 2 / 2**20),
    }


# ------------------------------------------------------------------------------------ parts


def known_part(given: argparse.Namespace, part: str, settings: dict) -> dict:
    """What an earlier run wrote, if it is to be kept."""
    path = given.into / "speed.json"
    if not given.resume or not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8")).get(part, {})
    same = found.get("settings") == settings and found["versions"] == versions()
    return found if same else {}


def settings_of(given: argparse.Namespace) -> Settings:
    """Settings of the systems."""
    return Settings(given.threads, given.weights)


def compare(given: argparse.Namespace, results: Results) -> None:
    """All systems on all files."""
    common = {key: getattr(given, key) for key in ("systems", "repeats", "threads", "seconds")}
    for name in given.files:
        part, settings = f"compare, {name}", {**common, "weights": given.weights is not None}
        content = known_part(given, part, settings)
        if not content:
            medium, warm_up = medium_of(given, name), sample_medium(given.work, 10)
            once = SLOW if FILES[name][2] > MANY_COPIES else ()
            with closing(Systems(given.systems, settings_of(given), warm_up)) as systems:
                content = {
                    "settings": settings,
                    "seconds of the file": medium.seconds,
                    **measure(systems, medium, given.repeats, once),
                }
            results.update("speed", part, content)
        print(f"\n{part}\n{table(with_stages(content), columns(content['rows']))}\n", flush=True)


def with_stages(content: Mapping[str, Any]) -> list[dict]:
    """Rows with the seconds of all stages in one column."""
    return [
        {
            **row,
            "stages (s)": ", ".join(
                f"{name} {seconds:.1f}"
                for name, seconds in content["stages"].get(row["system"], {}).items()
            ),
        }
        for row in content["rows"]
    ]


def columns(rows: Iterable[Mapping]) -> dict[str, str]:
    """Columns of all rows, without those of errors."""
    keys = dict.fromkeys(key for row in rows if "error" not in row for key in row)
    return {key: key for key in (keys or ["system"])} | {"stages (s)": "stages (s)"}


def cost(given: argparse.Namespace, results: Results) -> None:
    """Growth with the duration, the number of faces, and the size of the picture."""
    copies = [max(1, round(60 * minutes / given.seconds)) for minutes in given.minutes]
    points = {
        "duration": [(3, 720, count) for count in dict.fromkeys(copies)],
        "faces": [(faces, 720, 1) for faces in given.faces],
        "picture": [(2, height, 1) for height in given.heights],
    }
    settings = {"threads": given.threads, "seconds": given.seconds}
    for variable, pipelines in COST.items():
        jobs = []
        for faces, height, count in points[variable]:

            def make(point=(faces, height, count)) -> Medium:
                return composed_medium(given.work, given.seconds, *point)

            minutes = count * given.seconds / 60
            for pipeline in (each for each in pipelines if each in given.systems):
                key = {"system": pipeline, "minutes": minutes, "faces": faces, "height": height}
                jobs.append((key, pipeline, make))
        each_alone(given, results, f"cost, {variable}", settings, jobs)


def each_alone(
    given: argparse.Namespace,
    results: Results,
    part: str,
    settings: dict,
    jobs: list[tuple[dict, str, Callable[[], Medium]]],
) -> None:
    """Run each job, which has a key, a system and a file, in a process of its own.

    The part is written after each job.
    """
    known = {
        key_of(row): row
        for row in known_part(given, part, settings).get("rows", ())
        if "error" not in row
    }
    rows = []
    for key, system, make in jobs:
        row = known.get(key_of(key))
        if row is None:
            try:
                row = in_fresh_process(in_own_process, system, make(), settings_of(given))
            except Exception as error:
                row = {"error": described(error)}
            row = {**key, **row}
            print(f"{part}: {row}", flush=True)
        rows.append(row)
        left = [each for each in known.values() if key_of(each) not in map(key_of, rows)]
        results.update("speed", part, {"settings": settings, "rows": [*rows, *left]})
    shown = dict.fromkeys(key for row in rows if "error" not in row for key in row)
    print(f"\n{part}\n{table(rows, {key: key for key in shown or ['system']})}\n", flush=True)


def key_of(row: Mapping[str, Any]) -> tuple:
    """What identifies a row: its system and its file."""
    minutes = row.get("minutes")
    rounded = None if minutes is None else round(minutes, 3)
    return row["system"], rounded, row.get("faces"), row.get("height")


PARTS = {"compare": compare, "cost": cost}


# ------------------------------------------------------------------------------------ plot


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Real-time factors of systems by file, and growth of real-time factor and memory."""
    from matplotlib.figure import Figure

    bars = {name: part for name, part in found.items() if name.startswith("compare, ")}
    lines = {name: part for name, part in found.items() if name.startswith("cost, ")}
    panels = len(bars), len(lines) + ("cost, duration" in lines)
    figure = Figure(figsize=(13, 4 * sum(map(bool, panels))), layout="constrained")
    blocks = iter(figure.subfigures(sum(map(bool, panels)), 1, squeeze=False)[:, 0])
    if bars:
        axes = next(blocks).subplots(1, panels[0], squeeze=False)[0]
        for axis, (name, part) in zip(axes, bars.items(), strict=True):
            draw_bars(axis, part["rows"], name.partition(", ")[2])
    if lines:
        axes = iter(next(blocks).subplots(1, panels[1], squeeze=False)[0])
        for name, part in lines.items():
            unit = {"duration": "minutes", "faces": "faces", "picture": "height"}
            key = unit[name.partition(", ")[2]]
            draw_lines(next(axes), part["rows"], key, "real-time factor")
            if key == "minutes":
                draw_lines(next(axes), part["rows"], key, "MB, peak without 2 bytes a sample")
    figure.savefig(path, dpi=110)


def draw_bars(axis, rows: list[dict], title: str) -> None:
    """Real-time factor of each system."""
    rows = [row for row in rows if "error" not in row][::-1]
    values = [row["real-time factor"] for row in rows]
    colours = ["tab:blue" if row["system"] in OURS else "tab:gray" for row in rows]
    axis.bar_label(
        axis.barh([row["system"] for row in rows], values, color=colours), fmt="%.2g", padding=2
    )
    axis.set(title=title, xlabel="real-time factor", xscale="log")
    axis.margins(x=0.2)


def draw_lines(axis, rows: list[dict], key: str, value: str) -> None:
    """One value of each pipeline by `key`."""
    rows = [row for row in rows if "error" not in row]
    for name in dict.fromkeys(row["system"] for row in rows):
        points = sorted((row[key], row[value]) for row in rows if row["system"] == name)
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    label = {"height": "height of the picture (pixels)"}.get(key, key)
    axis.set(xlabel=label, ylabel=value, ylim=(0, None))
    if rows:
        axis.legend(fontsize="small")


def run(given: argparse.Namespace, results: Results) -> None:
    """Run the parts."""
    for part in given.only:
        PARTS[part](given, results)
    found = json.loads((results.folder / "speed.json").read_text(encoding="utf-8"))
    results.plot("speed.png", lambda path: plot(found, path))
