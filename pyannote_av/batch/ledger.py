"""What was done with which file: nothing is lost, and nothing done twice.

::

    INTO/<outputs>
    INTO/.pyannote_av/records/<name>.json   what became of a file; there is none before it is known
                      events.jsonl          a line for everything that happened
                      files.json            which file each name stands for
                      failures.json         why files failed, as far as they were not done since
                      unfinished/           what is being written
                      lock                  held while somebody works

A file is done at the moment its record appears under its name, which happens at once or not at all.
Its outputs are complete by then, in ``unfinished``, and are moved to their places next; whoever
finds them there after an interruption moves them. One process writes all of this: that which hands
out the work.

All of it may come from somebody else, with the folder. Records that are not as they are written
here are ignored, with a warning; links in place of files and folders are refused; only folders in
``unfinished`` are ever removed whole. Records, and the list of files, of older versions are in INTO
itself: they are read where there are no others.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyannote_av.batch.jobs import Made, Work, outputs_of
from pyannote_av.batch.outputs import ForeignFileError, output_digest, place_of, replaceable
from pyannote_av.core.atomic import HOUSEKEEPING, check_own_file, locked, own_folder, write_text
from pyannote_av.core.checksums import digest
from pyannote_av.core.reading import ReadError, inside, parse_json, read_json, read_text

logger = logging.getLogger(__name__)

_RECORDS, _UNFINISHED, _NAME = "records", "unfinished", ".name"
_EVENTS, _FILES, _FAILURES = "events.jsonl", "files.json", "failures.json"
# as `new_stage` names folders
_STAGE = re.compile(r"[0-9a-f]{32}")
# bytes: of names of records, of a name that is kept with a stage, of an event
_LONGEST_NAME, _LARGEST_NAME, _LARGEST_EVENT = 140, 2**16, 2**20
# bytes: of lists of files, of which a million take 200 MB
_LARGEST_LIST = 2**29
# of records, by status
_FIELDS: dict[str, dict[str, Any]] = {
    "done": {"key": str, "attempts": int, "outputs": dict, "problems": list, "stage": str},
    "failed": {"key": (str, type(None)), "attempts": int, "error": str},
}


def record_path(into: Path, name: str) -> Path:
    """Where the record of a file is."""
    quoted = _quoted(name)
    if len(quoted) > _LONGEST_NAME:
        # no name is quoted like that
        quoted = f"%-{digest([name.encode('utf-8', 'surrogateescape')])}"
    return into / HOUSEKEEPING / _RECORDS / f"{quoted}.json"


def events_path(into: Path) -> Path:
    """Where the events of a folder are."""
    return into / HOUSEKEEPING / _EVENTS


def failures_path(into: Path) -> Path:
    """Where it is said why files of a folder failed."""
    return into / HOUSEKEEPING / _FAILURES


def read_record(into: Path, name: str) -> dict[str, Any] | None:
    """What became of a file before; None where that is not known."""
    paths = [record_path(into, name)]
    if not (into / _RECORDS).is_symlink():
        paths.append(into / _RECORDS / f"{_quoted(name)}.json")
    for path in paths:
        try:
            record = read_json(path)
            _check_record(record, name, into, path)
            return record
        except ReadError as error:
            logger.warning("a record is ignored: %s", error)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                logger.warning("a record is ignored: %s", error)
    return None


def is_done(into: Path, record: Mapping[str, Any] | None, key: str) -> bool:
    """Whether a record says that a file was done as it is now, and outputs are as they were."""
    if record is None or record["status"] != "done" or record["key"] != key:
        return False
    try:
        outputs = record["outputs"].items()
        return all(output_digest(place_of(into, output)) == was for output, was in outputs)
    except OSError:
        return False


def new_stage(into: Path, name: str) -> Path:
    """A folder of its own for an attempt on a file, to write outputs to."""
    stage = into / HOUSEKEEPING / _UNFINISHED / uuid.uuid4().hex
    stage.mkdir(parents=True)
    # whose it is, should it be found after an interruption
    (stage / _NAME).write_text(name, encoding="utf-8", errors="surrogateescape")
    return stage


def longest_place(into: Path, output: str) -> Path:
    """A path that is as long as the longest that an output has on its way."""
    return into / HOUSEKEEPING / _UNFINISHED / uuid.uuid4().hex / output


class Ledger:
    """The records of a folder, for one who works on it.

    Parameters
    ----------
    into : Path
        Created if missing.
    work : Work
        Only outputs that it writes are ever removed.

    Raises
    ------
    RuntimeError
        On entering, when another process is at work on the same folder.
    ValueError
        On entering, when links, or files of others, are in the place of its own.
    """

    def __init__(self, into: Path, work: Work):
        self.into, self.work = into.absolute(), work
        self._home = self.into / HOUSEKEEPING
        self._unfinished = self._home / _UNFINISHED

    def __enter__(self) -> Ledger:
        with ExitStack() as stack:
            stack.enter_context(locked(self.into))
            for folder in (_RECORDS, _UNFINISHED):
                own_folder(self._home / folder)
            for file in (_EVENTS, _FILES, _FAILURES):
                check_own_file(self._home / file)
            events = events_path(self.into)
            _end_last_line(events)
            # not buffered: what cannot be written is not kept back until later
            self._events = stack.enter_context(open(events, "ab", buffering=0))
            self._recover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with self._stack:
            # after an error, something may be recorded that is not in its place yet
            if kind is None:
                self._discard()

    def started(self, name: str, attempt: int) -> None:
        """Note that a file is being worked on."""
        self._note("started", name, attempt=attempt)

    def done(
        self,
        name: str,
        key: str,
        attempt: int,
        made: Made,
        seconds: float,
        stage: Path,
        digests: Mapping[str, str],
        former: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        """Record that a file was done, and put its outputs in their places.

        Parameters
        ----------
        name, key : str
        attempt : int
            Which it was.
        made : Made
        seconds : float
            It took.
        stage : Path
            Where its outputs are; see :func:`new_stage`.
        digests : dict of path to str
            Of them, relative to `stage`.
        former : dict of path to str
            Outputs that were recorded before, with their digests.
        overwrite : bool, optional
            Replace files of others.

        Raises
        ------
        ForeignFileError
            When something of others is in the place of an output. Nothing is recorded then.
        """
        replaced = self._stale(name, former, digests)
        for output in () if made.kept else digests:
            found = replaceable(place_of(self.into, output), former.get(output), overwrite)
            if found is not None:
                replaced[output] = found
        record = {
            "uri": name,
            "status": "done",
            "key": key,
            "attempts": attempt,
            "seconds": round(seconds, 3),
            "time": _now(),
            "outputs": dict(digests),
            "replaced": replaced,
            "problems": list(made.problems),
            "stage": stage.name,
        }
        self._write(name, record)
        self._finish(record, stage)

    def failed(self, name: str, key: str | None, attempt: int, error: str, final: bool) -> None:
        """Record that an attempt failed.

        Outputs stay where the file could not be worked on at all, and where they are those of the
        file as it is now.

        Parameters
        ----------
        name : str
        key : str or None
            None where the file could not even be looked at, or its outputs not be written.
        attempt : int
        error : str
        final : bool
            It is not tried again now.
        """
        former = read_record(self.into, name) or {"status": "none"}
        stays = former["status"] == "done" if key is None else is_done(self.into, former, key)
        if not stays:
            record = {"uri": name, "status": "failed", "key": key, "attempts": attempt}
            self._write(name, {**record, "time": _now(), "error": error})
            # made of what the file was before
            self._remove(self._stale(name, former.get("outputs", {})), name)
        self._note("failed", name, attempt=attempt, error=error, final=final)

    def names(self) -> dict[str, str]:
        """Which file each name stands for: absolute paths, by name."""
        return {**self.older_names(), **_read_strings(self._home / _FILES)}

    def older_names(self) -> dict[str, str]:
        """The same, as an older version wrote it, which kept no records of these files."""
        # or the result of a file that is called so
        return _read_strings(self.into / _FILES, quiet=True)

    def remember(self, names: Mapping[str, str]) -> None:
        """Write down which file each name stands for."""
        _write_strings(self._home / _FILES, {**self.names(), **names})

    def note_failures(self, failed: Mapping[str, str], over: set[str]) -> None:
        """Write down why files failed, next to what is known of files of other runs.

        Parameters
        ----------
        failed : dict of str to str
        over : set of str
            What is known of these is out of date.
        """
        path = failures_path(self.into)
        known = {file: why for file, why in _read_strings(path).items() if file not in over}
        if known or failed:
            _write_strings(path, {**known, **failed})
        else:
            path.unlink(missing_ok=True)

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        write_text(record_path(self.into, name), json.dumps(record, indent=1) + "\n")

    def _stale(
        self, name: str, former: Mapping[str, str], digests: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Outputs that were recorded before, and that nothing takes the place of"""
        every = outputs_of(self.work, name, every=True) or ()
        kept = digests or {}
        return {one: was for one, was in former.items() if one in every and one not in kept}

    def _finish(self, record: Mapping[str, Any], stage: Path) -> None:
        """Move outputs that are recorded, and say so"""
        outputs, replaced = record["outputs"], record.get("replaced", {})
        for output, was in outputs.items():
            source = inside(stage, output)
            if not os.path.lexists(source):
                continue  # moved already
            if output_digest(source) != was:
                raise ReadError(f"{source} is not what was recorded")
            target = place_of(self.into, output)
            replaceable(target, replaced.get(output))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                _set_aside(target, stage)
            os.replace(source, target)
        self._remove(self._stale(record["uri"], replaced, outputs), stage=stage)
        self._note("done", record["uri"], attempt=record["attempts"], stage=record["stage"])
        shutil.rmtree(stage, ignore_errors=True)

    def _remove(
        self, outputs: Mapping[str, str], name: str = "", stage: Path | None = None
    ) -> None:
        """Remove outputs, if they are as they were recorded"""
        for output, was in outputs.items():
            path = place_of(self.into, output)
            try:
                if replaceable(path, was) is None:
                    continue
            except ForeignFileError as error:
                logger.warning("%s: left as it is", error)
                continue
            if path.is_dir():
                aside = stage or new_stage(self.into, name)
                _set_aside(path, aside)
                if stage is None:
                    shutil.rmtree(aside, ignore_errors=True)
            else:
                path.unlink()

    def _stages(self) -> Iterator[Path]:
        """Folders in which something is being written, or was before an interruption"""
        if self._unfinished.is_dir():
            for path in self._unfinished.iterdir():
                if _STAGE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    yield path

    def _discard(self) -> None:
        """Throw away what is being written"""
        for stage in self._stages():
            shutil.rmtree(stage, ignore_errors=True)

    def _recover(self) -> None:
        """Complete what was recorded but not moved; throw away what was not recorded"""
        recorded = {}
        for stage in self._stages():
            record = self._record_of(stage)
            if record is not None:
                recorded[stage.name] = record
        if recorded:
            for event in _events(self.into):
                if isinstance(noted := event.get("stage"), str):
                    recorded.pop(noted, None)
        for stage_name, record in recorded.items():
            try:
                self._finish(record, self._unfinished / stage_name)
            except (ReadError, ForeignFileError, FileNotFoundError) as error:
                logger.warning("%r is done again: %s", record["uri"], error)
        self._discard()

    def _record_of(self, stage: Path) -> dict[str, Any] | None:
        """Record of what was written to a stage, if it was recorded"""
        try:
            name = read_text(stage / _NAME, _LARGEST_NAME)
        except (OSError, ReadError):
            return None
        record = read_record(self.into, name)
        if record is None or record.get("stage") != stage.name:
            return None
        every = outputs_of(self.work, name, every=True)
        # a record that somebody else wrote may name anything: only places of outputs are written to
        foreign = {*record.get("replaced", {})}.difference(every or ())
        if every is not None:
            foreign |= {*record["outputs"]}.difference(every)
        return None if foreign else record

    def _note(self, event: str, name: str, **more: Any) -> None:
        line = json.dumps({"time": _now(), "event": event, "uri": name, **more}) + "\n"
        if self._events.write(line.encode()) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(events_path(self.into)))


