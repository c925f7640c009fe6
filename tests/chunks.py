"""Chunks of simulated conversations, cut without encoding or files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.simulation.conversation import Conversation
from pyannote_av.simulation.rendering import SIDE, face_crops


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk of a conversation with F faces and S speakers in T frames (25 per second).

    Attributes
    ----------
    uri : str
        Name of the conversation.
    start : float
        Start within the conversation, in seconds.
    waveform : (1, 640 T) float32
        16 kHz.
    crops : (F, T, 112, 112) uint8
        Black where the face is absent.
    present : (F, T) bool
    labels : (F, T) int8
        1 audibly speaking, 0 not. Also defined where the face is absent.
    people : tuple of str
        Person that each face belongs to. Each person has one row, regardless of shots.
    speakers : tuple of str
        Speakers of the conversation. Other people only listen.
    speech : (S, T) bool
        Who speaks, visible or not.
    """

    uri: str
    start: float
    waveform: np.ndarray
    crops: np.ndarray
    present: np.ndarray
    labels: np.ndarray
    people: tuple[str, ...]
    speakers: tuple[str, ...]
    speech: np.ndarray


def cut_chunk(
    conversation: Conversation, first: int, num_frames: int, rng: np.random.Generator
) -> Chunk:
    """Frames `first` to ``first + num_frames`` (exclusive) of a conversation.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the random deviations of detected boxes.
    """
    scene, speaking = conversation.scene, conversation.speaking
    end = first + num_frames
    visible = {
        name: scene.visible(name)[first:end]
        for name in sorted(conversation.people)
        if scene.visible(name)[first:end].any()
    }
    people = list(visible)
    crops = np.zeros((len(people), num_frames, SIDE, SIDE), np.uint8)
    for shot in scene.shots:
        frames = range(max(first, shot.first), min(end, shot.end))
        for face in shot.faces if len(frames) else ():
            drawn = face_crops(conversation.people[face.person], face, shot, frames, rng)
            row = crops[people.index(face.person)]
            for k, crop in zip(frames, drawn, strict=True):
                row[k - first] = crop
    # a dropped frame is replaced by the previous one
    source = np.maximum.accumulate(np.where(scene.kept[first:end], np.arange(num_frames), 0))
    present = np.stack(list(visible.values())) if visible else np.zeros((0, num_frames), bool)
    silent = np.zeros(scene.num_frames, bool)
    labels = [speaking.get(name, silent)[first:end] for name in people]
    step = int(SAMPLE_RATE / FRAME_RATE)
    return Chunk(
        uri=conversation.uri,
        start=first / FRAME_RATE,
        waveform=conversation.sound.mixture[None, first * step : end * step],
        crops=crops[:, source],
        present=present[:, source],
        labels=np.array(labels, np.int8).reshape(len(people), num_frames),
        people=tuple(people),
        speakers=tuple(speaking),
        speech=np.stack([active[first:end] for active in speaking.values()]),
    )
