"""Working on a collection: looked at first, then done, each file once."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyannote_av.batch.engines import Engine
from pyannote_av.batch.jobs import Job, Made, Work
from pyannote_av.batch.ledger import Ledger
from pyannote_av.batch.outputs import ForeignFileError
from pyannote_av.batch.progress import Progress
from pyannote_av.batch.steps import Doing, Done, Looking, ProbeResult, Task
from pyannote_av.core.workers import Attempt, Failure, run

#: seconds for looking at a file; to process one: so many times its duration, but no less than ...
LOOKING, FACTOR, SHORTEST = 60.0, 20.0, 600.0

# of the disk, not of a file: going on would fail all the others, too
_DISK = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
# what numpy says instead
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


class StartError(RuntimeError):
    """Processes cannot be made ready for the work; the message says why."""


@dataclass(frozen=True)
class Limits:
    """How long work on a file may take, and how often it is tried.

    Attributes
    ----------
    timeout : float, optional
        Seconds for each file; 20 times its duration, but 10 minutes at least, unless given.
    retries : int
        How often a file that failed is tried again, over all runs.
    retry_failed : bool
        Try those again, too, that have been tried as often as that.
    """

    timeout: float | None = None
    retries: int = 1
    retry_failed: bool = False

    def of(self, duration: float) -> float:
        """Seconds for a file of some duration."""
        return self.timeout or max(SHORTEST, FACTOR * duration)


@dataclass
class CollectionReport:
    """What became of the files of a collection, by name.

    Attributes
    ----------
    done, kept : list of str
        Done now, and done before.
    failed : dict of str to str
        Why.
    problems : dict of str to list of str
        What is wrong with files that were done all the same.
    """

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)


def process(
    work: Work,
    jobs: Sequence[Job],
    into: Path | Ledger,
    engine: Engine | None = None,
    limits: Limits | None = None,
    again: bool = False,
    progress: bool = False,
    tell: Callable[[Job, Made | Failure, bool], Any] = lambda job, result, final: None,
) -> CollectionReport:
    """Do some work on every file of a collection.

    Started again, it goes on where it was: files are done again whose media, options or work have
    changed, or whose outputs are not there any more. A file fails when something that was not
    written here is in the place of one of its outputs, an output changed since included.

    Parameters
    ----------
    work : Work
    jobs : sequence of Job
        Of different names.
    into : Path or Ledger
        Folder of the outputs, and of the records of them, or its ledger, entered. Seen by all
        machines that take part.
    engine : Engine, optional
        One process of this machine unless given.
    limits : Limits, optional
    again : bool, optional
        Do everything, whatever the records say, and replace plain files of others.
    progress : bool, optional
        Show bars.
    tell : callable, optional
        Called with job, :class:`Made` or :class:`Failure`, and whether that is final, for every
        attempt that ended, and for every file that is left as it is.

    Returns
    -------
    report : CollectionReport

    Raises
    ------
    StartError
        When processes cannot be made ready.
    OSError
        When the disk is full or read-only. What is done stays done.
    RuntimeError
        When another process works on the same folder.
    ValueError
        When links, or files of others, are where records belong.
    """
    # workers may be somewhere else
    jobs = [
        replace(job, media={kind: os.path.abspath(path) for kind, path in job.media.items()})
        for job in jobs
    ]
    entered: AbstractContextManager[Ledger] = (
        nullcontext(into) if isinstance(into, Ledger) else Ledger(into, work)
    )
    engine = engine or Engine()
    with entered as ledger, engine.connected(), Progress(progress) as bars:
        one = _Run(work, engine, limits or Limits(), again, ledger, bars, tell)
        try:
            one.do(list(one.look(jobs)))
        except OSError as error:
            if error.errno in _DISK:
                raise _no_room(ledger.into, str(error)) from error
            raise
    return one.report


def _no_room(into: Path, why: str) -> OSError:
    return OSError(
        f"cannot write to {into} ({why}): make room, and run the same again; what is done stays "
        "done"
    )


@dataclass
class _Run:
    """One call of :func:`process`"""

    work: Work
    engine: Engine
    limits: Limits
    again: bool
    ledger: Ledger
    bars: Progress
    tell: Callable[[Job, Made | Failure, bool], Any]
    report: CollectionReport = field(default_factory=CollectionReport)

    def look(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """What there is to do"""
        looking = Looking(self.work, self.ledger.into, self.again)
        limit = min(LOOKING, self.limits.timeout or LOOKING)
        self.bars.begin("looking at files", len(jobs))
        with self.engine.without_gpus().open(looking) as pool:
            for attempt in run(pool, jobs, self.limits.retries, limit):
                job, seen = attempt.job, attempt.value
                if isinstance(seen, Failure):
                    self._failed(job, None, seen, attempt)
                    if attempt.final:
                        self.bars.advance(1, failed=True)
                    continue
                tried = 0 if self.again else self._tried(job, seen)
                blocked = tried is not None and seen.blocked
                if blocked:
                    failure = Failure(ForeignFileError.__name__, blocked, expected=True)
                    self._failed(job, None, failure, attempt)
                elif tried is not None:
                    yield Task(job, seen, tried)
                self.bars.advance(1, failed=bool(blocked))

    def _tried(self, job: Job, seen: ProbeResult) -> int | None:
        """How often a file was tried before; None where there is nothing to do"""
        record = seen.record
        if record is None:
            return 0
        if seen.done:
            self.report.kept.append(job.name)
            if record["problems"]:
                self.report.problems[job.name] = record["problems"]
            self.tell(job, Made(list(record["outputs"]), "done before", kept=True), True)
            return None
        if record["status"] != "failed" or self.limits.retry_failed:
            return 0
        if record["attempts"] <= self.limits.retries:
            return record["attempts"]
        why = (
            f"{record['error']} (tried {record['attempts']} times before; --retry-failed tries it "
            "again)"
        )
        self.report.failed[job.name] = why
        self.tell(job, Failure("FailedBefore", why, expected=True), True)
        return None

    def do(self, tasks: Sequence[Task]) -> None:
        """Do it"""
        if not tasks:
            return
        self.bars.begin(self.work.verb, len(tasks), sum(task.seen.duration for task in tasks))
        with self.engine.open(Doing(self.work, self.ledger.into)) as pool:
            attempts = run(
                pool,
                tasks,
                self.limits.retries,
                timeout=lambda task: self.limits.of(task.seen.duration),
                tried=lambda task: task.tried,
                started=self._started,
            )
            for attempt in attempts:
                (job, seen, _), done = attempt.job, attempt.value
                if isinstance(done, Failure):
                    self._failed(job, seen.key, done, attempt)
                else:
                    self._done(job, seen, done, attempt)
                if attempt.final:
                    self.bars.advance(seen.duration, failed=job.name in self.report.failed)

    def _started(self, task: Task, number: int) -> None:
        self.ledger.started(task.job.name, number)

    def _failed(self, job: Job, key: str | None, failure: Failure, attempt: Attempt) -> None:
        if failure.starting:
            raise StartError(failure.reason)
        if failure.errno in _DISK or _SHORT_WRITE.fullmatch(failure.message):
            raise _no_room(self.ledger.into, failure.message)
        self.ledger.failed(job.name, key, attempt.number, str(failure), attempt.final)
        if attempt.final:
            self.report.failed[job.name] = str(failure)
        self.tell(job, failure, attempt.final)

    def _done(self, job: Job, seen: ProbeResult, done: Done, attempt: Attempt) -> None:
        try:
            self.ledger.done(
                job.name, seen.key, attempt.number, *done, seen.former, overwrite=self.again
            )
        except ForeignFileError as error:
            # it came after the file was looked at
            self._failed(job, None, Failure.of(error), attempt)
            return
        (self.report.kept if done.made.kept else self.report.done).append(job.name)
        if done.made.problems:
            self.report.problems[job.name] = list(done.made.problems)
        self.tell(job, done.made, True)
