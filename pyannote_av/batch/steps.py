"""The two steps of a job, which may run in different processes: probing and working."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from pyannote_av.batch.jobs import Job, Made, Work, outputs_of
from pyannote_av.batch.ledger import is_done, longest_place, new_stage, read_record
from pyannote_av.batch.outputs import output_digest, place_of, replaceable


class ProbeResult(NamedTuple):
    """Result of probing a file.

    Attributes
    ----------
    duration : float
        Duration in seconds.
    key : str
        Digest of the current version of the file.
    record : dict or None
        Record of the current version of the file, if any.
    done : bool
        Whether there is nothing to do.
    former : dict of path to str
        Outputs that any record mentions, with their digests.
    blocked : str or None
        Why outputs could not be moved to their final paths.
    """

    duration: float
    key: str
    record: dict[str, Any] | None
    done: bool
    former: Mapping[str, str]
    blocked: str | None


@dataclass
class Probing:
    """Probes files: whether they can be read, their duration, and the state of earlier results.

    Parameters
    ----------
    work : Work
    into : Path
        Folder of outputs and records.
    again : bool
        Process all files, whatever the records say, and replace files of other origin.
    """

    work: Work
    into: Path
    again: bool

    def __call__(self, job: Job) -> ProbeResult:
        from pyannote_av.core.io import Video

        duration = Video().get_duration({"uri": job.name, **job.media})
        key = job.key(self.work.identity)
        record = read_record(self.into, job.name)
        former = {} if record is None else record.get("outputs", {})
        if record is not None and record["key"] != key:
            record = None
        outputs = outputs_of(self.work, job.name) or ()
        done = not self.again and is_done(self.into, record, key) and former.keys() >= {*outputs}
        blocked = None if done else self._blocked(job.name, outputs, former)
        return ProbeResult(duration, key, record, done, former, blocked)

    def _blocked(self, name: str, outputs: Sequence[str], former: Mapping[str, str]) -> str | None:
        """Why outputs of a file could not be moved to their final paths; None if they could"""
        try:
            for output in outputs:
                replaceable(place_of(self.into, output), former.get(output), self.again)
                replaceable(longest_place(self.into, output), None)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.ENAMETOOLONG:
                return f"{name!r} is too long for names of files in {self.into}: give another name"
            return str(error)
        return None


class Task(NamedTuple):
    """A file to process; `tried` is the number of previous attempts."""

    job: Job
    probed: ProbeResult
    tried: int


class Done(NamedTuple):
    """Result of processing a file.

    Attributes
    ----------
    made : Made
    seconds : float
        Duration of the work.
    stage : Path
        Folder of the outputs.
    digests : dict of path to str
        Digests of the outputs.
    """

    made: Made
    seconds: float
    stage: Path
    digests: dict[str, str]


@dataclass
class Processing:
    """Processes files.

    Parameters
    ----------
    work : Work
    into : Path
        Folder of results. Each file is first written to a separate folder below it.
    """

    work: Work
    into: Path

    def load(self) -> None:
        """Load the work."""
        self.work.load()

    def __call__(self, task: Task) -> Done:
        since = perf_counter()
        stage = new_stage(self.into, task.job.name)
        try:
            made = self.work.process(task.job, stage)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        there = self.into if made.kept else stage
        digests = {name: output_digest(place_of(there, name)) for name in made.outputs}
        return Done(made, perf_counter() - since, stage, digests)
