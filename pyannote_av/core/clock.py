"""Time of samples and packets: when samples are trusted, when time stamps are, and what is a gap

``docs/media.md`` explains it. `origin_of` chooses time 0, `Parts` finds where the clock of a file
restarts, and `Settling` places sound. Nothing here depends on a decoder.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

GAP = 0.015
"""Time stamps that differ from the count of samples by no more than this agree with it (s). It is
shorter than the frames of most codecs (20 ms and more) and longer than the rounding of all
containers (1 ms)."""

WINDOW = 1.0
"""Time stamps that return to the count of samples within this time only wobble (s)"""

NEAR = 12
"""Number of stamps whose median says how far wobbling stamps have moved"""

SPIKE = 10.0
"""A single stamp that differs by more than this from those around it is wrong (s)"""

LONGEST_WINDOW = 10.0
"""Maximum sound that is buffered while stamps stand still, as in a burst after a stall (s)"""

STRETCH = 0.1
"""Largest difference between the rates of samples and stamps that is a drift"""

BACK = 0.25
"""Stamps that go back by more than this, and stay there, mean that another recording begins (s)"""

LEAP = 60.0
"""The same for stamps that leap ahead, in formats whose clock may restart (s); a shorter leap, and
any leap in other formats, is a gap"""

PRIMING = 0.25
"""If a file begins no more than this before time 0, that part is the delay of an encoder (s)"""

LEAPING = ("mpegts", "mpeg", "ogg")
"""Formats in which the clock may leap at any point"""

UNDECLARED = (*LEAPING, "mp3", "aac", "ac3", "eac3", "amr", "flac", "h264", "hevc", "mpegvideo")
"""Formats that do not declare a duration; ffmpeg's estimate is not used, packets are read instead.
FLAC and MP3 may declare one, but other recordings may follow."""

MAX_SCAN = 2**30
"""Size up to which the packets of a file of `UNDECLARED` formats are read to know its duration
(bytes); ffmpeg's estimate is used for larger ones"""


class Joint(NamedTuple):
    """Position of a packet (byte) from which on `shift` (s) is added to time stamps"""

    position: int
    shift: float


@dataclass(frozen=True)
class Scan:
    """Result of reading the time stamps of all packets of a file

    `end` is the end of the last packet on the container's own clock, with joined recordings one
    after the other. It is None if no packet has a time stamp.
    """

    joints: tuple[Joint, ...]
    end: float | None


def origin_of(start_time: int | None) -> float:
    """Container timestamp (s) of time 0, from the earliest one (microseconds)

    A short sound before zero is the delay of an encoder, and is cut, as players do. If it is long,
    the clock has wrapped or starts at a negative time, and nothing is cut.

    >>> origin_of(1_400_000), origin_of(-21_333), origin_of(-33_700_000), origin_of(None)
    (1.4, 0.0, -33.7, 0.0)
    """
    start = (start_time or 0) / 1e6
    return 0.0 if -PRIMING <= start <= 0 else start


def shift_at(joints: tuple[Joint, ...], position: int) -> float:
    """Seconds to add to the time stamp of a packet at a byte `position`

    >>> shift_at((Joint(100, 3.0),), 99), shift_at((Joint(100, 3.0),), 100)
    (0.0, 3.0)
    """
    index = bisect_right(joints, position, key=lambda joint: joint.position)
    return joints[index - 1].shift if index else 0.0


def jumps(step: float, format_name: str) -> bool:
    """Whether a packet that is `step` seconds after the one before it may begin a recording"""
    return step < -BACK or (step > LEAP and format_name.split(",")[0] in LEAPING)


# --- joined recordings --------------------------------------------------------------------------


@dataclass
class _Part:
    """Packets between two joints, on their own clock"""

    position: int = 0
    first: float | None = None
    end: float | None = None

    def add(self, first: float, end: float) -> None:
        self.first = first if self.first is None else min(self.first, first)
        self.end = end if self.end is None else max(self.end, end)


class Packet(NamedTuple):
    """Byte, decoding time, and first and last presentation time (s) of a packet"""

    position: int
    time: float
    first: float
    end: float


@dataclass
class _Track:
    """State of one stream during a scan"""

    part: int = 0
    time: float | None = None
    position: int = 0
    held: Packet | None = None


