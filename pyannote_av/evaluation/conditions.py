"""Errors by overlap, number of speakers, length of turns, and faces on screen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pyannote.core import Annotation, Timeline

from pyannote_av.core.text import match_names
from pyannote_av.evaluation.cells import Cells, Turns, active
from pyannote_av.evaluation.diarization import co_activity, match_speakers, paired, recognised
from pyannote_av.evaluation.diarization_score import RULES, Rule
from pyannote_av.evaluation.tables import aligned

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: names of the groups of each condition
GROUPS = {
    "speech": ("nobody speaks", "one speaks", "overlap"),
    "speakers in the file": ("0", "1", "2", "3-4", "5-7", "8-11", "12 or more"),
    "length of the turn": ("under 0.5 s", "0.5-1 s", "1-2 s", "2-5 s", "5 s or more"),
    "speaker during the turn": ("off-screen", "on-screen"),
    "face visible during": ("none of the turn", "less than half", "half or more", "all of it"),
    "faces on screen": ("0", "1", "2", "3 or more"),
}
#: lower bounds of the groups; other conditions have one group per integer from 0
BOUNDS = {
    "speakers in the file": (0, 1, 2, 3, 5, 8, 12),
    "length of the turn": (0.0, 0.5, 1.0, 2.0, 5.0),
    "speaker during the turn": (0.0, 1e-6),
    "face visible during": (0.0, 1e-6, 0.5, 1 - 1e-6),
}


@dataclass(frozen=True, repr=False)
class ConditionTable:
    """Errors by condition.

    Attributes
    ----------
    system, rule : str
    seconds : dict of (condition, group) to (4,) array
        Reference speech, false alarm, missed speech, confusion. False alarms belong to no turn, so
        they are NaN if the groups are groups of turns.
    """

    system: str
    rule: str
    seconds: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def to_records(self) -> list[dict[str, Any]]:
        """One flat row per group, with seconds, and rates in percent of the group's speech."""
        rows = []
        for (condition, group), (total, *parts) in self.seconds.items():
            rates = [100 * part / total if total else float("nan") for part in parts]
            rows.append(
                {
                    **{"system": self.system, "rule": self.rule},
                    **{"condition": condition, "group": group},
                    "error": float(np.nansum(rates)) if total else float("nan"),
                    **dict(zip(("false_alarm", "missed", "confusion"), rates, strict=True)),
                    "seconds": float(total),
                    "error_seconds": float(np.nansum(parts)),
                }
            )
        return rows

    def __repr__(self) -> str:
        """Table in percent of each group's speech, with seconds of speech and of error."""
        rows = [("", "", "error", "FA", "miss", "conf", "seconds", "wrong")]
        last = None
        for row in self.to_records():
            name = row["condition"] if row["condition"] != last else ""
            last = row["condition"]
            rates = (row[n] for n in ("error", "false_alarm", "missed", "confusion"))
            sums = (f"{row[n]:.1f}" for n in ("seconds", "error_seconds"))
            rows.append((name, row["group"], *rates, *sums))
        return f"{self.system}, {self.rule}, by condition:\n{aligned(rows, left=2)}"


def _turn_index(cells: Cells) -> np.ndarray:
    """(C, R) int: index of the current reference turn of each speaker, -1 outside turns."""
    index = np.full(cells.reference.shape, -1)
    turns = cells.spoken
    first, last = (np.searchsorted(cells.edges, times) for times in (turns.start, turns.end))
    for turn in range(len(turns)):
        index[first[turn] : last[turn], turns.speaker[turn]] = turn
    return index


def _visible(cells: Cells, faces: Annotation) -> np.ndarray:
    """(C, R) bool: whether the face of a reference speaker is visible."""
    column = {label: i for i, label in enumerate(cells.spoken.labels)}
    turns = Turns.of(faces.subset(column.keys()))
    places = np.array([column[label] for label in turns.labels], int)[turns.speaker]
    return active(turns.start, turns.end, places, len(column), cells.edges)


def visible_speech(
    reference: Annotation, tracks: FaceTracks, uem: Timeline | None = None
) -> tuple[float, float]:
    """Seconds of speech during which the speaker's own face is visible, and seconds of speech.

    Parameters
    ----------
    reference : Annotation
    tracks : FaceTracks
        Their speaker labels must be those of `reference`.
    uem : Timeline, optional
    """
    faces = tracks.to_annotation("speaker")
    cells = Cells.of(reference, Annotation(), [faces.get_timeline(), *([uem] if uem else [])])
    weight = cells.duration * (cells.inside(uem.support()) if uem else 1)
    both = _visible(cells, faces) & cells.reference
    return float((weight @ both).sum()), float((weight @ cells.reference).sum())


