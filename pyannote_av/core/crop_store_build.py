"""Writing a store of face crops; use ``CropStore.build``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyannote_av.core.checksums import digest
from pyannote_av.core.crop_shard import FORMAT, LOOK_INTERVAL, LOOK_SIDE, MEGABYTE, shard_folder
from pyannote_av.core.crop_store import CropStore
from pyannote_av.core.io import FRAME_RATE, MediaError, Video
from pyannote_av.core.shard_writer import ShardWriter, to_int16
from pyannote_av.core.tracks import FaceTracks, Looks

logger = logging.getLogger(__name__)


@dataclass
class BuildReport:
    """What ``CropStore.build`` did.

    Attributes
    ----------
    store : CropStore
    written, kept : list of str
        Files written now, and files that were there already.
    failed : dict of str to str
        Files that could not be written, each with the reason. Building again tries them again.
    problems : dict of str to list of str
        What is wrong with files that were written all the same, in sentences.
    """

    store: CropStore
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)


class _Job(NamedTuple):
    uri: str
    media: dict[str, str]
    tracks: FaceTracks | str | None


class _Outcome(NamedTuple):
    written: bool
    problems: list[str]


def fingerprint(path: str | Path) -> str:
    """Of the size, and of a megabyte from beginning, middle and end: quick, and of content."""
    size = os.path.getsize(path)

    def blocks() -> Iterator[bytes]:
        yield str(size).encode()
        with open(path, "rb") as file:
            for position in (0, size // 2, max(0, size - MEGABYTE)):
                file.seek(position)
                yield file.read(MEGABYTE)

    return digest(blocks())


def _job(file: Mapping[str, Any]) -> _Job:
    """What a worker needs to know of a file of a protocol"""
    media = {key: str(file[key]) for key in ("video", "audio") if key in file}
    uri = str(file["uri"])
    if "video" not in media:
        raise ValueError(f"file {uri!r} has no video")
    tracks = file.get("face_tracks")
    return _Job(uri, media, str(tracks) if isinstance(tracks, Path) else tracks)


def _source(job: _Job, tracks: FaceTracks | None) -> dict[str, str]:
    """What the content of a shard depends on"""
    source = {key: fingerprint(path) for key, path in sorted(job.media.items())}
    if tracks is not None:
        rows = (tracks.time, tracks.track, tracks.box)
        source["tracks"] = digest(np.ascontiguousarray(row).tobytes() for row in rows)
    return source


@cache
def _face_tracking() -> Any:
    # one per process: detectors are slow to load
    from pyannote_av.pipelines.face_tracking import FaceTracking

    return FaceTracking(embedder=None)


def _cut(
    job: _Job, tracks: FaceTracks | None, write: Callable, problems: list[str]
) -> tuple[FaceTracks, Looks]:
    """One pass over the pictures; returns the tracks on the grid, and faces in colour"""
    from pyannote_av.vision.identity import LookCollector, Pictures

    collector = LookCollector(Pictures(LOOK_SIDE), LOOK_INTERVAL)
    if tracks is None:
        file = {**job.media, "uri": job.uri}
        tracks = _face_tracking()(file, consumers=[write], problems=problems, looks=collector)
        return tracks, collector.looks
    from pyannote_av.vision.streaming import KnownPass

    run = KnownPass(tracks, [write], collector)
    if tracks:
        step = 1 / FRAME_RATE
        start, end = max(0.0, float(tracks.time.min()) - step), float(tracks.time.max()) + 2 * step
        for frame in Video().frames(job.media["video"], start=start, end=end, problems=problems):
            run.see(frame)
    return run.finish(), collector.looks


def _sound(job: _Job, problems: list[str]) -> np.ndarray:
    """(samples,) int16; empty where there is no sound"""
    from pyannote_av.core.media import probe

    if not probe(job.media.get("audio", job.media["video"])).audio:
        problems.append(f"file {job.uri!r} has no sound")
        return np.zeros(0, np.int16)
    waveform = Video().waveform({**job.media, "uri": job.uri}, problems=problems)
    return to_int16(waveform.numpy()[0])


def write_shard(store: Path, job: _Job) -> _Outcome:
    """Write one file of a store, unless it is there and its sources are the same."""
    tracks = job.tracks
    if isinstance(tracks, str):
        tracks = FaceTracks.read(tracks, uri=job.uri)
    folder, source = shard_folder(store, job.uri), _source(job, tracks)
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index["format"] == FORMAT and index["source"] == source:
            return _Outcome(False, index["problems"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not usable: written anew

    problems: list[str] = []
    with ShardWriter(store, job.uri) as shard:
        tracks, looks = _cut(job, tracks, shard.add, problems)
        sound = _sound(job, problems)
        return _Outcome(True, shard.finish(tracks, sound, source, problems, looks))


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (MediaError, ValueError, OSError)) else repr(error)


def _run(store: Path, jobs: list[_Job], num_workers: int) -> Iterator[tuple[_Job, Any]]:
    """(job, outcome or exception) as they are done"""
    if num_workers == 0:
        for job in jobs:
            try:
                yield job, write_shard(store, job)
            except Exception as error:
                yield job, error
        return
    from multiprocessing import get_context

    # not forked: torch's and OpenCV's threads do not survive that
    context = get_context("spawn")
    while jobs:
        lost: set[str] = set()
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            futures = {pool.submit(write_shard, store, job): job for job in jobs}
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    lost.add(futures[future].uri)
                else:
                    yield futures[future], error or future.result()
        jobs = [job for job in jobs if job.uri in lost]
        if jobs and num_workers == 1:
            # a file that takes its process with it: the first one of those that were waiting
            yield jobs.pop(0), RuntimeError("the process that decoded it died")
        elif jobs:
            # one at a time tells which
            yield from _run(store, jobs, 1)
            return


def build(
    folder: Path, files: Iterable[Mapping[str, Any]], num_workers: int, progress: bool
) -> BuildReport:
    """See ``CropStore.build``."""
    from filelock import FileLock, Timeout

    (folder / "shards").mkdir(parents=True, exist_ok=True)
    report = BuildReport(CropStore(folder))
    jobs: dict[str, _Job] = {}
    for file in files:
        uri = str(file["uri"])
        if uri in jobs or uri in report.failed:
            raise ValueError(f"two files are called {uri!r}")
        try:
            jobs[uri] = _job(file)
        except Exception as error:
            report.failed[uri] = _reason(error)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"another process is writing to the store {folder}") from None
    try:
        outcomes = _run(folder, list(jobs.values()), num_workers)
        if progress:
            from rich.progress import track

            outcomes = track(outcomes, "Face crops", total=len(jobs))
        for job, outcome in outcomes:
            if isinstance(outcome, BaseException):
                report.failed[job.uri] = _reason(outcome)
                logger.warning("file %r is not in the store: %s", job.uri, _reason(outcome))
                continue
            (report.written if outcome.written else report.kept).append(job.uri)
            if outcome.problems:
                report.problems[job.uri] = outcome.problems
    finally:
        lock.release()
    return report
