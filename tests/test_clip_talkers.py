"""Conversations of people who are seen and heard in clips of their own."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chunks import cut_chunk
from conversations import RATE, energy_turns, voice, write_speech

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.acting import Acting
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.clip_acting import spoken
from pyannote_av.simulation.conversation import Options, converse
from pyannote_av.simulation.disturbance import Disturbances
from pyannote_av.simulation.encoding import encode
from pyannote_av.simulation.faces import public_portraits
from pyannote_av.simulation.performer import Actor
from pyannote_av.simulation.portrait import act, loudness
from pyannote_av.simulation.rendering import geometry, render
from pyannote_av.simulation.scene import SceneOptions
from pyannote_av.simulation.sound import SoundOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.simulation.talkers import Talkers, find_talkers

#: nothing that would make mouths hard to measure
PLAIN = Options(
    speakers=(2, 2),
    talkers=1.0,
    scene=SceneOptions("meeting", distractors=(0, 0), blur=(0, 0), light=(1, 1), quality=(95, 95)),
    acting=Acting(gestures=0),
    disturbances=Disturbances(0, 0, 0, 0),
)


def write_clip(path: Path, number: int, seconds: float = 5.0, silent: bool = False) -> FaceTracks:
    """A portrait that talks, in a film, and where its face is."""
    rng = np.random.default_rng(number)
    stem = voice(100 + 50 * number, seconds, number) * (not silent)
    count = int(seconds * 25)
    # a mouth that opens just as loud as it sounds, so that it can be measured
    motion = act(0.9 * loudness(stem, RATE, count), rng)
    actor = Actor(public_portraits()[number % 2], motion, 0.35, 0.0, np.zeros(3))
    face = actor.face(150.0)
    height, width = (side - side % 2 for side in face.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = ((k, face.draw(k)[:height, :width]) for k in range(count))
    encode(path, pictures, stem, (width, height), 20)
    box, landmarks = face.geometry(slice(0, count))
    return FaceTracks(
        time=np.arange(count) / 25,
        track=np.zeros(count),
        box=box / np.tile([width, height], 2),
        landmarks=landmarks / [width, height],
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of clips of two people, one of whom has two, and tracks of them."""
    folder = tmp_path_factory.mktemp("clips")
    names = ("anna/one.mp4", "anna/two.mp4", "bert.mp4")
    return folder, {name: write_clip(folder / name, i) for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def talkers(clips, tmp_path_factory) -> Talkers:
    folder, tracks = clips
    return find_talkers(folder, tmp_path_factory.mktemp("prepared"), tracks)


@pytest.fixture(scope="module")
def cast(talkers) -> Cast:
    return Cast(ConversationStatistics.read("ami"), None, public_portraits(), talkers)


def opening(crops: np.ndarray) -> np.ndarray:
    """How dark (T,) the mouth is in crops (T, 112, 112)."""
    return -crops[:, 52:88, 36:76].astype(float).mean(axis=(1, 2))


@pytest.mark.slow
def test_clips_are_prepared_once(clips, talkers, tmp_path):
    folder, tracks = clips
    assert {name: len(own) for name, own in talkers.clips.items()} == {"anna": 2, "bert": 1}
    first = find_talkers(folder, tmp_path, tracks)
    when = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np*")}
    assert len(when) == 6
    again = find_talkers(folder, tmp_path)  # nothing is looked for again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np*")} == when
    for name in first.clips:
        for one, same in zip(first.clips[name], again.clips[name], strict=True):
            assert np.array_equal(one.pictures, same.pictures)


def test_a_clip_is_what_was_filmed(clips, talkers):
    _, tracks = clips
    clip, truth = talkers.clips["bert"][0], tracks["bert.mp4"]
    assert len(clip.box) == len(clip.pictures) == 125
    assert clip.height == pytest.approx(150, abs=2)
    moved = (clip.box - clip.box[0])[:, :2]
    expected = (truth.box - truth.box[0])[:, :2] * [240, 270]
    np.testing.assert_allclose(moved, expected, atol=0.5)
    # a voice of the test begins after 0.4 s and ends 0.8 s before the end, about
    assert not clip.sounding[:8].any()
    assert not clip.sounding[-8:].any()
    assert clip.sounding.mean() > 0.3
    assert len(pickle.dumps(clip)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(clip)).box, clip.box)
    for first, end in clip.idle:
        assert not clip.sounding[first:end].any()


