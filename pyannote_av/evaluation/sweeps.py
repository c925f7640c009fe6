"""How a system takes it when faces are missing, sound and picture part, or noise comes in.

:func:`sweep` runs a pipeline on files changed more and more by one of
:mod:`~pyannote_av.evaluation.disturbances`, and scores every step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyannote_av.core.atomic import write_text
from pyannote_av.evaluation.diarization import evaluate
from pyannote_av.evaluation.disturbances import desync, missing_faces, noisy
from pyannote_av.evaluation.result import DiarizationResult
from pyannote_av.evaluation.score import RULES, DiarizationScore
from pyannote_av.evaluation.significance import Comparison, compare
from pyannote_av.evaluation.tables import aligned, plain, write_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyannote.core import Annotation


class Disturbance(NamedTuple):
    """What is changed, and how much of it is usual.

    Attributes
    ----------
    change : callable
        Of a file and a value, and of a seed where it is random.
    values : tuple of float
    random : bool
    label : str
        With its unit.
    """

    change: Callable[..., Mapping]
    values: tuple[float, ...]
    random: bool
    label: str


#: by name; rates are those of AVR-Net, figure 6
DISTURBANCES = {
    "missing-faces": Disturbance(
        missing_faces, tuple(i / 10 for i in range(11)), True, "share of faces missing"
    ),
    "desync": Disturbance(
        desync, (-1.0, -0.4, -0.2, 0.0, 0.2, 0.4, 1.0), False, "sound late by (s)"
    ),
    "noise": Disturbance(
        noisy, (float("inf"), 20.0, 10.0, 5.0, 0.0), True, "signal-to-noise ratio (dB)"
    ),
}

_RATES = ("der", "false_alarm", "missed", "confusion")


def pooled(results: Sequence[DiarizationResult]) -> DiarizationResult:
    """Scores of several runs of one system on the same files, added up file by file."""
    scores = {
        condition: {
            uri: sum((one.scores[condition][uri] for one in results), DiarizationScore())
            for uri in files
        }
        for condition, files in results[0].scores.items()
    }
    return DiarizationResult(results[0].system, scores, results[0].tracks)


@dataclass(frozen=True, repr=False)
class Sweep:
    """Results by value of what was changed.

    Attributes
    ----------
    name : str
        What was changed.
    runs : dict of value to dict of seed to DiarizationResult
        The seed is None where nothing is random.
    """

    name: str
    runs: dict[float, dict[int | None, DiarizationResult]]

    @property
    def system(self) -> str:
        """Whose results these are."""
        return self.total().system

    @property
    def results(self) -> dict[float, DiarizationResult]:
        """By value, all seeds together."""
        return {value: pooled(list(runs.values())) for value, runs in self.runs.items()}

    @property
    def seeds(self) -> list[int | None]:
        """What was drawn with."""
        return list(next(iter(self.runs.values())))

    def total(self) -> DiarizationResult:
        """All values and seeds together, per file."""
        return pooled([result for runs in self.runs.values() for result in runs.values()])

    def only(self, seed: int | None) -> Sweep:
        """What one seed gave."""
        return Sweep(self.name, {value: {seed: runs[seed]} for value, runs in self.runs.items()})

    def average(self, vad: str = "automatic", rule: str = "Full") -> dict[str, float]:
        """Mean over the values of DER and its parts, in percent (AVR-Net, table 4).

        Its SPKE is ``confusion``.
        """
        rows = [result[vad, rule].figures() for result in self.results.values()]
        return {name: float(np.mean([row[name] for row in rows])) for name in _RATES}

    def to_records(self) -> list[dict[str, Any]]:
        """One flat row per value and condition, and one of the average, in percent."""
        rows = []
        for vad, rule in self.total().scores:
            head = {"system": self.system, "vad": vad, "rule": rule}
            for value, result in self.results.items():
                figures = result[vad, rule].figures()
                # infinity, which JSON lacks, in letters
                step = value if np.isfinite(value) else str(value)
                rows.append({**head, self.name: step, **{name: figures[name] for name in _RATES}})
            rows.append({**head, self.name: "average", **self.average(vad, rule)})
        return rows

    def __repr__(self) -> str:
        """Without collar and with it, in percent."""
        rows: list[tuple] = [(self.name, *("DER", "FA", "miss", "conf") * 2)]
        for value, result in self.results.items():
            found = (result["automatic", rule].figures() for rule in ("Full", "Fair"))
            rows.append((f"{value:g}", *(one[name] for one in found for name in _RATES)))
        means = (self.average(rule=rule) for rule in ("Full", "Fair"))
        rows.append(("average", *(one[name] for one in means for name in _RATES)))
        return f"{self.system}, automatic VAD, Full and Fair:\n{aligned(rows)}"


def sweep(
    pipeline: Callable[[Mapping], Any],
    files: Iterable[Mapping],
    change: Callable[..., Mapping],
    values: Iterable[float],
    name: str | None = None,
    system: str = "hypothesis",
    seeds: Sequence[int] = (),
) -> Sweep:
    """Run a pipeline on files changed more and more.

    Parameters
    ----------
    pipeline : callable
        Takes a file, returns an ``Annotation`` or something with ``speaker_diarization``.
    files : iterable of mapping
        With ``uri``, ``annotation``, and perhaps ``annotated``.
    change : callable
        Of a file and a value, and ``seed=`` if there are seeds: those of
        :data:`DISTURBANCES`, ...
    values : iterable of float
    name : str, optional
        What is changed; the name of `change` unless told.
    system : str, optional
    seeds : sequence of int, optional
        Everything is run with each.
    """
    files = list(files)
    runs: dict[float, dict[int | None, DiarizationResult]] = {}
    for value in values:
        runs[value] = {}
        for seed in seeds or (None,):
            drawn = {} if seed is None else {"seed": seed}
            # one at a time: what is changed is held in memory
            changed = (change(file, value, **drawn) for file in files)
            runs[value][seed] = _run(pipeline, changed, system)
    return Sweep(name or change.__name__.replace("_", " "), runs)


def _run(
    pipeline: Callable[[Mapping], Any], files: Iterable[Mapping], system: str
) -> DiarizationResult:
    """Run a pipeline on files, and score what it says."""
    references, hypotheses, maps = {}, {}, {}
    for file in files:
        uri = file["uri"]
        references[uri], hypotheses[uri] = file["annotation"], diarization(pipeline, file)
        if file.get("annotated") is not None:
            maps[uri] = file["annotated"]
    if maps and maps.keys() != references.keys():
        raise ValueError("some files have `annotated`, others do not")
    return evaluate(references, hypotheses, maps or None, system=system)


def diarization(pipeline: Callable[[Mapping], Any], file: Mapping) -> Annotation:
    """What `pipeline` says of `file`, as an ``Annotation``."""
    output = pipeline(file)
    return getattr(output, "speaker_diarization", output)


def compare_sweeps(sweeps: Sequence[Sweep]) -> list[Comparison]:
    """Every system against every other over all values and seeds, paired by file."""
    return compare([one.total() for one in sweeps])


def write_json(path: str | Path, sweeps: Sequence[Sweep], command: str | None = None) -> Path:
    """Everything, averages of each seed too, and the command that found it, as one JSON file."""
    content = {
        "command": command,
        "sweep": sweeps[0].name,
        "files": len(sweeps[0].total().per_file()),
        "seeds": sweeps[0].seeds,
        "rules": {name: vars(rule) for name, rule in RULES.items()},
        "scores": [row for one in sweeps for row in one.to_records()],
        "seed_averages": [
            {"system": one.system, "seed": seed, **one.only(seed).average()}
            for one in sweeps
            for seed in one.seeds
        ],
        "comparisons": [vars(comparison) for comparison in compare_sweeps(sweeps)],
    }
    return write_text(path, json.dumps(plain(content), indent=1) + "\n")


def write_csv(path: str | Path, sweeps: Sequence[Sweep]) -> Path:
    """Scores, one line per system, condition and value, with an average each."""
    return write_rows(path, [row for one in sweeps for row in one.to_records()])


def plot_sweeps(
    sweeps: Sequence[Sweep],
    path: str | Path | None = None,
    vad: str = "automatic",
    rule: str = "Full",
) -> Figure:
    """DER over the values, a line per sweep, whose averages are in the legend.

    Shades are between the lowest and the highest of the seeds.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    values = list(sweeps[0].runs)
    # what cannot be drawn to scale, as no noise at all, is drawn in steps
    places = values if np.isfinite(values).all() else list(range(len(values)))
    for one in sweeps:
        rates = [100 * result[vad, rule].der for result in one.results.values()]
        label = f"{one.system} (average {one.average(vad, rule)['der']:.2f})"
        (line,) = panel.plot(places, rates, "o-", markersize=4, label=label)
        drawn = [
            [100 * result[vad, rule].der for result in runs.values()] for runs in one.runs.values()
        ]
        lowest, highest = np.min(drawn, axis=1), np.max(drawn, axis=1)
        panel.fill_between(places, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0)
    if places is not values:
        panel.set_xticks(places, [f"{value:g}" if np.isfinite(value) else "∞" for value in values])
    known = DISTURBANCES.get(sweeps[0].name)
    panel.set_xlabel(known.label if known else sweeps[0].name)
    panel.set_ylabel(f"DER (%), {vad} VAD, {rule}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return figure
