"""Selection of video frames from a talker's clips: in sync with speech, listening otherwise.

During a turn, each frame shows the clip at the time its sound was recorded, to within half a frame.
Outside of turns, a silent part of a clip is played slowly back and forth, or held still. Frames are
never warped. Where consecutive frames are not adjacent in a clip, they are cross-faded during
silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.runs import true_runs
from pyannote_av.simulation.clip_files import Clip
from pyannote_av.simulation.performer import Face, grey
from pyannote_av.simulation.speech import STEP

_SAMPLES = int(SAMPLE_RATE / FRAME_RATE)
#: frames of a cross-fade; maximum of silent frames to show before and after speech
_FADE, _LEAD = 4, 5
#: listening: seconds to play one part, speed, and probability of holding still
_LISTENING, _PACE, _STILL = (2.0, 6.0), (0.25, 0.7), 0.2


class Showing(NamedTuple):
    """Selected frames of clips for T frames.

    Attributes
    ----------
    source, other : (T, 2) int
        Index of the clip, and of the frame in it.
    mix : (T,) float
        Weight of `other` in a cross-fade.
    """

    source: np.ndarray
    other: np.ndarray
    mix: np.ndarray


def spoken(turns: Sequence[tuple[int, np.ndarray]], num_frames: int) -> np.ndarray:
    """Frames of clips that match the sound.

    Parameters
    ----------
    turns : sequence of (int, (n, 2) int)
        First sample, and clip and step for each 10 ms; see
        :class:`~pyannote_av.simulation.sound.Sound`.
    num_frames : int

    Returns
    -------
    source : (num_frames, 2) int
        Clip and frame; -1 outside of turns. In a pause between clips, the last frame is held.
    """
    source = np.full((num_frames, 2), -1)
    for start, steps in turns:
        first = -(-start // _SAMPLES)
        last = min(num_frames, -(-(start + len(steps) * STEP) // _SAMPLES))
        since = np.arange(first, last) * _SAMPLES - start
        own = steps[since // STEP]
        frame = np.round((own[:, 1] * STEP + since % STEP) / _SAMPLES).astype(int)
        speech = own[:, 0] >= 0
        held = np.maximum.accumulate(np.where(speech, np.arange(len(own)), 0))
        source[first:last] = np.stack([own[:, 0], frame], axis=1)[held]
    return source


def listening(clips: Sequence[Clip], count: int, rng: np.random.Generator) -> np.ndarray:
    """Clip and frame (count, 2) of a listening person."""
    parts, left = [np.zeros((0, 2), int)], count
    while left > 0:
        clip = int(rng.integers(len(clips)))
        first, end = clips[clip].idle[int(rng.integers(len(clips[clip].idle)))]
        length = min(left, int(rng.uniform(*_LISTENING) * FRAME_RATE))
        pace = rng.uniform(*_PACE) * (rng.random() >= _STILL)
        # play back and forth: a triangle wave
        span = max(end - first - 1, 0.5)
        phase = (rng.uniform(0, 2 * span) + pace * np.arange(length)) % (2 * span)
        frame = first + np.round(np.minimum(phase, 2 * span - phase)).astype(int)
        frame = np.minimum(frame, end - 1)
        parts.append(np.stack([np.full(length, clip), frame], axis=1))
        left -= length
    return np.concatenate(parts)


def show(
    clips: Sequence[Clip],
    turns: Sequence[tuple[int, np.ndarray]],
    num_frames: int,
    rng: np.random.Generator,
    desync: float = 0.0,
) -> Showing:
    """Select the frames of one talker throughout a conversation.

    Parameters
    ----------
    clips : sequence of Clip
        Clips of this person.
    turns : sequence of (int, (n, 2) int)
        See :func:`spoken`; empty for a person who only listens.
    num_frames : int
    rng : numpy.random.Generator
    desync : float
        Delay of the video in seconds (negative if it is early).
    """
    lengths = np.array([len(clip.box) for clip in clips])
    source = spoken(turns, num_frames)
    speech = source[:, 0] >= 0
    source[speech, 1] = np.minimum(source[speech, 1], lengths[source[speech, 0]] - 1)
    chosen = speech.copy()
    for first, end in true_runs(speech):
        chosen |= _led(source, chosen, clips, int(first), -1)
        chosen |= _led(source, chosen, clips, int(end) - 1, 1)
    for first, end in true_runs(~chosen):
        source[first:end] = listening(clips, int(end - first), rng)
    showing = _faded(source, speech)
    # delay the video
    at = np.clip(np.arange(num_frames) - round(desync * FRAME_RATE), 0, num_frames - 1)
    return Showing(*(column[at] for column in showing))


def _led(source, chosen, clips, edge: int, way: int) -> np.ndarray:
    """Add the silent frames of the clip before or after speech, because lips open before the sound

    The frames are written into `source`. Returns which frames were added.
    """
    added = np.zeros(len(chosen), bool)
    clip, frame = source[edge]
    for i in range(1, _LEAD + 1):
        k, f = edge + way * i, frame + way * i
        inside = 0 <= k < len(chosen) and 0 <= f < len(clips[clip].box)
        if not inside or chosen[k] or clips[clip].sounding[f]:
            break
        source[k], added[k] = (clip, f), True
    return added


def _faded(source: np.ndarray, speech: np.ndarray) -> Showing:
    """Cross-fade frames that are not adjacent in a clip, outside of speech if possible"""
    other, mix = source.copy(), np.zeros(len(source))
    jumps = (source[1:, 0] != source[:-1, 0]) | (np.abs(np.diff(source[:, 1])) > 2)
    for k in 1 + np.flatnonzero(jumps):
        before = _FADE // 2
        if speech[k] != speech[k - 1]:
            before = _FADE if speech[k] else 0
        low, high = max(0, k - before), min(len(source), k - before + _FADE)
        weight = (np.arange(low, high) - (k - before) + 1) / (_FADE + 1)
        for j, new in zip(range(low, high), weight, strict=True):
            other[j] = source[k] if j < k else source[k - 1]
            mix[j] = new if j < k else 1 - new
    return Showing(source, other, mix)


@dataclass(frozen=True, eq=False)
class ClipActor:
    """A person who is shown in clips.

    Attributes
    ----------
    clips : sequence of Clip
    showing : Showing
        Selected frames of the whole conversation.
    mirrored : bool
    tone : (3, 256) uint8
        Lookup tables for red, green and blue.
    clothes : (3,) float
        RGB.
    """

    clips: Sequence[Clip]
    showing: Showing
    mirrored: bool
    tone: np.ndarray
    clothes: np.ndarray

    def face(self, height: float, crops: bool = False) -> Face:
        """See :class:`~pyannote_av.simulation.performer.Performer`."""
        return _ClipFace(self, height, crops)


class _ClipFace:
    """The face of a talker at one size"""

    def __init__(self, actor: ClipActor, height: float, crops: bool):
        from pyannote_av.simulation.faces import BOTTOM, LEFT, RIGHT, TOP

        self._actor, self._crops = actor, crops
        self.shape = round((TOP + BOTTOM) * height), round((LEFT + RIGHT) * height)
        size = np.array(self.shape[::-1], float)
        self._scales = [size / clip.pictures.shape[2:0:-1] for clip in actor.clips]

    def _box(self, source: np.ndarray) -> np.ndarray:
        """Box (4,) in pixels of the panel, not mirrored"""
        clip, frame = source
        return self._actor.clips[clip].box[frame] * np.tile(self._scales[clip], 2)

    def _picture(self, source: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """A frame of a clip, shifted so that the centre of the face is at `middle`"""
        import cv2

        clip, frame = source
        picture = self._actor.clips[clip].pictures[frame]
        shrinks = self._scales[clip].max() < 1
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(picture, self.shape[::-1], interpolation=way)
        right, down = middle - _middle(self._box(source))
        if right or down:
            matrix = np.float64([[1, 0, right], [0, 1, down]])
            picture = cv2.warpAffine(
                picture, matrix, self.shape[::-1], borderMode=cv2.BORDER_REPLICATE
            )
        return picture

    def draw(self, k: int) -> np.ndarray:
        import cv2

        source, other, mix = (column[k] for column in self._actor.showing)
        middle = _middle(self._box(source))
        if mix:
            middle = (1 - mix) * middle + mix * _middle(self._box(other))
        picture = self._picture(source, middle)
        if mix:
            below = self._picture(other, middle)
            picture = cv2.addWeighted(picture, float(1 - mix), below, float(mix), 0)
        picture = cv2.LUT(picture, np.ascontiguousarray(self._actor.tone.T[:, None]))
        if self._actor.mirrored:
            picture = np.ascontiguousarray(picture[:, ::-1])
        return grey(picture) if self._crops else picture

    def geometry(self, frames: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        source, other, mix = (column[frames] for column in self._actor.showing)
        box, landmarks = self._places(source)
        other_box, other_landmarks = self._places(other)
        box = box + mix[:, None] * (other_box - box)
        landmarks = landmarks + mix[:, None, None] * (other_landmarks - landmarks)
        if self._actor.mirrored:
            width = self.shape[1]
            box = np.stack([width - box[:, 2], box[:, 1], width - box[:, 0], box[:, 3]], axis=1)
            landmarks = landmarks[:, [1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
        return box, landmarks

    def _places(self, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (T, 4) and landmarks (T, 5, 2) in pixels of the panel, not mirrored"""
        box, landmarks = np.empty((len(source), 4)), np.empty((len(source), 5, 2))
        for index, (clip, scale) in enumerate(zip(self._actor.clips, self._scales, strict=True)):
            mine = source[:, 0] == index
            box[mine] = clip.box[source[mine, 1]] * np.tile(scale, 2)
            landmarks[mine] = clip.landmarks[source[mine, 1]] * scale
        return box, landmarks


def _middle(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2
