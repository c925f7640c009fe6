"""Hidden, frozen, far and compressed faces: pictures change, references do not."""

from dataclasses import replace

import numpy as np
import pytest
from chunks import cut_chunk
from conversations import write_speech

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.conversation import Options, converse
from pyannote_av.simulation.disturbance import Disturbances, Disturbed, Occlusion, disturbed
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.rendering import render
from pyannote_av.simulation.scene import SceneOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics

NONE = Disturbances(0, 0, 0, 0)
MEETING = SceneOptions("meeting", size=(320, 180), distractors=(2, 2), quality=(95, 95))
OPTIONS = Options(speakers=(2, 2), scene=MEETING, disturbances=NONE)


@pytest.fixture(scope="module")
def cast(tmp_path_factory) -> Cast:
    speech = write_speech(tmp_path_factory.mktemp("speech"))
    return Cast(ConversationStatistics.read("ami"), SpeechLibrary(speech), public_portraits())


def chunk(cast, options):
    made = converse(cast, 20.0, options, seed=(3,))
    return cut_chunk(made, 0, 500, np.random.default_rng(0)), made


@pytest.fixture(scope="module")
def plain(cast):
    return chunk(cast, OPTIONS)


def differs(one, other) -> np.ndarray:
    """(F, T) in which crops two chunks differ; everything else must be the same."""
    for name in ("waveform", "present", "labels", "speech", "people"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    return (one.crops != other.crops).any(axis=(2, 3))


@pytest.mark.parametrize("kind", ["occlusions", "patches"])
def test_what_is_in_front_of_faces(cast, plain, kind):
    hidden, made = chunk(cast, replace(OPTIONS, disturbances=replace(NONE, **{kind: 6.0})))
    changed = differs(plain[0], hidden)
    assert 0.02 < changed.mean() < 0.9
    for person, some in zip(hidden.people, changed, strict=True):
        covered = np.zeros(500, bool)
        for one in getattr(made.people[person], "occlusions", ()):
            covered[one.first : one.end] = True
        assert not some[~covered].any()
    # boxes stay where they are
    assert np.array_equal(made.tracks().box, plain[1].tracks().box)


@pytest.mark.slow
def test_a_hand_hides_the_mouth_in_films_and_crops(cast, plain):
    made = plain[1]
    name = sorted(made.people)[0]
    hand = Occlusion(100, 300, "hand", 0.0, 0.0, 0.3, 0.2, 0.0, (250.0, 0.0, 250.0))
    person = made.people[name]
    hidden = disturbed(person, 500, NONE, np.random.default_rng(0))
    assert hidden is person  # nothing happens to it
    hidden = Disturbed(person, np.arange(500), (hand,), person.clothes)
    changed = replace(made, people={**made.people, name: hidden})
    face = next(f for f in made.scene.shots[0].faces if f.person == name)
    frames = {}
    for which, one in (("plain", made), ("hidden", changed)):
        frames[which] = [p for k, p in render(one.scene, one.people) if k in (50, 200)]
    box, landmarks = hidden.face(face.height).geometry(np.array([200]))
    middle = (box[0, :2] + box[0, 2:]) / 2
    x, y = np.array([face.x, face.y]) + landmarks[0, 3:].mean(axis=0) - middle
    x, y = round(x), round(y)
    assert np.array_equal(frames["plain"][0], frames["hidden"][0])
    red, green, blue = frames["hidden"][1][y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0)
    assert min(red, blue) > 3 * green


def test_frozen_faces(cast, plain):
    frozen, made = chunk(cast, replace(OPTIONS, disturbances=replace(NONE, freezes=8.0)))
    differs(plain[0], frozen)
    held = 0
    for person in frozen.people:
        source = getattr(made.people[person], "source", np.arange(500))
        still = np.flatnonzero(source[1:] == source[:-1])
        held += len(still)
        face = made.people[person].face(100.0, crops=True)
        for k in still[::20]:
            assert np.array_equal(face.draw(k), face.draw(k + 1))
        for k in np.flatnonzero(np.diff(source) == 1)[::60]:
            assert not np.array_equal(face.draw(k), face.draw(k + 1))
    assert held > 100


def test_photographs_never_move_and_never_speak(cast, plain):
    stills, made = chunk(cast, replace(OPTIONS, disturbances=replace(NONE, stills=1.0)))
    differs(plain[0], stills)
    for person in stills.people:
        source = getattr(made.people[person], "source", np.arange(500))
        assert (len(np.unique(source)) == 1) == (person not in made.voices)


def test_compressed_crops(cast, plain):
    rough, _ = chunk(cast, replace(OPTIONS, scene=replace(MEETING, quality=(25, 25))))
    changed = differs(plain[0], rough)
    assert changed.all()
    difference = np.abs(plain[0].crops.astype(float) - rough.crops)
    assert 0.5 < difference.mean() < 8


def test_shots_from_afar():
    from pyannote_av.simulation.scene import plan

    statistics = ConversationStatistics.read("ava_avd")
    speaking = {f"spk{i}": np.arange(3000) % 100 < 30 * (i + 1) for i in range(2)}
    heights = {}
    for far in (0.0, 0.3, 1.0):
        scene = plan(speaking, [], statistics, SceneOptions(far=far), np.random.default_rng(0))
        heights[far] = [face.height for shot in scene.shots for face in shot.faces]
        assert min(heights[far]) >= 20
    assert np.median(heights[1.0]) < 0.65 * np.median(heights[0.0])
    assert np.mean(heights[1.0]) < np.mean(heights[0.3]) < np.mean(heights[0.0])


def test_tiny_faces_can_be_drawn(cast):
    scene = SceneOptions(size=(192, 108), far=1.0, distractors=(0, 2))
    options = Options(speakers=(2, 2), scene=scene, disturbances=Disturbances(6, 6, 6, 0.5))
    made = converse(replace(cast, statistics=ConversationStatistics.read("ava_avd")), 20.0, options)
    assert min(f.height for shot in made.scene.shots for f in shot.faces) < 30
    crops = cut_chunk(made, 0, 500, np.random.default_rng(0))
    assert (crops.crops[crops.present].std(axis=(1, 2)) > 1).all()
    assert len(list(render(made.scene, made.people))) == 500
