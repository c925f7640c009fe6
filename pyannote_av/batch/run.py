"""Process a batch: probe all files, then do the work on those that need it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pyannote_av.batch.engines import Engine
from pyannote_av.batch.jobs import Job, Made, Work, outputs_of
from pyannote_av.batch.ledger import Ledger, unfinished_path
from pyannote_av.batch.outputs import ForeignFileError, ignores_case
from pyannote_av.batch.progress import Progress
from pyannote_av.batch.steps import Done, ProbeResult, Probing, Processing, Task
from pyannote_av.core.text import name_on_any_disk
from pyannote_av.core.workers import Attempt, Failure, run

#: time limits: seconds to probe a file; factor of its duration, and minimum, to process it
PROBING, FACTOR, SHORTEST = 60.0, 20.0, 600.0

# errors of the disk, after which all other files would fail too
_DISK = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
# numpy's message for a full disk
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


class StartError(RuntimeError):
    """Worker processes cannot be started; the message gives the reason."""


@dataclass(frozen=True)
class Limits:
    """Time limits and number of attempts per file.

    Attributes
    ----------
    timeout : float, optional
        Seconds for each file. Defaults to 20 times its duration, but at least 10 minutes.
    retries : int
        Number of further attempts after a failure, over all runs.
    retry_failed : bool
        Also retry files that have used up their attempts.
    """

    timeout: float | None = None
    retries: int = 1
    retry_failed: bool = False

    def of(self, duration: float) -> float:
        """Time limit in seconds for a file of some duration."""
        return self.timeout or max(SHORTEST, FACTOR * duration)


@dataclass
class BatchReport:
    """Results of a batch, by file name.

    Attributes
    ----------
    done, kept : list of str
        Files done now, and files done before.
    failed : dict of str to str
        Reasons of failures.
    problems : dict of str to list of str
        Problems of files that were processed anyway.
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
) -> BatchReport:
    """Process all files of a batch.

    Call it again to resume an interrupted run. A file is processed again if its media, its
    options or the work have changed, or if outputs are missing. A file fails if one of its outputs
    would replace a file of other origin, or an output that was changed since.

    Parameters
    ----------
    work : Work
    jobs : sequence of Job
        Names must be unique.
    into : Path or Ledger
        Folder of outputs and records, or its ledger, already entered. All machines must have access
        to it.
    engine : Engine, optional
        Defaults to one process on this machine.
    limits : Limits, optional
    again : bool, optional
        Process all files, whatever the records say, and replace plain files of other origin.
    progress : bool, optional
        Whether to show progress bars.
    tell : callable, optional
        Called after every attempt, and for every skipped file. Its arguments are the job, the
        :class:`Made` or :class:`Failure`, and whether this result is final.

    Returns
    -------
    report : BatchReport

    Raises
    ------
    StartError
        If worker processes cannot be started.
    OSError
        If the disk is full or read-only. Finished files remain valid.
    RuntimeError
        If another process uses the same folder.
    ValueError
        If links or files of other origin are in the place of records.
    """
    # make paths absolute, because workers may have another working directory
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
            one.do(list(one.probe(jobs)))
        except OSError as error:
            if error.errno in _DISK:
                raise _no_room(ledger.into, str(error)) from error
            raise
    return one.report


class Planned(NamedTuple):
    """What a run would do with a file.

    Attributes
    ----------
    job : Job
    verdict : {"to do", "done before", "refused"}
    why : str
        Reason, if the file is refused.
    outputs : list of str
        Files that would be written, relative to the folder of results.
    """

    job: Job
    verdict: str
    why: str
    outputs: list[str]


def plan(
    work: Work, jobs: Sequence[Job], into: Path, limits: Limits | None = None, again: bool = False
) -> Iterator[Planned]:
    """Say what :func:`process` would do with each file; write and decode nothing.

    Parameters
    ----------
    work, jobs, into, limits, again
        See :func:`process`. `into` need not exist.
    """
    limits, probing = limits or Limits(), Probing(work, into, again)
    for job in jobs:
        outputs = outputs_of(work, job.name) or []
        try:
            probed = probing(job)
        except (OSError, ValueError) as error:
            yield Planned(job, "refused", str(error), outputs)
            continue
        record = {} if again else probed.record or {}
        if probed.done:
            yield Planned(job, "done before", "", outputs)
        elif probed.blocked:
            yield Planned(job, "refused", probed.blocked, outputs)
        elif (
            record.get("status") == "failed"
            and record["attempts"] > limits.retries
            and not limits.retry_failed
        ):
            why = f"failed before: {record['error']} (--retry-failed tries it again)"
            yield Planned(job, "refused", why, outputs)
        else:
            yield Planned(job, "to do", "", outputs)


