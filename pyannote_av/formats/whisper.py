"""JSON of Whisper, WhisperX, faster-whisper, whisper.cpp, OpenAI's API and transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyannote_av.core.reading import ReadError
from pyannote_av.core.transcript import Cue, Transcript, Word, share
from pyannote_av.formats.lines import check_times


def from_json(content: Any, where: str, uri: str | None = None) -> Transcript:
    """Transcript in the JSON of a speech recogniser.

    See :func:`~pyannote_av.formats.transcripts.read_transcript` for the layouts.

    Parameters
    ----------
    content : dict or list
    where : str
        Name of the source, for error messages.
    uri : str, optional

    Raises
    ------
    ReadError
        When it is malformed or has no times.
    """
    language = None
    if isinstance(content, Mapping):
        if isinstance(content.get("transcript"), Mapping):  # of this package
            content = content["transcript"]
        language = content.get("language")
        segments = _segments(content, where)
    else:
        segments = content
    if not isinstance(segments, list):
        raise ReadError(f"{where}: a list of segments is expected, not {type(segments).__name__}")
    if segments and all(isinstance(one, Mapping) and "word" in one for one in segments):
        words = _words(segments, where, None, None, "")
        cues = [Cue.of_words(words)]
    else:
        cues = [_cue(one, f"{where}, segment {i}") for i, one in enumerate(segments)]
    language = language if isinstance(language, str) else None
    return Transcript([cue for cue in cues if cue.text or cue.words], uri, language)


def _segments(content: Mapping[str, Any], where: str) -> Any:
    """The list of segments or words of a mapping"""
    for key in ("segments", "transcription", "chunks", "words", "word_segments"):
        # the API of OpenAI gives words alone, or words beside segments without words
        if isinstance(content.get(key), list) and (content[key] or key == "segments"):
            return _words_into(content, where) if key == "segments" else content[key]
    if isinstance(content.get("text"), str):
        raise ReadError(
            f"{where}: a transcript without times: write it with segments (Whisper: verbose_json)"
        )
    if "diarization" in content:
        raise ReadError(f"{where}: a result of diarization without a transcript")
    there = ", ".join(map(repr, list(content)[:5])) or "nothing"
    raise ReadError(f"{where}: not a transcript, it has no 'segments' (but {there})")


def _words_into(content: Mapping[str, Any], where: str) -> list[Any]:
    """Segments. If there are words beside them, each segment gets those that begin in it."""
    segments, words = content["segments"], content.get("words")
    whole = [one for one in segments if isinstance(one, Mapping)]
    if not isinstance(words, list) or any("words" in one for one in whole):
        return segments
    starts = [_time(one, "start", f"{where}, segment {i}") for i, one in enumerate(segments)]
    if any(start is None for start in starts) or not all(isinstance(w, Mapping) for w in words):
        return segments
    found = [{**one, "words": []} for one in segments]
    place = 0
    for word in words:
        time = _time(word, "start", f"{where}, words")
        while place + 1 < len(found) and time is not None and time >= starts[place + 1] - 1e-3:
            place += 1
        if found:
            found[place]["words"].append(word)
    return found


def _cue(segment: Any, where: str) -> Cue:
    if not isinstance(segment, Mapping):
        raise ReadError(f"{where}: a mapping is expected, not {type(segment).__name__}")
    text = segment.get("text", "")
    if not isinstance(text, str):
        raise ReadError(f"{where}: text is {text!r}")
    start, end = (_time(segment, key, where) for key in ("start", "end"))
    entries = segment.get("words") or []
    if not isinstance(entries, list):
        raise ReadError(f"{where}: words are {type(entries).__name__}, not a list")
    words = _words(entries, where, start, end, text)
    if words:
        start = min(word.start for word in words) if start is None else start
        end = max(word.end for word in words) if end is None else end
    if start is None or end is None:
        raise ReadError(f"{where}: {text.strip()[:40]!r} has no times: a transcript needs them")
    speaker = _speaker(segment, where)
    text = text.strip() or Cue.of_words(words).text if words else text.strip()
    return Cue(*check_times(where, start, end), text, speaker, words)


def _speaker(entry: Mapping[str, Any], where: str) -> str | None:
    speaker = entry.get("speaker")
    if speaker is not None and not isinstance(speaker, str):
        raise ReadError(f"{where}: a speaker is called {speaker!r}")
    return speaker


def _time(entry: Any, key: str, where: str) -> float | None:
    """Start or end in seconds, as the recognisers write it; None if unknown"""
    if not isinstance(entry, Mapping):
        raise ReadError(f"{where}: a mapping is expected, not {type(entry).__name__}")
    value, scale = entry.get(key), 1.0
    if key not in entry:
        side = ("start", "end").index(key)
        if isinstance(entry.get("timestamp"), Sequence) and len(entry["timestamp"]) == 2:
            value = entry["timestamp"][side]  # transformers
        elif isinstance(entry.get("offsets"), Mapping):  # whisper.cpp, in milliseconds
            value, scale = entry["offsets"].get(("from", "to")[side]), 1e-3
    if value is None or value != value:
        return None
    if type(value) not in (int, float):
        raise ReadError(f"{where}: {key} is {value!r}, not a time in seconds")
    return round(value * scale, 6)


def _words(
    entries: list[Any], where: str, start: float | None, end: float | None, text: str
) -> tuple[Word, ...]:
    """Words of a segment from `start` to `end`; times that are missing are interpolated"""
    texts, times, words = [], [], []
    for number, entry in enumerate(entries):
        place = f"{where}, word {number}"
        first, last = (_time(entry, key, place) for key in ("start", "end"))
        raw = entry.get("word", entry.get("text"))
        if not isinstance(raw, str):
            raise ReadError(f"{place}: its text is {raw!r}")
        if not raw.strip():
            continue
        if first is not None and last is not None:
            check_times(place, first, last)
        probability = entry.get("probability", entry.get("score"))
        known = type(probability) in (int, float) and probability == probability
        confidence = float(probability) if known else None
        texts.append(raw)
        times.append([first, last])
        words.append(Word(raw.strip(), 0.0, 0.0, _speaker(entry, place), confidence))
    if not words:
        return ()
    _interpolate(times, texts, start, end, where)
    spaces = _spaces(texts, text)
    return tuple(
        replace(word, start=first, end=last, space=space)
        for word, (first, last), space in zip(words, times, spaces, strict=True)
    )


def _interpolate(
    times: list[list[float | None]],
    texts: list[str],
    start: float | None,
    end: float | None,
    where: str,
) -> None:
    """Fill in times that are missing: words share the time between their neighbours"""
    unknown = all(first is None and last is None for first, last in times)
    if unknown and (start is None or end is None):
        raise ReadError(f"{where}: no times, neither of the words nor of the whole")
    number = 0
    while number < len(times):
        first, last = times[number]
        if first is not None and last is not None:
            number += 1
            continue
        # a run of words that lack a time
        stop = number
        while stop < len(times) and None in times[stop]:
            stop += 1
        low = times[number - 1][1] if number else start
        high = times[stop][0] if stop < len(times) else end
        known = [one for pair in times[number:stop] for one in pair if one is not None]
        low = min([low, *known]) if low is not None else min([*known, high])
        high = max([high, *known]) if high is not None else max([*known, low])
        high = max(low, high)
        spans = share([text.strip() for text in texts[number:stop]], low, high)
        for pair, (begin, close) in zip(times[number:stop], spans, strict=True):
            pair[0] = begin if pair[0] is None else pair[0]
            pair[1] = max(close, pair[0]) if pair[1] is None else pair[1]
            pair[0] = min(pair)
        number = stop


def _spaces(texts: list[str], text: str) -> list[bool]:
    """Whether white space precedes each word, according to the words or to the whole text"""
    if any(one[:1].isspace() for one in texts):  # as Whisper writes them
        return [one[:1].isspace() for one in texts]
    place, spaces = 0, []
    for one in texts:
        found = text.find(one, place)
        if found < 0:
            return [True] * len(texts)
        spaces.append(found == 0 or text[found - 1].isspace())
        place = found + len(one)
    return spaces
