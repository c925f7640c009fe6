"""Clips of single talkers, prepared once: cut-out face and voice."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pyannote_av.core.atomic import replacing
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.reading import check_array, inside, read_npy, read_npz, refusing
from pyannote_av.core.runs import true_runs
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.faces import BOTTOM, LEFT, RIGHT, TOP
from pyannote_av.simulation.speech import STEP, Recording, recording

logger = logging.getLogger(__name__)

#: maximum height of a stored face in pixels
_HEIGHT = 160.0
#: minimum number of frames of a usable track
_SHORTEST = 25
_STEPS = int(SAMPLE_RATE / FRAME_RATE) // STEP
#: margin around speech that does not count as silence, minimum length of a part to listen with
#: (both in frames), and share of the frames with the least motion
_MARGIN, _IDLE, _STILL = 3, 5, 0.15


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of one talker, T frames at 25 per second.

    Attributes
    ----------
    path : Path
        Original video.
    folder : Path
        Folder of the prepared files.
    """

    path: Path
    folder: Path

    def __getstate__(self) -> dict[str, Path]:
        # cached content is not sent; the other process reads it again
        return {"path": self.path, "folder": self.folder}

    @cached_property
    def pictures(self) -> np.ndarray:
        """Face and surroundings: (T, H, W, 3) uint8 RGB, memory-mapped."""
        path = inside(self.folder, "pictures.npy")
        shape = (len(self.box), None, None, 3)
        with refusing(path):
            return check_array(read_npy(path, mmap_mode="r"), "u", shape, "pictures")

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        path = inside(self.folder, "clip.npz")
        arrays = read_npz(path, ("box", "landmarks", "waveform"))
        with refusing(path):
            count = len(check_array(arrays["box"], "f", (None, 4), "box"))
            check_array(arrays["landmarks"], "f", (count, 5, 2), "landmarks")
            check_array(arrays["waveform"], "i", (None,), "waveform")
        return arrays

    @property
    def box(self) -> np.ndarray:
        """Boxes (T, 4) in pixels of the stored images."""
        return self._arrays["box"]

    @property
    def landmarks(self) -> np.ndarray:
        """Landmarks (T, 5, 2) in pixels of the stored images."""
        return self._arrays["landmarks"]

    @property
    def height(self) -> float:
        """Median height of the face in pixels."""
        return float(np.median(self.box[:, 3] - self.box[:, 1]))

    @cached_property
    def speech(self) -> Recording:
        """Speech of the clip."""
        return recording(self._arrays["waveform"] / np.float32(32768), self.path)

    @cached_property
    def sounding(self) -> np.ndarray:
        """Frames with speech: (T,) bool."""
        steps = np.zeros(len(self.box) * _STEPS, bool)
        spoken = self.speech.steps[self.speech.mask]
        steps[spoken[spoken < len(steps)]] = True
        return steps.reshape(-1, _STEPS).any(axis=1)

    @cached_property
    def idle(self) -> np.ndarray:
        """Parts in which the face can listen: (n, 2) first frame, and one past the last.

        These are the silent parts. If they add up to less than a second, the parts in which the
        mouth moves least are added.
        """
        near = np.convolve(self.sounding, np.ones(2 * _MARGIN + 1), "same") > 0.5
        runs = _long(~near)
        if np.diff(runs).sum() >= FRAME_RATE:
            return runs
        motion = np.convolve(self._mouth_motion(), np.ones(_IDLE) / _IDLE, "same")
        return _long(~near | (motion <= np.quantile(motion, _STILL)))

    def _mouth_motion(self) -> np.ndarray:
        """Mean difference of the mouth region to the previous frame: (T,)"""
        x, y = np.nanmean(self.landmarks[:, 3:], axis=(0, 1))
        reach = 0.22 * self.height
        rows = slice(max(0, int(y - reach)), int(y + reach))
        columns = slice(max(0, int(x - reach)), int(x + reach))
        mouth = self.pictures[:, rows, columns].mean(axis=-1)
        return np.r_[0.0, np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2))]


def _long(mask: np.ndarray) -> np.ndarray:
    """Runs of True (n, 2) of sufficient length; the longest one if there are none"""
    runs = true_runs(mask)
    lengths = runs[:, 1] - runs[:, 0]
    return runs[lengths >= min(_IDLE, lengths.max(initial=0))]


