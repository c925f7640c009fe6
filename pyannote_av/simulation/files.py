"""Simulated corpora: media files with references, and a protocol to load them.

::

    FOLDER/database.yml                     protocol Simulated.SpeakerDiarization.Conversations
                                            (also under its former name, ....Simulated)
           lists/train.txt                  files of a subset
           video/URI.mp4, rttm/URI.rttm, uem/URI.uem
           tracks/URI.npz                   face tracks with speakers and labels
           info/URI.json                    voices, options, cuts, signal-to-noise ratio
           train.json                       settings that the subset is simulated with

A training corpus needs no video. It can directly be a store of crops
(:class:`~pyannote_av.data.crop_store.CropStore`), which is several times faster to write. Instead
of ``video``, it then has::

           audio/URI.wav
           shards/URI                       crops, sound and face tracks
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import wave
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyannote_av.core.atomic import write_text
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.reading import ReadError, read_json
from pyannote_av.data.crop_shard import shard_folder
from pyannote_av.data.shard_writer import to_int16
from pyannote_av.formats.rttm import to_rttm
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.conversation import Conversation, Options, converse
from pyannote_av.simulation.encoding import encode
from pyannote_av.simulation.rendering import render
from pyannote_av.simulation.store import write_shard
from pyannote_av.simulation.workers import run

logger = logging.getLogger(__name__)

SUBSETS = ("train", "development", "test")
#: suffix by folder; the medium is moved last, so that all other files exist by then
_REFERENCES = {"rttm": ".rttm", "uem": ".uem", "tracks": ".npz", "info": ".json"}
_FILM, _STORE = {**_REFERENCES, "video": ".mp4"}, {**_REFERENCES, "audio": ".wav"}


@dataclass
class SimulationReport:
    """Result of a simulation.

    Attributes
    ----------
    written, kept : list of str
        URIs of new files, and of files that already existed.
    failed : dict of str to str
        Reason of each failure, by uri.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def _paths(folder: Path, uri: str, store: bool) -> dict[str, Path]:
    parts = _STORE if store else _FILM
    return {part: folder / part / f"{uri}{suffix}" for part, suffix in parts.items()}


def _complete(folder: Path, uri: str, store: bool) -> bool:
    there = all(path.is_file() for path in _paths(folder, uri, store).values())
    return there and (not store or (shard_folder(folder, uri) / "index.json").is_file())


def write_file(
    cast: Cast,
    folder: Path,
    uri: str,
    duration: float,
    options: Options,
    seed: tuple[int, ...],
    store: bool = False,
) -> None:
    """Write one conversation atomically."""
    made = converse(cast, duration, options, seed, uri)
    # if this is interrupted, the next run reuses the folder
    unfinished = folder / f".{uri}"
    unfinished.mkdir(parents=True, exist_ok=True)
    paths = _paths(folder, uri, store)
    there = {part: unfinished / path.name for part, path in paths.items()}
    length = made.scene.num_frames / FRAME_RATE
    there["rttm"].write_text(to_rttm(made.turns), encoding="utf-8")
    there["uem"].write_text(f"{uri} 1 0.000 {length:.3f}\n", encoding="utf-8")
    there["info"].write_text(json.dumps(made.summary(), indent=1) + "\n", encoding="utf-8")
    tracks = made.tracks()
    tracks.write(there["tracks"])
    if store:
        _write_wav(there["audio"], made)
        write_shard(made, folder, tracks, [*seed, 6])
    else:
        scene = made.scene
        pictures = render(scene, made.people)
        encode(there["video"], pictures, made.audio, scene.options.size, scene.compression)
    for part, path in paths.items():
        path.parent.mkdir(exist_ok=True)
        os.replace(there[part], path)
    shutil.rmtree(unfinished)


def _write_wav(path: Path, made: Conversation) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(to_int16(made.audio).astype("<i2").tobytes())


def _fingerprint(
    cast: Cast, duration: float, options: Options, seed: int, store: bool
) -> dict[str, Any]:
    """Settings that must be the same for all files of a subset"""

    def digest(parts: Iterable[bytes]) -> str:
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    library, files = cast.library, []
    if library is not None:
        files = [str(p.relative_to(library.folder)) for f in library.files.values() for p in f]
    content = {
        "seed": seed,
        "duration": duration,
        "options": asdict(options),
        "statistics": digest([json.dumps(asdict(cast.statistics)).encode()]),
        "speech": digest(name.encode() for name in files),
        "portraits": digest(portrait.image.tobytes() for portrait in cast.portraits),
    }
    if cast.talkers is not None:
        clips = [clip.folder.name for own in cast.talkers.clips.values() for clip in own]
        content["talkers"] = digest(name.encode() for name in clips)
    if store:
        content["store"] = True
    # convert tuples to lists, as in the file to compare with
    return json.loads(json.dumps(content))


