"""What was done with which file: nothing is lost, and nothing done twice.

::

    INTO/records/<name>.json      what became of a file; there is none before that is known
         events.jsonl             a line for everything that happened
         .unfinished/             what is being written
         .lock                    held while somebody works

A file is done at the moment its record appears under its name, which happens at once or not at all.
Its outputs are complete by then, in ``.unfinished``, and are moved to their places next; whoever
finds them there after an interruption moves them. One process writes all of this: that which hands
out the work.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyannote_av.collection.jobs import Made, output_digest
from pyannote_av.core.atomic import write_text

EVENTS = "events.jsonl"
_UNFINISHED, _NAME = ".unfinished", ".name"


def record_path(into: Path, name: str) -> Path:
    """Where the record of a file is."""
    return into / "records" / f"{quote(name, safe=' ')}.json"


def read_record(into: Path, name: str) -> dict[str, Any] | None:
    """What became of a file before; None where that is not known."""
    try:
        record = json.loads(record_path(into, name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and "status" in record else None


def is_done(into: Path, record: Mapping[str, Any] | None, key: str) -> bool:
    """Whether a record says that a file was done as it is now, and outputs are as they were."""
    if record is None or record["status"] != "done" or record["key"] != key:
        return False
    try:
        return all(output_digest(into / name) == was for name, was in record["outputs"].items())
    except FileNotFoundError:
        return False


def new_stage(into: Path, name: str) -> Path:
    """A folder of its own for an attempt on a file, to write outputs to."""
    stage = into / _UNFINISHED / uuid.uuid4().hex
    stage.mkdir(parents=True)
    # whose it is, should it be found after an interruption
    (stage / _NAME).write_text(name, encoding="utf-8")
    return stage


class Ledger:
    """The records of a folder, for one who works on it.

    Parameters
    ----------
    into : Path
        Created if missing.

    Raises
    ------
    RuntimeError
        On entering, when another process is at work on the same folder.
    """

    def __init__(self, into: Path):
        self.into = into
        self._unfinished = into / _UNFINISHED

    def __enter__(self) -> Ledger:
        from filelock import FileLock, Timeout

        self.into.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.into / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise RuntimeError(
                f"another process is writing to {self.into}: wait for it, or give another folder"
            ) from None
        try:
            _end_last_line(self.into / EVENTS)
            self._events = open(self.into / EVENTS, "a", encoding="utf-8")
            self._recover()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # after an error, something may be recorded that is not in its place yet
        if kind is None:
            shutil.rmtree(self._unfinished, ignore_errors=True)
        try:
            self._events.close()
        finally:
            self._lock.release()

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
        digests: dict[str, str],
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
        """
        former = (read_record(self.into, name) or {}).get("outputs", {})
        record = {
            "uri": name,
            "status": "done",
            "key": key,
            "attempts": attempt,
            "seconds": round(seconds, 3),
            "time": _now(),
            "outputs": digests,
            "problems": list(made.problems),
            "stage": stage.name,
        }
        self._write(name, record)
        self._finish(record, stage)
        for path in former.keys() - digests.keys():
            _remove(self.into / path)

    def failed(self, name: str, key: str | None, attempt: int, error: str, final: bool) -> None:
        """Record that an attempt failed.

        Parameters
        ----------
        name : str
        key : str or None
            None where the file could not even be looked at: what was made of it once stays.
        attempt : int
        error : str
        final : bool
            It is not tried again now.
        """
        former = read_record(self.into, name) or {}
        if key is not None or former.get("status") != "done":
            record = {"uri": name, "status": "failed", "key": key, "attempts": attempt}
            self._write(name, {**record, "time": _now(), "error": error})
            # made of what the file was before
            for path in former.get("outputs", ()):
                _remove(self.into / path)
        self._note("failed", name, attempt=attempt, error=error, final=final)

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        write_text(record_path(self.into, name), json.dumps(record, indent=1) + "\n")

    def _finish(self, record: Mapping[str, Any], stage: Path) -> None:
        """Move outputs that are recorded, and say so"""
        for path in record["outputs"]:
            if (source := stage / path).exists():
                target = self.into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(source, target)
        self._note("done", record["uri"], attempt=record["attempts"], stage=record["stage"])
        shutil.rmtree(stage, ignore_errors=True)

    def _recover(self) -> None:
        """Complete what was recorded but not moved; throw away what was not recorded"""
        stages = [path for path in self._unfinished.glob("*") if path.is_dir()]
        noted: set[str] | None = None
        for stage in stages:
            try:
                name = (stage / _NAME).read_text(encoding="utf-8")
            except FileNotFoundError:
                name = ""
            record = read_record(self.into, name) if name else None
            if record is not None and record.get("stage") == stage.name:
                if noted is None:
                    noted = {one.get("stage", "") for one in read_events(self.into)}
                if stage.name not in noted:
                    self._finish(record, stage)
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _note(self, event: str, name: str, **more: Any) -> None:
        line = json.dumps({"time": _now(), "event": event, "uri": name, **more})
        self._events.write(line + "\n")
        self._events.flush()


def read_events(into: str | Path) -> list[dict[str, Any]]:
    """Everything that happened in a folder; a line that was cut off is left out."""
    events = []
    try:
        with open(Path(into) / EVENTS, encoding="utf-8") as file:
            for line in file:
                try:
                    events.append(json.loads(line))
                except ValueError:
                    continue
    except FileNotFoundError:
        pass
    return events


def _end_last_line(path: Path) -> None:
    """A line that was cut off must not spoil the next one"""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
