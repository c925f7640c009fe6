"""Sampling of turns from turn-taking statistics of real conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pyannote.core import Annotation, Segment

from pyannote_av.simulation.statistics import ConversationStatistics, merged, shares

#: range of the number of speakers
SPEAKERS = (2, 20)
#: shortest turn, and shortest pause between two turns of one speaker, in seconds
SHORTEST_TURN = 0.15
SHORTEST_PAUSE = 0.05
#: maximum attempts to sample a short conversation in which everybody has a turn
_TRIES = 50


class _Sampler:
    """Draws from the distributions of a corpus"""

    def __init__(self, statistics: ConversationStatistics, rng: np.random.Generator):
        self.statistics, self.rng = statistics, rng
        gap = np.asarray(statistics.gap)
        self._overlaps, self._gaps = gap[gap < 0], gap[gap >= 0]
        share = len(self._overlaps) / len(gap)
        self._overlap_share = min(1.0, share * statistics.overlap_factor)

    def draw(self, quantiles: Sequence[float], low: float = 0.0) -> float:
        if not len(quantiles):
            return max(low, 0.0)
        position = self.rng.uniform(0, len(quantiles) - 1)
        return max(low, float(np.interp(position, np.arange(len(quantiles)), quantiles)))

    def turn(self) -> float:
        return self.draw(self.statistics.turn, SHORTEST_TURN)

    def change(self, previous: float) -> tuple[float, float]:
        """Gap and length of another speaker's turn, after a turn of `previous` seconds"""
        overlaps = bool(len(self._overlaps)) and self.rng.random() < self._overlap_share
        for _ in range(20):
            length = self.turn()
            gap = self.draw(self._overlaps if overlaps else self._gaps, -np.inf)
            # the new turn must start after the previous one started, and end after it ended
            if gap >= 0 or (-gap < length and -gap < previous):
                return gap, length
        return 0.0, length

    def back_channels(self, length: float) -> list[tuple[float, float]]:
        """(start, end) within a floor turn of `length` seconds"""
        rate = self.statistics.back_channel_rate * self.statistics.overlap_factor
        found = []
        for _ in range(self.rng.poisson(rate * length) if self.statistics.back_channel else 0):
            lasts = self.draw(self.statistics.back_channel, SHORTEST_TURN)
            if lasts < length:
                start = self.rng.uniform(0, length - lasts)
                found.append((start, start + lasts))
        return sorted(found)


class _Speakers:
    """Selects the next speaker"""

    def __init__(self, names: Sequence[str], sampler: _Sampler):
        self.names, self.rng = list(names), sampler.rng
        curve = sampler.statistics.dominance
        places = np.linspace(0, 1, len(names) + 1)
        weights = np.diff(np.interp(places, np.linspace(0, 1, len(curve)), curve)) + 1e-3
        self.weights = dict(zip(names, weights / weights.sum(), strict=True))
        self._returns = sampler.statistics.returns
        self.last: str | None = None
        self.before: str | None = None

    def other(self, without: Sequence[str | None]) -> str | None:
        """A random speaker, weighted by activity; None if nobody is left"""
        left = [name for name in self.names if name not in without]
        weights = np.array([self.weights[name] for name in left])
        return str(self.rng.choice(left, p=weights / weights.sum())) if left else None

    def change(self) -> str:
        """The next speaker to take the floor"""
        if self.before is not None and self.rng.random() < self._returns:
            return self.before
        # another speaker than the last two, unless there are only two
        return self.other([self.last, self.before]) or self.other([self.last]) or self.names[0]

    def take(self, name: str) -> None:
        if name != self.last:
            self.before, self.last = self.last, name


def number_of_speakers(
    statistics: ConversationStatistics, duration: float, rng: np.random.Generator
) -> int:
    """Draw a number of speakers from the distribution of the corpus, limited to 2 to 20.

    Below 200 s, there is at most one speaker per 10 s, but never less than two.
    """
    low, high = SPEAKERS
    high = int(np.clip(duration / 10, low, high))
    numbers = np.clip([int(number) for number in statistics.speakers], low, high)
    counts = np.array(list(statistics.speakers.values()), float)
    return int(rng.choice(numbers, p=counts / counts.sum()))


