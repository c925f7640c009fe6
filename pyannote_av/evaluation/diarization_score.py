"""Diarization metrics as sums that can be added over files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


def _share(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole > 0 else otherwise


@dataclass(frozen=True)
class DiarizationScore:
    """Errors of one or several files. Add them with ``sum(scores, DiarizationScore())``.

    Attributes
    ----------
    total : float
        Seconds of reference speech in the scored region. Overlapped speech counts once per speaker.
    false_alarm, missed, confusion : float
        Seconds.
    overlapped : float
        Seconds missed by a perfect system that never outputs two speakers at a time.
    speakers, guessed : int
        Numbers of speakers in the reference and in the hypothesis.
    speaker_errors : float
        Jaccard errors summed over the speakers of the reference.
    files, right_count : int
        Number of files, and number of files with the right number of speakers.
    count_error : int
        Absolute errors of the number of speakers, summed over files.
    pure, clustered, covered, spoken : float
        Numerators and denominators of purity and coverage, in seconds.

    Notes
    -----
    `speakers` and all later attributes are measured without collar and with overlap.
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
        """Sum of false alarm, missed speech and confusion, in seconds."""
        return self.false_alarm + self.missed + self.confusion

    def rate(self, seconds: float) -> float:
        """Seconds as share of the reference speech; without any, 1 if there are seconds, else 0."""
        return _share(seconds, self.total, float(seconds > 0))

    @property
    def der(self) -> float:
        """Diarization error rate, as share of the reference speech."""
        return self.rate(self.errors)

    @property
    def floor(self) -> float:
        """DER of a perfect system that never outputs two speakers at a time."""
        return self.rate(self.overlapped)

    @property
    def jer(self) -> float:
        """Jaccard error rate (Second DIHARD challenge). All speakers have equal weight."""
        return _share(self.speaker_errors, self.speakers, float(self.guessed > 0))

    @property
    def purity(self) -> float:
        """Share of the hypothesis that belongs to the main reference speaker of its label."""
        return _share(self.pure, self.clustered, 1.0)

    @property
    def coverage(self) -> float:
        """Share of the reference that is covered by the main label of its speaker."""
        return _share(self.covered, self.spoken, 1.0)

    @property
    def count_accuracy(self) -> float:
        """Share of files with the right number of speakers."""
        return _share(self.right_count, self.files, float("nan"))

    @property
    def mean_count_error(self) -> float:
        """Absolute error of the number of speakers, averaged over files."""
        return _share(self.count_error, self.files, float("nan"))

    def figures(self) -> dict[str, Any]:
        """Metrics for tables: rates in percent, and the underlying seconds."""
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
    """Scoring rule.

    Attributes
    ----------
    collar : float
        Seconds that are not scored on **either side** of the beginning and the end of a reference
        turn, as in md-eval. pyannote.metrics takes the total width: its ``collar=0.5`` is 0.25
        here.
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
