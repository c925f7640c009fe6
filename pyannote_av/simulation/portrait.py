"""Animation of a still portrait: the lower face is warped by the loudness of its voice.

Nothing here is learned. The mouth opens along the line between the lips, may show its teeth, and
grows wider or rounder. The jaw follows, eyes blink and the head sways a little. The result looks
like a puppet. This is intended: it suffices as input for detectors, trackers and active speaker
scorers, with an exact reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: colour of the inside of an open mouth (RGB)
_MOUTH_INSIDE = np.float32([52, 20, 22])
#: colour of teeth (RGB), and their height relative to the distance between the eyes
_TEETH, _TEETH_HEIGHT = np.float32([205, 195, 180]), 0.1
#: weights of red, green and blue in grey
_LUMA = np.float32([[0.299], [0.587], [0.114]])


@dataclass(frozen=True)
class Portrait:
    """A picture of one face with positions in pixels.

    Attributes
    ----------
    image : (H, W, 3) or (H, W, 1) uint8
        RGB or grey.
    box : tuple of float
        x1, y1, x2, y2 of the face, as from a face detector.
    landmarks : tuple of (x, y)
        Left eye, right eye, nose, left and right mouth corner (left as seen in the picture).
    lips : tuple of (x, y)
        Left end, centre and right end of the line along which the mouth opens.
    eye : (float, float)
        Half width and half height of an open eye.
    """

    image: np.ndarray
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    lips: tuple[tuple[float, float], ...]
    eye: tuple[float, float]

    def placed(self, size: tuple[int, int], face_height: float) -> Portrait:
        """Scale and crop a portrait to centre the face in a ``(width, height)`` panel.

        If the picture ends before the panel does, their edges are aligned on that side.
        """
        import cv2

        scale = face_height / (self.box[3] - self.box[1])
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(self.image, None, fx=scale, fy=scale, interpolation=way)
        corner = []
        for axis, length in enumerate(size):
            available = image.shape[1 - axis] - length
            if available < 0:
                raise ValueError(f"a face {face_height:g} pixels high does not fill {size} pixels")
            centre = scale * (self.box[axis] + self.box[axis + 2]) / 2
            corner.append(int(np.clip(round(centre - length / 2), 0, available)))
        (x, y), (width, height) = corner, size

        def moved(points):
            return tuple((px * scale - x, py * scale - y) for px, py in points)

        return Portrait(
            image=np.ascontiguousarray(image[y : y + height, x : x + width]),
            box=sum(moved([self.box[:2], self.box[2:]]), ()),
            landmarks=moved(self.landmarks),
            lips=moved(self.lips),
            eye=(self.eye[0] * scale, self.eye[1] * scale),
        )


@dataclass(frozen=True)
class Motion:
    """Motion of a face by frame.

    Attributes
    ----------
    mouth : (T,) float
        0 closed, 1 wide open.
    blink : (T,) float
        0 open eyes, 1 closed.
    sway : (T, 3) float
        Head shift right and down in pixels, rotation in radians.
    light : (T,) float
        Brightness factor.
    width : (T,) float
        Relative change of the mouth's width. Negative values make it rounder.
    """

    mouth: np.ndarray
    blink: np.ndarray
    sway: np.ndarray
    light: np.ndarray
    width: np.ndarray


def loudness(
    waveform: np.ndarray, sample_rate: int, num_frames: int, frame_rate: float = 25.0
) -> np.ndarray:
    """Low-passed envelope of a voice, sampled at the times of video frames.

    The filter has no delay: frame `k` has the loudness at ``k / frame_rate`` seconds.

    Parameters
    ----------
    waveform : (N,) float
        Voice of one person, zero where silent.
    sample_rate : int
    num_frames : int
    frame_rate : float

    Returns
    -------
    loudness : (num_frames,) float
        0 to 1, where 1 is the 95th percentile of this voice.
    """
    from scipy.signal import butter, sosfiltfilt

    # syllable rates are 3-6 Hz
    low_pass = butter(2, 7.0, fs=sample_rate, output="sos")
    envelope = np.clip(sosfiltfilt(low_pass, np.abs(waveform)), 0, None)
    at = np.minimum(np.round(np.arange(num_frames) * sample_rate / frame_rate), len(waveform) - 1)
    envelope = envelope[at.astype(int)]
    loud = envelope[envelope > 0.05 * envelope.max()]
    if not len(loud):
        return np.zeros(num_frames)
    # mouth opening grows less than linearly with loudness; breath and room noise give none
    return np.clip((envelope / np.percentile(loud, 95)) ** 0.7 - 0.1, 0, 1)


def drift(rng: np.random.Generator, num_frames: int, smoothness: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1; `smoothness` in frames."""
    from scipy.ndimage import gaussian_filter1d

    noise = gaussian_filter1d(rng.standard_normal(num_frames), smoothness, mode="wrap")
    return noise / max(noise.std(), 1e-9)