@dataclass(frozen=True)
class _Errors:
    """Seconds by cell and reference speaker, (C, R); false alarms by cell only, (C,)."""

    total: np.ndarray
    false_alarm: np.ndarray
    missed: np.ndarray
    confusion: np.ndarray

    def within(self, place: np.ndarray) -> np.ndarray:
        """(4,) seconds of the cells selected by `place`, (C,) or (C, R) bool."""
        total, missed, confusion = (
            part[place].sum() for part in (self.total, self.missed, self.confusion)
        )
        false_alarm = self.false_alarm[place].sum() if place.ndim == 1 else np.nan
        return np.array([total, false_alarm, missed, confusion])


def _errors(cells: Cells, match: np.ndarray, scored: np.ndarray) -> _Errors:
    """Errors by cell. Missed and confused time is split equally among unrecognised speakers."""
    weight = cells.duration * scored
    spoken, guessed = cells.reference.sum(axis=1), cells.hypothesis.sum(axis=1)
    wrong = cells.reference & ~recognised(cells, match)
    number = np.maximum(wrong.sum(axis=1), 1)
    missed = np.maximum(spoken - guessed, 0)
    each = wrong * weight[:, None]
    return _Errors(
        cells.reference * weight[:, None],
        np.maximum(guessed - spoken, 0) * weight,
        each * (missed / number)[:, None],
        each * (1 - missed / number)[:, None],
    )


def _values(
    cells: Cells, faces: Annotation | None, by_speaker: Annotation | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (condition, value): by cell, (C,), or by cell and speaker, (C, R).

    Values by speaker are NaN outside turns.
    """
    spoken = cells.reference.sum(axis=1)
    yield "speech", spoken
    yield "speakers in the file", np.full(len(spoken), len(cells.spoken.labels))
    turn = _turn_index(cells)
    length = cells.spoken.end - cells.spoken.start
    # NaN at the end, for index -1
    yield "length of the turn", np.r_[length, np.nan][turn]
    if faces is None or by_speaker is None:
        return
    visible = _visible(cells, by_speaker) & cells.reference
    seconds = np.broadcast_to(cells.duration[:, None], turn.shape)
    share = np.bincount(turn[visible], weights=seconds[visible], minlength=len(length)) / length
    yield "speaker during the turn", np.r_[share, np.nan][turn]
    yield "face visible during", np.r_[share, np.nan][turn]
    appearances = Turns.of(faces)
    width = len(appearances.labels)
    on_screen = active(appearances.start, appearances.end, appearances.speaker, width, cells.edges)
    yield "faces on screen", on_screen.sum(axis=1)


def conditions(
    references: Mapping[str, Annotation],
    hypotheses: Mapping[str, Annotation],
    uem: Mapping[str, Timeline] | None = None,
    tracks: Mapping[str, FaceTracks] | None = None,
    rule: str = "Full",
    system: str = "hypothesis",
) -> ConditionTable:
    """Errors of a system by condition, with automatic VAD.

    Speakers are matched once per file, so the groups add up to the total. If only some of several
    simultaneous speakers are recognised, missed and confused time is assigned to the others.

    Parameters
    ----------
    references, hypotheses : mapping of uri to Annotation
    uem : mapping of uri to Timeline, optional
    tracks : mapping of uri to FaceTracks, optional
        Face tracks whose speaker labels are those of the reference. They are required for the
        conditions on faces.
    rule : str, optional
        One of :data:`~pyannote_av.evaluation.diarization_score.RULES`.
    system : str, optional

    Returns
    -------
    table : ConditionTable
    """
    how: Rule = RULES[rule]
    seconds: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(4))
    hypotheses = match_names(references, hypotheses, system)
    uem = uem and match_names(references, uem, "the evaluation maps")
    for uri in paired(references, hypotheses, system):
        faces = by_speaker = None
        if tracks is not None:
            if uri not in tracks:
                raise ValueError(f"no face tracks of {uri!r}")
            faces, by_speaker = (tracks[uri].to_annotation(by) for by in ("track", "speaker"))
        support = uem[uri].support() if uem is not None else None
        timelines = [support] if support is not None else []
        timelines += [faces.get_timeline()] if faces is not None else []
        cells = Cells.of(references[uri], hypotheses[uri], timelines, how.collar)
        inside = np.ones(len(cells.duration), bool) if support is None else cells.inside(support)
        match = match_speakers(co_activity(cells, inside))
        scored = inside if how.collar == 0 else inside & ~cells.in_collar(how.collar)
        if not how.overlap:
            scored = scored & (cells.reference.sum(axis=1) < 2)
        errors = _errors(cells, match, scored)
        for condition, value in _values(cells, faces, by_speaker):
            names = GROUPS[condition]
            group = np.searchsorted(BOUNDS.get(condition, range(len(names))), value, side="right")
            group[np.isnan(value)] = 0
            for i, name in enumerate(names, start=1):
                seconds[condition, name] += errors.within(group == i)
    kept = {key: found for key, found in seconds.items() if np.nansum(found) > 0}
    return ConditionTable(system, rule, kept)