def _check_same(path: Path, content: dict[str, Any]) -> None:
    """Raise ValueError if a subset was started with other settings"""
    if not path.is_file():
        write_text(path, json.dumps(content, indent=1) + "\n")
        return
    begun = read_json(path)
    if not isinstance(begun, dict):
        raise ReadError(f"{path} is not the record of a subset: remove it")
    changed = sorted(key for key in {*content, *begun} if begun.get(key) != content.get(key))
    if changed:
        raise ValueError(
            f"{path}: this subset was started with other {', '.join(changed)}; "
            "use the same, another subset, or another folder"
        )


def _write_protocol(folder: Path) -> None:
    """Write lists of the complete files, and the protocol of the existing subsets"""
    import yaml

    entries, media = {}, set()
    for subset in SUBSETS:
        there = sorted(path.stem for path in (folder / "rttm").glob(f"{subset}-*.rttm"))
        kinds = {store: [u for u in there if _complete(folder, u, store)] for store in (0, 1)}
        # all files of a subset are of the same kind
        store, uris = max(kinds.items(), key=lambda kind: len(kind[1]))
        if not uris:
            continue
        write_text(folder / "lists" / f"{subset}.txt", "".join(f"{uri}\n" for uri in uris))
        medium = ("audio", "audio/{uri}.wav") if store else ("video", "video/{uri}.mp4")
        media.add(medium[1])
        entries[subset] = {
            "uri": f"lists/{subset}.txt",
            "annotation": "rttm/{uri}.rttm",
            "annotated": "uem/{uri}.uem",
            medium[0]: medium[1],
            "face_tracks": "tracks/{uri}.npz",
        }
    if entries:
        content = {
            "Databases": {"Simulated": sorted(media)},
            "Protocols": {
                "Simulated": {
                    "SpeakerDiarization": {
                        # copies: YAML would write the second one as a reference to the first
                        name: {"scope": "file", **deepcopy(entries)}
                        for name in ("Conversations", "Simulated")
                    }
                }
            },
        }
        write_text(folder / "database.yml", yaml.safe_dump(content, sort_keys=False))


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
    store: bool = False,
) -> SimulationReport:
    """Simulate a subset of a corpus. Complete files are kept.

    Parameters
    ----------
    cast : Cast
        Subsets should have different speakers.
    folder : str or Path
        Created if missing.
    files : int
        Total number of files in the subset.
    duration : float
        Duration of each file in seconds.
    options : Options, optional
    seed : int
        The same seed gives the same files, whatever the number of workers.
    workers : int
        Number of parallel processes; 0 uses only this process.
    subset : {"train", "development", "test"}
    progress : bool
        Whether to show a progress bar.
    store : bool
        Write a store of crops for training, instead of videos.

    Returns
    -------
    report : SimulationReport
        Includes failures. A file that fails does not stop the others.

    Raises
    ------
    ValueError
        If the folder holds this subset with other settings.
    RuntimeError
        If another process is writing the same subset.
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
                cast, folder, files, duration, options, seed, workers, subset, progress, store
            )
    except Timeout:
        raise RuntimeError(f"{folder}: another process is writing {subset!r} there") from None


def _simulate(
    cast, folder, files, duration, options, seed, workers, subset, progress, store
) -> SimulationReport:
    """Body of :func:`simulate_files`, which holds the lock"""
    _check_same(folder / f"{subset}.json", _fingerprint(cast, duration, options, seed, store))
    report, jobs = SimulationReport(), {}
    for index in range(files):
        uri = f"{subset}-{seed}-{index:05d}"
        if _complete(folder, uri, store):
            report.kept.append(uri)
        else:
            jobs[uri] = (seed, SUBSETS.index(subset), index)
    arguments = {"cast": cast, "folder": folder, "duration": duration, "options": options}
    arguments["store"] = store
    for uri, error in run(write_file, jobs, arguments, workers, progress):
        if error is None:
            report.written.append(uri)
        else:
            report.failed[uri] = str(error)
            logger.warning("%s: %s", uri, report.failed[uri])
    report.written.sort()
    _write_protocol(folder)
    return report
