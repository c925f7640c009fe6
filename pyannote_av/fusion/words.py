"""Speakers of the words of a transcript, by who speaks when and by whose face is speaking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pyannote.core import Annotation

from pyannote_av.core.transcript import Transcript, Word

if TYPE_CHECKING:
    from pyannote_av.core.tracks import FaceTracks

# weight of a face, whose evidence is between -1 (silent) and 1 (speaking); turns count up to 1
_FACE = 0.5
# weight of a turn nearby, for words in which nobody speaks
_NEAR = 0.3
# costs of another speaker within a cue: in a sentence, and after its end or a pause
_SWITCH, _BREAK = 0.4, 0.15
_PAUSE = 0.5
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"»”’)]*$")
# minimum share of a word in which a face must be scored
_MIN_VISIBLE = 0.3
# words last at least this many seconds when they are compared with turns
_SHORTEST = 0.04
# tolerance, in seconds, for cues that begin after the end of the file
_TOLERANCE = 1.0


def assign_speakers(transcript: Transcript, output: Any, max_gap: float = 0.5) -> Transcript:
    """Give each word of a transcript its speaker, or each cue where words have no times.

    The speaker is the one whose turn covers most of the word. Where several speak, the one whose
    face is speaking is preferred, and then the one who says the other words of the cue. Where
    nobody speaks according to the turns, it is the one whose face is speaking, or whose turn is
    next to the word. Words without any of these are given the speaker of the cue if the words
    before and after them have the same one. All others have no speaker (None).

    Parameters
    ----------
    transcript : Transcript
        See :func:`pyannote_av.formats.transcripts.read_transcript`. Its own speakers are replaced.
    output : AVDiarizeOutput or Annotation
        Turns and, if available, face tracks with speakers and speaking scores, of the same file.
    max_gap : float, optional
        Longest distance, in seconds, between a word and a turn next to it.

    Returns
    -------
    transcript : Transcript
        With speakers of words, and of cues. The speaker of a cue is the one who speaks longest.

    Raises
    ------
    ValueError
        When the transcript goes on after the end of the file.
    """
    turns = output if isinstance(output, Annotation) else output.speaker_diarization
    tracks = None if turns is output else getattr(output, "face_tracks", None)
    _check_length(transcript, output)
    labels = turns.labels()
    pieces = [piece for cue in transcript.cues for piece in cue.words or (cue,)]
    start = np.array([piece.start for piece in pieces], np.float64)
    end = np.maximum([piece.end for piece in pieces], start + _SHORTEST) if pieces else start
    scores = _scores(turns, tracks, labels, start, end, max_gap)

    cues, first = [], 0
    for cue in transcript.cues:
        rows = slice(first, first := first + len(cue.words or (cue,)))
        if not cue.words:
            cues.append(replace(cue, speaker=_best(scores[rows][0], labels)))
            continue
        speakers = _fill(_path(cue.words, scores[rows], labels))
        words = tuple(replace(w, speaker=s) for w, s in zip(cue.words, speakers, strict=True))
        cues.append(replace(cue, words=words, speaker=_main(words)))
    uri = turns.uri if transcript.uri is None else transcript.uri
    return replace(transcript, cues=cues, uri=uri)


def _check_length(transcript: Transcript, output: Any) -> None:
    report = getattr(output, "report", None)
    if report is None:
        return
    duration = report["duration"] if isinstance(report, Mapping) else report.duration
    last = max((one.start for cue in transcript.cues for one in cue.words or (cue,)), default=0.0)
    if duration and last > duration + _TOLERANCE:
        raise ValueError(
            f"the transcript goes on at {last:.2f} s, but the file lasts {duration:.2f} s: "
            "it is the transcript of another file, or of a longer version"
        )


def _scores(
    turns: Annotation,
    tracks: FaceTracks | None,
    labels: list[str],
    start: np.ndarray,
    end: np.ndarray,
    max_gap: float,
) -> np.ndarray:
    """Evidence (words, speakers) that a speaker says a word; -inf where there is none"""
    covered = np.zeros((len(start), len(labels)))
    distance = np.full_like(covered, np.inf)
    for column, label in enumerate(labels):
        regions = turns.label_timeline(label).support()
        begins, ends = np.array([(one.start, one.end) for one in regions]).T
        covered[:, column] = _speech(begins, ends, end) - _speech(begins, ends, start)
        # to the turn before, and to the turn after
        before = np.searchsorted(ends, start, side="right") - 1
        after = np.searchsorted(begins, end)
        gaps = np.stack(
            [
                start - np.where(before >= 0, ends[before], -np.inf),
                np.where(after < len(begins), begins[after % len(begins)], np.inf) - end,
            ]
        )
        distance[:, column] = gaps.min(axis=0)
    covered /= (end - start)[:, None]
    covered[covered < 1e-9] = 0.0
    in_turns = np.minimum(covered.sum(axis=1, keepdims=True), 1.0)
    close = np.clip(1 - distance / max_gap, 0.0, 1.0) if max_gap > 0 else np.zeros_like(covered)
    nearby = (distance <= max_gap) & (covered == 0)
    faces = _faces(tracks, labels, start, end)
    scores = covered + _FACE * faces + np.where(nearby, _NEAR * close * (1 - in_turns), 0.0)
    known = (covered > 0) | (faces > 0) | (nearby & (in_turns < 1))
    return np.where(known, scores, -np.inf)


def _speech(begins: np.ndarray, ends: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Seconds of speech before each time, in regions that do not overlap"""
    total = np.concatenate([[0.0], np.cumsum(ends - begins)])
    number = np.searchsorted(begins, time, side="right")
    inside = ends[np.maximum(number, 1) - 1] - time
    return total[number] - np.where(number > 0, np.maximum(inside, 0.0), 0.0)


