"""Embeddings of many voices and faces, to train networks that compare them.

    python -m recipes.simulated.people DATA WORK [--seconds 300]

WORK/people/SUBSET.npz holds the :class:`~pyannote_av.clustering.people.People` of a subset:

* voices: each speaker of LibriSpeech as recorded, and also at 0.85 or 1.15 times the speed, as
  another person. Every person speaks in one room, which has one noise, one room response or none,
  and one signal-to-noise ratio.
* faces: each person of ``portraits`` and, for training, of ``clips/talkers``; each with small
  changes of position, size, direction, light and sharpness.

Speakers, portraits, noises and rooms are those of the same subset in
:mod:`recipes.simulated.corpus`. Existing parts are not computed again; with ``--seconds``, the
command stops after the given time, to be continued later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from pyannote_av.clustering.people import People
from pyannote_av.core.atomic import replacing
from recipes.simulated.corpus import (
    DEVELOPMENT_SPEAKERS,
    PORTRAITS,
    SUBSETS,
    TRAIN_SPEAKERS,
    talkers,
)

#: speeds at which a speaker is a person of their own, and which speakers are changed
SPEEDS = {1.0: slice(None), 0.85: slice(0, None, 2), 1.15: slice(1, None, 2)}
#: seconds of each speaker: at least, by subset, and at most
SHORTEST, SECONDS = {"train": 4.0, "development": 2.0, "test": 2.0}, 8.0
#: number of rooms, noises and room responses by subset, in order of file names
ROOMS = {"train": 12, "development": 4, "test": 4}
NOISES = {"train": slice(0, 3), "development": slice(3, 4), "test": slice(4, 5)}
RESPONSES = {"train": slice(0, 2), "development": slice(2, 3), "test": slice(3, 4)}
#: signal-to-noise ratios in dB
SNR = (0.0, 25.0)
#: windows of each person; their durations in seconds, and how often these are drawn
WINDOWS, DURATIONS, SHARES = 40, (2.0, 1.5, 1.0), (0.6, 0.25, 0.15)
#: pictures of each face, and pictures of a clip that they are made from
PICTURES, MOMENTS = 12, 6
#: faces this similar are one person: 0.5 separates people in all face embeddings of the package
SAME_FACE = 0.5
#: voices in one file of the first step
_PART = 15


class Room(NamedTuple):
    """Sound of a room: noise and room response, or None, and signal-to-noise ratio in dB."""

    noise: np.ndarray
    response: np.ndarray | None
    snr: float

    def record(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Speech (samples,) as recorded in this room."""
        from scipy.signal import oaconvolve

        if self.response is not None:
            clean = oaconvolve(clean, self.response)[: len(clean)].astype(np.float32)
        noise = np.resize(np.roll(self.noise, rng.integers(len(self.noise))), len(clean))
        loudness = np.sqrt(np.square(clean).mean() / max(np.square(noise).mean(), 1e-12))
        return clean + noise * np.float32(loudness * 10 ** (-self.snr / 20))


def rooms(data: Path, subset: str) -> list[Room]:
    """All rooms of a subset. Every third one has a room response."""
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.sound import given_response

    def read(kind: str, which: slice) -> list[np.ndarray]:
        paths = sorted((data / "noise").glob(f"{kind}*.wav"))[which]
        return [Video().waveform(path)[0].numpy() for path in paths]

    noises = read("noise", NOISES[subset])
    responses = [given_response(one) for one in read("rir", RESPONSES[subset])]
    return [
        Room(noises[k % len(noises)], responses[k % len(responses)] if k % 3 == 2 else None, snr)
        for k, snr in enumerate(np.linspace(*SNR, ROOMS[subset]))
    ]


def speakers(data: Path, subset: str) -> list[Path]:
    """One utterance of each speaker of a subset. Speakers who say too little are left out."""
    import soundfile

    paths = sorted((data / "speech" / "librispeech").glob("*.flac"))
    paths = list({path.name.split("-")[0]: path for path in paths}.values())
    borders = np.cumsum([0, TRAIN_SPEAKERS, DEVELOPMENT_SPEAKERS, len(paths)])
    which = SUBSETS.index(subset)
    paths = paths[borders[which] : borders[which + 1]]
    return [path for path in paths if soundfile.info(path).duration >= SHORTEST[subset]]


def utterances(data: Path, subset: str) -> list[tuple[Path, float]]:
    """Utterance and speed of each person of a subset."""
    paths = speakers(data, subset)
    return [(path, speed) for speed, which in SPEEDS.items() for path in paths[which]]