def _no_room(into: Path, why: str) -> OSError:
    return OSError(
        f"cannot write to {into} ({why}): make room, and run the same command again; "
        "finished files are kept"
    )


@dataclass
class _Run:
    """State of one call of :func:`process`."""

    work: Work
    engine: Engine
    limits: Limits
    again: bool
    ledger: Ledger
    bars: Progress
    tell: Callable[[Job, Made | Failure, bool], Any]
    report: BatchReport = field(default_factory=BatchReport)

    def probe(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """Probe all files, and yield those to process"""
        jobs = list(self._apart(jobs))
        probing = Probing(self.work, self.ledger.into, self.again)
        limit = min(PROBING, self.limits.timeout or PROBING)
        self.bars.begin("probing files", len(jobs))
        with self.engine.without_gpus().open(probing) as pool:
            for attempt in run(pool, jobs, self.limits.retries, limit):
                job, probed = attempt.job, attempt.value
                if isinstance(probed, Failure):
                    self._failed(job, None, probed, attempt)
                    if attempt.final:
                        self.bars.advance(1, failed=True)
                    continue
                tried = 0 if self.again else self._tried(job, probed)
                blocked = tried is not None and probed.blocked
                if blocked:
                    failure = Failure(ForeignFileError.__name__, blocked, expected=True)
                    self._failed(job, None, failure, attempt)
                elif tried is not None:
                    yield Task(job, probed, tried)
                self.bars.advance(1, failed=bool(blocked))

    def _apart(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Yield the jobs, without those whose outputs would replace the outputs of another job"""
        if not ignores_case(self.ledger.into):
            yield from jobs
            return
        first: dict[str, str] = {}
        for job in jobs:
            other = first.setdefault(name_on_any_disk(job.name), job.name)
            if other == job.name:
                yield job
                continue
            why = (
                f"its outputs would replace those of {other!r}: the disk of {self.ledger.into} "
                "treats both names as the same; rename one of them"
            )
            self.report.failed[job.name] = why
            self.tell(job, Failure(ForeignFileError.__name__, why, expected=True), True)

    def _tried(self, job: Job, probed: ProbeResult) -> int | None:
        """Number of previous attempts on a file; None if there is nothing to do"""
        record = probed.record
        if record is None:
            return 0
        if probed.done:
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
        """Process files"""
        if not tasks:
            return
        self.bars.begin(self.work.verb, len(tasks), sum(task.probed.duration for task in tasks))
        seconds = {task.job.name: task.probed.duration for task in tasks}
        self.bars.watch(unfinished_path(self.ledger.into), seconds)
        work, imports = Processing(self.work, self.ledger.into), getattr(self.work, "imports", ())
        with self.engine.open(work, imports) as pool:
            attempts = run(
                pool,
                tasks,
                self.limits.retries,
                timeout=lambda task: self.limits.of(task.probed.duration),
                tried=lambda task: task.tried,
                started=self._started,
            )
            for attempt in attempts:
                (job, probed, _), done = attempt.job, attempt.value
                if isinstance(done, Failure):
                    self._failed(job, probed.key, done, attempt)
                else:
                    self._done(job, probed, done, attempt)
                if attempt.final:
                    self.bars.advance(probed.duration, failed=job.name in self.report.failed)

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

    def _done(self, job: Job, probed: ProbeResult, done: Done, attempt: Attempt) -> None:
        try:
            self.ledger.done(
                job.name, probed.key, attempt.number, *done, probed.former, overwrite=self.again
            )
        except ForeignFileError as error:
            # a file appeared at the path of an output after the job was probed
            self._failed(job, None, Failure.of(error), attempt)
            return
        (self.report.kept if done.made.kept else self.report.done).append(job.name)
        if done.made.problems:
            self.report.problems[job.name] = list(done.made.problems)
        self.tell(job, done.made, True)