def _faces(
    tracks: FaceTracks | None, labels: list[str], start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """Evidence (words, speakers) of faces, from -1 to 1; 0 where no face is scored"""
    evidence = np.zeros((len(start), len(labels)))
    if tracks is None or not tracks.speaker:
        return evidence
    rate = tracks.frame_rate
    for column, label in enumerate(labels):
        own = [track for track, speaker in tracks.speaker.items() if speaker == label]
        rows = np.isin(tracks.track, own) & np.isfinite(tracks.speaking)
        time = tracks.time[rows]
        order = np.argsort(time)
        time, score = time[order], np.clip(tracks.speaking[rows][order].astype(np.float64), -20, 20)
        sums = np.concatenate([[0.0], np.cumsum(2 / (1 + np.exp(-score)) - 1)])
        # a row stands for the time around it
        first, last = np.searchsorted(time, [start - 0.5 / rate, end - 0.5 / rate])
        count = last - first
        enough = count >= np.maximum(_MIN_VISIBLE * (end - start) * rate, 1)
        mean = (sums[last] - sums[first]) / np.maximum(count, 1)
        evidence[:, column] = np.where(enough, mean, 0.0)
    return evidence


def _best(scores: np.ndarray, labels: list[str]) -> str | None:
    """Speaker with the highest score, if any"""
    return labels[int(scores.argmax())] if np.isfinite(scores).any() else None


def _path(words: tuple[Word, ...], scores: np.ndarray, labels: list[str]) -> list[str | None]:
    """Speakers of the words of a cue, with as much evidence and as few changes as possible"""
    known = np.isfinite(scores).any(axis=1)
    some = np.flatnonzero(np.isfinite(scores).any(axis=0))
    speakers: list[str | None] = [None] * len(words)
    if not len(some):
        return speakers
    rows = np.flatnonzero(known)
    best = scores[rows[0]][some]
    back = []
    for previous, row in pairwise(rows):
        cost = _cost(words[previous], words[row])
        origin = np.where(best >= best.max() - cost, np.arange(len(some)), best.argmax())
        best = np.maximum(best, best.max() - cost) + scores[row][some]
        back.append(origin)
    state = int(best.argmax())
    for row, origin in zip(rows[::-1], [*back[::-1], None], strict=True):
        speakers[row] = labels[some[state]]
        if origin is not None:
            state = int(origin[state])
    return speakers


def _cost(word: Word, following: Word) -> float:
    """Cost of another speaker between two words"""
    apart = following.start - word.end > _PAUSE or _SENTENCE_END.search(word.text)
    return _BREAK if apart else _SWITCH


def _fill(speakers: list[str | None]) -> list[str | None]:
    """Give words of nobody the speaker of the words around them, if that is the same"""
    filled = list(speakers)
    last = None
    for place, speaker in enumerate(speakers):
        if speaker is None:
            continue
        if last is not None and speakers[last] == speaker:
            filled[last:place] = [speaker] * (place - last)
        last = place
    return filled


def _main(words: tuple[Word, ...]) -> str | None:
    """Speaker who speaks longest"""
    seconds: dict[str, float] = {}
    for word in words:
        if word.speaker is not None:
            seconds[word.speaker] = seconds.get(word.speaker, 0.0) + word.end - word.start
    return max(seconds, key=seconds.__getitem__) if seconds else None
