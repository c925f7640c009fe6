"""Decoding of one stream of a file that may be damaged, with a report of what is missing"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyannote_av.core.files import longest
from pyannote_av.core.media import AudioStream, MediaInfo, Reading, VideoStream, faults

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
    """

    errors: int = 0
    misplaced: int = 0
    missing: float = 0.0
    first: float | None = None
    end: float | None = None
    start: float = 0.0
    longest: float = math.inf

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

    def accepts(self, time: float, limit: float) -> bool:
        """Whether a time is plausible after the previous ones; if not, count it as misplaced

        `limit` is the declared end of the file (seconds). A time that leaves a stream of almost
        nothing but gaps is rejected even before `limit`, because filling gaps costs memory and
        time.
        """
        jumps = time > limit + JUMP and time > (self.end or 0.0) + JUMP
        if jumps or time > self.longest or not self._bridges(time):
            self.misplace()
            return False
        return True

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
        name = f"{kind} stream of {info.path}"
        since = f"from about {self.first or 0.0:.2f} s on"
        declared = info.duration if stream.duration is None else stream.start + stream.duration
        if isinstance(stream, VideoStream) and stream.constant_rate and stream.num_frames:
            # ffmpeg corrects the duration of a cut AVI
            declared = max(declared, stream.num_frames / stream.frame_rate)
        if self.end is not None and self.end < declared - SHORT:
            sentences.append(
                f"{name} stops at {self.end:.2f} s of {declared:.2f} s: the file is cut short or "
                "damaged; what could be decoded is used"
            )
        if self.errors:
            sentences.append(
                f"{name} is damaged ({self.errors} decoding errors {since}); what could be "
                "decoded is used"
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


def decode(
    container: av.container.InputContainer, stream: av.stream.Stream, damage: Damage
) -> Iterator[av.frame.Frame]:
    """Frames of a stream in decoding order; errors are counted and skipped, never raised"""
    import av

    reading = Reading(container)
    failures = 0
    while failures < PATIENCE:
        try:
            for packet in container.demux(stream):
                failures = 0
                if not reading.go_on(packet):
                    damage.error()
                    return
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
