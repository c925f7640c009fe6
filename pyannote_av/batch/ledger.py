"""Records of finished and failed files, so that no result is lost and no work repeated.

::

    INTO/<outputs>
    INTO/.pyannote_av/records/<name>.json   result of a file; written when it is finished or failed
                      events.jsonl          one line per event
                      files.json            input file of each output name
                      failures.json         reasons of failures that have not been resolved since
                      unfinished/           outputs that are being written
                      lock                  held while a process works on the folder

Outputs are first completed in ``unfinished``. Then the record is written atomically, and the file
is done. Finally, the outputs are moved to their final paths. If this is interrupted, the next run
moves them. Only the process that distributes the work writes to this folder.

The folder may come from an untrusted source. Records in another format are ignored, with a warning.
Links in place of files and folders are refused. Only folders in ``unfinished`` are removed
recursively. Older versions stored records, and the list of files, in INTO itself; these are used if
there are no others.
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
# names of the folders that `new_stage` creates
_STAGE = re.compile(r"[0-9a-f]{32}")
# limits in bytes: name of a record, name stored with a stage, event
_LONGEST_NAME, _LARGEST_NAME, _LARGEST_EVENT = 140, 2**16, 2**20
# limit in bytes for lists of files; a million files take 200 MB
_LARGEST_LIST = 2**29
# required fields of records, by status
_FIELDS: dict[str, dict[str, Any]] = {
    "done": {"key": str, "attempts": int, "outputs": dict, "problems": list, "stage": str},
    "failed": {"key": (str, type(None)), "attempts": int, "error": str},
}


def record_path(into: Path, name: str) -> Path:
    """Path of the record of a file."""
    quoted = _quoted(name)
    if len(quoted) > _LONGEST_NAME:
        # cannot collide with a quoted name
        quoted = f"%-{digest([name.encode('utf-8', 'surrogateescape')])}"
    return into / HOUSEKEEPING / _RECORDS / f"{quoted}.json"


def events_path(into: Path) -> Path:
    """Path of the events of a folder."""
    return into / HOUSEKEEPING / _EVENTS


def failures_path(into: Path) -> Path:
    """Path of the list of failures of a folder."""
    return into / HOUSEKEEPING / _FAILURES


def unfinished_path(into: Path) -> Path:
    """Path of the folder in which outputs are completed."""
    return into / HOUSEKEEPING / _UNFINISHED


def read_record(into: Path, name: str) -> dict[str, Any] | None:
    """Record of a file; None if there is no valid one."""
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
    """Whether a file was done with this key, and its outputs are unchanged."""
    if record is None or record["status"] != "done" or record["key"] != key:
        return False
    try:
        outputs = record["outputs"].items()
        return all(output_digest(place_of(into, output)) == was for output, was in outputs)
    except OSError:
        return False


def new_stage(into: Path, name: str) -> Path:
    """Create a folder for the outputs of one attempt on a file."""
    stage = into / HOUSEKEEPING / _UNFINISHED / uuid.uuid4().hex
    stage.mkdir(parents=True)
    # identifies the file if the folder is found after an interruption
    (stage / _NAME).write_text(name, encoding="utf-8", errors="surrogateescape")
    return stage


def longest_place(into: Path, output: str) -> Path:
    """Longest path of an output while it is written, to check the limits of the file system."""
    return into / HOUSEKEEPING / _UNFINISHED / uuid.uuid4().hex / output


def input_files(into: Path) -> dict[str, str]:
    """Absolute path of the input file of each output name of a folder."""
    older = _read_strings(into / _FILES, quiet=True)
    return {**older, **_read_strings(into / HOUSEKEEPING / _FILES)}


class Ledger:
    """The records of a folder, locked for one process.

    Parameters
    ----------
    into : Path
        Created if missing.
    work : Work
        Only outputs of this work are ever removed.

    Raises
    ------
    RuntimeError
        On entering, if another process uses the same folder.
    ValueError
        On entering, if links or files of other origin are in the place of its own files.
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
            # unbuffered, so that a full disk raises an error immediately
            self._events = stack.enter_context(open(events, "ab", buffering=0))
            self._recover()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with self._stack:
            # after an error, keep outputs that are recorded but not yet moved
            if kind is None:
                self._discard()

    def started(self, name: str, attempt: int) -> None:
        """Note the start of an attempt."""
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
        """Record that a file is done, and move its outputs to their final paths.

        Parameters
        ----------
        name, key : str
        attempt : int
            Number of the attempt.
        made : Made
        seconds : float
            Duration of the work.
        stage : Path
            Folder of the outputs; see :func:`new_stage`.
        digests : dict of path to str
            Digests of the outputs, by path relative to `stage`.
        former : dict of path to str
            Previously recorded outputs, with their digests.
        overwrite : bool, optional
            Replace files of other origin.

        Raises
        ------
        ForeignFileError
            If a file of other origin has the path of an output. Nothing is recorded in that case.
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

        Existing outputs are kept if they belong to the current version of the file, or if the file
        could not be processed at all.

        Parameters
        ----------
        name : str
        key : str or None
            None if the file could not be read, or its outputs could not be written.
        attempt : int
        error : str
        final : bool
            Whether this was the last attempt of this run.
        """
        former = read_record(self.into, name) or {"status": "none"}
        stays = former["status"] == "done" if key is None else is_done(self.into, former, key)
        if not stays:
            record = {"uri": name, "status": "failed", "key": key, "attempts": attempt}
            self._write(name, {**record, "time": _now(), "error": error})
            # outputs of an earlier version of the file
            self._remove(self._stale(name, former.get("outputs", {})), name)
        self._note("failed", name, attempt=attempt, error=error, final=final)

    def names(self) -> dict[str, str]:
        """Absolute path of the input file of each output name."""
        return input_files(self.into)

    def older_names(self) -> dict[str, str]:
        """Names written by an older version, which kept no records of these files."""
        # this path may also be the result of a file named "files"
        return _read_strings(self.into / _FILES, quiet=True)

    def remember(self, names: Mapping[str, str]) -> None:
        """Save the input file of each output name."""
        _write_strings(self._home / _FILES, {**self.names(), **names})

    def note_failures(self, failed: Mapping[str, str], over: set[str]) -> None:
        """Save the reasons of failures, together with known failures of other runs.

        Parameters
        ----------
        failed : dict of str to str
        over : set of str
            Files whose earlier failures are obsolete.
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
        """Recorded outputs of this work that are not replaced by new ones"""
        every = outputs_of(self.work, name, every=True) or ()
        kept = digests or {}
        return {one: was for one, was in former.items() if one in every and one not in kept}

    def _finish(self, record: Mapping[str, Any], stage: Path) -> None:
        """Move recorded outputs to their final paths, and note the event"""
        outputs, replaced = record["outputs"], record.get("replaced", {})
        for output, was in outputs.items():
            source = inside(stage, output)
            if not os.path.lexists(source):
                continue  # already moved
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
        """Remove outputs, unless they were changed since they were recorded"""
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
        """Folders of unfinished attempts, including those of interrupted runs"""
        if self._unfinished.is_dir():
            for path in self._unfinished.iterdir():
                if _STAGE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    yield path

    def _discard(self) -> None:
        """Remove all unfinished outputs"""
        for stage in self._stages():
            shutil.rmtree(stage, ignore_errors=True)

    def _recover(self) -> None:
        """Move outputs that were recorded but not moved, and remove those that were not recorded"""
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
        """Record of the outputs in a stage; None if they were not recorded"""
        try:
            name = read_text(stage / _NAME, _LARGEST_NAME)
        except (OSError, ReadError):
            return None
        record = read_record(self.into, name)
        if record is None or record.get("stage") != stage.name:
            return None
        every = outputs_of(self.work, name, every=True)
        # records are untrusted: accept only paths that are outputs of this work
        foreign = {*record.get("replaced", {})}.difference(every or ())
        if every is not None:
            foreign |= {*record["outputs"]}.difference(every)
        return None if foreign else record

    def _note(self, event: str, name: str, **more: Any) -> None:
        line = json.dumps({"time": _now(), "event": event, "uri": name, **more}) + "\n"
        if self._events.write(line.encode()) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(events_path(self.into)))


def read_events(into: str | Path) -> list[dict[str, Any]]:
    """All events of a folder, without damaged lines."""
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
                continue  # truncated line
            if isinstance(event, dict):
                yield event


def _check_record(record: Any, name: str, into: Path, path: Path) -> None:
    """Raise ReadError if a record is not in the format of this module"""
    if not isinstance(record, dict) or record.get("uri") != name:
        raise ReadError(f"{path} is not the record of {name!r}")
    status = record.get("status")
    if status not in list(_FIELDS):
        raise ReadError(f"{path}: {status!r} is not a status")
    for field, kind in _FIELDS[status].items():
        if not isinstance(record.get(field), kind):
            raise ReadError(f"{path}: {field} is missing or invalid")
    if record["attempts"] < 0:
        raise ReadError(f"{path}: attempts is negative")
    if status == "done":
        if not all(isinstance(problem, str) for problem in record["problems"]):
            raise ReadError(f"{path}: problems must be sentences")
        if not _STAGE.fullmatch(record["stage"]):
            raise ReadError(f"{path}: stage is not the name of a folder in {_UNFINISHED}")
    for field in ("outputs", "replaced"):
        outputs = record.get(field, {})
        if not isinstance(outputs, dict) or not all(isinstance(v, str) for v in outputs.values()):
            raise ReadError(f"{path}: {field} is invalid")
        for output in outputs:
            try:
                place_of(into, output)
            except (OSError, ValueError) as error:
                raise ReadError(f"{path}: {field}: {error}") from error


def _quoted(name: str) -> str:
    return quote(name, safe=" ", errors="surrogateescape")


def _read_strings(path: Path, quiet: bool = False) -> dict[str, str]:
    """Read a mapping of strings to strings; empty if there is none"""
    try:
        content = read_json(path, _LARGEST_LIST)
        if isinstance(content, dict) and all(isinstance(v, str) for v in content.values()):
            return content
        raise ReadError(f"{path}: not a mapping of names to strings")
    except (OSError, ReadError) as error:
        if not quiet and not isinstance(error, FileNotFoundError):
            logger.warning("a file is ignored: %s", error)
    return {}


def _write_strings(path: Path, content: Mapping[str, str]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _set_aside(folder: Path, stage: Path) -> None:
    """Move a folder into a stage, which is removed later"""
    os.replace(folder, stage / f".replaced-{uuid.uuid4().hex}")


def _end_last_line(path: Path) -> None:
    """Terminate a truncated last line, so that the next one stays valid"""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
