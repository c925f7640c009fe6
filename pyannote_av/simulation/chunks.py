"""Training chunks directly from the simulation, without encoding or files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.conversation import Conversation, Options, converse
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
    seen = {
        name: scene.visible(name)[first:end]
        for name in sorted(conversation.people)
        if scene.visible(name)[first:end].any()
    }
    people = list(seen)
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
    present = np.stack(list(seen.values())) if seen else np.zeros((0, num_frames), bool)
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
        speech=np.stack([heard[first:end] for heard in speaking.values()]),
    )


def simulate_chunks(
    cast: Cast,
    duration: float = 5.0,
    options: Options | None = None,
    seed: int = 0,
    conversation: float = 60.0,
    worker: Sequence[int] = (0, 1),
) -> Iterator[Chunk]:
    """Yield chunks indefinitely, reproducible by seed.

    Parameters
    ----------
    cast : Cast
    duration : float
        Duration of a chunk in seconds.
    options : Options, optional
    seed : int
    conversation : float
        Duration of each conversation in seconds. It is cut into chunks, which are all used.
    worker : (int, int)
        Index of this worker, and number of workers. Each worker gets its own conversations.

    Yields
    ------
    chunk : Chunk

    Raises
    ------
    ValueError
        If a conversation is shorter than a chunk.
    """
    num_frames = round(duration * FRAME_RATE)
    available = int(conversation * FRAME_RATE) // num_frames if num_frames > 0 else 0
    if available < 1:
        raise ValueError(f"chunks of {duration:g} s out of conversations of {conversation:g} s")
    rank, workers = worker
    for number in count(rank, workers):
        made = converse(cast, conversation, options, seed=(seed, number))
        rng = np.random.default_rng([seed, number, 6])
        for place in rng.permutation(available):
            yield cut_chunk(made, int(place) * num_frames, num_frames, rng)
