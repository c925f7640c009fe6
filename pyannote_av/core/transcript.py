"""Transcripts: what is said, in cues and words, and by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

__all__ = ["Cue", "Transcript", "Word"]


@dataclass(frozen=True)
class Word:
    """A word of a transcript.

    Attributes
    ----------
    text : str
    start, end : float
        Seconds on the container's clock.
    speaker : str or None
        None if nobody is known to say it.
    confidence : float or None
        Probability that the recogniser gives to the word.
    space : bool
        Whether white space precedes the word. False in languages that are written without it.
    """

    text: str
    start: float
    end: float
    speaker: str | None = None
    confidence: float | None = None
    space: bool = True


@dataclass(frozen=True)
class Cue:
    """A line of subtitles, or a segment of a speech recogniser.

    Attributes
    ----------
    start, end : float
        Seconds on the container's clock.
    text : str
    speaker : str or None
    words : tuple of Word
        Empty if only the times of the cue are known.
    """

    start: float
    end: float
    text: str = ""
    speaker: str | None = None
    words: tuple[Word, ...] = ()

    @classmethod
    def of_words(cls, words: tuple[Word, ...], speaker: str | None = None) -> Cue:
        """Cue that consists of these words, at least one."""
        start, end = min(word.start for word in words), max(word.end for word in words)
        return cls(start, end, join(words), speaker, tuple(words))


def join(words: tuple[Word, ...]) -> str:
    """Words as text."""
    return "".join(f"{' ' * word.space}{word.text}" for word in words).strip()


@dataclass
class Transcript:
    """What is said in a file.

    Attributes
    ----------
    cues : list of Cue
        Sorted by start.
    uri : str or None
    language : str or None
        Code such as ``en``.
    """

    cues: list[Cue] = field(default_factory=list)
    uri: str | None = None
    language: str | None = None

    def __post_init__(self):
        self.cues = sorted(self.cues, key=lambda cue: cue.start)

    def __len__(self) -> int:
        return len(self.cues)

    @property
    def end(self) -> float:
        """Time at which the last cue ends, in seconds; 0 without cues."""
        return max((cue.end for cue in self.cues), default=0.0)

    @property
    def words(self) -> list[Word]:
        """All words. Words of cues without times of words share the time of their cue."""
        return [word for cue in self.cues for word in words_of(cue)]

    def utterances(self) -> list[Cue]:
        """Cues in which a single speaker speaks: cues are split where the speaker changes."""
        return [one for cue in self.cues for one in _split(cue)]

    def rename(self, names: Mapping[str, str]) -> Transcript:
        """Same transcript with renamed speakers. Speakers that are not in `names` are kept."""

        def renamed(speaker: str | None) -> str | None:
            return None if speaker is None else names.get(speaker, speaker)

        cues = [
            replace(
                cue,
                speaker=renamed(cue.speaker),
                words=tuple(replace(word, speaker=renamed(word.speaker)) for word in cue.words),
            )
            for cue in self.cues
        ]
        return replace(self, cues=cues)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers that JSON can hold, in the layout of WhisperX."""
        content: dict[str, Any] = {} if self.language is None else {"language": self.language}
        content["segments"] = [_cue_to_dict(cue) for cue in self.cues]
        return content


def words_of(cue: Cue) -> tuple[Word, ...]:
    """Words of a cue. Without times of words, they share the time of the cue by their length."""
    if cue.words or not cue.text:
        return cue.words
    texts = cue.text.split()
    return tuple(
        Word(text, start, end, cue.speaker)
        for text, (start, end) in zip(texts, share(texts, cue.start, cue.end), strict=True)
    )


def share(texts: list[str], start: float, end: float) -> Iterator[tuple[float, float]]:
    """Divide the time from `start` to `end` among words by their number of characters."""
    total, done = sum(map(len, texts)) or 1, 0
    for text in texts:
        first, done = done, done + len(text)
        yield tuple(start + (end - start) * part / total for part in (first, done))


def _split(cue: Cue) -> list[Cue]:
    """Parts of a cue that each have one speaker"""
    speakers = {word.speaker for word in cue.words}
    if len(speakers) < 2:
        return [replace(cue, speaker=speakers.pop())] if speakers - {None} else [cue]
    parts = groupby(cue.words, lambda word: word.speaker)
    return [Cue.of_words(tuple(words), speaker) for speaker, words in parts]


def _cue_to_dict(cue: Cue) -> dict[str, Any]:
    content = {
        "start": round(cue.start, 3),
        "end": round(cue.end, 3),
        "text": cue.text,
        "speaker": cue.speaker,
    }
    if cue.words:
        content["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "speaker": word.speaker,
                **({} if word.confidence is None else {"score": round(word.confidence, 4)}),
            }
            for word in cue.words
        ]
    return content