def act(loud: np.ndarray, rng: np.random.Generator, frame_rate: float = 25.0) -> Motion:
    """Motion of a face for speech of loudness `loud` (T,), including idle motion."""
    count = len(loud)
    gain = 1 + 0.15 * drift(rng, count, 0.2 * frame_rate)
    idle = 0.012 * np.abs(drift(rng, count, 0.4 * frame_rate))
    blink = np.zeros(count)
    at = rng.uniform(0.5, 3.0) * frame_rate
    while at < count - 6:
        blink[int(at) : int(at) + 6] = [0.4, 0.9, 1.0, 0.8, 0.5, 0.2]
        at += rng.uniform(2.0, 5.0) * frame_rate
    sway = np.stack([drift(rng, count, 0.8 * frame_rate) for _ in range(3)], axis=1)
    return Motion(
        mouth=np.clip(loud * gain, 0, 1.15) + idle,
        blink=blink,
        sway=sway * np.float64([0.9, 0.6, 0.007]),
        light=1 + 0.012 * drift(rng, count, 0.6 * frame_rate),
        width=np.zeros(count),
    )


def _plateau(radius: np.ndarray, outer: float) -> np.ndarray:
    """1 within radius 1, 0 beyond `outer`, smooth in between."""
    x = np.clip((outer - radius) / (outer - 1), 0, 1)
    return (x * x * (3 - 2 * x)).astype(np.float32)