def test_faces_are_looked_for_in_clips_without_tracks(tmp_path):
    truth = write_clip(tmp_path / "carl.mp4", 5, 2.0)
    clip = find_talkers(tmp_path, tmp_path / "prepared").clips["carl"][0]
    assert 45 <= len(clip.pictures) <= 50
    mouth = np.median(clip.landmarks[:, 3:].mean(axis=1), axis=0)
    left, top, right, bottom = np.median(clip.box, axis=0)
    x, y = (mouth - [left, top]) / [right - left, bottom - top]
    # this head is turned a little, and every detector draws another box around it
    assert 0.4 < x < 0.85
    assert 0.6 < y < 0.95
    expected = np.median(truth.box[:, 3] - truth.box[:, 1]) * 270
    assert 0.6 * expected < clip.height < 1.4 * expected


def test_references_agree_with_the_energy_of_the_stems(cast):
    made = converse(cast, 60.0, PLAIN, seed=(1,))
    checked = 0
    for label, stem in made.sound.stems.items():
        heard = energy_turns(stem, bridge=0.3)
        starts, ends = (np.array([getattr(s, w) for s in heard]) for w in ("start", "end"))
        for segment in made.turns.label_timeline(label).support(collar=0.32):
            assert np.abs(starts - segment.start).min() <= 0.05
            assert np.abs(ends - segment.end).min() <= 0.05
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("desync", [0.0, 0.2])
def test_faces_are_in_sync_with_their_voices(cast, desync):
    options = replace(
        PLAIN,
        acting=Acting(desync=desync),
        sound=SoundOptions(snr=None, reverberation=None),
    )
    made = converse(cast, 60.0, options, seed=(2,))
    chunk = cut_chunk(made, 0, 1500, np.random.default_rng(0))
    for person, crops, label in zip(chunk.people, chunk.crops, chunk.labels, strict=True):
        stem = made.sound.stems[person]
        loud = loudness(stem, RATE, 1500)
        assert label.sum() > 50
        dark = opening(crops)
        # boxes of different clips are not quite alike
        dark -= np.median(dark)
        inside = label.astype(bool)
        scores = [np.corrcoef(loud[inside], np.roll(dark, -k)[inside])[0, 1] for k in range(-8, 9)]
        assert max(scores) > 0.45
        assert np.argmax(scores) - 8 == pytest.approx(25 * desync, abs=1)


@pytest.mark.slow
def test_who_listens_keeps_the_mouth_shut(cast):
    made = converse(cast, 60.0, PLAIN, seed=(3,))
    chunk = cut_chunk(made, 0, 1500, np.random.default_rng(0))
    for crops, label in zip(chunk.crops, chunk.labels, strict=True):
        moved = np.abs(np.diff(crops[:, 52:88, 36:76].astype(float), axis=0)).mean(axis=(1, 2))
        near = np.convolve(label, np.ones(13), "same")[1:] > 0
        assert moved[label[1:] == 1].mean() > 1.5 * moved[~near].mean()
        assert moved[~near].mean() > 0