def sample_turns(
    statistics: ConversationStatistics,
    duration: float,
    num_speakers: int | None = None,
    seed: int | Sequence[int] = 0,
    uri: str | None = None,
) -> Annotation:
    """Sample the turns of a conversation.

    Parameters
    ----------
    statistics : ConversationStatistics
    duration : float
        Duration in seconds.
    num_speakers : int, optional
        2 to 20. Defaults to the distribution of the corpus. All of them speak.
    seed : int or sequence of int
        The same seed gives the same conversation.
    uri : str, optional

    Returns
    -------
    turns : Annotation
        Labels are ``spk00``, ``spk01``, ..., by decreasing expected activity.

    Raises
    ------
    ValueError
        If the number of speakers is not within 2 to 20, or `duration` is too short for all of them.
    """
    rng = np.random.default_rng(seed)
    if num_speakers is None:
        num_speakers = number_of_speakers(statistics, duration, rng)
    if not SPEAKERS[0] <= num_speakers <= SPEAKERS[1]:
        raise ValueError(f"{num_speakers} speakers: must be {SPEAKERS[0]} to {SPEAKERS[1]}")
    sampler = _Sampler(statistics, rng)
    names = [f"spk{i:02d}" for i in range(num_speakers)]
    for _ in range(_TRIES):
        if (turns := _everybody(_talk(sampler, names, duration), names, rng)) is not None:
            break
    else:
        raise ValueError(f"{duration:g} s are too short for {num_speakers} speakers")
    annotation = Annotation(uri=uri)
    for track, (start, end, name) in enumerate(sorted(turns)):
        annotation[Segment(round(start, 3), round(end, 3)), track] = name
    return annotation


def _talk(
    sampler: _Sampler, names: Sequence[str], duration: float
) -> list[tuple[float, float, str]]:
    """Turns (start, end, speaker) before `duration`"""
    speakers, rng = _Speakers(names, sampler), sampler.rng
    own_end = dict.fromkeys(names, -np.inf)
    turns: list[tuple[float, float, str]] = []

    def say(start, end, name):
        end = min(end, duration)
        if start >= own_end[name] + SHORTEST_PAUSE and end - start >= SHORTEST_TURN:
            turns.append((start, end, name))
            own_end[name] = end

    # a recording does not start with the first word
    start, length = min(1.0, sampler.draw(sampler.statistics.pause)), sampler.turn()
    name, end = speakers.other([]) or names[0], 0.0
    while start < duration:
        say(start, start + length, name)
        speakers.take(name)
        for first, last in sampler.back_channels(length):
            free = [n for n in names if own_end[n] + SHORTEST_PAUSE > start + first]
            if (listener := speakers.other([name, *free])) is not None:
                say(start + first, start + last, listener)
        end, previous = start + length, length
        if sampler.statistics.pause and rng.random() < sampler.statistics.same:
            gap, length = sampler.draw(sampler.statistics.pause, SHORTEST_PAUSE), sampler.turn()
        else:
            name = speakers.change()
            gap, length = sampler.change(previous)
            if end + gap < own_end[name] + SHORTEST_PAUSE:
                gap = own_end[name] + SHORTEST_PAUSE - end
        start = max(end + gap, own_end[name] + SHORTEST_PAUSE)
    return turns


def _everybody(turns, names, rng):
    """Give each person without a turn one from a person with several turns"""
    turns = list(turns)
    if len(turns) < len(names):
        return None
    for name in names:
        speakers = [turn[2] for turn in turns]
        if name in speakers:
            continue
        several = [i for i, other in enumerate(speakers) if speakers.count(other) > 1]
        i = int(rng.choice(several))
        turns[i] = (*turns[i][:2], name)
    return turns


def measure(conversations: Sequence[Annotation]) -> dict[str, float]:
    """Mean turn length, overlap share, speech share and speakers per file of conversations."""
    totals = np.sum([shares(one) for one in conversations], axis=0)
    lengths = [end - start for one in conversations for start, end, _ in merged(one)]
    return {
        "mean_turn": float(np.mean(lengths)),
        "overlap_share": float(1 - totals[0] / totals[1]),
        "speech_share": float(totals[0] / totals[2]),
        "speakers": float(np.mean([len(one.labels()) for one in conversations])),
    }


def calibrated(
    statistics: ConversationStatistics, duration: float = 300.0, files: int = 150, rounds: int = 4
) -> ConversationStatistics:
    """Set `overlap_factor`, so that sampled conversations overlap as much as real ones.

    The durations of turns and overlaps are sampled independently. Combinations that do not fit are
    sampled again, which gives less overlap than in the corpus.

    Parameters
    ----------
    duration : float
        Seconds of each of `files` conversations that are sampled in each of the `rounds`.
    """
    if not statistics.overlap_share:
        return statistics
    for _ in range(rounds):
        sampled = [sample_turns(statistics, duration, seed=[1, i]) for i in range(files)]
        found = measure(sampled)["overlap_share"]
        factor = statistics.overlap_factor * statistics.overlap_share / max(found, 1e-4)
        statistics = replace(statistics, overlap_factor=round(float(np.clip(factor, 0.1, 5)), 4))
    return statistics
