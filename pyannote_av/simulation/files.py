"""Simulated corpora: media files with references, and a protocol to load them by.

::

    FOLDER/database.yml                     protocol Simulated.SpeakerDiarization.Simulated
           lists/train.txt                  files of a subset
           video/URI.mp4, rttm/URI.rttm, uem/URI.uem
           tracks/URI.npz                   face tracks with speakers and labels
           info/URI.json                    voices, options, cuts, signal-to-noise ratio
           train.json                       what the subset is made with
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.formats.rttm import to_rttm
from pyannote_av.simulation.conversation import Cast, Options, converse
from pyannote_av.simulation.encoding import encode
from pyannote_av.simulation.rendering import render

logger = logging.getLogger(__name__)

SUBSETS = ("train", "development", "test")
#: suffix by folder; the video last: where it is, the rest is
_PARTS = {"rttm": ".rttm", "uem": ".uem", "tracks": ".npz", "info": ".json", "video": ".mp4"}


@dataclass
class SimulationReport:
    """What became of the files.

    Attributes
    ----------
    written, kept : list of str
        uris of files that are new, and of those that were there before.
    failed : dict of str to str
        Why, by uri.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _paths(folder: Path, uri: str) -> dict[str, Path]:
    return {part: folder / part / f"{uri}{suffix}" for part, suffix in _PARTS.items()}


def write_file(
    cast: Cast, folder: Path, uri: str, duration: float, options: Options, seed: tuple[int, ...]
) -> None:
    """Write one conversation, which appears whole or not at all."""
    made = converse(cast, duration, options, seed, uri)
    # whoever is killed here finds the same folder again
    unfinished = folder / f".{uri}"
    unfinished.mkdir(parents=True, exist_ok=True)
    there = {part: unfinished / f"{uri}{suffix}" for part, suffix in _PARTS.items()}
    length = made.scene.num_frames / 25
    there["rttm"].write_text(to_rttm(made.turns), encoding="utf-8")
    there["uem"].write_text(f"{uri} 1 0.000 {length:.3f}\n", encoding="utf-8")
    there["info"].write_text(json.dumps(made.summary(), indent=1) + "\n", encoding="utf-8")
    made.tracks().write(there["tracks"])
    scene = made.scene
    pictures = render(scene, made.people)
    sound = made.sound.mixture[: scene.num_frames * 640]
    encode(there["video"], pictures, sound, scene.options.size, scene.compression)
    for part, path in _paths(folder, uri).items():
        path.parent.mkdir(exist_ok=True)
        os.replace(there[part], path)
    shutil.rmtree(unfinished)


def _fingerprint(cast: Cast, duration: float, options: Options, seed: int) -> dict[str, Any]:
    """What must be the same for the files of a subset to belong together"""

    def digest(parts: Iterable[bytes]) -> str:
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    library = cast.library
    files = [str(p.relative_to(library.folder)) for f in library.files.values() for p in f]
    content = {
        "seed": seed,
        "duration": duration,
        "options": asdict(options),
        "statistics": digest([json.dumps(asdict(cast.statistics)).encode()]),
        "speech": digest(name.encode() for name in files),
        "portraits": digest(portrait.image.tobytes() for portrait in cast.portraits),
    }
    # tuples become lists, as in the file it is compared with
    return json.loads(json.dumps(content))


def _check_same(path: Path, content: dict[str, Any]) -> None:
    """Raise ValueError where a subset was begun with something else"""
    if not path.is_file():
        write_text(path, json.dumps(content, indent=1) + "\n")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(key for key in content if begun.get(key) != content[key])
    if changed:
        raise ValueError(
            f"{path}: this subset was begun with other {', '.join(changed)}; "
            "use the same, another subset, or another folder"
        )