def test_the_frame_that_is_shown_is_the_one_that_sounded():
    # from sample 800 on: one second of clip 1 from its step 37 on, a pause, clip 0 from step 4 on
    steps = np.concatenate(
        [
            np.stack([np.full(100, 1), 37 + np.arange(100)], axis=1),
            np.full((15, 2), -1),
            np.stack([np.full(50, 0), 4 + np.arange(50)], axis=1),
        ]
    )
    source = spoken([(800, steps)], 50)
    said = np.flatnonzero(source[:, 0] >= 0)
    assert said.tolist() == list(range(2, 43))  # 0.05 s to 1.7 s
    for k in said:
        step = steps[(640 * k - 800) // 160]
        if step[0] >= 0:
            assert source[k, 0] == step[0]
            assert source[k, 1] / 25 == pytest.approx(step[1] / 100, abs=0.0301)
        else:
            assert source[k].tolist() == source[k - 1].tolist()


def test_the_same_seed_makes_the_same_pictures(cast):
    made = [converse(cast, 10.0, replace(PLAIN, talkers=0.5), seed=(4,)) for _ in range(2)]
    one, same = (cut_chunk(m, 50, 100, np.random.default_rng(0)) for m in made)
    assert np.array_equal(one.crops, same.crops)
    assert np.array_equal(one.waveform, same.waveform)


def test_films_show_faces_where_the_reference_says(cast):
    """And crops that are cut from the film are those that are drawn without it."""
    import cv2

    from pyannote_av.vision.crops import cut, face_square

    made = converse(cast, 4.0, PLAIN, seed=(5,))
    chunk = cut_chunk(made, 0, 100, np.random.default_rng(0))
    shot, alike = made.scene.shots[0], []
    for k, picture in render(made.scene, made.people):
        if k % 20:
            continue
        for face in shot.faces:
            box, landmarks = geometry(made.people[face.person], face, slice(k, k + 1))
            eyes, mouth = landmarks[0, :2].mean(axis=0), landmarks[0, 3:].mean(axis=0)
            assert eyes[1] < mouth[1]
            assert box[0, 0] < mouth[0] < box[0, 2]
            size = np.tile(picture.shape[1::-1], 2)
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            shown = cut(grey, face_square(box[0] / size, picture.shape), 112)
            drawn = chunk.crops[chunk.people.index(face.person), k]
            found = cv2.matchTemplate(drawn, shown[20:92, 20:92], cv2.TM_CCOEFF_NORMED)
            alike.append(found.max())
    # boxes in crops are larger or smaller by up to 6 %
    assert min(alike) > 0.6
    assert np.mean(alike) > 0.75


def test_talkers_and_portraits_in_one_conversation(cast, tmp_path):
    library = SpeechLibrary(write_speech(tmp_path))
    both = replace(cast, library=library)
    made = converse(both, 60.0, replace(PLAIN, speakers=(5, 5), talkers=0.4), seed=(6,))
    kinds = {name: type(made.people[name]).__name__ for name in made.voices}
    assert set(kinds.values()) == {"Actor", "ClipActor"}
    for name, speaker in made.voices.items():
        assert (kinds[name] == "ClipActor") == (speaker in {"anna", "bert"})
    everybody = converse(both, 90.0, replace(PLAIN, speakers=(7, 7), talkers=0.0), seed=(7,))
    assert {"anna", "bert"} < set(everybody.voices.values())
    with pytest.raises(ValueError, match="speech of 7 speakers, 8 are needed"):
        converse(both, 90.0, replace(PLAIN, speakers=(8, 8)))
    with pytest.raises(ValueError, match="two speakers"):
        replace(cast, talkers=cast.talkers.only(["anna"]))
    with pytest.raises(ValueError, match="no clip of carl"):
        cast.talkers.only(["carl"])
    with pytest.raises(ValueError, match="both speech and clips have a speaker '100'"):
        replace(both, talkers=Talkers({"100": cast.talkers.clips["anna"]}))


def test_clips_that_cannot_be_used(clips, tmp_path, caplog):
    folder, tracks = clips
    with pytest.raises(FileNotFoundError, match="no such folder of clips"):
        find_talkers(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no clip"):
        find_talkers(tmp_path, tmp_path)
    shown = write_clip(tmp_path / "clips" / "mute.mp4", 0, 2.0, silent=True)
    cache = tmp_path / "prepared"
    with pytest.raises(ValueError, match=r"none of 1 clips can be used.*only silence"):
        find_talkers(tmp_path / "clips", cache, {"mute.mp4": shown})
    assert "mute.mp4: only silence" in caplog.text
    one = tracks["bert.mp4"]
    columns = {name: np.concatenate([getattr(one, name)] * 2) for name in ("time", "box")}
    two = FaceTracks(track=np.repeat([0, 1], len(one)), **columns)
    for wrong, message in (
        (two, "several faces"),
        (FaceTracks.empty(), "no face is visible for a second"),
    ):
        with pytest.raises(ValueError, match=message):
            find_talkers(folder, tmp_path / "other", dict.fromkeys(tracks, wrong))


def test_simulate_command_with_clips_alone(clips, tmp_path, monkeypatch):
    import typer
    from typer.testing import CliRunner

    from pyannote_av.cli.simulate import command
    from pyannote_av.data.crop_store import CropStore

    folder, tracks = clips
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path / "cache"))
    find_talkers(folder, tracks=tracks)
    app = typer.Typer()
    app.command()(command)
    common = ["--into", str(tmp_path / "out"), "--store", "--files", "1", "--minutes", "0.1"]
    result = CliRunner().invoke(app, [*common, "--clips", str(folder)])
    assert result.exit_code == 0, result.output
    assert len(CropStore(tmp_path / "out")) == 1
    result = CliRunner().invoke(app, common)
    assert result.exit_code == 1
    assert "give --speech, --clips, or both" in result.output


@pytest.mark.slow
def test_real_clips(shared_data, tmp_path):
    found = find_talkers(shared_data / "clips" / "talkers", tmp_path)
    assert len(found.speakers) == 20
    cast = Cast(ConversationStatistics.read("ami"), None, public_portraits(), found)
    made = converse(cast, 30.0, replace(PLAIN, speakers=(4, 4)), seed=(8,))
    chunk = cut_chunk(made, 0, 750, np.random.default_rng(0))
    ratios = []  # of how much mouths move in speech and out of it
    for crops, label in zip(chunk.crops, chunk.labels, strict=True):
        moved = np.abs(np.diff(crops[:, 52:88, 36:76].astype(float), axis=0)).mean(axis=(1, 2))
        ratios.append(moved[label[1:] == 1].mean() / moved[label[1:] == 0].mean())
    # heads move too: eight other conversations have 1.13 to 2.43, and 1.37 to 1.91 on average
    assert min(ratios) > 1.1
    assert np.mean(ratios) > 1.3