@dataclass
class Parts:
    """Divides the packets of a file into recordings, each with its own clock

    Packets are added in the order of the file. If the time of a stream jumps and the next packet of
    this stream confirms it, a new recording begins at this position in the file, for all streams.
    Packets of a `single` stream are counted, so they need no positions.
    """

    format_name: str
    single: bool = False
    parts: list[_Part] = field(default_factory=lambda: [_Part()])
    tracks: dict[int, _Track] = field(default_factory=dict)

    def position(self, index: int, position: int | None) -> int:
        """Position of a packet; that of the previous packet if a parser gives none"""
        track = self.tracks.setdefault(index, _Track())
        if self.single:
            track.position += 1
        elif position is not None and position >= 0:
            track.position = position
        return track.position

    def add(self, index: int, packet: Packet) -> None:
        """Add a packet of stream `index`"""
        track = self.tracks.setdefault(index, _Track())
        part = bisect_right(self.parts, packet.position, key=lambda one: one.position) - 1
        if part > track.part:
            # another stream jumped earlier
            self._enter(track, part, packet)
            return
        if track.time is None or part < track.part:
            self._keep(track, part, packet)
            return
        held, track.held = track.held, None
        if not jumps(packet.time - track.time, self.format_name):
            # one odd stamp between good ones
            self._keep(track, part, packet)
        elif held is None or abs(packet.time - held.time) > SPIKE:
            track.held = packet
        else:
            self._begin(held)
            track.held = held
            self._enter(track, len(self.parts) - 1, packet)

    def _begin(self, packet: Packet) -> None:
        """Begin a part where the first stream jumps"""
        others = [t.held.position for t in self.tracks.values() if t.held is not None]
        last = self.parts[-1].position + 1
        self.parts.append(_Part(max(min([packet.position, *others]), last)))

    def _enter(self, track: _Track, part: int, packet: Packet) -> None:
        held, track.held = track.held, None
        track.part = part
        if held is not None:
            # it jumped before the stream that began the part
            begin = self.parts[part]
            begin.position = max(
                min(begin.position, held.position), self.parts[part - 1].position + 1
            )
            begin.add(held.first, held.end)
        self._keep(track, part, packet)

    def _keep(self, track: _Track, part: int, packet: Packet) -> None:
        track.time, track.part = packet.time, max(track.part, part)
        self.parts[part].add(packet.first, packet.end)

    def finish(self) -> Scan:
        """Joints, and the end of the last recording"""
        joints: list[Joint] = []
        end = self.parts[0].end
        for part in self.parts[1:]:
            shift = (end or 0.0) - (part.first or 0.0)
            end = (part.end or 0.0) + shift
            joints.append(Joint(part.position, shift))
        # packets of FLAC have no reliable positions: the samples go on
        return Scan(() if self.format_name == "flac" else tuple(joints), end)


def is_declared(path: str | Path, format_name: str) -> bool:
    """Whether the header of a file says how long it is (`UNDECLARED` formats)

    FLAC files declare their number of samples. MP3 files of a constant rate declare their number of
    frames in the first frame. MP3 files of a variable rate usually do, too.
    """
    if format_name == "flac":
        return True
    if format_name != "mp3":
        return False
    with Path(path).open("rb") as file:
        head = file.read(10)
        skip = 0
        if head[:3] == b"ID3" and len(head) == 10:
            skip = 10 + sum((byte & 127) << (7 * (3 - k)) for k, byte in enumerate(head[6:]))
        file.seek(skip)
        frame = file.read(4096)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))


