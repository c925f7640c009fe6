"""Figures of diarization as sums that add up over files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


def _share(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole > 0 else otherwise


@dataclass(frozen=True)
class DiarizationScore:
    """Errors of one file, or of several: add them up with ``sum(scores, DiarizationScore())``.

    Attributes
    ----------
    total : float
        Seconds of reference speech in the scored region; overlapped speech counts once a speaker.
    false_alarm, missed, confusion : float
        Seconds.
    overlapped : float
        Seconds a perfect system would miss that never gives two speakers at a time.
    speakers, guessed : int
        Numbers of speakers in the reference and in the hypothesis.
    speaker_errors : float
        Jaccard errors summed over the speakers of the reference.
    files, right_count : int
        Files, and those of the right number of speakers.
    count_error : int
        Absolute errors of the number of speakers, summed over files.
    pure, clustered, covered, spoken : float
        Seconds, numerators and denominators of purity and coverage.

    Notes
    -----
    What is from `speakers` on is measured without collar and with overlap.
    """

    total: float = 0.0
    false_alarm: float = 0.0
    missed: float = 0.0
    confusion: float = 0.0
    overlapped: float = 0.0
    speakers: int = 0
    guessed: int = 0
    speaker_errors: float = 0.0
    files: int = 0
    right_count: int = 0
    count_error: int = 0
    pure: float = 0.0
    clustered: float = 0.0
    covered: float = 0.0
    spoken: float = 0.0

    def __add__(self, other: DiarizationScore) -> DiarizationScore:
        names = [field.name for field in fields(self)]
        return DiarizationScore(*(getattr(self, n) + getattr(other, n) for n in names))

    @property
    def errors(self) -> float:
        """Seconds: false alarm, missed speech and confusion together."""
        return self.false_alarm + self.missed + self.confusion

    def rate(self, seconds: float) -> float:
        """Seconds as share of the reference; without any, 0 for no seconds and 1 for some."""
        return _share(seconds, self.total, float(seconds > 0))

    @property
    def der(self) -> float:
        """Diarization error rate, 1 being all of the reference speech."""
        return self.rate(self.errors)

    @property
    def floor(self) -> float:
        """DER of the perfect system that never gives two speakers at a time."""
        return self.rate(self.overlapped)

    @property
    def jer(self) -> float:
        """Jaccard error rate (Second DIHARD challenge), every speaker weighted alike."""
        return _share(self.speaker_errors, self.speakers, float(self.guessed > 0))

    @property
    def purity(self) -> float:
        """Share of the hypothesis that is the main reference speaker of its label."""
        return _share(self.pure, self.clustered, 1.0)

    @property
    def coverage(self) -> float:
        """Share of the reference that is in the main label of its speaker."""
        return _share(self.covered, self.spoken, 1.0)

    @property
    def count_accuracy(self) -> float:
        """Share of files of the right number of speakers."""
        return _share(self.right_count, self.files, float("nan"))

    @property
    def mean_count_error(self) -> float:
        """Speakers too many or too few, on average over files."""
        return _share(self.count_error, self.files, float("nan"))

    def figures(self) -> dict[str, Any]:
        """For tables: rates in percent, and the seconds behind them."""
        names = ("total", "false_alarm", "missed", "confusion")
        return {
            "der": 100 * self.der,
            "false_alarm": 100 * self.rate(self.false_alarm),
            "missed": 100 * self.rate(self.missed),
            "confusion": 100 * self.rate(self.confusion),
            "single_label_floor": 100 * self.floor,
            "jer": 100 * self.jer,
            "purity": 100 * self.purity,
            "coverage": 100 * self.coverage,
            "files": self.files,
            "speakers": self.speakers,
            "guessed_speakers": self.guessed,
            "speaker_count_accuracy": 100 * self.count_accuracy,
            "speaker_count_error": self.mean_count_error,
            **{f"{name}_seconds": getattr(self, name) for name in names},
        }


@dataclass(frozen=True)
class Rule:
    """What is scored.

    Attributes
    ----------
    collar : float
        Seconds left out on **either side** of where a reference turn begins or ends, as in
        md-eval. pyannote.metrics takes the total width: its ``collar=0.5`` is 0.25 here.
    overlap : bool
        Whether overlapped reference speech is scored.
    """

    collar: float
    overlap: bool


#: named as in Landini et al., "Bayesian HMM clustering of x-vector sequences (VBx) in speaker
#: diarization: theory, implementation and analysis on standard tasks", 2022
RULES = {
    "Forgiving": Rule(collar=0.25, overlap=False),
    "Fair": Rule(collar=0.25, overlap=True),
    "Full": Rule(collar=0.0, overlap=True),
}
