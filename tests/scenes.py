"""Short parts of the sample, which are cheap to diarize: up to 10 s are one chunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from media import write_media
from pyannote.core import Annotation, Segment
from pyannote.database.util import load_rttm

from pyannote_av.core.grid import SAMPLE_RATE
from pyannote_av.core.io import Video
from pyannote_av.core.tracks import FaceTracks

#: width and height of pictures
SIZE = (320, 180)
SMALL = (256, 144)


@dataclass
class Scene:
    """Pictures and sound as functions of time, and who speaks and sits where."""

    duration: float
    pictures: np.ndarray
    samples: np.ndarray
    reference: Annotation
    faces: FaceTracks

    def draw(self, t: float) -> np.ndarray:
        return self.pictures[min(int(t * 25 + 0.5), len(self.pictures) - 1)]

    def sound(self, t: np.ndarray) -> np.ndarray:
        return np.interp(t, np.arange(len(self.samples)) / SAMPLE_RATE, self.samples)

    def write(self, path: Path, **options) -> Path:
        size = self.pictures.shape[2:0:-1]
        options = {"duration": self.duration, "size": size, "draw": self.draw} | options
        return write_media(path, audio_signal=self.sound, **options)


def cut_sample(
    sample: dict[str, Path],
    *parts: tuple[float, float],
    size: tuple[int, int] = SIZE,
    cls: type[Scene] = Scene,
) -> Scene:
    """Parts of the sample, from and to seconds of it, one after the other in small pictures"""
    turns, truth = load_rttm(sample["rttm"])["sample"], FaceTracks.read(sample["tracks"])
    waveform, position = Video().waveform(sample["video"])[0].numpy(), 0.0
    pictures, samples, rows, times = [], [], [], []
    reference = Annotation(uri="sample")
    for start, end in parts:
        for frame in Video().frames(sample["video"], start, end):
            pictures.append(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
        samples.append(waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])
        for turn, track, label in turns.itertracks(yield_label=True):
            if inside := turn & Segment(start, end):
                shift = position - start
                reference[Segment(inside.start + shift, inside.end + shift), track] = label
        shown = np.flatnonzero((truth.time >= start - 1e-6) & (truth.time < end - 1e-6))
        rows.append(shown)
        times.append(truth.time[shown] - start + position)
        position += end - start
    rows = np.concatenate(rows)
    faces = FaceTracks(
        np.concatenate(times),
        truth.track[rows],
        truth.box[rows],
        truth.landmarks[rows],
        truth.confidence[rows],
        label=truth.label[rows],
        speaker=truth.speaker,
        uri="sample",
        frame_size=size,
    )
    return cls(position, np.stack(pictures), np.concatenate(samples), reference, faces)
