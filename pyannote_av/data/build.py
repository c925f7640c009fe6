"""Build a store of face crops."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyannote_av.core.atomic import locked
from pyannote_av.core.checksums import digest, fingerprint
from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.io import Video
from pyannote_av.core.reading import INDEX_LIMIT, read_json
from pyannote_av.core.tracks import FaceSamples, FaceTracks, TrackSegment
from pyannote_av.core.workers import Failure, open_pool, run
from pyannote_av.data.crop_shard import FACE_INTERVAL, FACE_SIDE, FORMAT, shard_folder
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.shard_writer import ShardWriter, to_int16

logger = logging.getLogger(__name__)


@dataclass
class BuildReport:
    """Result of :func:`build_store`.

    Attributes
    ----------
    store : CropStore
    written, kept : list of str
        Files that were written, and files that were already present.
    failed : dict of str to str
        Files that could not be written, with the reason. The next build tries them again.
    problems : dict of str to list of str
        Messages about damage in files that were written nevertheless.
    """

    store: CropStore
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)


class ShardJob(NamedTuple):
    """Job of a worker: one file to write.

    Attributes
    ----------
    uri : str
    media : dict
        Paths of ``video`` and ``audio``.
    tracks : FaceTracks, str or None
        Tracks, or the path of a file with tracks. Without them, faces are detected and tracked.
    audio_track : int or str, optional
        See :class:`pyannote_av.Video`.
    """

    uri: str
    media: dict[str, str]
    tracks: FaceTracks | str | None = None
    audio_track: int | str | None = None


class _Outcome(NamedTuple):
    written: bool
    problems: list[str]


def _job(file: Mapping[str, Any]) -> ShardJob:
    """Create the job for a file of a protocol."""
    media = {key: str(file[key]) for key in ("video", "audio") if key in file}
    uri = str(file["uri"])
    if "video" not in media:
        raise ValueError(f"file {uri!r} has no video")
    tracks = file.get("face_tracks")
    tracks = str(tracks) if isinstance(tracks, Path) else tracks
    return ShardJob(uri, media, tracks, file.get("audio_track"))


def _source(job: ShardJob, tracks: FaceTracks | None) -> dict[str, str]:
    """Fingerprints of everything the content of a shard depends on."""
    source = {key: fingerprint(path) for key, path in sorted(job.media.items())}
    if job.audio_track is not None:
        source["audio_track"] = str(job.audio_track)
    if tracks is not None:
        rows = (tracks.time, tracks.track, tracks.box)
        source["tracks"] = digest(np.ascontiguousarray(row).tobytes() for row in rows)
    return source


@cache
def _face_tracking() -> Any:
    # one per process, because detectors are slow to load
    from pyannote_av.pipelines.face_tracking import FaceTracking

    return FaceTracking(embedder=None)


class _Crops:
    """Collector that writes crops to a store"""

    def __init__(self, shard: ShardWriter):
        self._shard = shard

    def update(self, segment: TrackSegment) -> None:
        self._shard.add(segment)

    def compute(self) -> None:
        """The result is in the store"""


def _cut(
    job: ShardJob, tracks: FaceTracks | None, shard: ShardWriter, problems: list[str]
) -> tuple[FaceTracks, FaceSamples]:
    """Pass over the pictures once. Returns tracks on the grid, and face samples in colour."""
    from pyannote_av.vision.identity import FaceSampler, Pictures

    sampler = FaceSampler(Pictures(FACE_SIDE), FACE_INTERVAL)
    if tracks is None:
        file = {**job.media, "uri": job.uri}
        options = {"problems": problems, "sampler": sampler}
        tracks = _face_tracking()(file, collectors=[_Crops(shard)], **options)
        return tracks, sampler.compute()
    from pyannote_av.vision.streaming import KnownPass

    run = KnownPass(tracks, [_Crops(shard)], sampler)
    if tracks:
        step = 1 / FRAME_RATE
        start, end = max(0.0, float(tracks.time.min()) - step), float(tracks.time.max()) + 2 * step
        for frame in Video().frames(job.media["video"], start=start, end=end, problems=problems):
            run.update(frame)
    return run.finish(), sampler.compute()


def _sound(job: ShardJob, problems: list[str]) -> np.ndarray:
    """Audio (samples,) int16, empty if the file has none."""
    from pyannote_av.core.media import probe

    if not probe(job.media.get("audio", job.media["video"])).audio:
        problems.append(f"file {job.uri!r} has no sound")
        return np.zeros(0, np.int16)
    file = {**job.media, "uri": job.uri, "audio_track": job.audio_track}
    waveform = Video().waveform(file, problems=problems)
    return to_int16(waveform.numpy()[0])


def write_shard(store: Path, job: ShardJob, elsewhere: Path | None = None) -> _Outcome:
    """Write one file of a store, unless it is there and its sources have not changed.

    Parameters
    ----------
    store : Path
    job : ShardJob
    elsewhere : Path, optional
        Another store to write to. The caller then moves the folder of the shard.
    """
    tracks = job.tracks
    if isinstance(tracks, str):
        tracks = FaceTracks.read(tracks, uri=job.uri)
    folder, source = shard_folder(store, job.uri), _source(job, tracks)
    try:
        index = read_json(folder / "index.json", INDEX_LIMIT)
        if index["format"] == FORMAT and index["source"] == source:
            return _Outcome(False, list(map(str, index["problems"])))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or unusable: written anew

    problems: list[str] = []
    with ShardWriter(elsewhere or store, job.uri) as shard:
        tracks, face_samples = _cut(job, tracks, shard, problems)
        sound = _sound(job, problems)
        return _Outcome(True, shard.finish(tracks, sound, source, problems, face_samples))


def build_store(
    folder: str | Path,
    files: Iterable[Mapping[str, Any]],
    num_workers: int = 0,
    progress: bool = False,
) -> BuildReport:
    """Write the files that are not yet in a store.

    Each video is decoded once, as a stream. Existing files are kept unless their media or tracks
    have changed, so a build that was killed can be continued. A file that cannot be read is
    reported and does not stop the others.

    Parameters
    ----------
    folder : str or Path
        It is created if it does not exist.
    files : iterable of mapping
        Mappings with ``uri``, ``video``, and optionally ``audio`` and ``face_tracks``
        (FaceTracks, or the path of a file with tracks). Without tracks, faces are detected.
    num_workers : int
        Number of worker processes. With 0, all work is done in this process.
    progress : bool
        Show a progress bar.

    Returns
    -------
    report : BuildReport

    Raises
    ------
    ValueError
        If two files have the same uri.
    RuntimeError
        If another process is writing to the same store.
    """
    folder = Path(folder)

    (folder / "shards").mkdir(parents=True, exist_ok=True)
    report = BuildReport(CropStore(folder))
    jobs: dict[str, ShardJob] = {}
    for file in files:
        uri = str(file["uri"])
        if uri in jobs or uri in report.failed:
            raise ValueError(f"two files are called {uri!r}")
        try:
            jobs[uri] = _job(file)
        except Exception as error:
            report.failed[uri] = Failure.of(error).reason
    with locked(folder), open_pool(partial(write_shard, folder), num_workers) as pool:
        attempts = run(pool, jobs.values())
        if progress:
            from rich.progress import track

            attempts = track(attempts, "Face crops", total=len(jobs))
        for attempt in attempts:
            uri, outcome = attempt.job.uri, attempt.value
            if isinstance(outcome, Failure):
                report.failed[uri] = outcome.reason
                logger.warning("file %r is not in the store: %s", uri, outcome.reason)
                continue
            (report.written if outcome.written else report.kept).append(uri)
            if outcome.problems:
                report.problems[uri] = outcome.problems
    return report
