"""Batch work that extracts the faces and the sound of files into a store of crops."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pyannote_av import __version__
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.core.checksums import digest
from pyannote_av.core.workers import PIPELINE_IMPORTS
from pyannote_av.data.crop_shard import FORMAT, shard_folder


@dataclass
class Prepare:
    """Writes ``shards/<uri>`` for every file; see :class:`~pyannote_av.data.crop_store.CropStore`.

    Parameters
    ----------
    store : Path
        Folder of the store. Existing shards of the same media and tracks are kept.
    """

    store: Path
    verb: str = field(default="cutting out faces", init=False)
    imports = PIPELINE_IMPORTS

    def __post_init__(self):
        self.store = Path(self.store).absolute()
        (self.store / "shards").mkdir(parents=True, exist_ok=True)
        self.identity = digest([json.dumps(["prepare", FORMAT, __version__]).encode()])

    def load(self) -> None:
        """See :class:`~pyannote_av.batch.jobs.Work`. Detectors are loaded when needed."""

    def outputs(self, name: str, every: bool = False) -> list[str]:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        # relative to the store
        return [shard_folder(Path(), name).as_posix()]

    def process(self, job: Job, folder: Path) -> Made:
        """See :class:`~pyannote_av.batch.jobs.Work`."""
        from pyannote_av.data.build import ShardJob, write_shard

        if "video" not in job.media:
            raise ValueError(f"file {job.name!r} has no video")
        tracks = job.columns.get("face_tracks")
        tracks = str(tracks) if isinstance(tracks, Path) else tracks
        shard = ShardJob(job.name, job.media, tracks, job.columns.get("audio_track"))
        outcome = write_shard(self.store, shard, elsewhere=folder)
        outputs = self.outputs(job.name)
        return Made(outputs, problems=outcome.problems, kept=not outcome.written)
