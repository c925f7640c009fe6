"""Small videos of drawn people who take turns to talk, with exact tracks and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from media import write_media
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.protocol import SpeakerDiarizationProtocol

from pyannote_av.core.tracks import FaceTracks, Label

PANEL = 96  # pixels, the square that one person sits in


def turns(duration: float, num_faces: int, rng: np.random.Generator) -> list[list[Segment]]:
    """Who talks when: one after the other, with pauses."""
    found, t = [[] for _ in range(num_faces)], float(rng.uniform(0, 0.2))
    who = int(rng.integers(num_faces))
    while t < duration - 0.1:
        end = min(duration, t + float(rng.uniform(0.25, 0.6)))
        found[who].append(Segment(round(t, 2), round(end, 2)))
        t, who = end + float(rng.uniform(0.15, 0.4)), (who + 1) % num_faces
    return found


def talks(segments: list[Segment], t: np.ndarray) -> np.ndarray:
    """Whether somebody talks at times `t`."""
    inside = np.zeros(np.shape(t), bool)
    for segment in segments:
        inside |= (t >= segment.start) & (t < segment.end)
    return inside


def draw_person(opening: float, looks: np.random.Generator) -> np.ndarray:
    """A face (PANEL, PANEL, 3) whose mouth is open by 0-1."""
    import cv2

    skin, back = int(looks.integers(140, 220)), int(looks.integers(20, 90))
    image = np.full((PANEL, PANEL, 3), back, np.uint8)
    middle = PANEL // 2
    cv2.ellipse(image, (middle, middle), (30, 40), 0, 0, 360, (skin,) * 3, -1)
    for side in (-1, 1):
        cv2.circle(image, (middle + side * 12, middle - 12), 4, (30,) * 3, -1)
    height = 1 + round(10 * opening)
    cv2.ellipse(image, (middle, middle + 20), (12, height), 0, 0, 360, (25,) * 3, -1)
    return image


def make_talkers(
    folder: Path,
    uri: str,
    duration: float = 2.0,
    num_faces: int = 2,
    seed: int = 0,
    fps: float = 25,
    audio_end: float | None = None,
    labelled: bool = True,
) -> dict:
    """Write ``{uri}.mp4`` and ``{uri}.npz`` (tracks).

    Parameters
    ----------
    audio_end : float, optional
        The sound is a file of its own, ``{uri}.wav``, that ends after so many seconds.
    labelled : bool
        Tracks with labels; they name their speakers in any case.

    Returns
    -------
    file : dict
        uri, video, face_tracks (str), annotation, annotated, perhaps audio.
    """
    rng = np.random.default_rng(seed)
    segments = turns(duration, num_faces, rng)
    pitch = rng.uniform(90, 250, num_faces)

    def mouth(face: int, t):
        return talks(segments[face], t) * (0.55 + 0.45 * np.sin(2 * np.pi * 5 * t + face))

    def sound(t: np.ndarray) -> np.ndarray:
        signal = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
        for face in range(num_faces):
            voice = sum(np.sin(2 * np.pi * k * pitch[face] * t) / k for k in range(1, 12))
            signal += 0.1 * voice * mouth(face, t)
        return signal

    def draw(t: float) -> np.ndarray:
        faces = range(num_faces)
        looks = [np.random.default_rng([seed, face]) for face in faces]
        return np.hstack([draw_person(float(mouth(f, t)), looks[f]) for f in faces])

    video = folder / f"{uri}.mp4"
    size = (PANEL * num_faces, PANEL)
    write_media(
        video,
        duration=duration,
        fps=fps,
        size=size,
        audio=audio_end is None,
        audio_signal=sound,
        draw=draw,
    )
    extra = {}
    if audio_end is not None:
        from scipy.io import wavfile

        extra["audio"] = str(folder / f"{uri}.wav")
        samples = sound(np.arange(round(audio_end * 16000)) / 16000)
        wavfile.write(extra["audio"], 16000, np.int16(32767 * np.clip(samples, -1, 1)))
    steps = round(duration * fps)
    time = np.arange(steps) / fps
    columns = {"time": [], "track": [], "box": [], "label": []}
    for face in range(num_faces):
        box = np.array([face * PANEL + 18, 8, face * PANEL + 78, 88], float)
        columns["time"].append(time)
        columns["track"].append(np.full(steps, face))
        columns["box"].append(np.tile(box / np.tile(size, 2), (steps, 1)))
        columns["label"].append(talks(segments[face], time + 0.5 / fps).astype(int))
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    if not labelled:
        arrays["label"] = np.full(len(arrays["time"]), Label.UNKNOWN)
    tracks = FaceTracks(
        **arrays, speaker={f: f"person{f}" for f in range(num_faces)}, uri=uri, frame_size=size
    )
    tracks.write(folder / f"{uri}.npz")
    annotation = Annotation(uri=uri)
    for face in range(num_faces):
        for segment in segments[face]:
            annotation[segment, face] = f"person{face}"
    return {
        "uri": uri,
        "database": "Talkers",
        "video": str(video),
        "face_tracks": str(folder / f"{uri}.npz"),
        "annotation": annotation,
        "annotated": Timeline([Segment(0, duration)], uri=uri),
        **extra,
    }


class Drawn(SpeakerDiarizationProtocol):
    """A pyannote.database protocol of such files."""

    name = "Talkers.SpeakerDiarization.Drawn"

    def __init__(self, train: list[dict]):
        super().__init__()
        self._train = train

    def train_iter(self):
        yield from (dict(file) for file in self._train)


class DrawnAndValidated(Drawn):
    """The same with files to validate on."""

    def __init__(self, train: list[dict], development: list[dict]):
        super().__init__(train)
        self._development = development

    def development_iter(self):
        yield from (dict(file) for file in self._development)


def make_protocol(train: list[dict], development: list[dict] | None = None):
    """A pyannote.database protocol of such files."""
    return Drawn(train) if development is None else DrawnAndValidated(train, development)
