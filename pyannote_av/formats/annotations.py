"""Strict readers of RTTM, UEM and LAB files: errors name the file and the line.

The reader of pyannote.database gives no line numbers, splits names at spaces without a warning,
accepts NaN and negative times, and treats a file that is missing from an RTTM as silent.

Rules, for all three formats:

* The text is in UTF-8, or in UTF-16 with a byte order mark. Lines end in LF, CRLF or CR.
* Blank lines and lines that begin with ``;`` or ``#`` are skipped.
* Fields are separated by spaces and tabs. If splitting a line at its tabs gives the right number of
  fields, it is not split at spaces, so that names may contain spaces. Other white space, such as a
  no-break space, is refused, because programs disagree on whether it ends a name.
* Times are finite decimal numbers in seconds, not negative. An exponent is allowed.
* Names that differ only in the form of their accented characters (NFC and NFD) are one name. The
  first spelling is kept.

``lenient=True`` repairs lines whose meaning is clear (names with spaces, decimal commas, negative
starts, no-break spaces, text in Windows-1252), and leaves out other malformed lines. One warning
for each kind of repair names the file and the first line.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import (
    ANNOTATION_LIMIT,
    ANNOTATION_LINES,
    LONGEST,
    ReadError,
    read_lines,
)
from pyannote_av.core.text import match_names, printable

logger = logging.getLogger(__name__)

#: types of RTTM lines that are not turns (RTTM format, version 1.3, table 1)
_OTHER_TYPES = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER"}
_OTHER_TYPES |= {"EDIT", "IP", "SU", "CB", "A/P", "SPKR-INFO"}
_SPEECH = {"speech", "sp", "1"}
_NO_SPEECH = {"nonspeech", "non-speech", "nsp", "sil", "silence", "0"}
#: tolerance for rounded times, in seconds
TOLERANCE = 0.01

_OTHER_SPACES = re.compile(r"[^\S \t\r\n\v\f]")
_NUMBER = r"[+-]?[\d.,]+(?:e[+-]?\d+)?"
# lines whose names contain spaces, but which can be split in only one way
_SPACED_TURN = re.compile(
    rf"(SPEAKER) +(\S.*?) +(\S+) +({_NUMBER}) +({_NUMBER}) +(<NA>) +(<NA>) +(\S.*?)"
    rf" +(<NA>|{_NUMBER}) +(<NA>|{_NUMBER})",
    re.IGNORECASE | re.ASCII,
)
_SPACED_REGION = re.compile(rf"(\S.*?) +(\S+) +({_NUMBER}) +({_NUMBER})", re.IGNORECASE | re.ASCII)


class Turn(NamedTuple):
    """One line of an RTTM file; `where` is "FILE, line N"."""

    uri: str
    segment: Segment
    speaker: str
    where: str


class _Line(NamedTuple):
    """A line of `text`, split into `fields`"""

    where: str
    fields: list[str]
    text: str


class _Reader:
    """Reads one file, and collects its repairs, so that each kind gives one warning."""

    def __init__(self, file: Path, lenient: bool):
        self.file, self.lenient = file, lenient
        self._notes: dict[str, list[str]] = {}
        self._spelled: dict[tuple[str, str], str] = {}
        self.confidences: set[str] = set()

    def note(self, kind: str, where: str) -> None:
        """Add a repair of a kind, made at `where`."""
        self._notes.setdefault(kind, []).append(where)

    def tell(self) -> None:
        """Log the repairs."""
        for kind, places in self._notes.items():
            _warn(f"{kind}: {len(places)} (first: {places[0]})")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Leave out a line that raises ReadError, if lenient."""
        try:
            yield
        except ReadError as error:
            if not self.lenient:
                raise
            self.note("lines left out", str(error))

    def name(self, name: str, where: str, kind: str = "uri") -> str:
        """`name` in its first spelling among the names of its kind."""
        # plain names are kept too, so that all lines share one object
        key = name if name.isascii() else unicodedata.normalize("NFC", name)
        first = self._spelled.setdefault((kind, key), name)
        if first != name:
            self.note("names in another Unicode form than before, treated as the same", where)
        return first

    def lines(self, *counts: int) -> Iterator[_Line]:
        """Yield the lines that are neither blank nor comments; `counts` are their valid lengths."""
        foreign = "guess" if self.lenient else "refuse"
        read = read_lines(self.file, ANNOTATION_LIMIT, ANNOTATION_LINES, foreign)
        for number, line in enumerate(read, start=1):
            text = line.strip(" \t\r\n\v\f\ufeff")
            if text and not text.startswith((";", "#")):
                if not (self.lenient or text.isascii()) and (space := _OTHER_SPACES.search(text)):
                    raise ReadError(
                        f"{self.file}, line {number}: a space of another kind (U+"
                        f"{ord(space[0]):04X}), at which some programs split names: {_SPACES}"
                    )
                yield _Line(f"{self.file}, line {number}", _split(text, counts), text)

    def segment(self, where: str, start: str, end: str, lasts: bool = False) -> Segment:
        """Segment from `start` to `end`; if `lasts` is True, `end` is its duration."""
        first, last = self._seconds(where, start, end), self._seconds(where, end, start)
        if not (math.isfinite(first) and math.isfinite(last)):
            raise ReadError(f"{where}: {start}, {end}: times must be finite")
        if max(first, last) > LONGEST:
            raise ReadError(f"{where}: {start}, {end}: times of more than {LONGEST:,.0f} s")
        # round, so that 0.1 + 0.2 is exactly 0.3 and adjacent turns share their boundary
        last = round(first + last, 9) if lasts else last
        if last < first:
            raise ReadError(
                f"{where}: {'negative duration' if lasts else 'end before start'} {end}"
            )
        if first < 0:
            if not self.lenient or last <= 0:
                raise ReadError(f"{where}: negative start {start}")
            self.note("negative starts, moved to 0", where)
            first = 0.0
        return Segment(first, last)

    def _seconds(self, where: str, text: str, other: str) -> float:
        # Python also accepts digits of other scripts and 1_000 as numbers
        if self.lenient and re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII):
            self.note("decimal commas, read as points", where)
            text = text.replace(",", ".")
        try:
            if text.isascii() and "_" not in text:
                return float(text)
        except ValueError:
            pass
        comma = ", with a decimal point" if "," in text else ""
        raise ReadError(f"{where}: {text!r}, {other!r}: times must be numbers{comma}")


