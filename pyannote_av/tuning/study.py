"""The journal of a study, and the description of the study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pyannote_av.core.atomic import check_own_file
from pyannote_av.core.reading import refusing

#: name of the study, and of its journal
STUDY, JOURNAL = "tuning", "study.journal"

_ABOUT = "about"


def open_study(into: Path, about: Mapping[str, Any]) -> optuna.Study:
    """Open or create the study of a folder, which must be locked.

    Parameters
    ----------
    into : Path
    about : mapping
        Description of the study, with the names of its ``objectives``.

    Raises
    ------
    ValueError
        If the journal is damaged, is not a plain file, or belongs to another study (the message
        lists the differences), or if the cache is a link.
    """
    # the folder may come from someone else, whose links would redirect what is written
    if (into / "cache").is_symlink():
        raise ValueError(
            f"{into / 'cache'} is a link: move it, or name the folder it leads to by --cache"
        )
    path = check_own_file(into / JOURNAL)
    # a process that was killed may have left its lock, or an incomplete line
    (into / f"{JOURNAL}.lock").unlink(missing_ok=True)
    if path.exists():
        with open(path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    objectives = len(about["objectives"])
    with refusing(path, "not the journal of a study: tune into another folder"):
        try:
            study = optuna.create_study(
                study_name=STUDY,
                storage=JournalStorage(JournalFileBackend(str(path))),
                directions=["minimize"] * objectives,
                load_if_exists=True,
            )
            before, trials = study.user_attrs.get(_ABOUT), study.get_trials(deepcopy=False)
        except (AssertionError, optuna.exceptions.OptunaError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if before is None and len(study.directions) != objectives:
            raise ValueError(f"it has {len(study.directions)} objectives, not {objectives}")
    about = json.loads(json.dumps(about))
    if before is None and not trials:
        study.set_user_attr(_ABOUT, about)
        return study
    if not isinstance(before, dict) or not all(one.state.is_finished() for one in trials):
        raise ValueError(
            f"{path} was not written by this version of pyannote-av, which cannot continue it: "
            "tune into another folder; --cache lets it use what was computed here"
        )
    if changes := _changes(before, about):
        raise ValueError(
            f"{into} contains a study with other settings: {changes} changed. "
            "Tune into another folder; --cache lets it use what was computed here"
        )
    return study


def _changes(before: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Differences between two descriptions"""
    details = []
    for key in (key for key in about if about[key] != before.get(key)):
        new, old = about[key], before.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            names = sorted(name for name in {*new, *old} if new.get(name) != old.get(name))
            details.append(f"{key} ({', '.join(names[:5])}{', ...' if names[5:] else ''})")
        else:
            details.append(key if key == "pipeline" else f"{key} ({old}, not {new})")
    return "; ".join(details)
