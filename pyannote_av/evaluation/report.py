"""Results of diarization as table, JSON, CSV and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.atomic import write_text
from pyannote_av.evaluation.score import DiarizationScore

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pyannote_av.evaluation.conditions import ConditionTable
    from pyannote_av.evaluation.significance import Comparison

_COLUMNS = ("der", "false_alarm", "missed", "confusion", "single_label_floor", "jer")
_HEADS = ("DER", "FA", "miss", "conf", "floor", "JER")


def aligned(rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Rows as text: the first `left` columns set left, the others right, floats to 2 digits."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(value) for value in column) for column in zip(*text, strict=True)]
    return "\n".join(
        "  ".join(
            value.ljust(width) if i < left else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in text
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


@dataclass(frozen=True, repr=False)
class DiarizationResult:
    """What :func:`~pyannote_av.evaluation.diarization.evaluate` found.

    ``result["automatic", "Full"].der`` is one figure in total, ``result.per_file("oracle",
    "Fair")`` are the scores of each file, and printing it shows the whole grid.

    Attributes
    ----------
    system : str
    scores : mapping of (vad, rule) to mapping of uri to DiarizationScore
    tracks : str or None
        "found" or "given".
    """

    system: str
    scores: Mapping[tuple[str, str], Mapping[str, DiarizationScore]]
    tracks: str | None = None

    def per_file(self, vad: str = "automatic", rule: str = "Full") -> dict[str, DiarizationScore]:
        """Scores by uri."""
        if (vad, rule) not in self.scores:
            raise KeyError(f"no {(vad, rule)}, but {list(self.scores)}")
        return dict(self.scores[vad, rule])

    def __getitem__(self, condition: tuple[str, str]) -> DiarizationScore:
        return sum(self.per_file(*condition).values(), DiarizationScore())

    def to_records(self, per_file: bool = True) -> list[dict[str, Any]]:
        """One flat row per condition and file; totals have "TOTAL" for their uri."""
        rows = []
        for (vad, rule), files in self.scores.items():
            for uri, score in {**(files if per_file else {}), "TOTAL": self[vad, rule]}.items():
                head = {"system": self.system, "tracks": self.tracks, "vad": vad, "rule": rule}
                rows.append({**head, "uri": uri, **score.figures()})
        return rows

    def to_dataframe(self, per_file: bool = True) -> pd.DataFrame:
        """:meth:`to_records` as a table."""
        import pandas as pd

        return pd.DataFrame(self.to_records(per_file))

    def __repr__(self) -> str:
        """The grid, in percent, and below it what does not depend on collars."""
        from pyannote_av.evaluation.diarization import RULES

        rows: list[Sequence[Any]] = [("VAD", "scoring", "collar", "overlap", *_HEADS)]
        for vad, rule in self.scores:
            figures = self[vad, rule].figures()
            how = (f"{RULES[rule].collar:g} s", "scored" if RULES[rule].overlap else "left out")
            rows.append((vad, rule, *how, *(figures[name] for name in _COLUMNS)))
        found = next(iter(self.scores))
        score = self[found]
        return "\n".join(
            [
                f"{self.system}: {score.files} files, {score.speakers} speakers, "
                f"tracks {self.tracks or 'not stated'}",
                aligned(rows, left=4),
                f"{found[0]} VAD: number of speakers right in {100 * score.count_accuracy:.1f} % "
                f"of files, off by {score.mean_count_error:.2f} on average",
                f"{found[0]} VAD: purity {100 * score.purity:.2f} %, "
                f"coverage {100 * score.coverage:.2f} %",
            ]
        )


def to_text(
    results: Sequence[DiarizationResult],
    comparisons: Sequence[Comparison] = (),
    tables: Sequence[ConditionTable] = (),
) -> str:
    """Everything, to be read."""
    from pyannote_av.evaluation.significance import describe

    parts = [repr(result) for result in results]
    parts += [describe(comparisons)] if comparisons else []
    return "\n\n".join([*parts, *map(repr, tables)])


def plain(value: Any) -> Any:
    """Floats to 6 digits, NaN, which JSON lacks, as None; containers likewise."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def write_json(
    path: str | Path,
    results: Sequence[DiarizationResult],
    comparisons: Sequence[Comparison] = (),
    tables: Sequence[ConditionTable] = (),
    command: str | None = None,
    per_file: bool = True,
) -> Path:
    """Everything, per file too unless told otherwise, and the command that found it, as JSON.

    One row of scores, comparisons or conditions is one line.
    """
    from pyannote_av.evaluation.diarization import RULES

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
        if isinstance(value, list) and value:  # a line each: tables of thousands of rows
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        parts.append(f" {json.dumps(name)}: {text}")
    return write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def write_csv(path: str | Path, results: Iterable[DiarizationResult]) -> Path:
    """Scores, one line per system, condition and file, with a total each."""
    return write_rows(path, [row for result in results for row in result.to_records()])


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Flat rows of one kind as a CSV file with a header."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(rows))
    return write_text(path, text.getvalue())


def plot(results: Sequence[DiarizationResult], path: str | Path | None = None) -> Figure:
    """Bars of false alarm, missed speech and confusion: a panel per VAD, a group per rule.

    Dashes mark the DER of the perfect system that never gives two speakers at a time.
    """
    from matplotlib.figure import Figure

    vads = list(dict.fromkeys(vad for vad, _ in results[0].scores))
    rules = list(dict.fromkeys(rule for _, rule in results[0].scores))
    # the size of a page; longer names and more systems make it wider
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