def _split(text: str, counts: Collection[int]) -> list[str]:
    """Fields of a line"""
    if "\t" in text:
        tabbed = [field.strip(" ") for field in text.split("\t")]
        # names with spaces may stand between tabs
        if len(tabbed) in counts and all(tabbed):
            return tabbed
    return re.split(r"[ \t\v\f]+", text)


def _files(path: str | Path, suffix: str) -> list[Path]:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(no_such_file(path))
    if not path.is_dir():
        return [path]
    # macOS keeps attributes in files that begin with ._ on other disks
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() == suffix and not file.name.startswith("._")
    )
    if not files:
        raise FileNotFoundError(f"no {suffix} file in folder {path}")
    return files


def _too_few(line: _Line, fewest: int) -> ReadError:
    return ReadError(
        f"{line.where}: {len(line.fields)} fields where at least {fewest} are expected: "
        f"{line.text!r}"
    )


_SPACES = "names cannot hold spaces (write _ instead, or separate the fields by tabs)"


def _turn_fields(reader: _Reader, line: _Line) -> list[str]:
    """Fields of a turn: 8 to 10, of which the last two are numbers or <NA>"""
    where, fields, text = line
    if len(fields) < 8:
        raise ReadError(f"{where}: {len(fields)} fields, but the speaker is the 8th")
    wrong = [field for field in fields[8:10] if not _is_measure(field)]
    # a whole number is a part of a name, as in "Speaker 2", unless it is always 0 or always 1
    if not wrong and fields[8:] and fields[8].isdecimal():
        reader.confidences.add(fields[8])
        if float(fields[8]) > 1 or len(reader.confidences) > 1:
            wrong = [fields[8]]
    if len(fields) <= 10 and not wrong:
        return fields
    if reader.lenient and (found := _SPACED_TURN.fullmatch(text.replace("\t", " "))):
        reader.note("names with spaces", where)
        return list(found.groups())
    if len(fields) > 10:
        raise ReadError(f"{where}: {len(fields)} fields where 8 to 10 are expected: {_SPACES}")
    raise ReadError(
        f"{where}: {wrong[0]!r} follows the speaker {fields[7]!r}, where a confidence or <NA> is "
        f"expected: {_SPACES}"
    )


def _is_measure(field: str) -> bool:
    """Whether a field is a number or ``<NA>``"""
    if field.upper() in ("<NA>", "NA", "-"):
        return True
    return re.fullmatch(_NUMBER, field, re.IGNORECASE | re.ASCII) is not None


