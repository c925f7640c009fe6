"""Lines, times and names in text files of turns and cues."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import (
    ANNOTATION_LIMIT,
    ANNOTATION_LINES,
    LONGEST,
    ReadError,
    decimal,
    read_lines,
)

_NOT_ONE_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_TIMECODE = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})", re.ASCII)


def lines_of(path: str | Path, comment: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield ("FILE, line N", text) for each line, without line ends.

    Parameters
    ----------
    path : str or Path
    comment : str, optional
        Beginning of lines that are skipped. With it, blank lines are skipped as well.

    Raises
    ------
    FileNotFoundError
    ReadError
        See :func:`~pyannote_av.core.reading.read_lines`.
    """
    if not Path(path).exists():
        raise FileNotFoundError(no_such_file(path))
    for number, line in enumerate(read_lines(path, ANNOTATION_LIMIT, ANNOTATION_LINES), start=1):
        text = line.rstrip("\r\n")
        if comment is None or (text.strip() and not text.startswith(comment)):
            yield f"{path}, line {number}", text


def times(where: str, start: str, end: str, lasts: bool = False) -> tuple[float, float]:
    """Start and end in seconds, from text; if `lasts` is True, `end` is a duration.

    Raises
    ------
    ReadError
        When they are not numbers, negative, too large, or in the wrong order.
    """
    try:
        first, last = decimal(start), decimal(end)
    except ValueError as error:
        raise ReadError(f"{where}: {error}") from error
    return check_times(where, first, round(first + last, 9) if lasts else last)


def check_times(where: str, start: float, end: float) -> tuple[float, float]:
    """Return `start` and `end`; raises ReadError for impossible times."""
    if not (math.isfinite(start) and math.isfinite(end)) or max(start, end) > LONGEST:
        raise ReadError(f"{where}: {start}, {end}: times of more than {LONGEST:,.0f} s")
    if start < 0:
        raise ReadError(f"{where}: negative start {start}")
    if end < start:
        raise ReadError(f"{where}: ends at {end:.3f} s, before it starts ({start:.3f} s)")
    return start, end


def timecode(seconds: float, point: str) -> str:
    """``00:00:01.500``, with `point` before the milliseconds; hours may have more digits."""
    whole, milliseconds = divmod(max(round(seconds * 1000), 0), 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{whole:02}{point}{milliseconds:03}"


def parse_timecode(where: str, text: str) -> float:
    """Seconds of ``[hours:]minutes:seconds.milliseconds``, with a point or a comma."""
    found = _TIMECODE.fullmatch(text)
    if found is None:
        raise ReadError(f"{where}: {text!r} is not a time such as 00:00:01.500")
    hours, minutes, seconds, fraction = found.groups()
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return round(whole + int(fraction) / 10 ** len(fraction), 3)


def one_line(text: str) -> str:
    """Text with every run of white space and control characters replaced by a space."""
    # names of files may hold bytes that are no text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _NOT_ONE_LINE.sub(" ", text).strip()


def written_names(
    labels: Iterable[object],
    what: str,
    uri: str | None,
    spelled: Callable[[str], str] = one_line,
) -> dict[Any, str]:
    """Names of speakers as a format can hold them, by label.

    Parameters
    ----------
    labels : iterable of str or None
        Speakers. None is left out, and labels may be repeated.
    what : str
        Name of the format, for the error message.
    uri : str or None
        Name of the file, for the error message.
    spelled : callable, optional
        Converts a name, such as :func:`one_line` or :func:`~pyannote_av.core.text.field_name`.

    Raises
    ------
    ValueError
        When two speakers would get the same name.
    """
    names: dict[Any, str] = {}
    owner: dict[str, object] = {}
    for label in labels:
        if label is None:
            continue
        names[label] = spelled(str(label))
        if (other := owner.setdefault(names[label], label)) != label:
            raise ValueError(
                f"speakers {other!r} and {label!r} of {uri!r} are both called {names[label]!r} in "
                f"{what}: rename one of them"
            )
    return names
