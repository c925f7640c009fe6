"""Targets of chunks: who speaks, whose face is visible, labels, and corruption."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment

from pyannote_av.models.embedding.voiceprints import num_windows
from pyannote_av.tasks.recordings import LabelledFile, load_recordings, save_recordings, steps_of
from pyannote_av.tasks.target_batches import TargetMaker
from pyannote_av.tasks.target_chunks import (
    Attendance,
    Excerpt,
    by_frame,
    choose,
    sync_labels,
    visual_labels,
)
from pyannote_av.tasks.target_corruption import (
    Corruption,
    Fate,
    coloured,
    delete,
    fate,
    mix_faces,
    mix_features,
    noisy,
    shift,
    varied_voiceprint,
)

DIMENSION = 64


class Numbered:
    """Faces that tell which track they are of, and which frame; some frames are missing"""

    def __init__(self, missing: dict[int, list[int]] | None = None):
        self.missing = missing or {}

    def like(self):
        return np.zeros(2, np.float32)

    def read(self, uri, track, start, stop):
        frames = np.arange(start, stop)
        present = ~np.isin(frames, self.missing.get(track, []))
        return np.stack([np.full(len(frames), track), frames], axis=1).astype(np.float32), present


class Voices(dict):
    """Speaker features by uri"""


def talk(uri="talk", frames=500, faces=()) -> LabelledFile:
    """Two take turns of 4 s, a third never speaks; all are seen, the first in two tracks"""
    turns = [[0, 0, 400], [0, 800, 1200], [1, 400, 800], [1, 1150, 1600]]
    faces = faces or [[0, 1, 0, 100], [0, 2, 100, 500], [1, 3, 0, 500], [2, 4, 50, 500]]
    persons = ["ann", "bob", "silent"]
    regions = np.array([[0, frames]])
    return LabelledFile(uri, persons, 2, np.array(turns), regions, np.array(faces))


def voices_of(*recordings, seed=0) -> Voices:
    """A random voice for each person who speaks"""
    rng, voices = np.random.default_rng(seed), Voices()
    for recording in recordings:
        frames = int(recording.regions.max())
        known = rng.standard_normal((recording.num_speakers, DIMENSION))
        active = by_frame(recording.activity(0, frames))[2::4]
        features = active @ known
        features = np.r_[features, features[-1:]][: num_windows(frames)]
        voices[recording.uri] = features / np.maximum(
            np.linalg.norm(features, axis=1, keepdims=True), 1e-6
        )
    return voices


# recordings


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0.001, 5)), max_size=8),
    st.integers(0, 300),
    st.integers(1, 200),
)
@settings(max_examples=60, deadline=None)
def test_a_step_is_speech_when_its_middle_is(turns, start, length):
    annotation = Annotation()
    for i, (begin, lasts) in enumerate(turns):
        annotation[Segment(begin, begin + lasts), i] = "ann"
    rows = steps_of(annotation, ["ann"])
    recording = talk()._replace(num_speakers=1, turns=rows)
    found = recording.activity(start, start + length)[:, 0]
    assert len(found) == 4 * length
    middle = (4 * start + np.arange(4 * length) + 0.5) / 100
    expected, doubtful = np.zeros(len(middle), bool), np.zeros(len(middle), bool)
    for begin, lasts in turns:
        expected |= (middle >= begin) & (middle < begin + lasts)
        for edge in (begin, begin + lasts):
            doubtful |= np.abs(middle - edge) < 2e-6
    assert (found == expected)[~doubtful].all()


def test_times_are_rounded_to_the_nearest_step():
    annotation = Annotation()
    annotation[Segment(0.1, 0.304)] = "ann"
    annotation[Segment(1.006, 1.5)] = "ann"
    annotation[Segment(2.0, 2.004)] = "bob"
    assert steps_of(annotation, ["ann", "bob"]).tolist() == [[0, 10, 30], [0, 101, 150]]


def test_recordings_are_written_and_read(tmp_path):
    subsets = {"train": [talk("a"), talk("b/ü")], "development": [talk("c")]}
    nobody = np.zeros((0, 4), int)
    subsets["train"].append(LabelledFile("d", [], 0, nobody[:, :3], nobody[:, :2], nobody))
    save_recordings(tmp_path / "cache", "Protocol", subsets)
    protocol, found = load_recordings(tmp_path / "cache")
    assert protocol == "Protocol"
    for subset, recordings in subsets.items():
        for one, other in zip(recordings, found[subset], strict=True):
            assert one[:3] == other[:3]
            assert all((a == b).all() for a, b in zip(one[3:], other[3:], strict=True))
    (tmp_path / "cache").write_bytes(b"something else")
    with pytest.raises(ValueError, match="holds no recordings"):
        load_recordings(tmp_path / "cache")


def test_what_is_annotated():
    recording = talk()._replace(regions=np.array([[10, 20], [30, 40]]))
    assert np.flatnonzero(recording.annotated(15, 35)).tolist() == [0, 1, 2, 3, 4, *range(15, 20)]


# chunks


def test_who_matters_to_a_chunk():
    recording, faces = talk(), Numbered()
    assert Excerpt(recording, 0, 50, faces).attendance == Attendance([0], [1], [])
    assert Excerpt(recording, 0, 110, faces).attendance == Attendance([0, 1], [], [2])
    assert Excerpt(recording, 400, 50, faces).attendance == Attendance([], [0, 1], [2])


def test_a_face_is_put_together_from_all_tracks_of_a_person():
    chunk = Excerpt(talk(), 90, 20, Numbered({1: [95]}))
    face, present = chunk.face(0)
    assert face[:, 0].tolist() == [1] * 5 + [0] + [1] * 4 + [2] * 10
    assert face[present, 1].tolist() == [k for k in range(90, 110) if k != 95]
    assert not present[5]
    face, present = Excerpt(talk(), -10, 20, Numbered()).face(1)
    assert present.tolist() == [False] * 10 + [True] * 10
    # in a mirror
    twice = talk(faces=[[0, 1, 0, 60], [0, 2, 40, 100]])
    face, _ = Excerpt(twice, 0, 100, Numbered()).face(0)
    assert face[:, 0].tolist() == [1] * 60 + [2] * 40


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_those_who_speak_come_first(speaking, others, max_targets, seed):
    who = Attendance(
        list(range(speaking)),
        list(range(20, 20 + others // 2)),
        list(range(40, 40 + others - others // 2)),
    )
    chosen = choose(who, max_targets, np.random.default_rng(seed))
    assert len(set(chosen)) == len(chosen) <= max_targets
    assert set(chosen) <= {*who.speaking, *who.absent, *who.silent}
    assert len(set(chosen) & set(who.speaking)) == min(speaking, max_targets)


def test_frames_are_speech_when_half_of_their_steps_are():
    steps = np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
    assert by_frame(steps).tolist() == [False, True, True, False]
    assert by_frame(np.zeros((8, 0), bool)).shape == (2, 0)


def test_labels_of_faces():
    speaking = np.array([1, 1, 0, 0, 1, 0], bool)
    shown = np.array([1, 0, 1, 0, 1, 1], bool)
    present = np.array([1, 1, 1, 1, 0, 0], bool)
    assert visual_labels(speaking, present, True).tolist() == [1, 1, 0, 0, -1, -1]
    assert visual_labels(speaking, present, False).tolist() == [-1] * 6
    assert sync_labels(speaking, speaking, present, True).tolist() == [1, 1, -1, -1, -1, -1]
    assert sync_labels(speaking, shown, present, False).tolist() == [0, 0, 0, -1, -1, -1]


# corruption


def test_probabilities_are_probabilities():
    with pytest.raises(ValueError, match="face_mixed must be a probability, not 2"):
        Corruption(face_mixed=2)
    with pytest.raises(ValueError, match="add up to 1"):
        Corruption(face_dropped=0.5, face_swapped=0.6)
    assert Corruption.none(dummies=0.3).dummies == 0.3
    assert Corruption.none().voice_dropped == 0


def test_at_most_one_thing_happens_to_a_target():
    rng, corruption = np.random.default_rng(0), Corruption()
    fates = [fate(corruption, True, 1.0, rng) for _ in range(20000)]
    share = {outcome: fates.count(outcome) / len(fates) for outcome in Fate}
    assert share[Fate.VOICE_DROPPED] == pytest.approx(0.3, abs=0.02)
    for outcome, given_voice in (
        (Fate.FACE_DROPPED, 0.3),
        (Fate.FACE_SWAPPED, 0.15),
        (Fate.FACE_SHIFTED, 0.15),
    ):
        assert share[outcome] == pytest.approx(0.7 * given_voice, abs=0.02)
    surely = Corruption.none(voice_dropped=1.0, face_dropped=1.0)
    assert fate(surely, True, 1.0, rng) is Fate.VOICE_DROPPED
    # a face that is seldom seen does not tell who it is
    assert fate(surely, True, 0.2, rng) is Fate.FACE_DROPPED
    for voiced, seen in ((False, 1.0), (True, 0.0), (False, 0.0)):
        assert fate(surely, voiced, seen, rng) is Fate.SPARED


def test_shifts_are_half_a_second_to_two_seconds_either_way():
    rng = np.random.default_rng(0)
    shifts = np.array([shift(rng) for _ in range(2000)])
    assert set(np.abs(shifts)) == set(range(13, 51))
    assert 900 < (shifts > 0).sum() < 1100


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_deleted_frames(present, seed):
    present = np.array(present)
    kept = delete(present, np.random.default_rng(seed))
    assert not (kept & ~present).any()
    assert kept.sum() >= 0.4 * present.sum()
    if present.sum() >= 10:
        assert kept.sum() < present.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mixed_faces_remain_mostly_the_same(dtype):
    rng = np.random.default_rng(0)
    face, other = (rng.integers(0, 255, (6, 4, 4)).astype(dtype) for _ in range(2))
    both = np.array([1, 1, 0, 1, 1, 0], bool)
    for _ in range(20):
        mixed = mix_faces(face, other, both, rng)
        assert mixed.dtype == dtype
        assert (mixed[~both] == face[~both]).all()
        away, apart = (np.abs(mixed.astype(float) - x)[both].sum() for x in (face, other))
        assert away <= apart + 16 * both.sum()


def test_coloured_sound_is_in_step_and_within_10_dB():
    rng, rate = np.random.default_rng(0), 16000
    time = np.arange(rate) / rate
    for frequency in (100, 1000, 6000):
        tone = np.sin(2 * np.pi * frequency * time).astype(np.float32)
        gains = []
        for _ in range(20):
            found = coloured(tone, rng)
            assert found.dtype == np.float32
            assert found.shape == tone.shape
            # no phase: nothing of the sine turns into a cosine
            gain = 2 * np.mean(found * tone)
            assert np.abs(found - gain * tone).max() < 1e-3
            gains.append(20 * np.log10(gain))
        assert max(map(abs, gains)) <= 10.01
        assert np.ptp(gains) > 5
    assert len(coloured(np.zeros(0, np.float32), rng)) == 0


def test_varied_voiceprints_are_of_the_speaker_still():
    rng = np.random.default_rng(0)
    own, wrong = np.linalg.qr(rng.standard_normal((64, 2)))[0].T
    features = np.concatenate([np.tile(own, (50, 1)), np.tile(wrong, (50, 1))])
    windows = np.r_[0:20, 25:30, 35:50]
    found = [varied_voiceprint(features, windows, np.arange(50, 100), rng) for _ in range(300)]
    likeness = np.array(found) @ own
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.median(likeness) > 0.95
    assert np.quantile(likeness, 0.02) > 0.7
    assert (np.array(found) @ wrong).max() > 0.1
    assert likeness.std() > 0.005
    assert np.linalg.norm(noisy(own, rng)) == pytest.approx(1, abs=1e-5)


def test_features_of_a_mixture_are_between_those_of_its_parts():
    one, other = np.eye(4)[:1].repeat(3, axis=0), np.eye(4)[1:2].repeat(3, axis=0)
    louder = [mix_features(one, other, snr)[0] for snr in (20.0, 0.0)]
    assert louder[0] @ one[0] > 0.99
    assert louder[1] @ one[0] == pytest.approx(louder[1] @ other[0])
    assert (mix_features(0 * one, 0 * other, 0.0) == 0).all()


# making targets


def maker(*recordings, **corruption) -> TargetMaker:
    return TargetMaker(voices_of(*recordings), Corruption.none(**corruption))


def test_targets_are_what_the_recording_says():
    recording = talk()
    make = maker(recording)
    chunk = Excerpt(recording, 50, 100, Numbered())
    target = make.target(chunk, 0, True, np.random.default_rng(0))
    assert target.present.all()
    assert target.face[:, 1].tolist() == list(range(50, 150))
    assert target.speaking.tolist() == [True] * 200 + [False] * 200
    assert target.visual.tolist() == [1] * 50 + [0] * 50
    assert target.sync.tolist() == [1] * 50 + [-1] * 50
    features = make.speaker_embeddings["talk"]
    assert target.voiceprint @ features[10] > 0.99
    assert target.voiceprint @ features[35] < 0.9
    silent = make.target(chunk, 2, True, np.random.default_rng(0))
    assert not silent.voiceprint.any()
    assert not silent.speaking.any()
    assert (silent.visual == 0).all()
    assert (silent.sync == -1).all()


@pytest.mark.parametrize("what", ["voice_dropped", "face_dropped", "face_swapped", "face_shifted"])
def test_what_happens_to_targets(what):
    recording = talk()
    chunk = Excerpt(recording, 150, 100, Numbered())
    target = maker(recording, **{what: 1.0}).target(chunk, 0, True, np.random.default_rng(0))
    # labels are of the person all the same
    assert (target.speaking == chunk.speaking(0)).all()
    assert target.voiceprint.any() == (what != "voice_dropped")
    if what == "voice_dropped":
        assert target.present.all()
        assert set(target.sync) == {1, -1}
        return
    assert (target.visual == -1).all()
    assert 1 not in target.sync
    if what == "face_dropped":
        assert not target.present.any()
        assert not target.face.any()
    elif what == "face_swapped":
        assert set(target.face[:, 0]) <= {3, 4}
        assert (target.sync[chunk.speaking(0)[::4]] == 0).all()
    else:
        shifted = target.face[:, 1] - np.arange(150, 250)
        assert set(target.face[:, 0]) <= {1, 2}
        assert 13 <= abs(shifted[50]) <= 50
        assert (target.sync == 0).any()


def test_targets_of_unknown_voice_keep_their_face():
    recording, rng = talk(), np.random.default_rng(0)
    everything = {
        "voice_dropped": 0.5,
        "face_dropped": 0.4,
        "face_swapped": 0.3,
        "face_shifted": 0.2,
    }
    make = maker(recording, frames_deleted=0.5, **everything)
    chunk, own = Excerpt(recording, 150, 100, Numbered()), {0: {1, 2}, 1: {3}, 2: {4}}
    fates = set()
    for _ in range(100):
        for person, tracks in own.items():
            target = make.target(chunk, person, True, rng)
            face = target.face[target.present]
            genuine = len(face) and set(face[:, 0]) <= tracks
            genuine = bool(genuine and (face[:, 1] == np.arange(150, 250)[target.present]).all())
            assert target.voiceprint.any() or (genuine and target.present.mean() >= 0.4)
            assert ((target.visual >= 0) <= target.present).all()
            assert genuine or (target.visual == -1).all()
            assert genuine or (target.sync <= 0).all()
            assert not genuine or (target.sync != 0).all()
            fates.add((bool(target.voiceprint.any()), genuine, bool(target.present.any())))
    assert len(fates) == 4


def test_nothing_happens_to_faces_where_nothing_is_heard():
    recording = talk()
    make = maker(recording, face_dropped=1.0)
    target = make.target(
        Excerpt(recording, 150, 100, Numbered()), 0, False, np.random.default_rng(0)
    )
    assert target.present.all()


def test_nobody_to_be_swapped_with():
    alone = talk(faces=[[0, 1, 0, 500]])
    make = maker(alone, face_swapped=1.0)
    target = make.target(Excerpt(alone, 150, 100, Numbered()), 0, True, np.random.default_rng(0))
    assert set(target.face[:, 0]) == {1}
    assert set(target.sync) == {1, -1}


def test_dummies_are_silent_people_of_other_recordings():
    one, other = talk(), talk("other")
    make = maker(one, other, dummies=1.0, dummies_visible=0.5)
    rng, seen = np.random.default_rng(0), 0
    for _ in range(30):
        targets = make.dummies(one, 3, lambda: Excerpt(other, 40, 60, Numbered()), rng)
        assert len(targets) == 2
        for target in targets:
            assert (make.speaker_embeddings["other"] @ target.voiceprint).max() > 0.99
            assert not target.speaking.any()
            assert (target.sync == -1).all()
            assert (target.visual[target.present] == 0).all()
            assert (target.visual[~target.present] == -1).all()
            seen += target.present.any()
            for track, frame in target.face[target.present].astype(int).tolist():
                person = {1: 0, 2: 0, 3: 1, 4: 2}[track]
                assert person == 2 or not other.activity(frame, frame + 1)[:, person].any()
    assert 10 < seen < 40
    assert make.dummies(one, 0, lambda: None, rng) == []
    assert replace(make, corruption=Corruption.none()).dummies(one, 3, lambda: None, rng) == []


def test_nobody_of_this_recording_is_a_dummy():
    """Files may share people, without saying so"""
    one, other = talk(), talk("other")
    make = maker(one, other, dummies=1.0)
    assert make.strangers(one, other) == [0, 1]
    # bob is back
    bob = make.speaker_embeddings["talk"][30]
    heard = by_frame(other.activity(0, 500))[2::4]
    make.speaker_embeddings["other"][heard[:, 1] & ~heard[:, 0]] = bob
    make = TargetMaker(make.speaker_embeddings, make.corruption)
    assert make.strangers(one, other) == [0]
    assert make.strangers(one, one) == []
    rng = np.random.default_rng(0)
    for _ in range(10):
        for target in make.dummies(one, 2, lambda: Excerpt(other, 40, 60, Numbered()), rng):
            assert target.voiceprint @ bob < 0.45
