"""Turn-taking statistics, estimated from reference annotations.

A conversation is described as a sequence of *floor turns* and *back-channels*. A floor turn ends
later than all turns before it. A back-channel starts and ends while somebody else has the floor. At
a change of floor, the gap is measured in seconds from the end of all previous speech. Negative gaps
are overlaps.

References
----------
Fujita et al., "End-to-End Neural Speaker Diarization with Self-attention", ASRU 2019 (simulated
mixtures); Landini et al., "From Simulated Mixtures to Simulated Conversations as Training Data for
End-to-End Neural Diarization", Interspeech 2022, https://arxiv.org/abs/2204.00890 (pauses and
overlaps sampled from histograms of real conversations).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyannote.core import Annotation

from pyannote_av.core.reading import LONGEST, ReadError, read_json, whole

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

#: statistics that come with the package
SHIPPED = ("ami", "ava_avd")
# maximum number of speakers in a conversation
_MOST_SPEAKERS = 1000
_QUANTILES = np.linspace(0, 1, 101)
_RANKS = np.linspace(0, 1, 21)


class Turn(NamedTuple):
    """A turn. If it is a back-channel, `nested` is True; else `gap` is the gap before it."""

    start: float
    end: float
    speaker: str
    nested: bool
    gap: float
    same: bool


@dataclass(frozen=True)
class ConversationStatistics:
    """Turn-taking statistics of a corpus.

    Distributions are tuples of 101 quantiles, 0 % to 100 %, evenly spaced. Times are in seconds.

    Attributes
    ----------
    files : int
        Number of files that the statistics are estimated from.
    speakers : dict of str to int
        Number of files by number of speakers (as strings, because of JSON).
    turn : tuple of float
        Duration of floor turns.
    pause : tuple of float
        Gap if the same speaker continues.
    gap : tuple of float
        Gap, or overlap if negative, if the speaker changes.
    back_channel : tuple of float
        Duration of back-channels; empty if there are none.
    back_channel_rate : float
        Back-channels per second of floor turns.
    overlap_factor : float
        Correction found by :func:`pyannote_av.simulation.turns.calibrated`. In sampling, it
        multiplies the rate of back-channels and the share of overlapping changes.
    same : float
        Share of floor turns whose speaker also had the previous floor turn.
    returns : float
        Share of speaker changes that return to the last but one speaker.
    dominance : tuple of float
        Share of turns that belong to the most active 0 %, 5 %, ..., 100 % of speakers.
    visible : tuple of float
        Share of a speaker's speech during which the speaker's face is visible, weighted by speech
        time; empty without face tracks.
    mean_turn, overlap_share, speech_share : float
        Mean duration of all turns. Overlapping speech beyond the first speaker, divided by all
        speech, where each speaker counts. Share of time in which anybody speaks.
    off_screen_share : float or None
        Share of speech whose speaker is not visible; None without face tracks.
    """

    files: int
    speakers: dict[str, int]
    turn: tuple[float, ...]
    pause: tuple[float, ...]
    gap: tuple[float, ...]
    back_channel: tuple[float, ...]
    back_channel_rate: float
    same: float
    returns: float
    dominance: tuple[float, ...]
    mean_turn: float
    overlap_share: float
    speech_share: float
    visible: tuple[float, ...] = ()
    off_screen_share: float | None = None
    overlap_factor: float = 1.0

    @property
    def mean_speakers(self) -> float:
        """Mean number of speakers per file."""
        return sum(int(k) * v for k, v in self.speakers.items()) / sum(self.speakers.values())

    def write(self, path: str | Path) -> Path:
        """Write as JSON; returns the path."""
        from pyannote_av.core.atomic import write_text

        lines = (f" {json.dumps(k)}: {json.dumps(v)}" for k, v in asdict(self).items())
        return write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def read(cls, name: str | Path) -> ConversationStatistics:
        """Read a JSON file, or statistics that come with the package ("ava_avd", "ami").

        Raises
        ------
        ValueError
            If the file does not hold valid statistics.
        """
        path = Path(name)
        if str(name) in SHIPPED:
            path = Path(__file__).parent / "fitted" / f"{name}.json"
        elif not path.is_file():
            raise FileNotFoundError(
                f"{name}: neither a file nor shipped statistics ({', '.join(SHIPPED)})"
            )
        try:
            content = read_json(path)
            known = {field.name for field in fields(cls)}
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            if unknown := sorted(values.keys() - known):
                raise ValueError(f"unknown entries {unknown}")
            found = cls(**values)
            found._check()
            return found
        except (AttributeError, TypeError, ValueError) as error:
            raise ReadError(f"{path}: not conversation statistics ({error})") from error

    def _check(self) -> None:
        """Raise ValueError for values that cannot be sampled from"""
        for count, files in self.speakers.items():
            if not count.isascii() or not count.isdecimal() or not 0 < int(count) <= _MOST_SPEAKERS:
                raise ValueError(f"{count!r} speakers")
            whole(files, 0, 2**53, f"number of files of {count} speakers")
        if not sum(self.speakers.values()):
            raise ValueError("no file has speakers")
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "speakers":
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if number is None and one.default is None:
                    continue
                if type(number) not in (int, float) or not abs(number) <= LONGEST:
                    raise ValueError(f"{one.name}: {number!r} is not a valid number")


def merged(annotation: Annotation) -> list[tuple[float, float, str]]:
    """(start, end, speaker) of turns by time; contiguous turns of one speaker are merged."""
    turns = [
        (segment.start, segment.end, str(label))
        for label in annotation.labels()
        for segment in annotation.label_timeline(label).support()
    ]
    # of two turns with the same start, the longer one has the floor
    return sorted(turns, key=lambda turn: (turn[0], -turn[1], turn[2]))


def take_apart(annotation: Annotation) -> list[Turn]:
    """Split a conversation into floor turns and back-channels, by time."""
    turns, floor_end, holder = [], None, None
    for start, end, speaker in merged(annotation):
        nested = floor_end is not None and end <= floor_end
        gap = 0.0 if floor_end is None or nested else start - floor_end
        turns.append(Turn(start, end, speaker, nested, gap, speaker == holder))
        if not nested:
            floor_end, holder = end, speaker
    return turns


class Shares(NamedTuple):
    """Seconds with any speaker, of speech summed over speakers, and from first to last speech"""

    anybody: float
    speech: float
    extent: float


def shares(annotation: Annotation) -> Shares:
    """Amounts of speech; the overlap share is ``1 - anybody / speech``."""
    timeline = annotation.get_timeline()
    speech = sum(end - start for start, end, _ in merged(annotation))
    return Shares(timeline.support().duration(), speech, timeline.extent().duration)


def _quantiles(values: Iterable[float]) -> tuple[float, ...]:
    values = np.asarray(list(values), float)
    return tuple(np.quantile(values, _QUANTILES).round(4).tolist()) if len(values) else ()


def _dominance(conversations: list[list[Turn]]) -> tuple[float, ...]:
    """Mean curve of the share of turns of the most active speakers"""
    curves = [np.minimum(_RANKS, 1.0)]
    for turns in conversations:
        counts = np.sort(np.unique([turn.speaker for turn in turns], return_counts=True)[1])[::-1]
        if len(counts) > 1:
            share = np.r_[0, counts.cumsum() / counts.sum()]
            curves.append(np.interp(_RANKS, np.linspace(0, 1, len(share)), share))
    # a curve needs at least two speakers; without any, all speakers are assumed equally active
    return tuple(np.mean(curves[1:] or curves, axis=0).round(4).tolist())


def _returns(conversations: list[list[Turn]]) -> float:
    """Share of speaker changes that return to the last but one speaker"""
    back = changes = 0
    for turns in conversations:
        order = [turn.speaker for turn in turns if not turn.nested]
        order = [a for a, b in zip(order, [None, *order], strict=False) if a != b]
        changes += max(len(order) - 2, 0)
        back += sum(a == b for a, b in zip(order, order[2:], strict=False))
    return back / changes if changes else 0.0


def visibility(
    annotations: Mapping[str, Annotation], tracks: Mapping[str, FaceTracks]
) -> dict[str, Any]:
    """Share of speech with a visible speaker.

    Parameters
    ----------
    annotations : mapping of uri to Annotation
    tracks : mapping of uri to FaceTracks
        Tracks carry the speaker labels of `annotations`.

    Returns
    -------
    values : dict
        ``visible`` and ``off_screen_share`` of :class:`ConversationStatistics`.

    Raises
    ------
    ValueError
        If no file has both speech and tracks.
    """
    share, seconds = [], []
    for uri in sorted(tracks.keys() & annotations.keys()):
        faces = tracks[uri].to_annotation(by="speaker")
        for speaker in annotations[uri].labels():
            spoken = annotations[uri].label_timeline(speaker).support()
            visible = faces.label_timeline(speaker).support()
            share.append(spoken.crop(visible).duration() / spoken.duration())
            seconds.append(spoken.duration())
    if not share:
        raise ValueError("no file has both turns and face tracks: do their names agree?")
    order = np.argsort(share)
    visible, weight = np.array(share)[order], np.array(seconds)[order] / np.sum(seconds)
    # the share of the curve for a speaker is proportional to the amount of speech
    quantiles = np.interp(_QUANTILES, weight.cumsum() - weight / 2, visible)
    return {
        "visible": tuple(quantiles.round(4).tolist()),
        "off_screen_share": round(float(1 - visible @ weight), 4),
    }


def fit(
    annotations: Mapping[str, Annotation], tracks: Mapping[str, FaceTracks] | None = None
) -> ConversationStatistics:
    """Estimate turn-taking statistics.

    Parameters
    ----------
    annotations : mapping of uri to Annotation
        Files without speech are ignored.
    tracks : mapping of uri to FaceTracks, optional
        Tracks of some or all files, with the speaker labels of `annotations`.

    Raises
    ------
    ValueError
        If there is no speech, or no change of speaker.
    """
    spoken = {uri: one for uri, one in annotations.items() if one}
    conversations = [take_apart(one) for one in spoken.values()]
    turns = [turn for one in conversations for turn in one]
    floor = [turn for turn in turns if not turn.nested]
    # the first turn of a file has no gap
    after = [turn for one in conversations for turn in one[1:] if not turn.nested]
    if not turns or all(turn.same for turn in after):
        raise ValueError("statistics of conversations need files in which speakers change")
    totals = np.sum([shares(one) for one in spoken.values()], axis=0)
    nested = [turn.end - turn.start for turn in turns if turn.nested]
    numbers = np.unique([len(one.labels()) for one in spoken.values()], return_counts=True)
    return ConversationStatistics(
        files=len(spoken),
        speakers={str(int(n)): int(count) for n, count in zip(*numbers, strict=True)},
        turn=_quantiles(turn.end - turn.start for turn in floor),
        pause=_quantiles(turn.gap for turn in after if turn.same),
        gap=_quantiles(turn.gap for turn in after if not turn.same),
        back_channel=_quantiles(nested),
        back_channel_rate=round(len(nested) / sum(t.end - t.start for t in floor), 5),
        same=round(float(np.mean([turn.same for turn in after])), 4),
        returns=round(_returns(conversations), 4),
        dominance=_dominance(conversations),
        mean_turn=round(float(np.mean([turn.end - turn.start for turn in turns])), 4),
        overlap_share=round(float(1 - totals[0] / totals[1]), 5),
        speech_share=round(float(totals[0] / totals[2]), 4),
        **(visibility(spoken, tracks) if tracks else {}),
    )
