"""Results of an evaluation, as Markdown tables and as entries of a model index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyannote_av.core.checksums import sha256_of
from pyannote_av.core.reading import ReadError, read_json
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_ERRORS = {"false_alarm": "false alarm", "missed": "missed", "confusion": "confusion"}


@dataclass(frozen=True)
class Evaluation:
    """Output of ``pyannote-av evaluate --json``.

    Attributes
    ----------
    name : str
        Name of the file.
    sha256 : str
        Digest of its content.
    content : mapping
    """

    name: str
    sha256: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Evaluation:
        """Read an output file of ``evaluate``. Raises ReadError for any other file."""
        path = Path(path)
        content = read_json(path, nan=True)
        try:
            _check(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReadError(
                f"{path} was not written by `pyannote-av evaluate ... --json {path}` ({error!r})"
            ) from error
        return cls(path.name, sha256_of(path), content)

    @property
    def dataset(self) -> str:
        """Name of the dataset, which is the name of the file."""
        return Path(self.name).stem

    @property
    def systems(self) -> list[str]:
        """Names of the systems that were scored."""
        return list(dict.fromkeys(row["system"] for row in self.totals()))

    def totals(self) -> list[Mapping[str, Any]]:
        """Scores over all files."""
        return [row for row in self.content["scores"] if row["uri"] == "TOTAL"]

    def switches(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Conditions of a score: VAD, collar, overlap and tracks."""
        rule = self.content["rules"][row["rule"]]
        return {
            "VAD": row["vad"],
            "collar": f"{rule['collar']:g} s",
            "overlap": "scored" if rule["overlap"] else "left out",
            "tracks": row["tracks"] or "not stated",
        }

    def choose(self, system: str | None) -> str:
        """Name of the system a card describes.

        Parameters
        ----------
        system : str, optional
            Defaults to the only system of the evaluation.

        Raises
        ------
        ValueError
            If there is no such system, or if there are several and none is named.
        """
        if system is None and len(self.systems) == 1:
            return self.systems[0]
        if system not in self.systems:
            reason = "several systems were scored" if system is None else f"no system {system!r}"
            raise ReadError(f"{self.name}: {reason}; say which: {', '.join(self.systems)}")
        return system

    def results(self, system: str) -> list[EvalResult]:
        """Error rates of a system, for the model index of the hub."""
        from huggingface_hub import EvalResult

        found = []
        for row in self.totals():
            if row["system"] == system and row["der"] is not None:
                how = ", ".join(f"{key} {value}" for key, value in self.switches(row).items())
                found.append(
                    EvalResult(
                        task_type="speaker-diarization",
                        task_name="Speaker diarization",
                        dataset_type=self.dataset,
                        dataset_name=self.dataset,
                        metric_type="der",
                        metric_name=f"DER in percent ({how})",
                        metric_value=row["der"],
                    )
                )
        return found

    def to_markdown(self) -> str:
        """All tables, with the command that computed them."""
        command = self.content.get("command") or f"pyannote-av evaluate ... --json {self.name}"
        name, command = (printable(str(one), one_line=True) for one in (self.name, command))
        parts = [
            f"Figures are those of `{name}` (sha256 `{self.sha256}`), written by `{command}`. "
            "Error rates are in percent of reference speech. The collar is the duration that is "
            "ignored on either side of each turn boundary.",
            self._scores(),
        ]
        if self.content.get("comparisons"):
            parts += ["### Differences", self._comparisons()]
        for system in dict.fromkeys(row["system"] for row in self.content["conditions"]):
            parts += [f"### Where errors are: {_text(system)}", self._conditions(system)]
        return "\n\n".join(parts)

    def _scores(self) -> str:
        heads = ["system", "VAD", "collar", "overlap", "tracks", "DER", *_ERRORS.values()]
        rows = [
            [
                row["system"],
                *self.switches(row).values(),
                *(row[name] for name in ("der", *_ERRORS, "jer")),
                row["files"],
                row["speakers"],
            ]
            for row in self.totals()
        ]
        return table([*heads, "JER", "files", "speakers"], rows, left=5)

    def _comparisons(self) -> str:
        rows = []
        for row in self.content["comparisons"]:
            spread = f"{_text(row['lowest'])} to {_text(row['highest'])}"
            names = (row[key] for key in ("first", "second", "vad", "rule"))
            rows.append([*names, row["difference"], spread, row["p_holm"], row["files"]])
        heads = ["first", "second", "VAD", "rule", "difference of DER", "95 %", "p (Holm)", "files"]
        return table(heads, rows, left=4, digits=4)

    def _conditions(self, system: str) -> str:
        columns = ("condition", "group", "error", *_ERRORS, "seconds")
        rows = [
            [row[name] for name in columns]
            for row in self.content["conditions"]
            if row["system"] == system
        ]
        return table(["condition", "", "error", *_ERRORS.values(), "seconds"], rows, left=2)


def _check(content: Any) -> None:
    """Raise an error if figures are missing or are not numbers."""
    scores = content["scores"]
    if not any(row["uri"] == "TOTAL" for row in scores) or not content["rules"]:
        raise ValueError("the total is missing")
    for row in scores:
        if row["uri"] == "TOTAL":
            rule = content["rules"][row["rule"]]
            figures = [row[name] for name in ("der", *_ERRORS, "jer", "files", "speakers")]
            _check_figures([rule["collar"], *figures], [row[n] for n in ("system", "vad", "rule")])
            _ = rule["overlap"], row["tracks"]
    for row in content["conditions"]:
        figures = [row[name] for name in ("error", *_ERRORS, "seconds")]
        _check_figures(figures, [row[name] for name in ("condition", "system")])
        _ = row["group"]
    for row in content.get("comparisons") or []:
        figures = [row[name] for name in ("difference", "lowest", "highest", "p_holm", "files")]
        _check_figures(figures, [row[name] for name in ("first", "second", "vad", "rule")])


def _check_figures(figures: Iterable[Any], names: Iterable[Any]) -> None:
    for one in figures:
        if one is not None and not isinstance(one, (int, float)):
            raise ValueError(f"{one!r} is not a number")
    for one in names:
        if not isinstance(one, str):
            raise ValueError(f"{one!r} is not text")


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1, digits: int = 2
) -> str:
    """Markdown table. The first `left` columns are left-aligned, the others right-aligned."""
    rules = ["---" if i < left else "---:" for i in range(len(heads))]
    lines = [heads, rules, *([_text(value, digits) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: Any, digits: int = 2) -> str:
    if value is None:
        return "-"
    text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    # a line feed would end the row, and the rest would be read as another part of the card
    return printable(text, one_line=True).replace("|", "\\|")