def utterance(path: Path, speed: float) -> np.ndarray:
    """Speech of a speaker (samples,) at another speed; pitch and formants move along."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    samples, rate = soundfile.read(path, dtype="float32", frames=round(SECONDS * speed * 16000))
    if speed != 1.0:
        samples = resample(torch.from_numpy(samples)[None], round(rate * speed), rate)[0].numpy()
    return samples


def embed_voice(person: int, sound: np.ndarray, room: Room, embedder) -> np.ndarray:
    """Embeddings (n, E) of windows of one person in a room."""
    import torch

    from pyannote_av.models.embedding.voiceprints import segment_embeddings, speaker_features

    rng = np.random.default_rng(person)
    features = speaker_features(torch.from_numpy(room.record(sound, rng))[None], embedder)
    duration = rng.choice(DURATIONS, WINDOWS, p=SHARES)
    start = rng.uniform(0, len(sound) / 16000 - duration)
    found = segment_embeddings(features, np.stack([start, start + duration], axis=1))
    return found[found.any(axis=1)]


def voices(data: Path, folder: Path, subset: str, stop: float) -> bool:
    """Embed the voices of a subset, in parts; returns whether all are there."""
    from pyannote_av.models.loading import load_model

    everybody = utterances(data, subset)
    embedder = every = None
    for first in range(0, len(everybody), _PART):
        part = folder / f"{subset}-voices-{first // _PART:02d}.npz"
        if part.is_file():
            continue
        if perf_counter() > stop:
            return False
        if embedder is None:
            embedder, every = load_model("campplus"), rooms(data, subset)
        persons = range(first, min(first + _PART, len(everybody)))
        found = [
            embed_voice(p, utterance(*everybody[p]), every[p % len(every)], embedder)
            for p in persons
        ]
        who = np.repeat(persons, [len(vectors) for vectors in found])
        with replacing(part) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                voice=np.concatenate(found).astype(np.float16),
                voice_person=who,
                voice_room=who % len(every),
            )
        print(part.name, flush=True)
    return True


def pictures_of(data: Path, subset: str) -> Iterator[np.ndarray]:
    """Pictures of people, RGB."""
    import cv2

    from pyannote_av.core.io import Video

    paths = sorted(path for path in (data / "portraits").iterdir() if path.suffix != ".md")
    for number, path in enumerate(paths):
        if number % 5 in PORTRAITS[subset]:
            yield cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if subset == "train":
        for path, *_ in talkers(data, aside=False).values():
            frames = [frame.image for frame in Video().frames(path)]
            for k in np.linspace(0, len(frames) - 1, MOMENTS).astype(int).tolist():
                yield frames[k]


def changed(image: np.ndarray, box: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A face (size, size, 3) as another camera, in other light, might see it"""
    import cv2

    from pyannote_av.vision.identity import face_box

    left, top, side = face_box(box, image.shape)
    side, shift = side * rng.uniform(0.9, 1.15), rng.uniform(-0.06, 0.06, 2) * side
    centre = np.array([left, top]) + face_box(box, image.shape)[2] / 2 + shift
    turn = cv2.getRotationMatrix2D(tuple(centre), rng.uniform(-12, 12), size / side)
    turn[:, 2] += size / 2 - centre
    face = cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        face = face[:, ::-1]
    if rng.random() < 0.5:
        small = int(rng.uniform(28, size))
        face = cv2.resize(cv2.resize(face, (small, small)), (size, size))
    face = 255 * (face / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.2)
    face = (face + rng.normal(0, rng.uniform(0, 6), face.shape)).clip(0, 255).astype(np.uint8)
    good, packed = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(30, 95))])
    return cv2.imdecode(packed, cv2.IMREAD_COLOR) if good else face


def faces(data: Path, folder: Path, subset: str) -> None:
    """Embed the faces of a subset. Faces that are similar are those of one person."""
    from pyannote_av.clustering.linkage import threshold_clusters
    from pyannote_av.vision.detection import get_detector
    from pyannote_av.vision.identity import get_embedder

    into = folder / f"{subset}-faces.npz"
    if into.is_file():
        return
    detector, embedder, rng = get_detector("yunet"), get_embedder("sface"), np.random.default_rng(0)
    vectors = []
    for image in pictures_of(data, subset):
        found = detector(image)
        height = (found.box[:, 3] - found.box[:, 1]) * image.shape[0]
        for box in found.box[(found.confidence >= detector.min_confidence) & (height >= 40)]:
            views = [changed(image, box, embedder.size, rng) for _ in range(PICTURES)]
            vectors.append(embedder(np.stack(views)))
    means = np.array([one.mean(axis=0) for one in vectors])
    person = threshold_clusters(means, 1 - SAME_FACE)
    with replacing(into) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            face=np.concatenate(vectors).astype(np.float16),
            face_person=np.repeat(person, PICTURES),
        )
    print(f"{into.name}: {person.max() + 1} people in {len(means)} pictures", flush=True)


def build(
    data: Path,
    work: Path,
    seconds: float = np.inf,
    subsets: Sequence[str] = ("development", "train"),
) -> dict[str, People] | None:
    """Embed the people of subsets; returns None if the time was too short."""
    folder, stop = work / "people", perf_counter() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for subset in subsets:
        into = folder / f"{subset}.npz"
        if not into.is_file():
            faces(data, folder, subset)
            if not voices(data, folder, subset, stop):
                return None
            parts = [np.load(path) for path in sorted(folder.glob(f"{subset}-voices-*.npz"))]
            known = {k: np.concatenate([one[k] for one in parts]) for k in parts[0].files}
            seen = np.load(folder / f"{subset}-faces.npz")
            People(**known, **{name: seen[name] for name in seen.files}).save(into)
        found[subset] = People.read(into)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--subsets", nargs="+", default=["development", "train"], choices=SUBSETS)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after this time")
    given = parser.parse_args()
    return 0 if build(given.data, given.work, given.seconds, given.subsets) else 3


if __name__ == "__main__":
    sys.exit(main())
