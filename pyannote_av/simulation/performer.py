"""People who can be drawn: their interface, and people made from a portrait."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pyannote_av.simulation.acting import SWAY_HEIGHT
from pyannote_av.simulation.faces import BOTTOM, LEFT, RIGHT, TOP, window
from pyannote_av.simulation.portrait import Motion, Portrait, TalkingPortrait

#: extent around the centre of a face that crops need (their square and the eyes), in box heights
_CROP_REACH = (0.47, 0.42, 0.47, 0.65)


class Face(Protocol):
    """The face of a person at one size, drawn in its own panel.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the panel in pixels. Unless drawn for crops, it extends
        :data:`~pyannote_av.simulation.faces.LEFT`, ``TOP``, ``RIGHT`` and ``BOTTOM`` from the
        centre of the box.
    """

    shape: tuple[int, int]

    def draw(self, k: int) -> np.ndarray:
        """Panel at frame `k` of the conversation: (H, W, 3) uint8 RGB, or (H, W, 1) for crops."""

    def geometry(self, frames: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Box (T, 4) and landmarks (T, 5, 2) in pixels of the panel."""


class Performer(Protocol):
    """A person in a conversation.

    Attributes
    ----------
    clothes : (3,) float
        RGB.
    """

    clothes: np.ndarray

    def face(self, height: float, crops: bool = False) -> Face:
        """Face with a box of `height` pixels.

        With `crops`, it is grey and only as large as a crop needs.
        """


@dataclass(frozen=True, eq=False)
class Actor:
    """A portrait in motion.

    Attributes
    ----------
    portrait : Portrait
    motion : Motion
        Motion in all frames, for a face of :data:`~pyannote_av.simulation.acting.SWAY_HEIGHT`
        pixels.
    opening : float
        Opening of the mouth; see :class:`~pyannote_av.simulation.portrait.TalkingPortrait`.
    teeth : float
        See :class:`~pyannote_av.simulation.portrait.TalkingPortrait`.
    clothes : (3,) float
        RGB.
    """

    portrait: Portrait
    motion: Motion
    opening: float
    teeth: float
    clothes: np.ndarray

    def face(self, height: float, crops: bool = False) -> Face:
        """See :class:`Performer`."""
        panel = window(
            self.portrait, height, *(_CROP_REACH if crops else (LEFT, TOP, RIGHT, BOTTOM))
        )
        if crops:
            panel = replace(panel, image=grey(panel.image))
        return _PortraitFace(TalkingPortrait(panel, self.opening, self.teeth), self.motion, height)


class _PortraitFace:
    def __init__(self, drawn: TalkingPortrait, motion: Motion, height: float):
        self.shape = drawn.portrait.image.shape[:2]
        self._drawn, self._motion = drawn, motion
        self._scale = np.array([height / SWAY_HEIGHT] * 2 + [1.0])

    def _sway(self, frames: slice | np.ndarray | int) -> np.ndarray:
        return self._motion.sway[frames] * self._scale

    def draw(self, k: int) -> np.ndarray:
        motion, sway = self._motion, self._sway(k)
        return self._drawn.draw(
            motion.mouth[k], motion.blink[k], sway, motion.light[k], motion.width[k]
        )

    def geometry(self, frames: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._drawn.geometry(self._sway(frames))


def grey(image: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 RGB to (H, W, 1) uint8."""
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
