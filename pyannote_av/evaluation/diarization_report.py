"""Evaluation of several diarization systems: results as table, JSON, CSV and plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.atomic import write_text
from pyannote_av.core.text import match_names
from pyannote_av.evaluation.conditions import ConditionTable, conditions
from pyannote_av.evaluation.diarization import evaluate
from pyannote_av.evaluation.diarization_result import DiarizationResult
from pyannote_av.evaluation.diarization_score import RULES
from pyannote_av.evaluation.significance import Comparison, compare, describe
from pyannote_av.evaluation.tables import plain, write_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyannote.core import Annotation, Timeline

    from pyannote_av.core.tracks import FaceTracks


def evaluate_systems(
    references: Mapping[str, Annotation],
    systems: Mapping[str, Mapping[str, Annotation]],
    uem: Mapping[str, Timeline] | None = None,
    vad: Mapping[str, Timeline] | None = None,
    faces: Mapping[str, FaceTracks] | None = None,
    tracks: str | None = None,
) -> tuple[list[DiarizationResult], list[Comparison], list[ConditionTable]]:
    """Evaluate and compare systems.

    Parameters
    ----------
    references : mapping of uri to Annotation
    systems : mapping of str to mapping of uri to Annotation
        Turns by name of the system.
    uem, vad, tracks : optional
        See :func:`~pyannote_av.evaluation.diarization.evaluate`.
    faces : mapping of uri to FaceTracks, optional
        Reference face tracks, for errors by who is on screen.

    Returns
    -------
    results, comparisons, tables
        Results of each system, significance of their differences, and errors of each system by
        condition.
    """
    # once for all that follows, so that a warning appears once
    systems = {name: match_names(references, turns, name) for name, turns in systems.items()}
    uem = uem and match_names(references, uem, "the evaluation maps")
    vad = vad and match_names(references, vad, "the speech regions")
    results = [
        evaluate(references, hypotheses, uem, vad, name, tracks)
        for name, hypotheses in systems.items()
    ]
    tables = [
        conditions(references, hypotheses, uem, faces, system=name)
        for name, hypotheses in systems.items()
    ]
    return results, compare(results), tables


def to_text(
    results: Sequence[DiarizationResult],
    comparisons: Sequence[Comparison] = (),
    tables: Sequence[ConditionTable] = (),
) -> str:
    """Results, comparisons and condition tables as text."""
    parts = [repr(result) for result in results]
    parts += [describe(comparisons)] if comparisons else []
    return "\n\n".join([*parts, *map(repr, tables)])


def write_json(
    path: str | Path,
    results: Sequence[DiarizationResult],
    comparisons: Sequence[Comparison] = (),
    tables: Sequence[ConditionTable] = (),
    command: str | None = None,
    per_file: bool = True,
) -> Path:
    """Write results, comparisons, condition tables and the command that was run as JSON.

    Scores per file are included by default. Each row of scores, comparisons or conditions is one
    line.
    """
    content = {
        "command": command,
        "rules": {name: vars(rule) for name, rule in RULES.items()},
        "scores": [row for result in results for row in result.to_records(per_file)],
        "comparisons": [vars(comparison) for comparison in comparisons],
        "conditions": [row for table in tables for row in table.to_records()],
    }
    parts = []
    for name, value in plain(content).items():
        text = json.dumps(value)
        if (
            isinstance(value, list) and value
        ):  # one line per row, because tables have thousands of rows
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        parts.append(f" {json.dumps(name)}: {text}")
    return write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def write_csv(path: str | Path, results: Iterable[DiarizationResult]) -> Path:
    """Write scores as CSV, one line per system, condition and file, and one for each total."""
    return write_rows(path, [row for result in results for row in result.to_records()])


def plot(results: Sequence[DiarizationResult], path: str | Path | None = None) -> Figure:
    """Plot false alarm, missed speech and confusion as bars: a panel per VAD, a group per rule.

    Dashed lines mark the DER of a perfect system that never outputs two speakers at a time.
    """
    from matplotlib.figure import Figure

    vads = list(dict.fromkeys(vad for vad, _ in results[0].scores))
    rules = list(dict.fromkeys(rule for _, rule in results[0].scores))
    # as wide as a page for one or two systems; more systems need more width
    figure = Figure(figsize=(3 + 1.2 * len(vads) * max(2, len(results)), 4), layout="constrained")
    panels = figure.subplots(1, len(vads), sharey=True, squeeze=False)[0]
    parts = {"false_alarm": "#e0a030", "missed": "#4a78b0", "confusion": "#b04a5a"}
    width = 0.8 / len(results)
    for panel, vad in zip(panels, vads, strict=True):
        for i, result in enumerate(results):
            for j, rule in enumerate(rules):
                x, bottom = j + (i - (len(results) - 1) / 2) * width, 0.0
                figures = result[vad, rule].figures()
                for part, color in parts.items():
                    name = part.replace("_", " ") if i == j == 0 else None
                    panel.bar(x, figures[part], 0.9 * width, bottom, color=color, label=name)
                    bottom += figures[part]
                text = f"{bottom:.1f}" + (f"\n({i + 1})" if len(results) > 1 else "")
                panel.annotate(text, (x, bottom), ha="center", va="bottom", fontsize=8)
                floor = figures["single_label_floor"]
                name = "perfect, one speaker at a time" if i == j == 0 else None
                ends = (x - width / 2, x + width / 2)
                panel.hlines(floor, *ends, "k", "dashed", linewidth=1, label=name)
        panel.set(title=f"{vad} VAD", xticks=range(len(rules)), xticklabels=rules)
        panel.margins(y=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("DER (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    names = [f"({i + 1}) {one.system}" for i, one in enumerate(results)]
    figure.suptitle("   ".join(names) if len(names) > 1 else results[0].system, fontsize=9)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return figure
