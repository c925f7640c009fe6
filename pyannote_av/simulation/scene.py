"""Who is visible when and where: shots of a film, seats of a meeting, tiles of a video call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.simulation.statistics import ConversationStatistics

LAYOUTS = ("film", "meeting", "gallery")
#: range of the height of faces relative to the frame, by their number in a shot (four at most)
_FILM_HEIGHT = {1: (0.35, 0.72), 2: (0.26, 0.48), 3: (0.2, 0.36), 4: (0.18, 0.28)}
#: relative size of faces in distant shots, and minimum height of a face in pixels
_FAR, _SMALLEST = (0.35, 0.7), 20.0
#: width of a person in heights of the face
_WIDTH = 0.95


@dataclass(frozen=True)
class SceneOptions:
    """Options of the visual scene.

    Attributes
    ----------
    layout : {"film", "meeting", "gallery"}
        Film: shots with cuts, where speakers may be off-screen. Meeting: each person has a fixed
        seat. Gallery: a split screen with one tile per person.
    size : (int, int)
        Width and height of the video in pixels.
    shot : float
        Median duration of shots in seconds (film).
    visible : float
        Share of speech with a visible speaker, if the statistics do not contain it (film).
    camera_off : float
        Probability that a participant is never visible (gallery).
    distractors : (int, int)
        Range of the number of people who never speak.
    light : (float, float)
        Range of brightness factors, drawn once per shot.
    blur : (float, float)
        Range of the standard deviation of blur in pixels, drawn once per shot.
    far : float
        Probability of a distant shot, in which faces are about half as high (film).
    quality : (int, int)
        Range of the JPEG quality of crops that are drawn directly, drawn once per shot. From 95 on,
        they are not compressed. Videos use `compression` instead.
    dropped : float
        Share of dropped frames. The previous frame remains on screen.
    compression : (int, int)
        Range of the constant rate factor of H.264, drawn once per file.
    """

    layout: str = "film"
    size: tuple[int, int] = (640, 360)
    shot: float = 3.0
    visible: float = 0.6
    camera_off: float = 0.1
    distractors: tuple[int, int] = (0, 2)
    light: tuple[float, float] = (0.55, 1.2)
    blur: tuple[float, float] = (0.0, 1.2)
    far: float = 0.15
    quality: tuple[int, int] = (25, 125)
    dropped: float = 0.0
    compression: tuple[int, int] = (20, 32)

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")
        if any(side % 2 or side < 64 for side in self.size):
            raise ValueError(f"size must be two even numbers of at least 64, not {self.size}")
        if not 0 <= self.dropped < 1:
            raise ValueError(f"dropped must be a share below 1, not {self.dropped}")


class Appearance(NamedTuple):
    """A face on screen: centre and height of its box in pixels."""

    track: int
    person: str
    x: float
    y: float
    height: float


class Shot(NamedTuple):
    """Frames `first` to `end` (exclusive) of a scene, without a cut.

    `backdrop` is the seed of the background, and `quality` the JPEG quality of crops.
    """

    first: int
    end: int
    faces: tuple[Appearance, ...]
    light: float
    blur: float
    backdrop: int
    quality: int


@dataclass(frozen=True, eq=False)
class Scene:
    """The visual scene of a conversation.

    Attributes
    ----------
    options : SceneOptions
    num_frames : int
        Number of frames, at 25 per second.
    shots : tuple of Shot
        Consecutive shots without gaps.
    kept : (num_frames,) bool
        Frames that are not dropped. The first frame is always kept.
    compression : int
        Constant rate factor of H.264.
    tiles : tuple of (x1, y1, x2, y2)
        Tiles of a gallery, in pixels.
    """

    options: SceneOptions
    num_frames: int
    shots: tuple[Shot, ...]
    kept: np.ndarray
    compression: int
    tiles: tuple[tuple[int, int, int, int], ...] = ()

    def visible(self, person: str) -> np.ndarray:
        """When a person is visible: (num_frames,) bool."""
        visible = np.zeros(self.num_frames, bool)
        for shot in self.shots:
            visible[shot.first : shot.end] |= any(face.person == person for face in shot.faces)
        return visible


def plan(
    speaking: Mapping[str, np.ndarray],
    distractors: Sequence[str],
    statistics: ConversationStatistics,
    options: SceneOptions,
    rng: np.random.Generator,
) -> Scene:
    """Plan who is visible when and where.

    Parameters
    ----------
    speaking : mapping of person to (T,) bool
        Who speaks in which frame (25 per second).
    distractors : sequence of str
        People who never speak.
    statistics : ConversationStatistics
        Provide the share of speech from off-screen in a film.
    options : SceneOptions
    rng : numpy.random.Generator
    """
    num_frames = len(next(iter(speaking.values())))
    kept = rng.random(num_frames) >= options.dropped
    kept[0] = True
    low, high = options.compression
    common = (kept, int(rng.integers(low, high + 1)))
    if options.layout == "film":
        shots = _film(speaking, distractors, statistics, options, rng)
        return Scene(options, num_frames, tuple(shots), *common)
    people = list(rng.permutation([*speaking, *distractors]))
    gallery = options.layout == "gallery"
    tiles = _grid(len(people), options.size)
    off = rng.random(len(people)) < options.camera_off * gallery
    faces = []
    for track, (person, tile) in enumerate(zip(people, tiles, strict=True)):
        width, height = tile[2] - tile[0], tile[3] - tile[1]
        size = rng.uniform(0.75, 1.0) * min(0.6 * height, 0.95 * width / _WIDTH)
        x = (tile[0] + tile[2]) / 2 + rng.uniform(-0.5, 0.5) * max(0, width - _WIDTH * size)
        y = tile[1] + 0.5 * height + rng.uniform(-0.1, 0.02) * height
        if not off[track]:
            faces.append(Appearance(track, str(person), x, y, size))
    shot = _shot(0, num_frames, faces, options, rng)
    return Scene(options, num_frames, (shot,), *common, tuple(tiles) if gallery else ())


def _grid(count: int, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Boxes of `count` places, in the number of rows that makes them largest"""
    width, height = size
    rows = max(range(1, count + 1), key=lambda r: min(height / r, width / -(-count // r)))
    columns = -(-count // rows)
    rows = -(-count // columns)
    xs, ys = (
        np.linspace(0, side, n + 1).astype(int) for side, n in ((width, columns), (height, rows))
    )
    cells = [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(rows) for i in range(columns)]
    return [tuple(map(int, cell)) for cell in cells[:count]]


def _shot(first, end, faces, options, rng) -> Shot:
    return Shot(
        int(first),
        int(end),
        tuple(faces),
        float(rng.uniform(*options.light)),
        float(rng.uniform(*options.blur)),
        int(rng.integers(2**31)),
        int(rng.integers(options.quality[0], options.quality[1] + 1)),
    )


def _cuts(num_frames: int, median: float, rng: np.random.Generator) -> np.ndarray:
    """Edges of shots, including 0 and `num_frames`; durations are log-normal, as in films"""
    lengths = median * np.exp(rng.normal(0, 0.6, size=4 + int(4 * num_frames / 25 / median)))
    ends = np.cumsum(np.clip(lengths, 0.8, 15.0) * FRAME_RATE).astype(int)
    inside = ends[ends < num_frames - int(0.8 * FRAME_RATE)]
    return np.r_[0, inside, num_frames]


def _film(speaking, distractors, statistics, options, rng):
    """Shots that show each speaker with that speaker's own probability"""
    people = list(speaking)
    curve = statistics.visible or (options.visible,) * 2
    # spread over the whole curve, so that the speakers of one file differ
    at = (rng.permutation(len(people)) + rng.random(len(people))) / len(people)
    chance = np.interp(at, np.linspace(0, 1, len(curve)), curve)
    chances = dict(zip(people, chance, strict=True))
    active = np.stack([speaking[person] for person in people])
    track = 0
    edges = _cuts(active.shape[1], options.shot, rng)
    for first, end in pairwise(edges):
        speaks = active[:, first:end].any(axis=1)
        on_screen = [
            p for p, h in zip(people, speaks, strict=True) if h and rng.random() < chances[p]
        ]
        rng.shuffle(on_screen)
        # listeners are drawn from people who are visible at other times
        silent = [p for p, h in zip(people, speaks, strict=True) if not h and chances[p] > 0.02]
        silent += distractors
        extra = min(int(rng.choice(3, p=[0.45, 0.4, 0.15])), len(silent))
        if silent and extra:
            weights = np.array([chances.get(p, 0.5) for p in silent])
            picked = rng.choice(silent, extra, replace=False, p=weights / weights.sum())
            on_screen += [str(person) for person in picked]
        on_screen = on_screen[: max(_FILM_HEIGHT)]
        faces = _placed(on_screen, track, options.size, rng)
        if rng.random() < options.far:
            smaller = rng.uniform(*_FAR)
            faces = [f._replace(height=max(_SMALLEST, smaller * f.height)) for f in faces]
        track += len(faces)
        yield _shot(first, end, faces, options, rng)


def _placed(on_screen, track, size, rng) -> list[Appearance]:
    """Place people side by side in random order"""
    width, height = size
    faces, cell = [], width / max(len(on_screen), 1)
    for place, person in enumerate(rng.permutation(on_screen) if on_screen else []):
        low, high = _FILM_HEIGHT[len(on_screen)]
        face = min(rng.uniform(low, high) * height, 0.98 * cell / _WIDTH)
        slack = max(0.0, cell - _WIDTH * face)
        x = (place + 0.5) * cell + rng.uniform(-0.4, 0.4) * slack
        y = rng.uniform(max(0.35 * height, 0.62 * face), max(0.55 * height, 0.66 * face))
        faces.append(Appearance(track + place, str(person), float(x), float(y), float(face)))
    return faces
