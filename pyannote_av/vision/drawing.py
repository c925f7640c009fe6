"""Faces, names and turns drawn into pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.palette import UNKNOWN, colour_of, rgb
from pyannote_av.core.text import printable

if TYPE_CHECKING:
    from pyannote.core import Annotation

    from pyannote_av.core.tracks import FaceTracks

WINDOW = 20.0
"""Seconds of sound in the strip below the picture; the playhead is in its middle"""

MAX_GAP = 0.15
"""Longest time between two boxes of a face (s) across which the box is interpolated"""

_BACK = (24, 26, 30)  # of the strip
_LONGEST_NAME = 40  # characters

# fonts for scripts that DejaVu lacks, where they are installed
_FALLBACKS = (
    "Noto Sans",
    "Arial Unicode MS",
    "PingFang",
    "Microsoft YaHei",
    "WenQuanYi",
    "Symbola",
)


# ---------------------------------------------------------------------------------------- text


@lru_cache(maxsize=16)
def _characters(path: str) -> frozenset[int]:
    """Characters that a font has"""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@lru_cache(maxsize=1)
def _other_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    return tuple(font.fname for font in fontManager.ttflist if font.name.startswith(_FALLBACKS))


@lru_cache(maxsize=1024)
def font_for(text: str) -> tuple[str, str]:
    """Font that has all characters of a text, and the text.

    DejaVu is preferred. If no installed font has all characters, those that DejaVu lacks, such as
    some emoji, become ``▯``.

    Returns
    -------
    path, text : str
    """
    needed = {ord(character) for character in text}
    dejavu = _dejavu()
    if not needed <= _characters(dejavu):
        for path in _other_fonts():
            if needed <= _characters(path):
                return path, text
        known = _characters(dejavu)
        text = "".join(one if ord(one) in known else "▯" for one in text)
    return dejavu, text


@lru_cache(maxsize=1024)
def label(text: str, colour: str, height: int, width: int = 10_000) -> np.ndarray:
    """Text on a coloured ground.

    Parameters
    ----------
    text : str
        Control characters are escaped.
    colour : str
        Ground, ``#rrggbb``. The text is black or white, whichever is easier to read.
    height : int
        Height in pixels.
    width : int, optional
        Longer texts are cut, and end in "…".

    Returns
    -------
    image : (height, w, 3) uint8
        RGB; shared, so copy it before writing to it.
    """
    from PIL import Image, ImageDraw, ImageFont

    text = printable(text, one_line=True)
    text = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    path, text = font_for(text)
    font = ImageFont.truetype(path, max(6, round(0.68 * height)))
    margin = max(2, height // 5)
    while len(text) > 1 and font.getlength(text) + 2 * margin > width:
        text = text.removesuffix("…")[:-1] + "…"
    ground = rgb(colour)
    light = np.dot(ground, (0.299, 0.587, 0.114)) > 140
    image = Image.new("RGB", (min(width, round(font.getlength(text)) + 2 * margin), height), ground)
    ImageDraw.Draw(image).text(
        (margin, height / 2), text, fill="black" if light else "white", font=font, anchor="lm"
    )
    return np.asarray(image)


def _paste(image: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    """Put a picture into another one, moved so that it lies inside."""
    x = max(0, min(x, image.shape[1] - part.shape[1]))
    y = max(0, min(y, image.shape[0] - part.shape[0]))
    part = part[: image.shape[0] - y, : image.shape[1] - x]
    image[y : y + part.shape[0], x : x + part.shape[1]] = part


# --------------------------------------------------------------------------- who, where and when


@dataclass(frozen=True)
class Boxes:
    """Boxes of faces at any time.

    Parameters
    ----------
    tracks : FaceTracks
    """

    tracks: FaceTracks

    def __post_init__(self):
        rows = [self.tracks.track_slice(track) for track in self.tracks.tracks]
        time = self.tracks.time
        index = {
            "_rows": rows,
            "_starts": np.array([time[one.start] for one in rows]),
            "_ends": np.array([time[one.stop - 1] for one in rows]),
            "_step": 1 / self.tracks.frame_rate,
        }
        self.__dict__.update(index)

    def at(self, time: float) -> dict[int, np.ndarray]:
        """Box (x1, y1, x2, y2), normalised, of each face that is visible at a time (s).

        Boxes are interpolated between pictures, but not across gaps. The last box before a gap is
        held for one picture.
        """
        found = {}
        slack = 1e-3
        seen = (self._starts <= time + slack) & (time < self._ends + self._step - slack)
        for i in np.flatnonzero(seen):
            rows = self._rows[i]
            times = self.tracks.time[rows]
            after = int(np.searchsorted(times, time + slack))
            before = max(after - 1, 0)
            box = self.tracks.box[rows][before]
            since = time - times[before]
            if after < len(times) and times[after] - times[before] <= MAX_GAP + slack:
                share = min(max(since / (times[after] - times[before]), 0.0), 1.0)
                box = (1 - share) * box + share * self.tracks.box[rows][after]
            elif since >= self._step - slack:
                continue
            found[int(self.tracks.track[rows.start])] = box
        return found


class Turns:
    """Who speaks at any time.

    Parameters
    ----------
    annotation : Annotation
    """

    def __init__(self, annotation: Annotation):
        self.speakers: list[str] = annotation.labels()
        number = {speaker: i for i, speaker in enumerate(self.speakers)}
        edges: dict[float, list[tuple[int, int]]] = {}
        for segment, _, speaker in annotation.itertracks(yield_label=True):
            edges.setdefault(segment.start, []).append((number[speaker], 1))
            edges.setdefault(segment.end, []).append((number[speaker], -1))
        #: boundaries of turns, and who speaks from each boundary to the next one
        self.bounds = np.array(sorted(edges))
        self.active: list[tuple[int, ...]] = []
        count = np.zeros(len(self.speakers), int)
        for bound in self.bounds:
            for speaker, change in edges[bound]:
                count[speaker] += change
            self.active.append(tuple(np.flatnonzero(count).tolist()))

    def at(self, time: float) -> tuple[int, ...]:
        """Numbers of the speakers who speak at a time (s)"""
        i = int(np.searchsorted(self.bounds, time + 1e-6, side="right")) - 1
        return self.active[i] if i >= 0 else ()

    def between(self, start: float, end: float) -> Iterator[tuple[float, float, tuple[int, ...]]]:
        """Yield (start, end, speakers) of each part of a region in which somebody speaks"""
        first = max(int(np.searchsorted(self.bounds, start, side="right")) - 1, 0)
        for i in range(first, len(self.bounds) - 1):
            if self.bounds[i] >= end:
                return
            if self.active[i]:
                yield max(self.bounds[i], start), min(self.bounds[i + 1], end), self.active[i]


# -------------------------------------------------------------------------------------- pictures


class Painter:
    """Draws faces, names and a strip with the sound into pictures.

    Parameters
    ----------
    turns : Annotation
    tracks : FaceTracks or None
    size : (int, int)
        Width and height of the pictures, in pixels.
    peaks : (n,) array, optional
        Peaks of the sound in [0, 1], one for each column of the strip, from time 0 on; see
        :attr:`column`.

    Attributes
    ----------
    canvas : (int, int)
        Width and height of the drawn pictures; both are even, as encoders need it.
    """

    def __init__(
        self,
        turns: Annotation,
        tracks: FaceTracks | None,
        size: tuple[int, int],
        peaks: Sequence[float] = (),
    ):
        self._size = size
        self._turns = Turns(turns)
        self._boxes = None if tracks is None or not tracks else Boxes(tracks)
        number = {speaker: i for i, speaker in enumerate(self._turns.speakers)}
        named = {} if tracks is None else tracks.speaker
        self._names = dict(named)
        self._numbers = {track: number.get(speaker) for track, speaker in named.items()}
        self.peaks = np.asarray(peaks, float)
        width, height = size
        #: height of a line of text, and of the waveform, in pixels
        self._line = max(14, round(height / 24))
        self._wave = 2 * max(12, round(height / 20))
        self._thick = max(2, round(height / 160))
        strip = self._line + self._wave + 6
        self.canvas = (width + width % 2, height + strip + (height + strip) % 2)
        self._ground = np.full((self.canvas[1], self.canvas[0], 3), _BACK, np.uint8)

    @property
    def column(self) -> float:
        """Seconds of sound in one column of the strip."""
        return WINDOW / self.canvas[0]

    def colour(self, speaker: int | None) -> str:
        """Colour of the speaker with a number, or of an unknown one."""
        return UNKNOWN if speaker is None else colour_of(speaker)

    def paint(self, image: np.ndarray, time: float) -> np.ndarray:
        """Draw into a copy of a picture.

        Parameters
        ----------
        image : (height, width, 3) uint8
            RGB.
        time : float
            Time of the picture in seconds.

        Returns
        -------
        image : (canvas height, canvas width, 3) uint8
        """
        width, height = self._size
        whole = self._ground.copy()
        picture = whole[:height, :width]
        picture[:] = image
        speaking = self._turns.at(time)
        visible = self._draw_faces(picture, time, speaking)
        self._draw_line(whole[height : height + self._line + 2], time, speaking, visible)
        top = height + self._line + 4
        self._draw_wave(whole[top : top + self._wave], time)
        return whole

    def _draw_faces(self, picture: np.ndarray, time: float, speaking: Sequence[int]) -> set[int]:
        """Draw boxes and names; return the numbers of the visible speakers."""
        import cv2

        height, width = picture.shape[:2]
        boxes = {} if self._boxes is None else self._boxes.at(time)
        picture_c = np.ascontiguousarray(picture)
        # those who speak last, so that nothing hides them
        tracks = sorted(boxes, key=lambda track: self._numbers.get(track) in speaking)
        for track in tracks:
            number = self._numbers.get(track)
            active = number is not None and number in speaking
            colour = rgb(self.colour(number))
            if not active:
                colour = tuple(round(0.7 * one) for one in colour)
            x1, y1, x2, y2 = (
                round(float(one))
                for one in boxes[track] * (width - 1, height - 1, width - 1, height - 1)
            )
            thick = 2 * self._thick if active else self._thick
            cv2.rectangle(picture_c, (x1, y1), (x2, y2), colour, thick)
            if (name := self._names.get(track)) is not None:
                shade = "#" + "".join(f"{one:02x}" for one in colour)
                sign = label(name, shade, self._line, width)
                above = y1 - thick - sign.shape[0]
                _paste(picture_c, sign, x1 - thick // 2, above if above >= 0 else y2 + thick)
        picture[:] = picture_c
        return {self._numbers.get(track) for track in boxes} - {None}

    def _draw_line(
        self, line: np.ndarray, time: float, speaking: Sequence[int], visible: set[int]
    ) -> None:
        """Draw the time, and the names of those who speak off screen."""
        width = line.shape[1]
        ground = "#" + "".join(f"{one:02x}" for one in _BACK)
        clock = label(_clock(time), ground, self._line, width)
        _paste(line, clock, width - clock.shape[1], 1)
        room = width - clock.shape[1]
        hidden = [number for number in speaking if number not in visible]
        if not hidden:
            return
        x = 0
        signs = [label("off screen:", ground, self._line, max(room, 1))]
        signs += [
            label(self._turns.speakers[number], self.colour(number), self._line, max(room, 1))
            for number in hidden
        ]
        for i, sign in enumerate(signs):
            if i and x + sign.shape[1] > room:
                _paste(line, label(f"+{len(signs) - i}", ground, self._line, room), x, 1)
                return
            _paste(line, sign, x, 1)
            x += sign.shape[1] + 3

    def _draw_wave(self, strip: np.ndarray, time: float) -> None:
        """Draw the sound around a time, over the colours of those who speak."""
        height, width = strip.shape[:2]
        strip[:] = 44
        # in whole columns, so that the strip does not flicker
        first = round(time / self.column) - width // 2
        begin = first * self.column
        for start, end, speakers in self._turns.between(begin, begin + WINDOW):
            left, right = (round((one - begin) / self.column) for one in (start, end))
            edges = np.linspace(0, height, len(speakers) + 1).round().astype(int)
            for number, top, bottom in zip(speakers, edges[:-1], edges[1:], strict=True):
                strip[top:bottom, left : max(right, left + 1)] = rgb(self.colour(number))
        columns = np.arange(first, first + width)
        inside = (columns >= 0) & (columns < len(self.peaks))
        peaks = np.zeros(width)
        peaks[inside] = self.peaks[columns[inside]]
        away = np.abs(np.arange(height) - (height - 1) / 2)
        # colours stay visible above and below the loudest sound
        wave = away[:, None] <= 0.75 * peaks * height / 2
        strip[wave] = strip[wave] // 2 + 127
        playhead = width // 2
        strip[:, playhead - 2 : playhead + 2] = 0
        strip[:, playhead - 1 : playhead + 1] = 255


def _clock(time: float) -> str:
    """Time as text

    >>> _clock(3723.46), _clock(5.0)
    ('1:02:03.4', '0:05.0')
    """
    tenths = int(time * 10 + 1e-6)
    minutes, seconds = divmod(tenths // 10, 60)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{head}:{seconds:02d}.{tenths % 10}"
