"""Robustness of systems to missing faces, sound out of sync with the picture, and noise.

:func:`sweep` runs a pipeline on files changed by one of
:mod:`~pyannote_av.evaluation.disturbances` over a range of values, and scores each step.
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
from pyannote_av.evaluation.diarization_result import DiarizationResult
from pyannote_av.evaluation.diarization_score import RULES, DiarizationScore
from pyannote_av.evaluation.disturbances import desync, missing_faces, noisy
from pyannote_av.evaluation.significance import Comparison, compare
from pyannote_av.evaluation.tables import aligned, plain, write_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyannote.core import Annotation


class Disturbance(NamedTuple):
    """A disturbance and its default values.

    Attributes
    ----------
    change : callable
        Function of a file and a value, and of a seed if it is random.
    values : tuple of float
        Default values.
    random : bool
    label : str
        Description of the value, with its unit.
    """

    change: Callable[..., Mapping]
    values: tuple[float, ...]
    random: bool
    label: str


#: disturbances by name; the rates of missing faces are those of AVR-Net, figure 6
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
    """Scores of several runs of one system on the same files, summed per file."""
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
    """Results of one system by value of a disturbance.

    Attributes
    ----------
    name : str
        Name of the disturbance.
    runs : dict of value to dict of seed to DiarizationResult
        The seed is None if the disturbance is not random.
    """

    name: str
    runs: dict[float, dict[int | None, DiarizationResult]]

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.total().system

    @property
    def results(self) -> dict[float, DiarizationResult]:
        """Results by value, pooled over seeds."""
        return {value: pooled(list(runs.values())) for value, runs in self.runs.items()}

    @property
    def seeds(self) -> list[int | None]:
        """Random seeds of the runs."""
        return list(next(iter(self.runs.values())))

    def total(self) -> DiarizationResult:
        """Result pooled over all values and seeds, per file."""
        return pooled([result for runs in self.runs.values() for result in runs.values()])

    def only(self, seed: int | None) -> Sweep:
        """The runs of one seed."""
        return Sweep(self.name, {value: {seed: runs[seed]} for value, runs in self.runs.items()})

    def average(self, vad: str = "automatic", rule: str = "Full") -> dict[str, float]:
        """Mean of DER and its components over the values, in percent (AVR-Net, table 4).

        AVR-Net's SPKE is ``confusion``.
        """
        rows = [result[vad, rule].figures() for result in self.results.values()]
        return {name: float(np.mean([row[name] for row in rows])) for name in _RATES}

    def to_records(self) -> list[dict[str, Any]]:
        """One flat row per value and condition, and one row with the average, in percent."""
        rows = []
        for vad, rule in self.total().scores:
            head = {"system": self.system, "vad": vad, "rule": rule}
            for value, result in self.results.items():
                figures = result[vad, rule].figures()
                # infinity as text, because JSON cannot hold it
                step = value if np.isfinite(value) else str(value)
                rows.append({**head, self.name: step, **{name: figures[name] for name in _RATES}})
            rows.append({**head, self.name: "average", **self.average(vad, rule)})
        return rows

    def __repr__(self) -> str:
        """Table in percent, without and with collar."""
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
    """Run a pipeline on disturbed files, over a range of values.

    Parameters
    ----------
    pipeline : callable
        Takes a file, and returns an ``Annotation`` or an object with ``speaker_diarization``.
    files : iterable of mapping
        Files with ``uri`` and ``annotation``, and optionally ``annotated``.
    change : callable
        Function of a file and a value, and of ``seed=`` if there are seeds, such as those of
        :data:`DISTURBANCES`.
    values : iterable of float
    name : str, optional
        Name of the disturbance. Defaults to the name of `change`.
    system : str, optional
    seeds : sequence of int, optional
        Each value is run once with each seed.
    """
    files = list(files)
    runs: dict[float, dict[int | None, DiarizationResult]] = {}
    for value in values:
        runs[value] = {}
        for seed in seeds or (None,):
            drawn = {} if seed is None else {"seed": seed}
            # one file at a time, because changed files are held in memory
            changed = (change(file, value, **drawn) for file in files)
            runs[value][seed] = _run(pipeline, changed, system)
    return Sweep(name or change.__name__.replace("_", " "), runs)


def _run(
    pipeline: Callable[[Mapping], Any], files: Iterable[Mapping], system: str
) -> DiarizationResult:
    """Run a pipeline on files, and score its output."""
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
    """Run `pipeline` on `file` and return its turns as an ``Annotation``."""
    output = pipeline(file)
    return getattr(output, "speaker_diarization", output)


def compare_sweeps(sweeps: Sequence[Sweep]) -> list[Comparison]:
    """Compare all pairs of systems over all values and seeds, paired by file."""
    return compare([one.total() for one in sweeps])


def write_json(path: str | Path, sweeps: Sequence[Sweep], command: str | None = None) -> Path:
    """Write scores, averages per seed, comparisons, and the command that was run as JSON."""
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
    """Write scores as CSV, one line per system, condition and value, and one per average."""
    return write_rows(path, [row for one in sweeps for row in one.to_records()])


def plot_sweeps(
    sweeps: Sequence[Sweep],
    path: str | Path | None = None,
    vad: str = "automatic",
    rule: str = "Full",
) -> Figure:
    """Plot DER over the values, one line per sweep. The legend shows the averages.

    Shaded areas span the lowest and the highest DER over the seeds.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    values = list(sweeps[0].runs)
    # infinite values, such as no noise at all, cannot be drawn to scale: use equal steps
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