def read_events(into: str | Path) -> list[dict[str, Any]]:
    """Everything that happened in a folder; lines that are damaged are left out."""
    return list(_events(Path(into)))


def _events(into: Path) -> Iterator[dict[str, Any]]:
    path = check_own_file(events_path(into))
    if not path.exists():
        return
    with open(path, "rb") as file:
        while line := file.readline(_LARGEST_EVENT):
            try:
                event = parse_json(line.decode(), str(path))
            except ValueError:
                continue  # cut off
            if isinstance(event, dict):
                yield event


def _check_record(record: Any, name: str, into: Path, path: Path) -> None:
    """Raise ReadError where a record is not as it is written here"""
    if not isinstance(record, dict) or record.get("uri") != name:
        raise ReadError(f"{path} is not the record of {name!r}")
    status = record.get("status")
    if status not in list(_FIELDS):
        raise ReadError(f"{path}: {status!r} is no status")
    for field, kind in _FIELDS[status].items():
        if not isinstance(record.get(field), kind):
            raise ReadError(f"{path}: {field} is missing, or not what it should be")
    if record["attempts"] < 0:
        raise ReadError(f"{path}: attempts is negative")
    if status == "done":
        if not all(isinstance(problem, str) for problem in record["problems"]):
            raise ReadError(f"{path}: problems are no sentences")
        if not _STAGE.fullmatch(record["stage"]):
            raise ReadError(f"{path}: stage is no name of a folder in {_UNFINISHED}")
    for field in ("outputs", "replaced"):
        outputs = record.get(field, {})
        if not isinstance(outputs, dict) or not all(isinstance(v, str) for v in outputs.values()):
            raise ReadError(f"{path}: {field} is not what it should be")
        for output in outputs:
            try:
                place_of(into, output)
            except (OSError, ValueError) as error:
                raise ReadError(f"{path}: {field}: {error}") from error


def _quoted(name: str) -> str:
    return quote(name, safe=" ", errors="surrogateescape")


def _read_strings(path: Path, quiet: bool = False) -> dict[str, str]:
    """A mapping of strings to strings; empty where there is none"""
    try:
        content = read_json(path, _LARGEST_LIST)
        if isinstance(content, dict) and all(isinstance(v, str) for v in content.values()):
            return content
        raise ReadError(f"{path}: not strings by name")
    except (OSError, ReadError) as error:
        if not quiet and not isinstance(error, FileNotFoundError):
            logger.warning("a file is ignored: %s", error)
    return {}


def _write_strings(path: Path, content: Mapping[str, str]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _set_aside(folder: Path, stage: Path) -> None:
    """Move a folder to where it is thrown away"""
    os.replace(folder, stage / f".replaced-{uuid.uuid4().hex}")


def _end_last_line(path: Path) -> None:
    """A line that was cut off must not spoil the next one"""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
