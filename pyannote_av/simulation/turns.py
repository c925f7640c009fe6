"""Who speaks when: conversations sampled from statistics of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pyannote.core import Annotation, Segment

from pyannote_av.simulation.statistics import ConversationStatistics, merged, shares

#: numbers of speakers that can be asked for
SPEAKERS = (2, 20)
#: shortest turn, and shortest pause between two turns of one speaker, in seconds
SHORTEST_TURN = 0.15
SHORTEST_PAUSE = 0.05
#: how often a short conversation is begun anew for everybody to have a turn
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
        """Gap at a change of speaker after a turn of `previous` seconds, and the turn's length"""
        overlaps = bool(len(self._overlaps)) and self.rng.random() < self._overlap_share
        for _ in range(20):
            length = self.turn()
            gap = self.draw(self._overlaps if overlaps else self._gaps, -np.inf)
            # it goes on beyond what it overlaps with, and did not begin before it
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
    """Decides who is next"""

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
        """Somebody, by how much each speaks; None where nobody is left"""
        left = [name for name in self.names if name not in without]
        weights = np.array([self.weights[name] for name in left])
        return str(self.rng.choice(left, p=weights / weights.sum())) if left else None

    def change(self) -> str:
        """The next one to take the floor"""
        if self.before is not None and self.rng.random() < self._returns:
            return self.before
        # somebody new, unless there are only two
        return self.other([self.last, self.before]) or self.other([self.last]) or self.names[0]

    def take(self, name: str) -> None:
        if name != self.last:
            self.before, self.last = self.last, name


def number_of_speakers(
    statistics: ConversationStatistics, duration: float, rng: np.random.Generator
) -> int:
    """How many speak, as often as in the corpus, within what can be simulated (2 to 20).

    In less than 200 s there are at most two, or one for every 10 s.
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
    """A conversation that nobody had.

    Parameters
    ----------
    statistics : ConversationStatistics
    duration : float
        Seconds.
    num_speakers : int, optional
        2 to 20; as often as in the corpus unless given. Every one of them speaks.
    seed : int or sequence of int
        The same conversation for the same seed.
    uri : str, optional

    Returns
    -------
    turns : Annotation
        Labels are ``spk00``, ``spk01``, ..., the most talkative first in expectation.

    Raises
    ------
    ValueError
        When the number of speakers is none of 2 to 20, or `duration` gives not all of them a turn.
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

    # a recording does not begin with the first word
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
    """Turns with everybody in: who has none gets one of somebody who has several"""
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
    """The same statistics, with the factor by which sampled conversations overlap as real ones do.

    Lengths of turns and of overlaps are drawn independently, and what does not fit together is
    drawn again, which makes for less overlap than the corpus has.

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