def next_recording(path: str | Path, format_name: str, after: int = 0) -> int | None:
    """Position (byte) at which another recording begins after the one that is read, or None

    WAV, MP4 and FLV files that were joined byte by byte are read up to the end of the first one.
    Matroska and AVI files are read to their end, but declare only the duration of the first one.

    FLV files are searched from the byte `after` on, because nothing in them says where they end.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file, suppress(struct.error, OSError, OverflowError):
        kind = format_name.split(",")[0]
        if kind == "wav":
            head = file.read(12)
            end = 8 + struct.unpack("<I", head[4:8])[0] if head[:4] == b"RIFF" else size
            return end if _reads(file, end + end % 2, 12)[:4] == b"RIFF" else None
        if kind == "avi":
            end = 8 + struct.unpack("<I", file.read(8)[4:])[0]
            head = _reads(file, end + end % 2, 12)
            return end if head[:4] == b"RIFF" and head[8:] == b"AVI " else None
        if kind == "mov":
            return _second_film(file, size)
        if kind == "flv":
            return _second_flash(file, after)
        if kind == "matroska":
            end = _segment_end(file)
            return end if end and _reads(file, end, 4) == b"\x1a\x45\xdf\xa3" else None
    return None


def _reads(file, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _second_film(file, size: int, patience: int = 10_000) -> int | None:
    """Position of the second `ftyp` box of an mp4"""
    position, films = 0, 0
    for _ in range(patience):
        head = _reads(file, position, 16)
        if len(head) < 8:
            return None
        length, name = struct.unpack(">I4s", head[:8])
        if length == 1:
            length = struct.unpack(">Q", head[8:16])[0]
        films += name == b"ftyp"
        if films == 2:
            return position
        if length < 8 or position + length >= size:
            return None
        position += length
    return None


def _second_flash(file, after: int, chunk: int = 2**24) -> int | None:
    """Position of another header of an FLV file than the first, from the byte `after` on"""
    header = re.compile(rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0")
    tail, position = b"", max(after, 13)
    file.seek(position)
    while data := file.read(chunk):
        found = header.search(tail + data)
        if found:
            return position - len(tail) + found.start()
        tail, position = data[-12:], position + len(data)
    return None


def _segment_end(file) -> int | None:
    """End of the first segment of a Matroska file, None if it is not declared"""
    position = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        head = _reads(file, position, 12)
        if head[:4] != name or len(head) < 12 or not head[4]:
            return None
        width = 9 - head[4].bit_length()
        value = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if value == (1 << 7 * width) - 1:
            return None
        position += 4 + width + value
    return position


# --- sound --------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """A block of samples and its place in time

    The block begins at `time` (s). It is stretched, so that it lasts `stretch` seconds longer.
    """

    time: float
    stretch: float
    block: Any


@dataclass
class _Span:
    """Sound (s) of consecutive blocks, and the earliest and the last of their time stamps"""

    length: float = 0.0
    earliest: float = inf
    last: float | None = None

    def add(self, stamp: float | None, length: float) -> None:
        self.length += length
        if stamp is not None:
            self.earliest, self.last = min(self.earliest, stamp), stamp


class Settling:
    """Places blocks of samples in time, by the count of samples or by their time stamps

    Parameters
    ----------
    accepts : callable
        Called with a time (s); returns whether a block may be placed there.
    misplaced : callable
        Called for each block that is left out.
    restarted : callable
        Called where stamps restart. The samples then follow each other.

    Attributes
    ----------
    drift : float
        Total drift between samples and stamps that was corrected (s).
    wobble : float
        Largest difference between stamps and samples that was ignored (s).
    stood : float
        Duration of the sound whose stamps stand still, and were ignored (s).
    """

    def __init__(
        self,
        accepts: Callable[[float], bool],
        misplaced: Callable[[], None],
        restarted: Callable[[], None],
    ):
        self.drift = 0.0
        self.wobble = 0.0
        self.stood = 0.0
        self._accepts = accepts
        self._misplaced = misplaced
        self._restarted = restarted
        self._clock: float | None = None  # end of what was placed
        self._skew = 0.0
        self._recent: deque[float] = deque(maxlen=8)
        self._pending: deque[tuple[float | None, float, Any]] = deque()
        self._span: _Span | None = None  # of the pending blocks; None if it is not up to date

    def __call__(
        self, blocks: Iterable[tuple[float | None, float, Any]], start: float
    ) -> Iterator[Placed]:
        """Place blocks of samples

        Parameters
        ----------
        blocks : iterable of (stamp, length, block)
            Stamp (s), or None, and length (s) of each block.
        start : float
            Time of a first block without a stamp (s).

        Yields
        ------
        placed : Placed
        """
        for entry in blocks:
            self._append(entry)
            if self._clock is None:
                if not self._is_settled():
                    continue
                self._clock = self._anchor(start)
            yield from self._go_on()
        if self._pending and self._clock is None:
            self._clock = self._anchor(start)
        yield from self._go_on(at_end=True)

    def _go_on(self, at_end: bool = False) -> Iterator[Placed]:
        pending = self._pending
        while pending:
            stamp = pending[0][0]
            deviation = 0.0 if stamp is None else stamp + self._skew - self._clock
            if abs(deviation) <= GAP:
                if stamp is not None:
                    self._recent.append(deviation)
                yield from self._place(self._clock)
            elif at_end or self._is_settled():
                yield from self._resolve(at_end)
            else:
                return

    def _append(self, entry: tuple[float | None, float, Any]) -> None:
        self._pending.append(entry)
        if self._span is not None:
            self._span.add(*entry[:2])

    def _pop(self) -> tuple[float | None, float, Any]:
        self._span = None
        return self._pending.popleft()

    def _place(self, time: float, stretch: float = 0.0) -> Iterator[Placed]:
        _, length, block = self._pop()
        if self._accepts(time):
            self._clock = time + length + stretch
            yield Placed(time, stretch, block)
        else:
            self._misplaced()

    def _is_settled(self) -> bool:
        """Whether enough blocks are buffered to decide what a deviation means"""
        if self._span is None:
            self._span = _Span()
            for stamp, length, _ in self._pending:
                self._span.add(stamp, length)
        span = self._span
        passed = span.length if span.last is None else span.last - span.earliest
        enough = passed >= WINDOW - GAP or span.length >= LONGEST_WINDOW
        return span.length >= WINDOW and enough

    def _deviations(self, clock: float) -> list[float | None]:
        """Stamps minus the count of samples (s)"""
        deviations = []
        for stamp, length, _ in self._pending:
            deviations.append(None if stamp is None else stamp + self._skew - clock)
            clock += length
        return deviations

    def _anchor(self, start: float) -> float:
        """Time of the first block: its stamp, unless the following stamps show that it is late"""
        stamp = self._pending[0][0]
        if stamp is None:
            return start
        known = [d for d in self._deviations(stamp) if d is not None]
        if min(known) < -GAP and abs(known[-1]) < WINDOW:
            # sound before time 0 would be cut
            return max(stamp + min(median(known), 0.0), min(stamp, 0.0))
        return stamp

    def _resolve(self, at_end: bool) -> Iterator[Placed]:
        """Decide about the first block, whose stamp deviates"""
        deviations = self._deviations(self._clock)
        known = [d for d in deviations if d is not None]
        usual_ones = _without_spikes(known)
        low, high = min(usual_ones), max(usual_ones)
        length = sum(length for _, length, _ in self._pending)
        # at the end, no later stamps can show that a deviation is temporary
        usual = at_end and length < WINDOW and max(high, -low) <= min(self.wobble, WINDOW)
        if usual or (low <= GAP and high >= -GAP):
            yield from self._wobbles(deviations)
            return
        ahead = low > GAP
        first = known[0]
        nearest = low if ahead else high
        # steady stamps are exact; wobbling ones are right on average
        change = first if abs(first - nearest) <= GAP else median(usual_ones[:NEAR])
        before = median(self._recent) if self._recent else 0.0
        slope = abs(known[-1] - known[0])
        if abs(change - before) <= GAP and slope <= STRETCH * length + GAP:
            yield from self._drifts(change)
        elif ahead:
            yield from self._leaps(change, len(known))
        else:
            yield from self._returns(change, first, slope, length)

    def _wobbles(self, deviations: list[float | None]) -> Iterator[Placed]:
        """Trust samples up to the stamp that agrees with them, or that errs the other way"""
        late = deviations[0] > 0
        for number, deviation in enumerate(deviations):
            agrees = deviation is not None and (deviation <= GAP if late else deviation >= -GAP)
            if number and agrees:
                return
            yield from self._place(self._clock)
            if deviation is not None:
                self.wobble = max(self.wobble, abs(deviation))
                self._recent.append(deviation)

    def _drifts(self, change: float) -> Iterator[Placed]:
        self.drift += abs(change)
        self._recent = deque((d - change for d in self._recent), maxlen=self._recent.maxlen)
        yield from self._place(self._clock, change)

    def _leaps(self, change: float, count: int) -> Iterator[Placed]:
        """Make a gap, if that is plausible"""
        target = self._clock + change
        if self._accepts(target):
            self._recent.clear()
            yield from self._place(target)
        elif count > 2:
            self._restarted()
            self._skew -= change
            self._recent.clear()
        else:
            self._misplaced()
            self._pop()

    def _returns(
        self, change: float, first: float, slope: float, length: float
    ) -> Iterator[Placed]:
        """Leave out sound that overlaps; continue where another recording begins"""
        if slope > 0.5 * length and length >= WINDOW:
            for _ in range(len(self._pending)):
                self.stood += self._pending[0][1]
                yield from self._place(self._clock)
            return
        if change < -BACK and slope <= GAP:
            self._restarted()
            self._skew -= change
            self._recent.clear()
            return
        length = self._pending[0][1]
        if first + length < GAP:
            self._misplaced()
            self._pop()
            return
        self._recent.clear()
        yield from self._place(self._clock + first)


def _without_spikes(deviations: list[float]) -> list[float]:
    """Deviations without outliers: single values far from two neighbours that agree

    >>> _without_spikes([0.1, 0.1, 500.0, 0.1]), _without_spikes([100.0, 200.0, 300.0])
    ([0.1, 0.1, 0.1], [100.0, 200.0, 300.0])
    """
    around = [0.0, *deviations, deviations[-1]]
    kept = [
        here
        for before, here, after in zip(around, around[1:], around[2:], strict=False)
        if min(abs(here - before), abs(here - after)) <= SPIKE or abs(before - after) > SPIKE
    ]
    return kept or deviations
