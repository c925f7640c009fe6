"""Scores of a system on a set of files, by VAD and scoring rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyannote_av.evaluation.diarization_score import RULES, DiarizationScore
from pyannote_av.evaluation.tables import aligned

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("der", "false_alarm", "missed", "confusion", "single_label_floor", "jer")
_HEADS = ("DER", "FA", "miss", "conf", "floor", "JER")


@dataclass(frozen=True, repr=False)
class DiarizationResult:
    """Result of :func:`~pyannote_av.evaluation.diarization.evaluate`.

    ``result["automatic", "Full"].der`` is the total DER of one condition,
    ``result.per_file("oracle", "Fair")`` are the scores of each file, and printing the result
    shows all conditions.

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
        """One flat row per condition and file. The uri of totals is "TOTAL"."""
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
        """Table of all conditions in percent, followed by metrics that do not use collars."""
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