def _face(path: Path, tracks: FaceTracks | None) -> FaceTracks:
    """The only face of a clip, interpolated to all frames of the grid"""
    from pyannote_av.vision.crops import on_grid

    if tracks is None:
        from pyannote_av.pipelines.face_tracking import FaceTracking

        tracks = FaceTracking(embedder=None)(path)
    lengths = {track: len(tracks.of(track)) for track in tracks.tracks}
    track = max(lengths, key=lambda t: lengths[t], default=None)
    if track is None or lengths[track] < _SHORTEST:
        raise ValueError(f"{path}: no face is visible for a second")
    own = on_grid(tracks.of(track))
    first, last = own.time[[0, -1]]
    for other in lengths:
        time = tracks.of(other).time
        if other != track and ((time >= first) & (time <= last)).sum() > 0.3 * len(own):
            raise ValueError(f"{path}: several faces, a clip of a talker shows one person")
    return own


def prepare_clip(path: str | Path, folder: Path, tracks: FaceTracks | None = None) -> Clip:
    """Track the face of a clip, and store face and voice in `folder`, unless done before.

    Parameters
    ----------
    path : str or Path
        Video with sound of one talking person. Only the longest shot is used.
    folder : Path
        Output folder. Existing content is reused.
    tracks : FaceTracks, optional
        Known tracks. If not given, faces are detected and tracked.

    Raises
    ------
    ValueError
        If the clip has no face, several faces or no sound; the message names the file.
    MediaError
        If the clip cannot be decoded.
    """
    path = Path(path)
    clip = Clip(path, folder)
    if not (folder / "clip.npz").is_file():
        own = _face(path, tracks)
        first = round(float(own.time[0]) * FRAME_RATE)
        count = round(float(own.time[-1]) * FRAME_RATE) - first + 1
        _write(path, folder, own, first, count)
    if not len(clip.speech.speech):
        raise ValueError(f"{path}: only silence")
    return clip


def _write(path: Path, folder: Path, own: FaceTracks, first: int, count: int) -> None:
    import cv2

    from pyannote_av.core.io import Video

    info = Video().probe(path)
    assert info.video is not None  # because a face was detected
    if not info.audio:
        raise ValueError(f"{path}: no sound")
    size = np.array([info.video.width, info.video.height], float)
    grid, at = np.arange(first, first + count) / FRAME_RATE, own.time

    def filled(values: np.ndarray) -> np.ndarray:
        """Interpolate to all frames; outside of known ones, use the nearest"""
        columns = values.reshape(len(at), -1).T
        known = [(at[np.isfinite(c)], c[np.isfinite(c)]) for c in columns]
        parts = [np.interp(grid, *k) if len(k[0]) else np.full(count, np.nan) for k in known]
        return np.stack(parts, axis=1).reshape(count, *values.shape[1:])

    box = filled(own.box) * np.tile(size, 2)
    landmarks = filled(own.landmarks) * size
    if np.isnan(landmarks).any():
        landmarks = _usual_landmarks(box)
    middle = np.median((box[:, :2] + box[:, 2:]) / 2, axis=0)
    scale = min(1.0, _HEIGHT / float(np.median(box[:, 3] - box[:, 1])))
    height = scale * float(np.median(box[:, 3] - box[:, 1]))
    panel = (round((TOP + BOTTOM) * height), round((LEFT + RIGHT) * height))
    corner = middle * scale - np.array([LEFT, TOP]) * height
    # pixel centres are at integers for warpAffine, but at halves in our coordinates
    offset = (corner + 0.5) / scale - 0.5
    matrix = np.array([[1 / scale, 0, offset[0]], [0, 1 / scale, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "pictures.npy") as partial:
        shape = (count, *panel, 3)
        pictures = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        written = 0
        for frame in Video().frames(path, start=grid[0] - 1e-3, end=grid[-1] + 0.02):
            if 0 <= frame.index - first < count:
                image = frame.image
                if scale < 0.5:
                    # bilinear sampling alone would alias
                    image = cv2.blur(image, (round(1 / scale),) * 2)
                pictures[frame.index - first] = cv2.warpAffine(
                    image, matrix, panel[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
                )
                written += 1
        if written < count:
            raise ValueError(f"{path}: {written} of {count} pictures of the face could be read")
        pictures.flush()
    per_frame = int(SAMPLE_RATE / FRAME_RATE)
    sound = Video().waveform(path)[0].numpy()[first * per_frame : (first + count) * per_frame]
    with replacing(folder / "clip.npz") as partial:
        np.savez(
            partial,
            box=box * scale - np.tile(corner, 2),
            landmarks=landmarks * scale - corner,
            waveform=(np.clip(sound, -1, 1) * 32767).astype(np.int16),
        )


def _usual_landmarks(box: np.ndarray) -> np.ndarray:
    """Average positions of landmarks (T, 5, 2) in boxes (T, 4), for tracks without landmarks"""
    places = np.array([[0.31, 0.4], [0.69, 0.4], [0.5, 0.57], [0.35, 0.75], [0.65, 0.75]])
    return box[:, None, :2] + places * (box[:, None, 2:] - box[:, None, :2])