def read_turns(path: str | Path, lenient: bool = False) -> dict[str, list[Turn]]:
    """Turns of an RTTM file, or of the ``.rttm`` files of a folder, by uri.

    A turn has 8 to 10 fields. Its channel is not used: turns of all channels belong to one file,
    as in pyannote and dscore. Turns of no length and exact repetitions of a turn are left out with
    a warning. Turns of one speaker that touch or overlap are not merged.

    Parameters
    ----------
    path : str or Path
    lenient : bool, optional
        Repair lines, or leave them out, with a warning; see the module.

    Raises
    ------
    ReadError
        With file and line, when a line has too few or too many fields, an unknown type, a time
        that is negative, NaN or not a number, or a uri that another file of the folder already has.
    """
    turns: dict[str, list[Turn]] = {}
    owner: dict[str, Path] = {}
    known: set[tuple[str, float, float, str]] = set()
    channels: dict[str, str] = {}
    for file in _files(path, ".rttm"):
        reader, empty = _Reader(file, lenient), True
        for line in reader.lines(8, 9, 10):
            empty = False
            with reader.attempt():
                where, kind = line.where, line.fields[0].upper()
                if len(line.fields) < 5:
                    raise _too_few(line, 5)
                if kind in _OTHER_TYPES:
                    continue
                if kind != "SPEAKER":
                    raise ReadError(f"{where}: {line.fields[0]!r} is not an RTTM type")
                fields = _turn_fields(reader, line)
                uri = reader.name(fields[1], where)
                speaker = reader.name(fields[7], where, "speaker")
                if owner.setdefault(uri, file) != file:
                    raise ReadError(f"{where}: {uri!r} is already in {owner[uri]}")
                segment = reader.segment(where, fields[3], fields[4], lasts=True)
                some = turns.setdefault(uri, [])
                if not segment:
                    reader.note("turns without duration, left out", where)
                    continue
                # one person may be on two channels at the same time
                if channels.setdefault(uri, fields[2]) != fields[2]:
                    reader.note("turns on a second channel, read as one file", where)
                turn = (uri, segment.start, segment.end, speaker)
                if turn in known:
                    reader.note("repeated turns, left out", where)
                    continue
                known.add(turn)
                some.append(Turn(uri, segment, speaker, where))
        if empty:
            if owner.setdefault(file.stem, file) != file:
                raise ReadError(f"{file}: {file.stem!r} is already in {owner[file.stem]}")
            turns[file.stem] = []
        reader.tell()
    return turns


def read_rttm(path: str | Path, lenient: bool = False) -> dict[str, Annotation]:
    """Annotations of an RTTM file, or of the ``.rttm`` files of a folder, by uri.

    An empty file gives an empty annotation, whose uri is the name of the file. See
    :func:`read_turns` for parameters and errors.
    """
    return {uri: _annotation(uri, turns) for uri, turns in read_turns(path, lenient).items()}


def _annotation(uri: str, turns: list[Turn]) -> Annotation:
    annotation = Annotation(uri=uri)
    for track, turn in enumerate(turns):
        annotation[turn.segment, track] = turn.speaker
    return annotation


def read_uem(path: str | Path, lenient: bool = False) -> dict[str, Timeline]:
    """Evaluation maps of a UEM file, or of the ``.uem`` files of a folder, by uri.

    A line has 4 fields. Regions of several channels (NIST lists both sides of a telephone call)
    are merged, because diarization has one time line for each file.

    Parameters
    ----------
    path : str or Path
    lenient : bool, optional
        Repair lines, or leave them out, with a warning; see the module. Regions that overlap are
        merged.

    Raises
    ------
    ReadError
        With file and line, when a line is malformed, or when regions of one channel overlap.
    """
    regions: dict[str, dict[str, list[tuple[Segment, int, str]]]] = {}
    owner: dict[str, Path] = {}
    for file in _files(path, ".uem"):
        reader = _Reader(file, lenient)
        for number, line in enumerate(reader.lines(4)):
            with reader.attempt():
                where, fields = line.where, _region_fields(reader, line)
                uri = reader.name(fields[0], where)
                if owner.setdefault(uri, file) != file:
                    raise ReadError(f"{where}: {uri!r} is already in {owner[uri]}")
                segment = reader.segment(where, fields[2], fields[3])
                if not segment:
                    raise ReadError(f"{where}: a region without duration")
                channel = regions.setdefault(uri, {}).setdefault(fields[1], [])
                channel.append((segment, number, where))
        reader.tell()
    maps = {}
    for uri, channels in regions.items():
        timelines = []
        for some in channels.values():
            if not lenient:
                _check_apart(uri, some)
            timelines.append(Timeline((one[0] for one in some), uri=uri))
        maps[uri] = _united(uri, timelines, path) if len(channels) > 1 else timelines[0]
        if lenient:
            maps[uri] = maps[uri].support()
    return maps


def _region_fields(reader: _Reader, line: _Line) -> list[str]:
    """The four fields of a line of a UEM file"""
    if len(line.fields) < 4:
        raise _too_few(line, 4)
    if len(line.fields) == 4:
        return line.fields
    if reader.lenient and (found := _SPACED_REGION.fullmatch(line.text.replace("\t", " "))):
        reader.note("names with spaces", line.where)
        return list(found.groups())
    raise ReadError(f"{line.where}: {len(line.fields)} fields where 4 are expected: {_SPACES}")


