"""The folder of a study: who works in it, what it is about, and its journal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pyannote_av.core.atomic import check_own_file, write_text
from pyannote_av.core.reading import ReadError, read_json, refusing

#: name of the study, and of its journal
STUDY, JOURNAL = "tuning", "study.journal"

_DESCRIPTION = "study.json"
# seconds that processes of a parent that was killed are waited for
_PATIENCE = 60.0
_BLOCK = 2**16


@contextmanager
def alone(into: Path) -> Iterator[None]:
    """Keep others from a folder, once what was left of earlier runs has come to its end.

    Raises
    ------
    RuntimeError
        When another process is at work in it.
    ValueError
        When a link, or something else that was not written here, is at the place of what this
        package writes there.
    """
    into.mkdir(parents=True, exist_ok=True)
    left = sorted(into.glob(".process-*.lock"))
    # whoever brought the folder along chose what is in it: links would be written through
    for path in (into / ".lock", into / ".claims.lock", *left):
        check_own_file(path)
    if (into / "cache").is_symlink():
        raise ValueError(
            f"{into / 'cache'} is a link: move it, or name the folder it leads to by --cache"
        )
    lock = FileLock(into / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(f"{into}: another process is tuning into this folder") from None
    try:
        for path in left:
            with FileLock(path, timeout=_PATIENCE):
                pass
        yield
    finally:
        lock.release()


def describe(into: Path, about: Mapping[str, Any]) -> None:
    """Write down what a study is about, or make sure that it is about that.

    Raises
    ------
    ValueError
        When it is about something else, naming what differs.
    """
    path = check_own_file(into / _DESCRIPTION)
    about = json.loads(json.dumps(about))
    try:
        before = dict(read_json(path))
    except FileNotFoundError:
        write_text(path, json.dumps(about, indent=1) + "\n")
        return
    except (ValueError, TypeError) as error:
        raise ReadError(f"{path} is damaged ({error}): tune into another folder") from error
    other = [key for key in about if about[key] != before.get(key)]
    if not other:
        return
    details = []
    for key in other:
        new, old = about[key], before.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            names = sorted(name for name in {*new, *old} if new.get(name) != old.get(name))
            details.append(f"{key} ({', '.join(names[:5])}{', ...' if names[5:] else ''})")
        else:
            details.append(key if key == "pipeline" else f"{key} ({old}, not {new})")
    raise ValueError(
        f"{into} is the study of something else: {'; '.join(details)} changed. "
        "Tune into another folder; --cache lets it use what was computed here"
    )


def open_study(into: Path, objectives: int) -> optuna.Study:
    """The study of a folder, whatever became of the process that last wrote to it.

    Raises
    ------
    ValueError
        When its journal is none, that of another study, or no plain file.
    """
    path = check_own_file(into / JOURNAL)
    # a process that was killed may have held the lock, or not have come to the end of its line
    (into / f"{JOURNAL}.lock").unlink(missing_ok=True)
    if path.exists():
        _end_line(path)
    with refusing(path, "not the journal of a study: tune into another folder"):
        try:
            study = optuna.create_study(
                study_name=STUDY,
                storage=JournalStorage(JournalFileBackend(str(path))),
                directions=["minimize"] * objectives,
                load_if_exists=True,
            )
        except (AssertionError, optuna.exceptions.OptunaError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if len(study.directions) != objectives:
            raise ValueError(f"it has {len(study.directions)} objectives, not {objectives}")
    return study


def _end_line(path: Path) -> None:
    """Cut what follows the last end of a line"""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            if (last := file.read(end - begin).rfind(b"\n")) >= 0:
                file.truncate(begin + last + 1)
                return
            end = begin
        file.truncate(0)


def lock_of(into: Path, rank: int) -> Path:
    """Held by a process while it works on a study."""
    return check_own_file(into / f".process-{rank}.lock")
