"""Direct rendering of conversations into a store of face crops, without writing video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.tracks import FaceSamples, FaceTracks, TrackSegment
from pyannote_av.data.crop_shard import FACE_INTERVAL, FACE_SIDE
from pyannote_av.data.shard_writer import ShardWriter, to_int16
from pyannote_av.simulation.conversation import Conversation
from pyannote_av.simulation.rendering import SIDE, face_crops, face_image
from pyannote_av.vision.identity import MIN_SIZE

#: maximum number of frames of a track to draw before they are written (12 s)
_LENGTH = 300


def segments(conversation: Conversation, seed: Sequence[int]) -> Iterator[TrackSegment]:
    """Crops of all faces of a conversation, track by track.

    A dropped frame is replaced by the previous one. Frames dropped at the start of a shot are
    marked as absent.

    Parameters
    ----------
    conversation : Conversation
    seed : sequence of int
        Seed of the random deviations of detected boxes.
    """
    for shot in conversation.scene.shots:
        kept = conversation.scene.kept[shot.first : shot.end]
        for face in shot.faces:
            person = conversation.people[face.person]
            rng = np.random.default_rng([*seed, face.track])
            drawn = face_crops(person, face, shot, range(shot.first, shot.end), rng)
            last = np.zeros((SIDE, SIDE), np.uint8)
            for first in range(0, len(kept), _LENGTH):
                there = kept[first : first + _LENGTH]
                crops = np.empty((len(there), SIDE, SIDE), np.uint8)
                for i, crop in zip(range(len(there)), drawn, strict=False):
                    crops[i] = last = crop if there[i] else last
                present = np.logical_or.accumulate(kept[: first + _LENGTH])[first:]
                yield TrackSegment(face.track, shot.first + first, crops, present)


def face_samples(conversation: Conversation) -> FaceSamples:
    """Images of whole faces in colour, for faces large enough to identify a person.

    Parameters
    ----------
    conversation : Conversation
    """
    found, step = [], round(FACE_INTERVAL * FRAME_RATE)
    for shot in conversation.scene.shots:
        there = shot.first + np.flatnonzero(conversation.scene.kept[shot.first : shot.end])
        for face in shot.faces:
            if face.height >= MIN_SIZE:
                person = conversation.people[face.person]
                for k in there[::step].tolist():
                    found.append((face.track, k, face_image(person, face, shot, k, FACE_SIDE)))
    found.sort(key=lambda sample: sample[:2])
    where = np.array([sample[:2] for sample in found], np.int64).reshape(-1, 2)
    pictures = [picture for *_, picture in found]
    return FaceSamples(where[:, 0], where[:, 1], np.array(pictures, np.uint8))


def write_shard(
    conversation: Conversation, store: Path, tracks: FaceTracks, seed: Sequence[int]
) -> None:
    """Write a conversation to a store. It replaces the stored data of its uri, if any.

    Parameters
    ----------
    conversation : Conversation
    store : Path
        Folder of the store.
    tracks : FaceTracks
        Tracks of the conversation.
    seed : sequence of int
        See :func:`segments`.
    """
    with ShardWriter(store, conversation.uri) as shard:
        for segment in segments(conversation, seed):
            shard.add(segment)
        source = {"seed": "-".join(map(str, seed))}
        sound = to_int16(conversation.audio)
        shard.finish(tracks, sound, source, [], face_samples(conversation))