def _united(uri: str, timelines: list[Timeline], path: str | Path) -> Timeline:
    """Union of the regions of several channels"""
    first, *others = [list(timeline.support()) for timeline in timelines]
    if all(other == first for other in others):
        return timelines[0]
    _warn(f"{path}: the channels of {uri!r} have different regions: their union is scored")
    return Timeline((one for timeline in timelines for one in timeline), uri=uri).support()


def _check_apart(uri: str, segments: list[tuple[Segment, int, str]]) -> None:
    """Raise ReadError if two regions overlap; the error names the later line."""
    clashes, furthest = [], None
    for one in sorted(segments):
        if furthest is not None and one[0].intersects(furthest[0]):
            clashes.append(max(one, furthest, key=lambda one_segment: one_segment[1]))
        if furthest is None or one[0].end > furthest[0].end:
            furthest = one
    if clashes:
        where = min(clashes, key=lambda one_segment: one_segment[1])[2]
        raise ReadError(f"{where}: this region of {uri!r} overlaps an earlier region")


def read_lab(path: str | Path, lenient: bool = False) -> dict[str, Timeline]:
    """Speech regions of a LAB file, or of the ``.lab`` files of a folder, by name of the file.

    Lines read ``START END [speech]``, in seconds. Lines labelled as non-speech are skipped.
    See :func:`read_turns` for parameters and errors.
    """
    regions = {}
    for file in _files(path, ".lab"):
        reader, speech = _Reader(file, lenient), []
        for line in reader.lines(2, 3):
            with reader.attempt():
                where, fields, _ = line
                if len(fields) < 2:
                    raise _too_few(line, 2)
                if len(fields) > 3:
                    raise ReadError(f"{where}: {len(fields)} fields where 2 or 3 are expected")
                segment = reader.segment(where, *fields[:2])
                label = fields[2].lower() if len(fields) > 2 else "speech"
                if label in _SPEECH:
                    speech.append(segment)
                elif label not in _NO_SPEECH:
                    raise ReadError(f"{where}: {fields[2]!r} is neither speech nor non-speech")
        regions[file.stem] = Timeline(speech, uri=file.stem).support()
        reader.tell()
    return regions


def read_reference(
    rttm: str | Path, uem: str | Path | None = None, lenient: bool = False
) -> tuple[dict[str, Annotation], dict[str, Timeline] | None]:
    """Reference turns, and the evaluation maps that say which parts of each file are scored.

    The maps decide what is scored, as in md-eval, dscore and pyannote. Speech outside the map of
    its file is not scored, and neither are files without a map. Both are logged as warnings. Turns
    are not cut, because scores keep the collars of turns that end outside the map, as in md-eval.

    Parameters
    ----------
    rttm : str or Path
    uem : str or Path, optional
    lenient : bool, optional
        Repair lines, or leave them out, with a warning; see the module.

    Returns
    -------
    references : dict of uri to Annotation
    maps : dict of uri to Timeline, or None without `uem`

    Raises
    ------
    ReadError
        With file and line, when a line is malformed, or when `uem` has none of the files.
    """
    turns = read_turns(rttm, lenient)
    if uem is None:
        return {uri: _annotation(uri, some) for uri, some in turns.items()}, None
    maps = match_names(turns.keys(), read_uem(uem, lenient), uem)
    if turns and not turns.keys() & maps.keys():
        raise ReadError(
            f"{uem} has none of the files of {rttm}: it has no entry for {next(iter(turns))!r}, "
            f"but has {', '.join(map(repr, sorted(maps)[:3])) or 'nothing at all'}"
        )
    if unmapped := sorted(turns.keys() - maps.keys()):
        _warn(f"{uem} has no entry for {_some(unmapped)}: not scored")
    if others := sorted(maps.keys() - turns.keys()):
        _warn(f"{rttm} has no entry for {_some(others)}, which {uem} names: not scored")
    for uri in turns.keys() & maps.keys():
        whole = maps[uri].extent()
        outside = [turn for turn in turns[uri] if not _is_inside(turn.segment, whole)]
        if outside:
            _warn(
                f"{len(outside)} turns of {uri!r} are not scored, or only in part: {uem} covers "
                f"{whole.start:.3f} to {whole.end:.3f} s (first: {outside[0].where}, "
                f"{outside[0].speaker} speaks from {outside[0].segment.start:.3f} to "
                f"{outside[0].segment.end:.3f} s)"
            )
    return {uri: _annotation(uri, some) for uri, some in turns.items() if uri in maps}, maps


def _is_inside(segment: Segment, whole: Segment) -> bool:
    return whole.start - TOLERANCE <= segment.start and segment.end <= whole.end + TOLERANCE


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _warn(text: str) -> None:
    logger.warning("%s", printable(text, one_line=True))
