"""Disturbances of faces: hands, microphones, captions, frozen video and photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.simulation.performer import Face, Performer

#: range of the duration of each disturbance, in seconds
_LASTS = {"hand": (1.0, 6.0), "microphone": (2.0, 15.0), "patch": (0.2, 3.0), "freeze": (0.4, 3.0)}
#: frames in which a hand appears and disappears
_COMES = 8
#: weights of red, green and blue in grey
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Disturbances:
    """Frequency of visual disturbances. They do not affect the sound.

    Attributes
    ----------
    occlusions : float
        How often a hand or a microphone covers the mouth, per minute and face.
    patches : float
        How often a caption, or another patch with edges, covers a part of a face, per minute and
        face.
    freezes : float
        How often the video of a person freezes while the sound continues, per minute and face.
    stills : float
        Probability that a person who never speaks is shown as a photograph.
    """

    occlusions: float = 0.3
    patches: float = 0.2
    freezes: float = 0.2
    stills: float = 0.2


class Occlusion(NamedTuple):
    """An object in front of a face, from frame `first` to `end` (exclusive).

    Attributes
    ----------
    kind : {"hand", "microphone", "patch"}
    x, y : float
        Centre relative to that of the mouth, in heights of the box.
    width, height : float
        Half width and half height, in heights of the box.
    angle : float
        Rotation in degrees.
    colour : tuple of float
        RGB.
    """

    first: int
    end: int
    kind: str
    x: float
    y: float
    width: float
    height: float
    angle: float
    colour: tuple[float, ...]


def disturbed(
    person: Performer,
    num_frames: int,
    options: Disturbances,
    rng: np.random.Generator,
    speaks: bool = True,
) -> Performer:
    """Add disturbances to a person.

    Parameters
    ----------
    person : Performer
    num_frames : int
    options : Disturbances
    rng : numpy.random.Generator
    speaks : bool
        A person who never speaks may become a photograph.
    """
    source = np.arange(num_frames)
    for first, end in _times("freeze", options.freezes, num_frames, rng):
        source[first:end] = source[first]
    if not speaks and rng.random() < options.stills:
        source[:] = rng.integers(num_frames)
    occlusions = []
    for kind, rate in (
        ("hand", options.occlusions / 2),
        ("microphone", options.occlusions / 2),
        ("patch", options.patches),
    ):
        for first, end in _times(kind, rate, num_frames, rng):
            occlusions.append(_occlusion(kind, first, end, rng))
    if not occlusions and (source == np.arange(num_frames)).all():
        return person
    return Disturbed(person, source, tuple(occlusions), person.clothes)


def _times(kind: str, rate: float, num_frames: int, rng) -> list[tuple[int, int]]:
    """First frame, and one past the last, of events that occur `rate` times per minute"""
    found = []
    for _ in range(rng.poisson(rate * num_frames / FRAME_RATE / 60)):
        first = int(rng.integers(num_frames))
        length = max(1, int(rng.uniform(*_LASTS[kind]) * FRAME_RATE))
        found.append((first, min(num_frames, first + length)))
    return found


def _occlusion(kind: str, first: int, end: int, rng) -> Occlusion:
    x, y = rng.normal(0, 0.06, 2)
    if kind == "hand":
        shape = (rng.uniform(0.2, 0.32), rng.uniform(0.13, 0.2), rng.uniform(-50, 50))
        colour = rng.uniform(0.45, 1.1) * np.array([205.0, 160.0, 135.0])
    elif kind == "microphone":
        y += rng.uniform(0.05, 0.2)
        shape = (rng.uniform(0.09, 0.15), rng.uniform(0.1, 0.18), rng.uniform(-35, 35))
        colour = np.full(3, rng.uniform(15, 90))
    else:
        x, y = rng.uniform(-0.35, 0.35), rng.uniform(-0.45, 0.2)
        shape = (rng.uniform(0.1, 0.3), rng.uniform(0.06, 0.2), 0.0)
        colour = rng.uniform(0, 255, 3)
    colour = tuple(np.clip(colour, 0, 255).tolist())
    return Occlusion(first, end, kind, float(x), float(y), *map(float, shape), colour)


@dataclass(frozen=True, eq=False)
class Disturbed:
    """A person with occlusions or frozen video.

    Attributes
    ----------
    person : Performer
    source : (T,) int
        Frame of the person that each frame shows.
    occlusions : sequence of Occlusion
    clothes : (3,) float
        RGB.
    """

    person: Performer
    source: np.ndarray
    occlusions: Sequence[Occlusion]
    clothes: np.ndarray

    def face(self, height: float, crops: bool = False) -> Face:
        """See :class:`~pyannote_av.simulation.performer.Performer`."""
        return _DisturbedFace(self, height, crops)


class _DisturbedFace:
    def __init__(self, disturbed: Disturbed, height: float, crops: bool):
        self._face = disturbed.person.face(height, crops)
        self._source, self._occlusions = disturbed.source, disturbed.occlusions
        self.shape, self._height = self._face.shape, height

    def draw(self, k: int) -> np.ndarray:
        k = int(self._source[k])
        picture = self._face.draw(k)
        for one in self._occlusions:
            if one.first <= k < one.end:
                _, landmarks = self._face.geometry(np.array([k]))
                _cover(picture, one, k, landmarks[0, 3:].mean(axis=0), self._height)
        return picture

    def geometry(self, frames: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._face.geometry(self._source[frames])


def _cover(
    picture: np.ndarray, one: Occlusion, k: int, mouth: np.ndarray, face_height: float
) -> None:
    """Draw an object over an image, in place"""
    import cv2

    colour = one.colour if picture.shape[2] == 3 else (float(_LUMA @ one.colour),)
    centre = mouth + face_height * np.array([one.x, one.y])
    half = np.maximum(1, face_height * np.array([one.width, one.height])).round().astype(int)
    if one.kind == "patch":
        low, high = (centre - half).round().astype(int), (centre + half).round().astype(int)
        cv2.rectangle(picture, low.tolist(), high.tolist(), colour, -1)
        return
    # it enters and leaves from below, and moves slightly
    away = 1 - min(1.0, (k - one.first + 1) / _COMES, (one.end - k) / _COMES)
    sway = 0.015 * np.array([np.sin(0.31 * k), np.sin(0.23 * k + 1)])
    centre = centre + face_height * (sway + np.array([0.0, 0.9 * away]))
    x, y = centre.round().astype(int).tolist()
    cv2.ellipse(picture, (x, y), half.tolist(), one.angle, 0, 360, colour, -1, cv2.LINE_AA)
    turn = np.radians(one.angle)
    across, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    if one.kind == "microphone":
        starts, reach = centre[None], 1.2 * face_height * down
        shade, thick = tuple(0.7 * c for c in colour), int(1.1 * half[0])
    else:
        # fingers
        starts = centre + np.linspace(-0.75, 0.75, 4)[:, None] * half[0] * across
        reach, shade, thick = -1.5 * half[1] * down, tuple(0.92 * c for c in colour), half[0] // 3
    for start in starts:
        ends = [tuple(point.round().astype(int).tolist()) for point in (start, start + reach)]
        cv2.line(picture, *ends, shade, max(1, int(thick)), cv2.LINE_AA)
