"""Voices and faces become speakers: hand-computed cases and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.fusion import guard
from pyannote_av.fusion.association import associate, voice_evidence
from pyannote_av.fusion.identities import group_tracks, make_identity, simultaneous
from pyannote_av.fusion.voices import activity_of, merges, smooth, splits


def identity(track, scores, start=0):
    index = np.arange(start, start + len(scores))
    return make_identity([(track, index, np.asarray(scores, float))])


def turns(*triples):
    annotation = Annotation(uri="x")
    for i, (start, end, label) in enumerate(triples):
        annotation[Segment(start, end), i] = label
    return annotation


@pytest.fixture
def dialogue():
    """A speaks 0-4 s, B 4-8 s; both faces visible; the audio branch knows."""
    voices = turns((0, 4, "A"), (4, 8, "B"))
    face_a = identity(0, np.r_[np.full(100, 2.0), np.full(100, -2.0)])
    face_b = identity(1, np.r_[np.full(100, -2.0), np.full(100, 2.0)])
    return voices, [face_a, face_b], activity_of(voices, ["A", "B"], 200)


def test_evidence_is_log_odds_times_seconds(dialogue):
    _, identities, activity = dialogue
    evidence, specificity = voice_evidence(identities, activity, clip=3.0, rise=2.0)
    np.testing.assert_allclose(evidence, [[8, -8], [-8, 8]])
    assert specificity[0, 0] == pytest.approx(np.tanh(1.0))  # sigmoid(2) - sigmoid(-2)


def test_silence_in_overlap_is_no_evidence_against():
    activity = np.ones((50, 2), dtype=bool)
    silent, speaking = identity(0, np.full(50, -2.0)), identity(1, np.full(50, 2.0))
    evidence, _ = voice_evidence([silent, speaking], activity, clip=3.0, rise=2.0)
    np.testing.assert_allclose(evidence, [[0, 0], [2, 2]])


# as shipped
RISE = 1.5


def test_a_face_that_says_a_word_is_judged_by_its_own_silence():
    # 10 s in sight, 1 s of speech, which is scored below 0 as short turns are
    activity = np.zeros((250, 2), dtype=bool)
    activity[50:75, 0] = activity[150:200, 1] = True
    score = np.where(activity[:, 0], -1.0, -4.0)
    evidence, specificity = voice_evidence([identity(0, score)], activity, clip=3.0, rise=RISE)
    assert evidence[0, 0] == pytest.approx(1.0)  # a threshold of -2, one above it for a second
    assert evidence[0, 1] < 0
    assert specificity[0, 0] > 0.3
    by_zero, _ = voice_evidence([identity(0, score)], activity, clip=3.0, rise=99.0)
    assert by_zero[0, 0] == pytest.approx(-1.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(-12, -0.5), st.integers(0, 1000))
def test_listeners_and_photographs_never_get_a_voice(level, seed):
    random = np.random.default_rng(seed)
    activity = np.zeros((500, 2), dtype=bool)
    activity[50:150, 0] = activity[200:400, 1] = True
    photograph = identity(0, np.full(500, level))
    # slow movements, of no relation to who speaks
    listener = identity(1, smooth(random.normal(level, 1.0, 500), 5))
    evidence, _ = voice_evidence([photograph, listener], activity, clip=3.0, rise=RISE)
    assert (evidence < 0).all()


def test_dead_silence_is_no_reason_to_call_silence_speech():
    activity = np.zeros((250, 1), dtype=bool)
    activity[100:150] = True
    score = np.where(activity[:, 0], -4.5, -9.0)
    evidence, _ = voice_evidence([identity(0, score)], activity, clip=3.0, rise=RISE)
    assert evidence[0, 0] < 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-15, 15), max_size=60), st.floats(0.5, 5.0), st.floats(0, 5.0))
def test_thresholds_of_faces(scores, rise, more):
    one = identity(0, scores)
    assert -2.0 <= one.threshold(rise) <= one.threshold(rise + more) <= 0.0
    assert identity(0, np.full(50, 2.0)).threshold(rise) == 0.0
    assert one.threshold(99.0) == 0.0


def test_simultaneous_faces_never_share_a_voice():
    conflict = np.array([[False, True], [True, False]])
    assert associate(np.array([[9.0], [5.0]]), conflict, 1.0) == {0: 0}
    assert associate(np.array([[9.0], [5.0]]), ~np.eye(2, dtype=bool) & False, 1.0) == {0: 0, 1: 0}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 4), st.integers(0, 1000))
def test_association_respects_conflicts_and_order_does_not_matter(num_faces, num_voices, seed):
    random = np.random.default_rng(seed)
    evidence = random.normal(0, 5, (num_faces, num_voices))
    conflict = np.triu(random.random((num_faces, num_faces)) < 0.5, 1)
    conflict |= conflict.T
    found = associate(evidence, conflict, 1.0)
    for p, v in found.items():
        assert evidence[p, v] >= 1.0
        assert not any(conflict[p, q] and v == w for q, w in found.items())
    order = random.permutation(num_faces)
    again = associate(evidence[order], conflict[np.ix_(order, order)], 1.0)
    assert {int(order[p]): v for p, v in again.items()} == found


def test_identity_never_joins_simultaneous_tracks():
    conflict = simultaneous([[(0, 50)], [(20, 80)], [(100, 150)]])
    assert conflict.tolist() == [[False, True, False], [True, False, False], [False] * 3]
    same = np.array([1.0, 0.0])
    groups = group_tracks(conflict, [same, same, same], 0.4)
    assert not any({0, 1} <= set(group) for group in groups)
    assert sorted(i for group in groups for i in group) == [0, 1, 2]
    assert group_tracks(conflict, [same, None, same], 0.4) == [[0, 2], [1]]


def test_split_needs_a_distinct_face(dialogue):
    _, identities, _ = dialogue
    voices = turns((0, 8, "A"))
    activity = activity_of(voices, ["A"], 200)
    distinct = ~np.eye(2, dtype=bool)
    options = {"margin": 1.0, "seconds": 1.5}
    assert splits(identities, {0: 0}, distinct, activity, **options) == {1: 0}
    assert splits(identities, {0: 0}, ~distinct & False, activity, **options) == {}


def test_one_face_merges_two_voices_unless_voiceprints_object():
    voices = turns((0, 4, "A"), (4, 8, "B"))
    activity = activity_of(voices, ["A", "B"], 200)
    identities = [identity(0, np.full(200, 2.0))]
    options = {"share": 0.7, "similarity": 0.3, "seconds": 1.5}
    alike = np.array([[1.0, 0.0], [1.0, 0.1]])
    unlike = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert merges(identities, {0: 0}, activity, alike, **options) == {1: 0}
    assert merges(identities, {0: 0}, activity, None, **options) == {1: 0}
    assert merges(identities, {0: 0}, activity, unlike, **options) == {}


@pytest.mark.parametrize("length", [0, 1, 5, 40])
def test_smoothing_keeps_length_and_absence(length):
    score = np.full(length, 2.0)
    score[::3] = np.nan
    smoothed = smooth(score)
    assert len(smoothed) == length
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(score))
    np.testing.assert_allclose(smoothed[np.isfinite(smoothed)], 2.0)


def test_guard_says_why():
    fine = {"has_sound": True, "num_voices": 2, "frame_rate": 25, "brightness": 90}
    fine |= {"num_tracks": 2, "offset": 0.0, "max_offset": 1.0}
    assert guard.refuse_file(**fine) is None
    for change, word in [
        ({"num_tracks": 0}, "no face"),
        ({"frame_rate": 5}, "pictures per second"),
        ({"brightness": 3}, "dark"),
        ({"offset": 2.0}, "apart"),
    ]:
        assert word in guard.refuse_file(**{**fine, **change})
    assert set(guard.refuse_tracks({0: 10, 1: 80, 2: 80}, {0: 9, 1: 9, 2: 0.1}, 24)) == {0, 2}


def test_regions_without_faces():
    speech = Timeline([Segment(0, 10)])
    regions = guard.without_faces(speech, [Segment(0, 4)], [Segment(0, 7)])
    assert [(r["start"], r["end"]) for r in regions] == [(4, 10)]
