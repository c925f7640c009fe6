"""What is done with a file, in whichever process: it is looked at, then worked on."""

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
    """What looking at a file told.

    Attributes
    ----------
    duration : float
        Seconds.
    key : str
        Of the file as it is now.
    record : dict or None
        What became of the file as it is now, if anything did.
    done : bool
        That is all there is to do.
    former : dict of path to str
        Outputs that any record claims, with their digests.
    blocked : str or None
        Why outputs could not be put in their places.
    """

    duration: float
    key: str
    record: dict[str, Any] | None
    done: bool
    former: Mapping[str, str]
    blocked: str | None


@dataclass
class Looking:
    """FaceSamples at files: whether they can be read, for how long they last, what was done before.

    Parameters
    ----------
    work : Work
    into : Path
        Where outputs and records are.
    again : bool
        Do everything, whatever the records say, and replace files of others.
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
        """Why outputs of a file could not be put in their places; None if they can"""
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
    """A file to be worked on; `tried` is how often it was before."""

    job: Job
    seen: ProbeResult
    tried: int


class Done(NamedTuple):
    """What became of a file.

    Attributes
    ----------
    made : Made
    seconds : float
        It took.
    stage : Path
        Where its outputs are.
    digests : dict of path to str
        Of its outputs.
    """

    made: Made
    seconds: float
    stage: Path
    digests: dict[str, str]


@dataclass
class Doing:
    """Does the work.

    Parameters
    ----------
    work : Work
    into : Path
        Each file gets a folder of its own to write to, until it is recorded.
    """

    work: Work
    into: Path

    def load(self) -> None:
        """Make the work ready."""
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
