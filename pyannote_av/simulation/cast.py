"""The cast of simulated conversations: voices, portraits, and people with both."""

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
    """Material to simulate conversations from.

    Attributes
    ----------
    statistics : ConversationStatistics
    library : SpeechLibrary or None
    portraits : sequence of Portrait
        If there are fewer portraits than people, several people get variants of one.
    talkers : Talkers or None
        People whose clips provide both voice and face. With talkers, the library may be None.

    Raises
    ------
    ValueError
        If there are no portraits (silent people always need them), fewer than two speakers, or
        two speakers with the same name.
    """

    statistics: ConversationStatistics
    library: SpeechLibrary | None
    portraits: Sequence[Portrait]
    talkers: Talkers | None = None

    def __post_init__(self):
        if not self.portraits:
            raise ValueError("a conversation needs portraits")
        if both := set(self.voices) & set(self.filmed):
            raise ValueError(f"both speech and clips have a speaker {min(both)!r}")
        if len(self.voices) + len(self.filmed) < 2:
            raise ValueError("a conversation needs two speakers")

    @property
    def voices(self) -> list[str]:
        """Speakers of the library, who need a portrait."""
        return self.library.speakers if self.library is not None else []

    @property
    def filmed(self) -> list[str]:
        """Speakers with clips of their own."""
        return self.talkers.speakers if self.talkers is not None else []

    def take(self, speaker: str, duration: float, rng: np.random.Generator) -> Take:
        """Speech of a speaker; see :func:`~pyannote_av.simulation.speech.take`."""
        if self.talkers is not None and speaker in self.talkers.clips:
            return self.talkers.take(speaker, duration, rng)
        assert self.library is not None
        return self.library.take(speaker, duration, rng)

    def choose(self, number: int, share: float, rng: np.random.Generator) -> list[str]:
        """Draw `number` speakers in random order, if possible a `share` of them with clips."""
        low, high = max(0, number - len(self.voices)), min(number, len(self.filmed))
        clips = int(np.clip(rng.binomial(number, share), low, high)) if self.filmed else 0
        voices = list(rng.permutation(self.voices)[: number - clips])
        chosen = [*voices, *(rng.permutation(self.filmed)[:clips] if clips else ())]
        # without clips, keep the order in which they were drawn
        return [str(name) for name in (rng.permutation(chosen) if clips else chosen)]
