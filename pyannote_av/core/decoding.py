"""Decoding of one stream of a file that may be damaged, with a report of what is missing"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.clock import BACK, Joint, jumps, shift_at
from pyannote_av.core.files import longest
from pyannote_av.core.media import AudioStream, MediaInfo, Reading, VideoStream, faults, scan

if TYPE_CHECKING:
    import av

PATIENCE = 100
"""Number of consecutive read errors after which decoding of a file stops"""

JUMP = 10.0
"""Timestamps are rejected if they jump ahead by more than this, beyond the end of the file (s)"""

MAX_MISSING = 2 * 3600.0
"""Total duration of gaps that is always accepted in a stream (s)"""

MISSING_RATIO = 20
"""Further seconds of gaps that are accepted per decoded second. Some recorders pause during
silence."""

SHORT = 0.25
"""A stream that ends earlier than declared by more than this is reported (s)"""

EACH = ("mov", "avi")
"""Formats that declare a duration for each stream"""


def name_of(kind: str, info: MediaInfo, stream: VideoStream | AudioStream) -> str:
    """Name of a stream for messages, with its index where the file has several of sound

    Parameters
    ----------
    kind : {"video", "audio"}
    """
    index = f" {stream.index}" if kind == "audio" and len(info.audio) > 1 else ""
    return f"{kind} stream{index} of {info.path}"


@dataclass
class Damage:
    """Damage found while decoding a stream

    Parameters
    ----------
    errors : int
        Number of packets that could not be read or decoded, and of pictures decoded with errors.
    misplaced : int
        Number of frames left out because their timestamps run backwards or far beyond the end.
    missing : float
        Sum of the gaps between frames (seconds).
    first : float, optional
        Approximate time of the first damage.
    end : float, optional
        End of the last decoded frame, None if there is none yet.
    start : float
        Time at which decoding began.
    longest : float
        Times beyond this are rejected (seconds).
    reached : float
        End of the last packet of any stream (seconds).
    joins : int
        Number of places where another recording begins.
    position : int
        Largest position of a packet in the file (bytes).
    """

    errors: int = 0
    misplaced: int = 0
    missing: float = 0.0
    first: float | None = None
    end: float | None = None
    start: float = 0.0
    longest: float = math.inf
    reached: float = 0.0
    joins: int = 0
    position: int = 0

    @classmethod
    def of(cls, info: MediaInfo, start: float = 0.0) -> Damage:
        """No damage yet, for a file that is decoded from `start` (seconds)"""
        return cls(start=start, longest=longest(Path(info.path).stat().st_size))

    def error(self) -> None:
        """Count a decoding error."""
        self.errors += 1
        self._begin()

    def misplace(self) -> None:
        """Count a frame with an impossible time."""
        self.misplaced += 1
        self._begin()

    def join(self) -> None:
        """Count a place where another recording begins."""
        self.joins += 1
        self._begin()

    def accepts(self, time: float, limit: float) -> bool:
        """Whether a time is plausible after the previous ones; if not, count it as misplaced"""
        if not self.is_plausible(time, limit):
            self.misplace()
            return False
        return True

    def is_plausible(self, time: float, limit: float) -> bool:
        """Whether a time is plausible after the previous ones

        `limit` is the declared end of the file (seconds). A time that leaves a stream of almost
        nothing but gaps is rejected even before `limit`, because filling gaps costs memory and
        time.
        """
        leaps = time > limit + JUMP and time > (self.end or 0.0) + JUMP
        return not leaps and time <= self.longest and self._bridges(time)

    def _bridges(self, time: float) -> bool:
        """Whether the total duration of gaps up to `time` is acceptable"""
        if self.end is None:
            return True
        held = self.end - self.start - self.missing
        return self.missing + time - self.end <= MAX_MISSING + MISSING_RATIO * max(held, 0.0)

    def advance(self, time: float, end: float, tolerance: float) -> None:
        """Record a decoded frame; a gap before it counts if longer than `tolerance` (seconds)"""
        if self.end is not None and time - self.end > tolerance:
            self.missing += time - self.end
            self._begin()
        self.end = end

    def _begin(self) -> None:
        if self.first is None:
            self.first = self.start if self.end is None else self.end

    def describe(self, kind: str, info: MediaInfo, stream: VideoStream | AudioStream) -> list[str]:
        """Sentences about missing or damaged parts, after decoding to the end of the stream

        Parameters
        ----------
        kind : {"video", "audio"}
        """
        sentences = []
        name = name_of(kind, info, stream)
        since = f"from about {self.first or 0.0:.2f} s on"
        declared = self._declared(info, stream)
        if declared is not None and self.end is not None and self.end < declared - SHORT:
            sentences.append(
                f"{name} stops at {self.end:.2f} s of {declared:.2f} s: the file is cut short or "
                "damaged; the decodable part is used"
            )
        if self.joins:
            times = "once" if self.joins == 1 else f"{self.joins} times"
            sentences.append(
                f"{name} has inconsistent timestamps {since}: they restart or leap {times}, as "
                "where recordings are joined; each part follows the one before"
            )
        if self.errors:
            sentences.append(
                f"{name} is damaged ({self.errors} decoding errors {since}); the decodable "
                "part is used"
            )
        if self.missing > SHORT:
            filled = "silence" if kind == "audio" else "the picture before"
            sentences.append(
                f"{name} has gaps of {self.missing:.2f} s in all, {since}, filled with {filled}"
            )
        if self.misplaced:
            sentences.append(
                f"{name} has inconsistent timestamps {since} (frames left out or cut: "
                f"{self.misplaced})"
            )
        return sentences

    def _declared(self, info: MediaInfo, stream: VideoStream | AudioStream) -> float | None:
        """End that the header declares for a stream (seconds), None if it declares none

        Where it declares only how long the file is, one stream may end before the others. Most
        formats then give that duration to all streams.
        """
        whole = info.declared is None or self.reached >= info.declared - SHORT
        shared = len(info.audio) + (info.video is not None) > 1
        if stream.duration is None or (whole and shared and not info.format.startswith(EACH)):
            return None if whole else info.declared
        declared = stream.start + stream.duration
        if info.format == "avi" and isinstance(stream, VideoStream) and stream.num_frames:
            # ffmpeg corrects the duration of a cut AVI
            declared = max(declared, stream.num_frames / stream.frame_rate)
        return declared


class _Packets:
    """Packets of a container, with time stamps that continue where another recording begins"""

    def __init__(self, container, stream, damage: Damage, info: MediaInfo):
        self._container = container
        self._index = stream.index
        self._damage = damage
        self._info = info
        self._joints: tuple[Joint, ...] = info.joints
        self._searched = bool(info.joints)
        self._shift = 0.0
        self._position = 0
        self._time: float | None = None  # of the last packet, as it is in the file
        self._bases = {
            one.index: float(one.time_base) for one in container.streams if one.time_base
        }
        kinds = [one.type for one in container.streams if one.time_base]
        self._single = sum(kind in ("video", "audio") for kind in kinds) == 1
        self._ends: dict[int, int] = {}
        self._reading = Reading(container)

    def __iter__(self) -> Iterator[av.packet.Packet]:
        """Packets of all streams, so that their ends are known; only `stream` is decoded"""
        ends = self._ends
        for packet in self._container.demux():
            if not self._reading.go_on(packet):
                self._damage.error()
                return
            # packets that empty the decoders have no index of their own
            index, pts = packet.stream.index, packet.pts
            if pts is not None:
                end = pts + (packet.duration or 0)
                if end > ends.get(index, end - 1):
                    ends[index] = end
            if index == self._index:
                self._place(packet)
                yield packet

    def _place(self, packet) -> None:
        if not packet.size:
            return
        if self._single:
            self._position += 1
        elif packet.pos is not None and packet.pos >= 0:
            self._position = packet.pos
        self._damage.position = max(self._damage.position, packet.pos or 0)
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return
        base = self._bases.get(self._index, 0.0)
        time *= base
        step = 0.0 if self._time is None else time - self._time
        self._time = time
        if not self._searched and jumps(step, self._info.format):
            self._searched = True
            self._joints = scan(self._info.path).joints
        if not self._joints:
            return
        shift = shift_at(self._joints, self._position)
        # the first packet of an Ogg recording is still on the clock of the one before
        if shift != self._shift and not 0 < step < BACK:
            self._shift = shift
            self._damage.join()
        if self._shift and base:
            ticks = round(self._shift / base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def finish(self) -> None:
        """Note the end of the last packet of any stream"""
        ends = [end * self._bases.get(index, 0.0) for index, end in self._ends.items()]
        shift = self._joints[-1].shift if self._joints else 0.0
        self._damage.reached = max(ends, default=0.0) + shift - self._info.origin


def decode(
    container: av.container.InputContainer,
    stream: av.stream.Stream,
    damage: Damage,
    info: MediaInfo,
) -> Iterator[av.frame.Frame]:
    """Frames of a stream in decoding order; errors are counted and skipped, never raised

    Where another recording begins, its time stamps continue those of the one before.
    """
    packets = _Packets(container, stream, damage, info)
    try:
        yield from _decode(container, stream, damage, packets)
    finally:
        packets.finish()


def _decode(container, stream, damage: Damage, packets: _Packets) -> Iterator[av.frame.Frame]:
    import av

    failures = 0
    while failures < PATIENCE:
        try:
            for packet in packets:
                failures = 0
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    return
                except faults():
                    damage.error()
                    continue
                yield from frames
            return
        except av.error.EOFError:
            break
        except faults():
            # reading continues after the damaged part
            failures += 1
            damage.error()
    # the decoder still holds the last frames
    try:
        frames = stream.codec_context.decode(None)
    except faults():
        return
    for frame in frames:
        frame.time_base = stream.time_base  # PyAV sets it only for frames of a packet
        yield frame