def _sampled(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate `image` (H, W, C) at positions (h, w): (h, w, C)."""
    import cv2

    # for a single channel, OpenCV drops the channel axis
    return cv2.remap(image, x, y, cv2.INTER_CUBIC).reshape(*x.shape, image.shape[2])


class TalkingPortrait:
    """Draws one portrait in motion.

    Parameters
    ----------
    portrait : Portrait
        In the size in which it is drawn (see :meth:`Portrait.placed`).
    opening : float
        Height of the wide open mouth, relative to the distance between the eyes.
    teeth : float
        Brightness of the upper teeth in an open mouth, from 0 (invisible) to 1.
    """

    def __init__(self, portrait: Portrait, opening: float = 0.3, teeth: float = 0.0):
        self.portrait = portrait
        left, right = np.float64(portrait.landmarks[:2])
        self._eyes_apart = float(np.linalg.norm(right - left))
        # a Python float does not change the type of float32 arrays
        self._opening = float(opening * self._eyes_apart)
        self._inside, self._teeth = _MOUTH_INSIDE, np.float32(teeth) * _TEETH
        if portrait.image.shape[2] == 1:
            self._inside, self._teeth = self._inside @ _LUMA, self._teeth @ _LUMA
        self._prepare_mouth()
        self._prepare_eyes()
        self._prepare_head()

    def _roi(self, x1: float, y1: float, x2: float, y2: float):
        """Slices of a region, and float32 grids of its pixel coordinates."""
        height, width = self.portrait.image.shape[:2]
        rows = slice(max(0, int(y1)), min(height, int(y2) + 1))
        columns = slice(max(0, int(x1)), min(width, int(x2) + 1))
        y, x = np.mgrid[rows, columns].astype(np.float32)
        return (rows, columns), x, y

    def _prepare_mouth(self):
        lips = np.float64(self.portrait.lips)
        self._mouth_centre = float(lips[1, 0])
        self._mouth_half = float(lips[2, 0] - lips[0, 0]) / 2
        line = np.polyfit(lips[:, 0], lips[:, 1], 2)
        reach = 1.6 * self._mouth_half
        self._mouth_roi, self._mouth_x, self._mouth_y = self._roi(
            self._mouth_centre - reach,
            lips[:, 1].min() - 0.35 * self._eyes_apart,
            self._mouth_centre + reach,
            lips[:, 1].max() + 1.5 * self._eyes_apart,
        )
        # height below the line between the lips, which continues level beyond the corners
        ends = np.clip(self._mouth_x, lips[0, 0], lips[2, 0])
        self._below = (self._mouth_y - np.polyval(line, ends)).astype(np.float32)
        self._across = (self._mouth_x - self._mouth_centre).astype(np.float32)

    def _prepare_eyes(self):
        """Prepare eyelids from the skin below the eyes."""
        half_width, half_height = self.portrait.eye
        self._lids = []
        for ex, ey in self.portrait.landmarks[:2]:
            box = (ex - 1.5 * half_width, ey - 2 * half_height)
            roi, x, y = self._roi(*box, ex + 1.5 * half_width, ey + 2 * half_height)
            radius = np.hypot((x - ex) / half_width, (y - ey) / half_height)
            skin = self.portrait.image[
                int(ey + 1.3 * half_height) : int(ey + 2.3 * half_height) + 1,
                int(ex - half_width) : int(ex + half_width),
            ]
            colour = np.median(skin.reshape(-1, skin.shape[2]), axis=0) * 0.93
            # lashes along the lower edge of the closed lid
            edge = ((y - ey) / half_height - 0.55 * np.sqrt(np.clip(1 - radius**2, 0, 1))) / 0.35
            lash = 1 - 0.35 * np.exp(-(edge**2)) * _plateau(radius, 1.2)
            lid = colour * lash[..., None]
            self._lids.append((roi, lid.astype(np.float32), _plateau(radius, 1.5)[..., None]))

    def _prepare_head(self):
        x1, y1, x2, y2 = self.portrait.box
        self._head_centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        (cx, cy), rx, ry, outer = self._head_centre, 0.6 * (x2 - x1), 0.6 * (y2 - y1), 1.6
        self._head_roi, self._head_x, self._head_y = self._roi(
            cx - outer * rx, cy - outer * ry, cx + outer * rx, cy + outer * ry
        )
        dx, dy = self._head_x - np.float32(cx), self._head_y - np.float32(cy)
        weight = _plateau(np.hypot(dx / rx, dy / ry), outer)
        self._head_fields = weight, weight * dx, weight * dy

    def draw(
        self, mouth: float, blink: float, sway: np.ndarray, light: float, width: float = 0.0
    ) -> np.ndarray:
        """Draw one frame in the portrait's format; arguments as in :class:`Motion`."""
        import cv2

        panel = self.portrait.image.copy()
        if blink > 0:
            for roi, lid, weight in self._lids:
                panel[roi] = (panel[roi] * (1 - blink * weight) + lid * (blink * weight)).round()
        panel[self._mouth_roi] = self._open_mouth(panel, float(mouth) * self._opening, float(width))

        weight, field_x, field_y = self._head_fields
        right, down, turn = np.float32(sway)
        map_x = self._head_x - weight * right + turn * field_y
        map_y = self._head_y - weight * down - turn * field_x
        panel[self._head_roi] = _sampled(panel, map_x, map_y)
        return cv2.convertScaleAbs(panel, alpha=float(light)).reshape(panel.shape)

    def _open_mouth(self, panel: np.ndarray, opening: float, width: float) -> np.ndarray:
        """Mouth region, opened by `opening` pixels and wider by a factor of 1 + `width`."""
        below, across = self._below, self._across
        if width:
            # limit the effect to 1.6 times the mouth's width, and to its vicinity above and below
            near = np.exp(-((below / np.float32(0.5 * self._eyes_apart)) ** 2))
            near *= np.clip(1 - (across / (1.6 * self._mouth_half)) ** 2, 0, None)
            across = across / (1 + np.float32(width) * near)
        # rounder lips: the corners move inwards as the mouth opens
        half = self._mouth_half * (1 - 0.1 * opening / self._opening)
        arch = np.clip(1 - (across / half) ** 2, 0, None) ** 0.8
        upper, lower = 0.22 * opening * arch, 0.78 * opening * arch

        # below the gap: the displacement fades towards the neck, and widens to the width of the
        # jaw
        jaw = np.float32(1.15 * self._eyes_apart)
        depth = np.clip((below - lower) / jaw, 0, 1)
        wide = np.clip(1 - (across / (half * (1 + 0.6 * depth))) ** 2, 0, None)
        fade = (1 - depth) ** 2 * (1 + 2 * depth)
        down = 0.78 * opening * wide**0.8 * fade
        # above the gap: the displacement of the upper lip fades out before the nose
        rise = np.clip((-below - upper) / (0.3 * self._eyes_apart), 0, 1)
        up = upper * (1 - rise) ** 2 * (1 + 2 * rise)
        shift = np.where(below > 0, down, -up)
        # source rows stay on their side of the line between the lips
        source = np.where(below > 0, np.maximum(below - shift, 0), np.minimum(below - shift, 0))
        map_y = self._mouth_y + (source - below)
        warped = _sampled(panel, self._mouth_x + (across - self._across), map_y)

        # the gap itself, with a soft edge of one pixel, slightly lighter at the top
        gap = np.clip(np.minimum(lower - below, upper + below), 0, 1)[..., None]
        inside = self._inside * (1.15 - 0.3 * np.clip(below / max(opening, 1), 0, 1)[..., None])
        if self._teeth.any():
            edge = _TEETH_HEIGHT * self._eyes_apart - upper
            opacity = np.clip(edge - below, 0, 1)[..., None]
            inside = np.maximum(inside, opacity * self._teeth)
        return (warped * (1 - gap) + inside * gap).round().astype(np.uint8)

    def geometry(self, sway: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of face and landmarks after head motion, in pixels of the panel.

        Parameters
        ----------
        sway : (T, 3) float

        Returns
        -------
        box : (T, 4)
        landmarks : (T, 5, 2)
        """
        centre = np.float64(self._head_centre)
        shift, turn = sway[:, None, :2], sway[:, 2, None, None]
        around = np.float64(self.portrait.landmarks)[None] - centre
        rotated = around + turn * np.stack([-around[..., 1], around[..., 0]], axis=-1)
        box = np.float64(self.portrait.box) + np.tile(sway[:, :2], 2)
        return box, centre + shift + rotated
