"""Who may appear in conversations: voices, portraits, and people with both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyannote_av.simulation.portrait import Portrait
from pyannote_av.simulation.speech import SpeechLibrary, Take
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.simulation.talkers import Talkers


@dataclass(frozen=True, eq=False)
class Cast:
    """What conversations are made of.

    Attributes
    ----------
    statistics : ConversationStatistics
    library : SpeechLibrary or None
    portraits : sequence of Portrait
        Where there are fewer than people, several people are variants of one.
    talkers : Talkers or None
        People whose clips are used, voice and face together. With them, there may be no library.

    Raises
    ------
    ValueError
        Without portraits (silent people need them, whoever speaks), with less than two speakers,
        or when two of them have the same name.
    """

    statistics: ConversationStatistics
    library: SpeechLibrary | None
    portraits: Sequence[Portrait]
    talkers: Talkers | None = None

    def __post_init__(self):
        if not self.portraits:
            raise ValueError("a conversation needs portraits")
        if both := set(self.voices) & set(self.seen):
            raise ValueError(f"both speech and clips have a speaker {min(both)!r}")
        if len(self.voices) + len(self.seen) < 2:
            raise ValueError("a conversation needs two speakers")

    @property
    def voices(self) -> list[str]:
        """Speakers of the library, who need a portrait."""
        return self.library.speakers if self.library is not None else []

    @property
    def seen(self) -> list[str]:
        """Speakers who are seen in clips of their own."""
        return self.talkers.speakers if self.talkers is not None else []

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of one of the speakers; see :func:`~pyannote_av.simulation.speech.take`."""
        if self.talkers is not None and speaker in self.talkers.clips:
            return self.talkers.take(speaker, duration, rng)
        assert self.library is not None
        return self.library.take(speaker, duration, rng)

    def choose(self, number: int, share: float, rng: np.random.Generator) -> list[str]:
        """As many speakers in any order, a `share` of them (if possible) seen in clips."""
        low, high = max(0, number - len(self.voices)), min(number, len(self.seen))
        clips = int(np.clip(rng.binomial(number, share), low, high)) if self.seen else 0
        voices = list(rng.permutation(self.voices)[: number - clips])
        chosen = [*voices, *(rng.permutation(self.seen)[:clips] if clips else ())]
        # without clips in the order in which they were drawn
        return [str(name) for name in (rng.permutation(chosen) if clips else chosen)]
