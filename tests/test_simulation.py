"""Simulated conversations: statistics, exactness of references, determinism, resuming, errors."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from chunks import cut_chunk
from conversations import RATE, content, energy_turns, voice, write_speech, write_wav
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment

pytest.importorskip("skimage", reason="the portraits need scikit-image: pip install '.[sample]'")

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.acting import Acting, articulate, gestures, late, perform, stretch
from pyannote_av.simulation.cast import Cast
from pyannote_av.simulation.conversation import Options, converse
from pyannote_av.simulation.faces import (
    find_portraits,
    mirrored,
    public_portraits,
    read_portraits,
    window,
)
from pyannote_av.simulation.files import simulate_files
from pyannote_av.simulation.portrait import TalkingPortrait
from pyannote_av.simulation.scene import LAYOUTS, SceneOptions, plan
from pyannote_av.simulation.sound import SoundOptions, compose, synthetic_response
from pyannote_av.simulation.speech import SpeechLibrary, condensed, sounding
from pyannote_av.simulation.statistics import ConversationStatistics, fit, take_apart
from pyannote_av.simulation.turns import measure, sample_turns

SMALL = SceneOptions(size=(320, 180))


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def portraits():
    return public_portraits()


@pytest.fixture(scope="module")
def cast(speech, portraits) -> Cast:
    return Cast(ConversationStatistics.read("ava_avd"), SpeechLibrary(speech), portraits)


def conversation(*turns) -> Annotation:
    annotation = Annotation(uri="talk")
    for i, (start, end, speaker) in enumerate(turns):
        annotation[Segment(start, end), i] = speaker
    return annotation


# ---------------------------------------------------------------- statistics


def test_a_conversation_is_taken_apart():
    talk = conversation(
        (0, 4, "a"), (1, 1.5, "b"), (3.5, 6, "b"), (6.5, 8, "b"), (9, 10, "a"), (9, 9.4, "c")
    )
    found = [(t.speaker, t.nested, round(t.gap, 3), t.same) for t in take_apart(talk)]
    assert found == [
        ("a", False, 0.0, False),
        ("b", True, 0.0, False),
        ("b", False, -0.5, False),
        ("b", False, 0.5, True),
        ("a", False, 1.0, False),
        ("c", True, 0.0, False),
    ]


def test_statistics_of_a_conversation():
    talk = conversation((0, 4, "a"), (1, 1.5, "b"), (3.5, 6, "b"), (6.5, 8, "b"), (9, 10, "a"))
    found = fit({"talk": talk, "silence": Annotation()})
    assert (found.files, found.speakers, found.mean_speakers) == (1, {"2": 1}, 2.0)
    assert (found.gap[0], found.gap[-1]) == (-0.5, 1.0)
    assert set(found.pause) == {0.5}
    assert set(found.back_channel) == {0.5}
    assert found.same == pytest.approx(1 / 3, abs=1e-4)
    assert found.mean_turn == pytest.approx((4 + 0.5 + 2.5 + 1.5 + 1) / 5)
    assert found.overlap_share == pytest.approx(1 / 9.5, abs=1e-5)
    assert found.speech_share == pytest.approx(8.5 / 10)
    assert found.off_screen_share is None


def test_off_screen_share_comes_from_face_tracks():
    talk = conversation((0, 4, "a"), (4, 6, "b"))
    time = np.arange(25) / 25  # a is seen for one of its four seconds, b never
    tracks = FaceTracks(
        time=time, track=np.zeros(25), box=np.tile([0.1, 0.1, 0.2, 0.2], (25, 1)), speaker={0: "a"}
    )
    found = fit({"talk": talk}, {"talk": tracks})
    assert found.off_screen_share == pytest.approx(1 - 1 / 6, abs=1e-3)
    assert (found.visible[0], found.visible[-1]) == (0.0, 0.25)


def test_statistics_are_written_and_read(tmp_path):
    shipped = ConversationStatistics.read("ami")
    assert ConversationStatistics.read(shipped.write(tmp_path / "ami.json")) == shipped
    with pytest.raises(FileNotFoundError, match=r"nobody.*ava_avd"):
        ConversationStatistics.read("nobody")
    bad = tmp_path / "bad.json"
    for text in ("[1]", "{", '{"files": 3}', '{"what": 1}'):
        bad.write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: not conversation statistics"):
            ConversationStatistics.read(bad)


def test_statistics_need_conversations():
    for talk in (Annotation(), conversation((0, 1, "a"), (2, 3, "a"))):
        with pytest.raises(ValueError, match="speakers change"):
            fit({"talk": talk})


# --------------------------------------------------------------------- turns


@pytest.mark.parametrize("corpus", ["ava_avd", "ami"])
def test_sampled_conversations_are_like_the_corpus(corpus):
    statistics = ConversationStatistics.read(corpus)
    found = measure([sample_turns(statistics, 300, seed=[100, i]) for i in range(100)])
    assert found["mean_turn"] == pytest.approx(statistics.mean_turn, rel=0.1)
    assert found["overlap_share"] == pytest.approx(statistics.overlap_share, rel=0.1)
    assert found["speech_share"] == pytest.approx(statistics.speech_share, rel=0.1)
    assert found["speakers"] == pytest.approx(statistics.mean_speakers, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    speakers=st.integers(2, 20),
    duration=st.floats(240, 400),
    corpus=st.sampled_from(["ava_avd", "ami"]),
)
def test_every_conversation_holds_together(seed, speakers, duration, corpus):
    statistics = ConversationStatistics.read(corpus)
    turns = sample_turns(statistics, duration, speakers, seed=seed)
    assert turns == sample_turns(statistics, duration, speakers, seed=seed)
    assert turns.labels() == [f"spk{i:02d}" for i in range(speakers)]
    assert turns.get_timeline().extent().start >= 0
    assert turns.get_timeline().extent().end <= duration + 1e-3
    for label in turns.labels():
        own = sorted(turns.label_timeline(label))
        # nobody speaks twice at once
        assert all(a.end < b.start for a, b in pairwise(own))


def test_what_cannot_be_sampled():
    statistics = ConversationStatistics.read("ami")
    for number in (1, 21):
        with pytest.raises(ValueError, match="must be 2 to 20"):
            sample_turns(statistics, 300, number)
    with pytest.raises(ValueError, match="5 s are too short for 20 speakers"):
        sample_turns(statistics, 5, 20)


# --------------------------------------------------------------------- sound


def test_speech_is_condensed():
    tone = np.sin(np.arange(RATE) / 5).astype(np.float32)
    silence = np.zeros(RATE, np.float32)
    waveform, mask, steps = condensed(np.concatenate([silence, tone, silence, tone, silence]))
    assert len(waveform) == pytest.approx(2.2 * RATE, abs=0.03 * RATE)
    assert (mask[0], mask[-1], len(mask)) == (True, True, len(waveform) // 160)
    assert (~mask).sum() == pytest.approx(20, abs=2)
    assert steps[0] == pytest.approx(100, abs=2)
    assert not len(condensed(silence).speech)


def test_pieces_sound_at_both_ends_and_repeat_where_needed(speech):
    library, rng = SpeechLibrary(speech), np.random.default_rng(0)
    for duration in (0.15, 0.8, 3.0, 20.0):
        piece = library.take("101", duration, rng).waveform
        assert duration - 0.25 < len(piece) / RATE <= duration + 0.01
        sound = sounding(piece)
        assert sound[:2].any()
        assert sound[-2:].any()


def test_speakers_are_folders_or_first_parts_of_names(tmp_path):
    for name in ("anna/1.wav", "anna/more/2.wav", "bert/1.wav"):
        write_wav(tmp_path / "folders" / name, voice(100, 2, 0))
    library = SpeechLibrary(tmp_path / "folders")
    assert {k: len(v) for k, v in library.files.items()} == {"anna": 2, "bert": 1}
    for name in ("7-1-1.wav", "7-1-2.wav", "8-1-1.wav"):
        write_wav(tmp_path / "flat" / name, voice(100, 2, 0))
    library = SpeechLibrary(tmp_path / "flat")
    assert {k: len(v) for k, v in library.files.items()} == {"7": 2, "8": 1}
    assert SpeechLibrary(tmp_path / "flat", ["8", "7"]).speakers == ["7", "8"]
    with pytest.raises(ValueError, match="no speech of 9"):
        SpeechLibrary(tmp_path / "flat", ["7", "9"])


def test_speech_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of speech"):
        SpeechLibrary(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no speech file"):
        SpeechLibrary(tmp_path)
    write_wav(tmp_path / "5-1.wav", np.zeros(RATE))
    with pytest.raises(ValueError, match="one speaker only"):
        SpeechLibrary(tmp_path)
    write_wav(tmp_path / "6-1.wav", np.zeros(RATE))
    with pytest.raises(ValueError, match=r"5-1\.wav: only silence"):
        SpeechLibrary(tmp_path).take("5", 1.0, np.random.default_rng(0))


def test_reference_agrees_with_the_energy_of_the_stems(cast):
    made = converse(cast, 120.0, Options(speakers=(4, 4)), seed=(1, 2))
    checked = 0
    for label, stem in made.sound.stems.items():
        heard = energy_turns(stem, bridge=0.3)
        starts, ends = (np.array([getattr(s, w) for s in heard]) for w in ("start", "end"))
        for segment in made.turns.label_timeline(label).support(collar=0.32):
            assert np.abs(starts - segment.start).min() <= 0.05
            assert np.abs(ends - segment.end).min() <= 0.05
            checked += 1
        # and nothing is heard elsewhere
        inside = np.zeros(len(stem), bool)
        for segment in made.turns.label_timeline(label):
            inside[round(segment.start * RATE) : round(segment.end * RATE) + 1] = True
        assert not stem[~inside].any()
    assert checked > 20


def test_the_mixture_is_the_sum_of_the_stems_plus_noise(cast):
    turns = conversation((0.5, 3, "a"), (2, 5, "b"))
    voices = {"a": "100", "b": "101"}
    dry = SoundOptions(reverberation=None, snr=None)
    sound = compose(turns, cast.library, voices, 6.0, dry)
    np.testing.assert_allclose(sound.mixture, sum(sound.stems.values()), atol=1e-6)
    assert np.abs(sound.mixture).max() <= 0.9 + 1e-6
    noisy = compose(turns, cast.library, voices, 6.0, replace(dry, snr=(10.0, 10.0)))
    clean = sum(noisy.stems.values())
    noise = noisy.mixture - clean
    heard = np.any([s != 0 for s in noisy.stems.values()], axis=0)
    snr = 10 * np.log10((clean[heard] ** 2).mean() / (noise**2).mean())
    assert snr == pytest.approx(10, abs=0.5)
    assert noisy.snr == 10


def test_rooms_and_noises_of_a_folder(cast, tmp_path):
    response = np.zeros(2000)
    response[[300, 700]] = [0.5, 0.25]  # the direct sound is late: it is put at 0
    write_wav(tmp_path / "rooms" / "r.wav", response)
    write_wav(tmp_path / "noises" / "n.wav", 0.1 * np.sin(np.arange(RATE) / 3))
    turns = conversation((0.5, 3, "a"), (3.2, 4, "b"))
    options = SoundOptions(responses=str(tmp_path / "rooms"), snr=None)
    sound = compose(turns, cast.library, {"a": "100", "b": "102"}, 5.0, options)
    dry = sum(sound.stems.values())
    echo = np.r_[np.zeros(400), dry[:-400]]
    np.testing.assert_allclose(sound.mixture, dry + 0.5 * echo, atol=1e-3)
    options = SoundOptions(reverberation=None, noises=str(tmp_path / "noises"), snr=(5.0, 5.0))
    noisy = compose(turns, cast.library, {"a": "100", "b": "102"}, 5.0, options)
    noise = noisy.mixture[: RATE // 2]  # nobody speaks yet
    assert np.abs(np.fft.rfft(noise)).argmax() == pytest.approx(RATE / 3 / 2 / np.pi / 2, abs=1)
    (tmp_path / "nothing").mkdir()
    options = replace(options, noises=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="nothing: no sound file"):
        compose(turns, cast.library, {"a": "100", "b": "102"}, 5.0, options)


def test_synthetic_rooms_decay_as_asked():
    response = synthetic_response(0.4, np.random.default_rng(0))
    assert response[0] == 1.0
    early, later = (np.sqrt((response[k : k + 800] ** 2).mean()) for k in (400, 400 + 1600))
    assert 20 * np.log10(early / later) == pytest.approx(60 * 0.1 / 0.4, abs=2)


# --------------------------------------------------------------------- faces


def test_windows_keep_landmarks_where_they_are(portraits):
    image = np.zeros((300, 300, 3), np.uint8)
    portrait = replace(portraits[0], image=image, box=(100.0, 80.0, 180.0, 180.0))
    portrait = replace(portrait, landmarks=tuple((x, 120.0) for x in (120, 160, 140, 125, 155)))
    image[119:122, 119:122] = 255
    for one in (portrait, mirrored(portrait)):
        for height in (50, 100, 173):
            shown = window(one, height, 0.8, 0.85, 0.8, 0.95)
            assert shown.box[3] - shown.box[1] == pytest.approx(height)
            assert shown.image.shape[:2] == (round(1.8 * height), round(1.6 * height))
            y, x = np.argwhere(shown.image[..., 0] > 0).mean(axis=0)
            eye = shown.landmarks[0 if one is portrait else 1]
            assert (x, y) == pytest.approx(eye, abs=1.5)
            assert shown.landmarks[0][0] < shown.landmarks[1][0]


@pytest.fixture(scope="module")
def detector():
    from pyannote_av.vision.detection import MTCNN

    return MTCNN()


def test_portraits_of_a_folder(portraits, tmp_path, detector, caplog):
    import cv2

    picture = portraits[1].image
    turned = cv2.getRotationMatrix2D((224.0, 117.0), 12, 1.0)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.warpAffine(picture, turned, (512, 512))[..., ::-1])
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    found = find_portraits(tmp_path, detector)
    assert len(found) == 1
    assert "wall.png: no face in this picture" in caplog.text
    left, right, nose, *_ = np.array(found[0].landmarks)
    assert left[1] == pytest.approx(right[1], abs=1e-3)  # eyes are level
    assert left[0] < nose[0] < right[0]
    assert right[0] - left[0] == pytest.approx(44, abs=6)


def test_pictures_without_faces(tmp_path, detector):
    import cv2

    with pytest.raises(FileNotFoundError, match="no such folder of portraits"):
        find_portraits(tmp_path / "nowhere", detector)
    with pytest.raises(ValueError, match="no picture"):
        find_portraits(tmp_path, detector)
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(ValueError, match=r"wall\.png: no face in this picture"):
        read_portraits(tmp_path / "wall.png", detector)
    with pytest.raises(ValueError, match=r"none of 1 pictures can be used: .*wall\.png"):
        find_portraits(tmp_path, detector)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png: not a picture"):
        read_portraits(tmp_path / "text.png", detector)


# -------------------------------------------------------------------- acting


def test_silent_mouths_move_only_in_silence():
    speaking = np.zeros(3000, bool)
    speaking[500:700] = speaking[1500:1600] = True
    moved = gestures(speaking, 20, np.random.default_rng(0))
    assert (moved > 0.2).sum() > 250
    near = np.convolve(speaking, np.ones(11), "same") > 0
    assert not moved[near].any()
    assert not gestures(speaking, 0, np.random.default_rng(0)).any()


def test_a_late_picture_is_late():
    values = np.arange(1, 6)
    assert late(values, 2).tolist() == [0, 0, 1, 2, 3]
    assert late(values, -2).tolist() == [3, 4, 5, 0, 0]
    assert late(values, 0).tolist() == [1, 2, 3, 4, 5]
    stem = voice(120, 8, 3)
    stem[: RATE // 2] = 0
    mouth = [
        perform(stem, 200, np.random.default_rng(1), Acting(gestures=0, desync=d)).mouth
        for d in (0.0, 0.4)
    ]
    scores = [np.corrcoef(mouth[0][30:-30], np.roll(mouth[1], -k)[30:-30])[0, 1] for k in range(20)]
    assert np.argmax(scores) == 10


def test_mouths_open_with_speech_but_not_just_as_loud():
    loud = np.clip(np.sin(np.arange(2000) / 4), 0, 1) * (np.arange(2000) % 400 > 150)
    for seed in range(10):
        opened = articulate(loud, np.random.default_rng(seed))
        assert 0.6 < np.corrcoef(opened, loud)[0, 1] < 0.995
        near = np.convolve(loud > 0, np.ones(17), "same") > 0
        assert not opened[~near].any()


def test_silent_mouths_smile():
    speaking = np.zeros(3000, bool)
    speaking[1000:2000] = True
    width = stretch(speaking, 10, np.random.default_rng(0))
    assert np.abs(width).max() <= 0.3
    assert width[speaking].std() > 0.08
    assert (width[~speaking] > 0.07).sum() > 100
    still = stretch(speaking, 0, np.random.default_rng(0))
    assert np.abs(still[~speaking]).mean() < 0.03


def test_wide_mouths_and_teeth():
    portrait = public_portraits()[0]
    rest = np.zeros(3)
    plain, toothy = TalkingPortrait(portrait), TalkingPortrait(portrait, teeth=1.0)
    (x1, y1), (x2, _) = np.float64(portrait.lips)[[0, 2]]
    mouth = slice(int(y1) - 2, int(y1) + 12), slice(int(x1), int(x2))
    assert (plain.draw(0, 0, rest, 1) == toothy.draw(0, 0, rest, 1)).all()
    dark, bright = (one.draw(1, 0, rest, 1)[mouth].mean() for one in (plain, toothy))
    assert bright > dark + 5
    wide, still = plain.draw(0, 0, rest, 1, 0.2), plain.draw(0, 0, rest, 1)
    changed = np.argwhere((wide != still).any(axis=2))
    assert len(changed)
    assert np.abs(changed.mean(axis=0) - [y1, (x1 + x2) / 2]).max() < 0.4 * (x2 - x1)


# --------------------------------------------------------------------- scene


def test_films_show_as_much_of_speech_as_the_corpus():
    statistics = ConversationStatistics.read("ava_avd")
    hidden = total = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        turns = sample_turns(statistics, 300, seed=seed)
        time = np.arange(7500) / 25
        speaking = {
            label: np.any(
                [(time >= s.start) & (time < s.end) for s in turns.label_timeline(label)], axis=0
            )
            for label in turns.labels()
        }
        scene = plan(speaking, ["silent0"], statistics, SMALL, rng)
        assert scene.shots[0].first == 0
        assert scene.shots[-1].end == 7500
        assert all(a.end == b.first for a, b in pairwise(scene.shots))
        for label, heard in speaking.items():
            hidden += (heard & ~scene.visible(label)).sum()
            total += heard.sum()
    assert hidden / total == pytest.approx(statistics.off_screen_share, rel=0.1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("people", [2, 7, 20])
def test_faces_are_inside_the_picture_and_apart(layout, people):
    rng = np.random.default_rng(people)
    speaking = {f"spk{i:02d}": rng.random(2500) < 0.2 for i in range(people)}
    options = SceneOptions(layout=layout, camera_off=0.0)
    scene = plan(speaking, ["silent0"], ConversationStatistics.read("ami"), options, rng)
    for shot in scene.shots:
        for face in shot.faces:
            assert 0 < face.x - 0.35 * face.height < face.x + 0.35 * face.height < 640
            assert 0 < face.y - 0.5 * face.height < face.y + 0.5 * face.height < 360
        for i, a in enumerate(shot.faces):
            for b in shot.faces[:i]:
                apart = abs(a.x - b.x) > 0.35 * (a.height + b.height)
                assert apart or abs(a.y - b.y) > 0.5 * (a.height + b.height)
    if layout != "film":
        assert {face.person for face in scene.shots[0].faces} == {*speaking, "silent0"}


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="layout must be one of film, meeting, gallery"):
        SceneOptions(layout="theatre")
    with pytest.raises(ValueError, match="two even numbers"):
        SceneOptions(size=(321, 180))
    with pytest.raises(ValueError, match="share below 1"):
        SceneOptions(dropped=1.0)
    for speakers in ((1, 3), (4, 3), (2, 21)):
        with pytest.raises(ValueError, match="range within 2-20"):
            Options(speakers=speakers)


def test_more_speakers_than_voices(cast):
    with pytest.raises(ValueError, match="speech of 5 speakers, 6 are needed"):
        converse(cast, 60, Options(speakers=(6, 6)))


# -------------------------------------------------------------------- chunks


def test_chunks_are_what_they_say(cast):
    options = Options(speakers=(2, 4), scene=SMALL)
    made, rng = converse(cast, 12.0, options, seed=(3, 0)), np.random.default_rng(3)
    chunks = [cut_chunk(made, first, 100, rng) for first in (0, 200)]
    again = cut_chunk(converse(cast, 12.0, options, seed=(3, 0)), 0, 100, np.random.default_rng(3))
    for name in ("waveform", "crops", "present", "labels", "speech"):
        assert np.array_equal(getattr(chunks[0], name), getattr(again, name))
    for one in chunks:
        faces = len(one.people)
        assert one.waveform.shape == (1, 64000)
        assert one.waveform.dtype == np.float32
        assert one.crops.shape == (faces, 100, 112, 112)
        assert one.crops.dtype == np.uint8
        assert one.present.shape == one.labels.shape == (faces, 100)
        assert one.speech.shape == (len(one.speakers), 100)
        assert not one.crops[~one.present].any()
        assert (one.crops[one.present].std(axis=(1, 2)) > 3).all()
        for person, label in zip(one.people, one.labels, strict=True):
            if person in one.speakers:
                assert (label == one.speech[one.speakers.index(person)]).all()
            else:
                assert not label.any()
    assert any(c.labels.any() for c in chunks)


def test_mouths_in_crops_move_when_their_owners_speak(cast):
    options = Options(
        speakers=(2, 2),
        scene=SceneOptions(layout="meeting", distractors=(0, 0), blur=(0, 0), light=(1, 1)),
        acting=Acting(gestures=0),
    )
    cast = replace(cast, statistics=ConversationStatistics.read("ami"))
    made = converse(cast, 20.0, options, seed=(5,))
    chunk = cut_chunk(made, 0, 500, np.random.default_rng(0))
    moved = np.abs(np.diff(chunk.crops[:, :, 50:90, 30:82].astype(float), axis=1)).mean(axis=(2, 3))
    for motion, label in zip(moved, chunk.labels[:, 1:], strict=True):
        assert label.any()
        assert motion[label == 1].mean() > 1.5 * motion[label == 0].mean()


def test_lost_pictures_are_repeated(cast):
    scene = replace(SMALL, layout="meeting", dropped=0.5)
    made = converse(cast, 8.0, Options(speakers=(2, 2), scene=scene), seed=(6,))
    chunk = cut_chunk(made, 50, 100, np.random.default_rng(0))
    same = (chunk.crops[:, 1:] == chunk.crops[:, :-1]).all(axis=(0, 2, 3))
    assert np.array_equal(same, ~made.scene.kept[51:150])


# --------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def corpus(cast, tmp_path_factory):
    """Two films of 6 s, and what is needed to make them again"""
    folder = tmp_path_factory.mktemp("corpus")
    arguments = {"duration": 6.0, "options": Options(speakers=(2, 3), scene=SMALL), "seed": 4}
    report = simulate_files(cast, folder, 2, **arguments)
    assert report.written == ["train-4-00000", "train-4-00001"]
    assert not report.kept
    assert not report.failed
    return folder, arguments


def test_media_and_references_agree(corpus):
    from pyannote.database import registry

    from pyannote_av.core.io import Video

    folder, _ = corpus
    registry.load_database(folder / "database.yml")
    files = list(registry.get_protocol("Simulated.SpeakerDiarization.Simulated").train())
    assert [file["uri"] for file in files] == ["train-4-00000", "train-4-00001"]
    for file in files:
        info = Video().probe(file["video"])
        assert (info.video.width, info.video.height) == (320, 180)
        assert info.duration == pytest.approx(6.0, abs=0.07)
        assert file["annotated"].duration() == 6.0
        tracks = FaceTracks.read(file["face_tracks"])
        assert tracks.uri == file["uri"]
        made_with = json.loads((folder / "info" / f"{file['uri']}.json").read_text())
        assert sorted(made_with["voices"]) == file["annotation"].labels()
        for track in tracks.tracks:
            one, speaker = tracks.of(track), tracks.speaker[track]
            turns = file["annotation"].label_timeline(speaker)
            # the RTTM has milliseconds
            for moment, label in zip(one.time, one.label, strict=True):
                edge = any(min(abs(moment - t.start), abs(moment - t.end)) < 2e-3 for t in turns)
                assert edge or label == any(t.start <= moment < t.end for t in turns)


def test_what_is_complete_is_kept(cast, corpus):
    folder, arguments = corpus
    before = content(folder)
    report = simulate_files(cast, folder, 2, **arguments)
    assert report.kept == ["train-4-00000", "train-4-00001"]
    assert not report.written
    assert content(folder) == before
    changed = {**arguments, "duration": 7.0}
    with pytest.raises(
        ValueError, match=r"train\.json: this subset was started with other duration"
    ):
        simulate_files(cast, folder, 2, **changed)
    with pytest.raises(ValueError, match="subset must be one of"):
        simulate_files(cast, folder, 2, subset="exam", **arguments)


@pytest.mark.slow
def test_killed_and_resumed_with_workers_the_files_are_the_same(speech, cast, corpus, tmp_path):
    folder, arguments = corpus
    code = (
        "from pyannote_av.simulation.cast import Cast\n"
        "from pyannote_av.simulation.conversation import Options\n"
        "from pyannote_av.simulation.faces import public_portraits\n"
        "from pyannote_av.simulation.files import simulate_files\n"
        "from pyannote_av.simulation.scene import SceneOptions\n"
        "from pyannote_av.simulation.speech import SpeechLibrary\n"
        "from pyannote_av.simulation.statistics import ConversationStatistics\n"
        f"library = SpeechLibrary({str(speech)!r})\n"
        "cast = Cast(ConversationStatistics.read('ava_avd'), library, public_portraits())\n"
        "options = Options(speakers=(2, 3), scene=SceneOptions(size=(320, 180)))\n"
        f"simulate_files(cast, {str(tmp_path)!r}, 2, 6.0, options, 4)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    # in the middle of writing the first video
    while not any(path.stat().st_size > 0 for path in tmp_path.glob(".train-*/*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("video/*.mp4"))
    # in another process, too: that makes no difference
    report = simulate_files(cast, tmp_path, 2, workers=1, **arguments)
    assert len(report.written) == 2
    assert content(tmp_path) == content(folder)


def test_one_bad_file_does_not_stop_the_others(tmp_path, portraits):
    write_wav(tmp_path / "speech" / "1-1.wav", voice(100, 5, 0))
    write_wav(tmp_path / "speech" / "2-1.wav", voice(150, 5, 1))
    write_wav(tmp_path / "speech" / "3-1.wav", np.zeros(RATE))
    cast = Cast(
        ConversationStatistics.read("ami"), SpeechLibrary(tmp_path / "speech"), portraits[:1]
    )
    options = Options(speakers=(2, 2), scene=SMALL)
    report = simulate_files(cast, tmp_path / "out", 5, 3.0, options, subset="test")
    assert report.failed
    assert all("3-1.wav: only silence" in reason for reason in report.failed.values())
    listed = (tmp_path / "out" / "lists" / "test.txt").read_text().split()
    assert listed == report.written
    assert len(report.written) + len(report.failed) == 5


@pytest.mark.slow
def test_a_detector_finds_the_faces_of_the_reference(cast, tmp_path, detector):
    from pyannote_av.core.io import Video
    from pyannote_av.simulation.files import write_file

    options = Options(speakers=(3, 3), scene=SceneOptions(light=(0.8, 1.1), blur=(0, 0.6)))
    write_file(cast, tmp_path, "film", 12.0, options, (8,))
    tracks = FaceTracks.read(tmp_path / "tracks" / "film.npz")
    found = []
    for frame in Video().frames(tmp_path / "video" / "film.mp4"):
        truth = tracks.box[np.abs(tracks.time - frame.time) < 1e-3] if frame.index % 20 == 7 else ()
        if len(truth):
            seen = detector(frame.image).box
            found += [max((_overlap(box, one) for one in seen), default=0) > 0.5 for box in truth]
    assert len(found) >= 8
    assert np.mean(found) >= 0.9


def _overlap(a, b) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.clip(high - low, 0, None).prod()
    return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)


# ------------------------------------------------------------------ commands


def run_command(module: str, *arguments: str):
    from importlib import import_module

    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(import_module(f"pyannote_av.cli.{module}").command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_simulate_command(speech, tmp_path):
    out = tmp_path / "out"
    common = ("--into", out, "--speech", speech, "--files", "1", "--minutes", "0.1")
    result = run_command("simulate", *common, "--speakers", "2", "--layout", "gallery")
    assert result.exit_code == 0, result.output
    assert "1 files written, 0 kept" in result.output
    assert len(list(out.glob("video/*.mp4"))) == 1
    for wrong, message in (
        (("--speakers", "many"), "a number or a range such as 2-5"),
        (("--speakers", "1-2"), "range within 2-20"),
        (("--layout", "theatre"), "layout must be one of"),
        (("--statistics", "nobody"), "neither a file nor shipped"),
        (("--speech", tmp_path), "no such folder|one speaker only|no speech file"),
    ):
        result = run_command("simulate", *common, *wrong)
        assert result.exit_code == 1
        assert any(part in result.output for part in message.split("|"))


def test_fit_statistics_command(tmp_path):
    rttm = tmp_path / "a.rttm"
    rttm.write_text(
        "".join(
            f"SPEAKER talk 1 {start} {lasts} <NA> <NA> {who} <NA> <NA>\n"
            for start, lasts, who in [(0, 9, "a"), (8.5, 7, "b"), (20, 6, "a"), (30, 7, "b")]
        )
    )
    result = run_command("fit_statistics", rttm, "--into", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert "1 files, 2.0 speakers each" in result.output
    statistics = ConversationStatistics.read(tmp_path / "s.json")
    assert sample_turns(statistics, 60, 2).labels() == ["spk00", "spk01"]
    result = run_command("fit_statistics", rttm, rttm, "--into", tmp_path / "s.json")
    assert result.exit_code == 1
    assert "'talk' is already in another file" in result.output
    result = run_command("fit_statistics", rttm, "--into", tmp_path / "s.txt")
    assert "takes a .json file" in result.output