def _write_protocol(folder: Path) -> None:
    """Lists of what is complete, and the protocol of the subsets there are"""
    import yaml

    entries = {}
    for subset in SUBSETS:
        uris = sorted(path.stem for path in (folder / "video").glob(f"{subset}-*.mp4"))
        if not uris:
            continue
        write_text(folder / "lists" / f"{subset}.txt", "".join(f"{uri}\n" for uri in uris))
        entries[subset] = {
            "uri": f"lists/{subset}.txt",
            "annotation": "rttm/{uri}.rttm",
            "annotated": "uem/{uri}.uem",
            "video": "video/{uri}.mp4",
            "face_tracks": "tracks/{uri}.npz",
        }
    if entries:
        content = {
            "Databases": {"Simulated": "video/{uri}.mp4"},
            "Protocols": {
                "Simulated": {"SpeakerDiarization": {"Simulated": {"scope": "file", **entries}}}
            },
        }
        write_text(folder / "database.yml", yaml.safe_dump(content, sort_keys=False))


# what a worker process works with, sent once and not with every file
_worker: dict[str, Any] = {}


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, which else waits for work forever"""
    from multiprocessing import parent_process

    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _start(arguments: dict[str, Any]) -> None:
    import threading

    import cv2
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(arguments)


def _work(uri: str, seed: tuple[int, ...]) -> None:
    write_file(uri=uri, seed=seed, **_worker)


def simulate_files(
    cast: Cast,
    folder: str | Path,
    files: int,
    duration: float = 300.0,
    options: Options | None = None,
    seed: int = 0,
    workers: int = 0,
    subset: str = "train",
    progress: bool = False,
) -> SimulationReport:
    """Write a subset of a corpus of conversations; what is complete already is kept.

    Parameters
    ----------
    cast : Cast
        Give each subset speakers of its own.
    folder : str or Path
        Created if missing.
    files : int
        How many the subset has in the end.
    duration : float
        Seconds of each.
    options : Options, optional
    seed : int
        The same files for the same seed, whatever the number of workers.
    workers : int
        Processes at work at once; 0 does without other processes.
    subset : {"train", "development", "test"}
    progress : bool
        Show a bar.

    Returns
    -------
    report : SimulationReport
        A file that cannot be made does not stop the others.

    Raises
    ------
    ValueError
        When the folder holds this subset made with something else.
    RuntimeError
        When another process is writing the same subset.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, not {subset!r}")
    folder, options = Path(folder).expanduser(), options or Options()
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{subset}.lock")
    try:
        with lock.acquire(blocking=False):
            return _simulate(
                cast, folder, files, duration, options, seed, workers, subset, progress
            )
    except Timeout:
        raise RuntimeError(f"{folder}: another process is writing {subset!r} there") from None


def _simulate(
    cast, folder, files, duration, options, seed, workers, subset, progress
) -> SimulationReport:
    """What :func:`simulate_files` does while nobody else does"""
    _check_same(folder / f"{subset}.json", _fingerprint(cast, duration, options, seed))
    report, jobs = SimulationReport(), {}
    for index in range(files):
        uri = f"{subset}-{seed}-{index:05d}"
        if all(path.is_file() for path in _paths(folder, uri).values()):
            report.kept.append(uri)
        else:
            jobs[uri] = (seed, SUBSETS.index(subset), index)
    arguments = {"cast": cast, "folder": folder, "duration": duration, "options": options}
    for uri, error in _run(jobs, arguments, workers, progress):
        if error is None:
            report.written.append(uri)
        else:
            report.failed[uri] = f"{type(error).__name__}: {error}"
            logger.warning("%s: %s", uri, report.failed[uri])
    report.written.sort()
    _write_protocol(folder)
    return report


def _run(jobs, arguments, workers: int, progress: bool):
    """(uri, error or None) of each file, in the order they are done"""
    from rich.progress import track

    done = _parallel(jobs, arguments, workers) if workers else _serial(jobs, arguments)
    yield from track(done, "simulating", total=len(jobs), disable=not progress)


def _serial(jobs, arguments):
    for uri, seed in jobs.items():
        try:
            write_file(uri=uri, seed=seed, **arguments)
        except Exception as error:
            yield uri, error
        else:
            yield uri, None


def _parallel(jobs, arguments, workers: int):
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # a forked process inherits the locks of threads it does not have
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (arguments,)) as pool:
        futures = {pool.submit(_work, uri, seed): uri for uri, seed in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.exception()
