"""What is done with a file, in whichever process: it is looked at, then worked on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from pyannote_av.collection.jobs import Job, Made, Work, output_digest
from pyannote_av.collection.ledger import is_done, new_stage, read_record


class Seen(NamedTuple):
    """What looking at a file told.

    Attributes
    ----------
    duration : float
        Seconds.
    key : str or None
        Of the file as it is now; None where nothing is recorded.
    record : dict or None
        What became of the file as it is now, if anything did.
    done : bool
        That is all there is to do.
    """

    duration: float
    key: str | None
    record: dict[str, Any] | None
    done: bool


@dataclass
class Looking:
    """Looks at files: whether they can be read, for how long they last, what was done before.

    Parameters
    ----------
    identity : str
        Of the work.
    into : Path or None
        Where records are, if there are any.
    """

    identity: str
    into: Path | None

    def __call__(self, job: Job) -> Seen:
        from pyannote_av.core.io import Video

        duration = Video().get_duration({"uri": job.name, **job.media})
        if self.into is None:
            return Seen(duration, None, None, False)
        key = job.key(self.identity)
        record = read_record(self.into, job.name)
        if record is not None and record["key"] != key:
            record = None
        return Seen(duration, key, record, is_done(self.into, record, key))


class Task(NamedTuple):
    """A file to be worked on; `tried` is how often it was before."""

    job: Job
    seen: Seen
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
        Of its outputs; empty where nothing is recorded.
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
    recorded : bool
        Each file gets a folder of its own to write to, until it is recorded.
    """

    work: Work
    into: Path
    recorded: bool

    def load(self) -> None:
        """Make the work ready."""
        self.work.load()

    def __call__(self, task: Task) -> Done:
        since = perf_counter()
        if not self.recorded:
            made = self.work.process(task.job, self.into)
            return Done(made, perf_counter() - since, self.into, {})
        stage = new_stage(self.into, task.job.name)
        try:
            made = self.work.process(task.job, stage)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        there = self.into if made.kept else stage
        digests = {name: output_digest(there / name) for name in made.outputs}
        return Done(made, perf_counter() - since, stage, digests)
