"""Simulated conversations: turns, voices, faces and their motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from pyannote.core import Annotation

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.acting import Acting, perform
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.clip_acting import ClipActor, show
from pyannote_av.simulation.disturbance import Disturbances, disturbed
from pyannote_av.simulation.faces import random_tone, varied
from pyannote_av.simulation.performer import Actor, Performer
from pyannote_av.simulation.rendering import geometry
from pyannote_av.simulation.scene import Scene, SceneOptions, plan
from pyannote_av.simulation.sound import Sound, SoundOptions, compose
from pyannote_av.simulation.turns import SPEAKERS, number_of_speakers, sample_turns


@dataclass(frozen=True)
class Options:
    """Options of simulated conversations.

    Attributes
    ----------
    speakers : (int, int), optional
        Range of the number of speakers, within 2 to 20. Defaults to the distribution of the corpus.
    talkers : float
        Share of speakers with voice and face from their own clips, if there are any. The others
        combine a voice and a portrait.
    sound : SoundOptions
    scene : SceneOptions
    acting : Acting
    disturbances : Disturbances
    """

    speakers: tuple[int, int] | None = None
    talkers: float = 0.5
    sound: SoundOptions = field(default_factory=SoundOptions)
    scene: SceneOptions = field(default_factory=SceneOptions)
    acting: Acting = field(default_factory=Acting)
    disturbances: Disturbances = field(default_factory=Disturbances)

    def __post_init__(self):
        if self.speakers is not None:
            low, high = self.speakers
            if not SPEAKERS[0] <= low <= high <= SPEAKERS[1]:
                raise ValueError(
                    f"speakers must be a range within {SPEAKERS[0]}-{SPEAKERS[1]}, not {low}-{high}"
                )


@dataclass(frozen=True, eq=False)
class Conversation:
    """A simulated conversation, ready to be rendered.

    Attributes
    ----------
    uri : str
    sound : Sound
    scene : Scene
    people : dict of str to Performer
        People by name. Speakers are named as in ``sound.turns``.
    voices : dict of str to str
        Speaker of the library, or talker, for each speaker of the conversation.
    options : Options
    """

    uri: str
    sound: Sound
    scene: Scene
    people: dict[str, Performer]
    voices: dict[str, str]
    options: Options

    @property
    def turns(self) -> Annotation:
        """Reference turns."""
        return self.sound.turns

    @property
    def speaking(self) -> dict[str, np.ndarray]:
        """Who speaks in each frame: (T,) bool by name."""
        return active(self.turns, self.scene.num_frames)

    @property
    def audio(self) -> np.ndarray:
        """The mixture, limited to the length of the video: (640 T,) float32."""
        return self.sound.mixture[: self.scene.num_frames * int(SAMPLE_RATE / FRAME_RATE)]

    def tracks(self) -> FaceTracks:
        """Reference face tracks with labels; one track per appearance on screen."""
        columns: dict[str, list[np.ndarray]] = {}
        speaker, size = {}, self.scene.options.size
        silent, speaking = np.zeros(self.scene.num_frames, bool), self.speaking
        for shot in self.scene.shots:
            frames = slice(shot.first, shot.end)
            count = shot.end - shot.first
            for face in shot.faces:
                box, landmarks = geometry(self.people[face.person], face, frames)
                values = {
                    "time": np.arange(shot.first, shot.end) / FRAME_RATE,
                    "track": np.full(count, face.track),
                    "box": box / np.tile(size, 2),
                    "landmarks": landmarks / size,
                    "confidence": np.ones(count),
                    "label": speaking.get(face.person, silent)[frames].astype(np.int8),
                }
                for name, value in values.items():
                    columns.setdefault(name, []).append(value)
                speaker[face.track] = face.person
        if not columns:
            return FaceTracks.empty(uri=self.uri, frame_size=size)
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        return FaceTracks(**joined, speaker=speaker, uri=self.uri, frame_size=size)

    def summary(self) -> dict[str, Any]:
        """Description of the conversation, as plain JSON-serialisable containers."""
        return {
            "uri": self.uri,
            "options": asdict(self.options),
            "voices": self.voices,
            "snr": self.sound.snr,
            "silent": sorted(self.people.keys() - self.voices.keys()),
            "shots": [shot.first / FRAME_RATE for shot in self.scene.shots],
        }


def active(turns: Annotation, num_frames: int) -> dict[str, np.ndarray]:
    """Who speaks at the times of frames (25 per second): (num_frames,) bool by label."""
    time = np.arange(num_frames) / FRAME_RATE
    speaking = {}
    for label in sorted(turns.labels()):
        inside = np.zeros(num_frames, bool)
        for segment in turns.label_timeline(label):
            # a turn that ends within a frame still counts at the start of that frame
            first, last = np.searchsorted(time, [segment.start - 1e-6, segment.end - 1e-6])
            inside[first:last] = True
        speaking[str(label)] = inside
    return speaking


def converse(
    cast: Cast,
    duration: float,
    options: Options | None = None,
    seed: Sequence[int] = (0,),
    uri: str | None = None,
) -> Conversation:
    """Simulate a conversation, without rendering it.

    Parameters
    ----------
    cast : Cast
    duration : float
        Duration in seconds.
    options : Options, optional
    seed : sequence of int
        The same seed gives the same conversation.
    uri : str, optional
        Name of the conversation. Defaults to a name derived from the seed.

    Raises
    ------
    ValueError
        If there are fewer speakers than requested.
    """
    options = options or Options()
    rng = np.random.default_rng([*seed, 0])
    available = len(cast.voices) + len(cast.filmed)
    if options.speakers is None:
        number = min(number_of_speakers(cast.statistics, duration, rng), available)
    else:
        number = int(rng.integers(options.speakers[0], options.speakers[1] + 1))
    if number > available:
        raise ValueError(f"speech of {available} speakers, {number} are needed")
    uri = uri or "-".join(f"{part:04d}" for part in seed)
    turns = sample_turns(cast.statistics, duration, number, seed=[*seed, 1], uri=uri)
    chosen = cast.choose(number, options.talkers, rng)
    voices = dict(zip(map(str, sorted(turns.labels())), chosen, strict=True))
    sound = compose(turns, cast, voices, duration, options.sound, seed=[*seed, 2])
    num_frames = int(duration * FRAME_RATE)
    low, high = options.scene.distractors
    silent = [f"silent{i}" for i in range(int(rng.integers(low, high + 1)))]
    rng_scene = np.random.default_rng([*seed, 3])
    scene = plan(active(sound.turns, num_frames), silent, cast.statistics, options.scene, rng_scene)
    return Conversation(
        uri,
        sound,
        scene,
        _people(cast, sound, voices, silent, num_frames, options, seed),
        voices,
        options,
    )


def _people(cast, sound, voices, silent, num_frames, options, seed) -> dict[str, Performer]:
    """Portraits or clips, motion and clothes of all people"""
    rng = np.random.default_rng([*seed, 4])
    names = [*sound.stems, *silent]
    rounds = -(-len(names) // len(cast.portraits))
    order = np.concatenate([rng.permutation(len(cast.portraits)) for _ in range(rounds)])
    people: dict[str, Performer] = {}
    for i, (name, chosen) in enumerate(zip(names, order, strict=False)):
        own = np.random.default_rng([*seed, 5, i])
        clips = cast.talkers.clips.get(voices.get(name)) if cast.talkers is not None else None
        if clips:
            turns, late = sound.sources[name], options.acting.desync
            person: Performer = ClipActor(
                clips=clips,
                showing=show(clips, turns, num_frames, own, late),
                mirrored=bool(own.random() < 0.5),
                tone=random_tone(own),
                clothes=own.uniform(15, 220, 3),
            )
        else:
            person = Actor(
                portrait=varied(cast.portraits[int(chosen)], own),
                motion=perform(sound.stems.get(name), num_frames, own, options.acting),
                opening=float(own.uniform(0.15, 0.4)),
                teeth=float(max(0.0, own.uniform(-0.5, 1.0))),
                clothes=own.uniform(15, 220, 3),
            )
        rng = np.random.default_rng([*seed, 7, i])
        people[name] = disturbed(person, num_frames, options.disturbances, rng, name in sound.stems)
    return people
