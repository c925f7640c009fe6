"""Augmentation of training examples: second voices, views, turned heads, cameras, missing faces."""

from __future__ import annotations

import numpy as np

from pyannote_av.vision.crops import OUTSIDE

#: signal-to-noise ratio in dB of a mix; degrees; remaining side after a crop (TalkNet, Light-ASD)
SNR = (-5.0, 5.0)
ANGLE = 15.0
CROP = (0.7, 1.0)
#: cameras: exponent, contrast and brightness of grey in [0, 1]; remaining width of a face in
#: pixels; standard deviations of blur in pixels and of noise in grey levels
GAMMA, CONTRAST, BRIGHTNESS = (0.6, 1.6), (0.5, 1.4), (-0.25, 0.25)
SHARPNESS, BLUR, GRAIN = (20, 90), (0.5, 2.5), (1.0, 10.0)
#: turned heads: largest angle in degrees, distance of the camera and shift in half widths of a crop
YAW, DISTANCE, OFFSET = 60.0, 4.0, 0.15
#: maximum number of frames for which a face is removed
MAX_LOSS = 25


def mix(sound: np.ndarray, other: np.ndarray, snr: float) -> np.ndarray:
    """Add another sound `snr` dB below, repeating it if it is shorter.

    Parameters
    ----------
    sound, other : (n,), (m,) float32
    snr : float

    Returns
    -------
    mixed : (n,) float32
        `sound` itself if either is silent, because the ratio is then undefined.
    """
    if not len(sound) or not len(other):
        return sound
    other = np.resize(other, len(sound))
    power, noise = np.mean(sound**2), np.mean(other**2)
    if min(power, noise) < 1e-9:
        return sound
    return sound + other * np.float32(np.sqrt(power / noise * 10 ** (-snr / 10)))


def vary_view(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep, mirror, crop (to 70-100 %, then scale up) or rotate (by up to 15 degrees) at random.

    Parameters
    ----------
    faces : (T, size, size) uint8
        All frames are changed in the same way.

    Returns
    -------
    faces : (T, size, size) uint8
    """
    import cv2

    kind, size = rng.integers(4), faces.shape[1]
    if kind == 0:
        return faces
    if kind == 1:
        return faces[:, :, ::-1]
    if kind == 2:
        side = size * rng.uniform(*CROP)
        left, top = rng.uniform(0, size - side, 2)
        scale = side / size
        shift = scale / 2 - 0.5  # pixel centres are at integers for warpAffine
        matrix = np.array([[scale, 0, left + shift], [0, scale, top + shift]])
    else:
        middle = (size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), rng.uniform(-ANGLE, ANGLE), 1)
    varied = np.empty_like(faces)
    for i, face in enumerate(faces):
        cv2.warpAffine(
            face,
            matrix,
            (size, size),
            dst=varied[i],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=OUTSIDE,
        )
    return varied


def turn_head(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a flat face to the side, by up to 60 degrees, and shift it by up to 15 %.

    Half profiles are rare in material with labels. The face is turned as a flat picture: it becomes
    narrower, and larger on one side, but the nose does not hide a cheek.

    Parameters
    ----------
    faces : (T, size, size) uint8
        All frames are changed in the same way.

    Returns
    -------
    faces : (T, size, size) uint8
    """
    import cv2

    size = faces.shape[1]
    angle = np.radians(rng.uniform(-YAW, YAW))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    depth = DISTANCE / (DISTANCE + corners[:, 0] * np.sin(angle))
    turned = np.stack([corners[:, 0] * np.cos(angle) * depth, corners[:, 1] * depth], axis=1)
    turned[:, 0] += rng.uniform(-OFFSET, OFFSET)
    before, after = (((c + 1) * (size - 1) / 2).astype(np.float32) for c in (corners, turned))
    matrix = cv2.getPerspectiveTransform(before, after)
    varied = np.empty_like(faces)
    for i, face in enumerate(faces):
        cv2.warpPerspective(
            face, matrix, (size, size), dst=varied[i], borderMode=cv2.BORDER_REPLICATE
        )
    return varied


def vary_camera(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and contrast; two times in three, also blur or add noise.

    Parameters
    ----------
    faces : (T, size, size) uint8
        All frames are changed in the same way, except for the noise.

    Returns
    -------
    faces : (T, size, size) uint8
    """
    import cv2

    grey = np.linspace(0, 1, 256) ** np.exp(rng.uniform(*np.log(GAMMA)))
    grey = (grey - 0.5) * rng.uniform(*CONTRAST) + 0.5 + rng.uniform(*BRIGHTNESS)
    levels = np.clip(np.rint(255 * grey), 0, 255).astype(np.uint8)
    faces, kind, size = levels[faces], rng.integers(3), faces.shape[1]
    if kind == 0:
        return faces
    if kind == 1:
        noise = rng.normal(0, rng.uniform(*GRAIN), (2, size, size))
        # the noise of each frame is a shifted copy of one of two noise images
        for face, shift in zip(faces, rng.integers(size, size=len(faces)), strict=True):
            grain = np.roll(noise[shift % 2], shift, axis=1)
            np.clip(np.rint(face + grain), 0, 255, out=face, casting="unsafe")
        return faces
    pixels, sigma = round(rng.uniform(*SHARPNESS)), rng.uniform(*BLUR)
    small = rng.random() < 0.5
    for face in faces:
        if small:
            reduced = cv2.resize(face, (pixels, pixels), interpolation=cv2.INTER_AREA)
            cv2.resize(reduced, (size, size), dst=face, interpolation=cv2.INTER_LINEAR)
        else:
            cv2.GaussianBlur(face, (0, 0), sigma, dst=face)
    return faces


def lose(present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove a face for up to 1 s, and at most half of the time; its ends always remain.

    Parameters
    ----------
    present : (T,) bool

    Returns
    -------
    present : (T,) bool
    """
    longest = min(MAX_LOSS, len(present) // 2, len(present) - 2)
    if longest < 1:
        return present
    length = rng.integers(1, longest + 1)
    start = rng.integers(1, len(present) - length)
    present = present.copy()
    present[start : start + length] = False
    return present
