"""Who speaks, from all evidence together: hand-computed cases and invariances."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyannote.core import Annotation, Segment, SlidingWindow

from pyannote_av.core.posteriors import SpeakerPosteriors
from pyannote_av.fusion.activities import Durations
from pyannote_av.fusion.decoding import (
    Weights,
    add_faces,
    decode,
    face_evidence,
    gain_of,
    keep_unseen,
    log_odds,
    most_likely,
    sound_evidence,
)
from pyannote_av.fusion.identities import make_identity

NO_MINIMUM = Durations()
WEIGHTS = Weights(sound=0.5, turns=0.25, scores=0.8, counts=2.0)


def turns(*triples):
    annotation = Annotation(uri="x")
    for i, (start, end, label) in enumerate(triples):
        annotation[Segment(start, end), i] = label
    return annotation


@pytest.mark.parametrize(
    ("evidence", "counts", "expected"),
    [
        # the sound hears one speaker: the likelier one, however unlikely
        ((2.0, 1.0), (0.02, 0.96, 0.02), (1, 0)),
        ((-2.0, -1.0), (0.02, 0.96, 0.02), (0, 1)),
        # it hears nobody: a moving mouth is not enough, overwhelming evidence is
        ((2.0, -2.0), (0.96, 0.02, 0.02), (0, 0)),
        ((9.0, -2.0), (0.96, 0.02, 0.02), (1, 0)),
        # it is not sure whether there are one or two: faces decide
        ((2.0, 1.0), (0.02, 0.49, 0.49), (1, 1)),
        ((2.0, -1.0), (0.02, 0.49, 0.49), (1, 0)),
        # it hears one, two faces speak clearly
        ((9.0, 9.0), (0.02, 0.96, 0.02), (1, 1)),
    ],
)
def test_sound_counts_and_faces_choose(evidence, counts, expected):
    found = most_likely(np.float32([evidence]), np.float32([counts]), weight=1.0)
    assert found.astype(int).tolist() == [list(expected)]


def test_preference_decides_who_and_not_how_many():
    evidence, counts = np.float32([[2.0, 1.0]] * 3), np.float32([[0.02, 0.96, 0.02]] * 3)
    preference = np.float32([[0, 0], [0, 5], [-9, -9]])
    found = most_likely(evidence, counts, 1.0, preference)
    assert found.astype(int).tolist() == [[1, 0], [0, 1], [1, 0]]


@given(st.integers(0, 5), st.integers(0, 99), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_no_set_is_likelier(num_speakers, seed, weight):
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 3, (20, num_speakers)).astype(np.float32)
    counts = rng.dirichlet([0.3] * 3, 20)
    active = most_likely(evidence, counts, weight)
    prior = np.clip(counts, 0.01, 1)
    prior = np.log(prior / prior.sum(axis=1, keepdims=True))
    for row, odds, likely in zip(active, evidence, prior, strict=True):
        sizes = [*likely, likely[2] + np.log(0.1)]

        def total(chosen, odds=odds, sizes=sizes):
            return sum(odds[list(chosen)]) + weight * sizes[len(chosen)]

        sets = [
            s for n in range(min(3, num_speakers) + 1) for s in combinations(range(num_speakers), n)
        ]
        assert total(np.flatnonzero(row)) == pytest.approx(max(map(total, sets)), abs=1e-4)


@given(arrays(np.float32, (30, 3), elements=st.floats(-5, 5, width=32)), st.permutations(range(3)))
@settings(max_examples=30, deadline=None)
def test_order_of_speakers_does_not_matter(evidence, order):
    evidence += np.float32([0, 1e-3, 2e-3])  # no ties
    counts = np.tile([0.2, 0.5, 0.3], (30, 1))
    active = most_likely(evidence, counts, 1.0)
    assert (most_likely(evidence[:, order], counts, 1.0) == active[:, order]).all()


@pytest.mark.parametrize(
    ("chosen", "sound", "seen", "expected"),
    [
        ((1, 1), (1, 0), (1, 0), (1, 0)),  # nobody sees the second speaker
        ((0, 0), (0, 1), (1, 0), (0, 1)),
        ((0, 1), (1, 0), (0, 0), (1, 0)),  # nobody is seen
        ((0, 1), (1, 0), (1, 0), (0, 1)),  # the place of a visible speaker
        ((1, 0), (0, 1), (1, 0), (1, 0)),  # gives way to a visible speaker
        ((1, 1), (0, 0), (1, 1), (1, 1)),
    ],
)
def test_turns_of_speakers_who_are_not_seen_stay(chosen, sound, seen, expected):
    found = keep_unseen(*(np.array([row], bool) for row in (chosen, sound, seen)))
    assert found.astype(int).tolist() == [list(expected)]


@pytest.mark.parametrize(("seconds", "moved"), [(2.9, False), (3.1, True)])
def test_an_unseen_speaker_whom_the_sound_hardly_knows_replaces_nobody(seconds, moved):
    # the first speaker is visible and silent, the second is not visible
    steps, own = 1000, round(100 * seconds)
    sound = np.zeros((steps, 2), bool)
    sound[:500, 0] = True
    sound[500 : 500 + own, 1] = True
    seen = np.zeros_like(sound)
    seen[:, 0] = True
    evidence = np.float32(np.where(sound, 3.0, -3.0))
    evidence[200:400] = [-8.0, -1.0]
    counts = np.where(sound.any(axis=1, keepdims=True), [[0.02, 0.96, 0.02]], [[0.96, 0.02, 0.02]])
    options = {"num_voices": 2, "min_new": 1.0, "sound": sound, "seen": seen}
    found = decode(evidence, counts, 2.0, NO_MINIMUM, **options).active
    assert found[250:350].astype(int).tolist() == [[not moved, moved]] * 100
    assert (found[450:] == sound[450:]).all()


@given(st.integers(0, 99), st.integers(1, 5))
def test_the_gain_is_the_likelihood_of_a_decision_over_that_of_the_sound(seed, speakers):
    rng = np.random.default_rng(seed)
    evidence, counts = rng.normal(0, 3, (50, speakers)), rng.dirichlet([0.3] * 3, 50)
    sound, seen = (rng.random((2, 50, speakers)) < 0.4).astype(bool)
    active = most_likely(evidence, counts, 2.0)
    options = {"sound": sound, "seen": seen, "log_odds": evidence, "counts": counts, "weight": 2.0}
    assert gain_of(sound, **options) == 0.0
    # nothing is likelier than the most likely sets, but sets of more than three have no prior
    sound &= sound.cumsum(axis=1) <= 3
    assert gain_of(active, **{**options, "sound": sound}) >= 0.0
    one, two = np.array([[[True, False]], [[False, True]]])
    found = gain_of(two, one, one, np.float32([[-1.0, 2.0]]), np.float32([[0, 1, 0]]), 2.0)
    assert found == pytest.approx(3.0)
    # of adding somebody: log-odds, and the probability of two speakers relative to that of one
    found = gain_of(one | two, one, one, np.float32([[1, 2]]), np.float32([[0.2, 0.6, 0.2]]), 2.0)
    assert found == pytest.approx(2.0 + 2 * np.log(0.2 / 0.6))


@given(st.integers(0, 99), st.integers(1, 5))
def test_without_faces_the_turns_of_the_sound_stay(seed, speakers):
    rng = np.random.default_rng(seed)
    evidence, counts = rng.normal(0, 3, (50, speakers)), rng.random((50, 3))
    sound = rng.random((50, speakers)) < 0.4
    found = decode(
        evidence,
        counts,
        2.0,
        NO_MINIMUM,
        num_voices=speakers,
        min_new=1.0,
        sound=sound,
        seen=np.zeros_like(sound),
    )
    assert (found.active == sound).all()


def test_parts_of_a_file_are_decided_as_the_whole():
    # longer than what is decided together
    rng = np.random.default_rng(0)
    evidence, counts = rng.normal(0, 3, (150_000, 3)), rng.random((150_000, 3))
    whole = most_likely(evidence, counts, 2.0)
    parts = [
        most_likely(evidence[rows], counts[rows], 2.0)
        for rows in (slice(0, 70_000), slice(70_000, None))
    ]
    assert (whole == np.concatenate(parts)).all()


def test_faces_without_a_voice_become_speakers_if_they_speak_long_enough():
    evidence = np.full((300, 3), -3.0, np.float32)
    evidence[:100, 0] = 3.0
    evidence[100:130, 1] = 3.0  # 0.3 s: too short, and goes to the voice, who is next
    evidence[100:130, 0] = -1.0
    evidence[130:300, 2] = 3.0
    counts = np.tile([0.01, 0.98, 0.01], (300, 1))
    options = {"weight": 2.0, "durations": NO_MINIMUM, "num_voices": 1, "min_new": 1.0}
    found = decode(evidence, counts, **options)
    assert found.kept == [0, 2]
    assert found.active[:, 0].sum() == pytest.approx(130, abs=10)
    assert found.active[:, 1].sum() == pytest.approx(170, abs=10)
    assert (found.probability[130:, 1] > 0.9).all()
    # no more speakers than there are
    assert decode(evidence, counts, **options, most=1).kept == [0]


def test_short_turns_go_to_the_next_likely_speaker():
    evidence = np.tile(np.float32([2.0, 0.0, -1.0]), (100, 1))
    evidence[40:44, 1] = 9.0  # 40 ms of another speaker
    counts = np.tile([0.01, 0.98, 0.01], (100, 1))
    durations = Durations(on=0.1)
    found = decode(evidence, counts, 2.0, durations, num_voices=3, min_new=1.0)
    assert found.active.sum(axis=0).tolist() == [100, 0, 0]
    # silence stays silence
    counts[:] = [0.98, 0.01, 0.01]
    assert not decode(evidence - 9, counts, 2.0, durations, num_voices=3, min_new=1.0).active.any()


def test_evidence_of_the_sound():
    posteriors = SpeakerPosteriors(
        SlidingWindow(start=0.0, duration=0.01, step=0.01),
        ["A", "B"],
        np.float16([[0.9, 0.2]] * 100),
        np.float16([[0.1, 0.8, 0.1]] * 100),
    )
    voices = turns((0, 0.5, "A"))
    found, counts, active = sound_evidence(posteriors, voices, ["A", "B", "new"], 100, WEIGHTS)
    odds = 0.5 * log_odds(np.array([0.9, 0.2]))
    assert found[:50, 0] == pytest.approx(odds[0] + 0.25, abs=1e-2)
    assert found[50:, 0] == pytest.approx(odds[0] - 0.25, abs=1e-2)
    assert found[:, 1] == pytest.approx(odds[1] - 0.25, abs=1e-2)
    assert found[:, 2] == pytest.approx(0.5 * np.log(0.05 / 0.95), abs=1e-2)
    assert counts[7] == pytest.approx([0.1, 0.8, 0.1], abs=1e-3)
    assert active.sum(axis=0).tolist() == [50, 0, 0]
    # speakers that are not asked for do not matter
    only, _, _ = sound_evidence(
        posteriors, turns((0, 0.5, "A"), (0.5, 1, "B")), ["A"], 100, WEIGHTS
    )
    assert only[:, 0] == pytest.approx(found[:, 0])


def test_evidence_of_faces():
    first = make_identity([(0, np.arange(10), np.full(10, 2.0))])
    second = make_identity([(1, np.arange(5, 15), np.full(10, 99.0))])
    found = face_evidence([[first, second], [], [first]], 80, WEIGHTS)
    assert found.shape == (80, 3)
    assert found[:20, 0] == pytest.approx(1.6)
    assert found[20:60, 0] == pytest.approx(0.8 * 4.0)  # the highest score, bounded
    assert (found[60:] == 0).all()
    assert (found[:, 1] == 0).all()
    assert (found[40:, 2] == 0).all()


def test_silent_faces_leave_overlap_to_the_sound():
    sound = np.float32([[2.0, 1.0]] * 3)
    counts = np.float32([[0.02, 0.96, 0.02], [0.02, 0.38, 0.6], [0.02, 0.02, 0.96]])
    evidence, preference = add_faces(sound, counts, np.float32([[-4.0, -2.5]] * 3))
    assert evidence + preference == pytest.approx(np.float32([[-2.0, -1.5]] * 3))
    assert evidence[1] == pytest.approx([2 - 0.4 * 4, 1 - 0.4 * 2.5])
    found = most_likely(evidence, counts, 1.0, preference)
    assert found.astype(int).tolist() == [[0, 1], [1, 1], [1, 1]]
    # faces that speak count fully
    evidence, preference = add_faces(sound, counts, np.float32([[1.0, 0.5]] * 3))
    assert evidence == pytest.approx(np.float32([[3.0, 1.5]] * 3))
    assert (preference == 0).all()


def test_posteriors_are_read_at_the_nearest_frame():
    frames = SlidingWindow(start=0.0, duration=0.06, step=0.02)
    speakers = np.arange(5, dtype=np.float16)[:, None] / 10
    posteriors = SpeakerPosteriors(frames, ["A"], speakers, np.eye(3)[[0, 1, 2, 1, 0]])
    # frames are centred at 0.03, 0.05, ... s, steps at 0.005, 0.015, ... s
    found, counts = posteriors.at_steps(20, ["A", "unknown"])
    assert found[:, 0] == pytest.approx(
        [0, 0, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, *[0.4] * 10], abs=1e-3
    )
    assert (found[:, 1] == 0).all()
    assert counts.argmax(axis=1).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 1, 1, *[0] * 10]


def test_posteriors_of_turns_say_what_the_turns_say():
    voices = turns((0, 1, "A"), (0.5, 2, "B"))
    posteriors = SpeakerPosteriors.of_turns(voices, 3.0)
    evidence, counts, _ = sound_evidence(posteriors, voices, ["A", "B"], 300, WEIGHTS)
    active = most_likely(evidence, counts, 2.0)
    assert active[:, 0].tolist() == [True] * 100 + [False] * 200
    assert active[:, 1].tolist() == [False] * 50 + [True] * 150 + [False] * 100


def test_posteriors_of_merged_speakers():
    frames = SlidingWindow(start=0.0, duration=0.01, step=0.01)
    speakers = np.float16([[0.1, 0.9, 0.4], [0.8, 0.2, 0.3]])
    posteriors = SpeakerPosteriors(frames, ["A", "B", "C"], speakers, np.eye(3)[:2])
    merged = posteriors.rename({"B": "A"})
    assert merged.labels == ["A", "C"]
    assert merged.speakers == pytest.approx(np.array([[0.9, 0.4], [0.8, 0.3]]), abs=1e-3)


def test_posteriors_take_the_names_of_the_turns():
    frames = SlidingWindow(start=0.0, duration=0.1, step=0.1)
    binary = np.zeros((20, 3))
    binary[:10, 2], binary[10:, 0] = 1, 1
    posteriors = SpeakerPosteriors(frames, list("012"), binary.astype(np.float16), np.ones((20, 3)))
    named = posteriors.named_as(binary, turns((0, 1, "first"), (1, 2, "second")))
    assert named.labels == ["first", "second"]
    assert named.speakers[:, 0].tolist() == binary[:, 2].tolist()
    assert named.speakers[:, 1].tolist() == binary[:, 0].tolist()
