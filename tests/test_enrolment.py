"""Who is seen talking enrols a voice: hand-computed cases, invariances, the declared limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.clustering.enrolment import assign, enrol_visible
from pyannote_av.clustering.linkage import NOBODY

A, B, C = np.eye(3)
NAN = np.nan


def scene(seed: int, speakers: int = 3, each: int = 12) -> tuple[np.ndarray, ...]:
    """Voices, visual log-odds, and who speaks; half of the time a person is not visible."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(speakers), each))
    voices = np.linalg.qr(rng.normal(size=(16, 16)))[0][who] + 0.05 * rng.normal(
        size=(len(who), 16)
    )
    talking = np.where(who[:, None] == np.arange(speakers), 4.0, -4.0)
    talking += rng.normal(size=talking.shape)
    talking[rng.random(talking.shape) < 0.5] = NAN
    return voices, talking, who


# ------------------------------------------------------------------------------------- enrolment


def test_only_windows_in_which_one_face_certainly_talks():
    voices = np.stack([A, B, B, B, A, C])
    talking = np.array(
        [
            [3.0, NAN],  # alone in the picture
            [3.0, 0.5],  # the other may talk too
            [3.0, 2.5],  # the other certainly does
            [1.9, -3.0],  # not certain enough
            [2.0, -0.1],
            [-3.0, -3.0],
        ]
    )
    prototypes = enrol_visible(voices, talking)
    np.testing.assert_allclose(prototypes, [A, 0 * A], atol=1e-12)
    # the third is a matter of who is certain; so is the fourth
    np.testing.assert_allclose(
        enrol_visible(voices, talking, certain=1.9)[0], [2, 1, 0] / np.sqrt(5)
    )


def test_the_most_certain_windows_count():
    voices = np.stack([A, B, C, 9 * A])
    talking = np.array([[3.0], [5.0], [4.0], [5.0]])
    for most, expected in [
        (1, B),
        (2, A + B),
        (3, A + B + C),
        (4, 2 * A + B + C),
        (99, 2 * A + B + C),
    ]:
        found = enrol_visible(voices, talking, most=most)
        np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-12)


@pytest.mark.parametrize("unknown", [0.0, NAN])
def test_windows_without_a_voice_enrol_nobody(unknown):
    voices = np.stack([np.full(3, unknown), B])
    talking = np.array([[9.0, NAN], [NAN, 3.0]])
    np.testing.assert_allclose(enrol_visible(voices, talking, most=1), [0 * A, B])


def test_nothing_to_enrol():
    assert enrol_visible(np.zeros((0, 3)), np.zeros((0, 2))).tolist() == [[0, 0, 0]] * 2
    assert enrol_visible(np.eye(3), np.zeros((3, 0))).shape == (0, 3)
    assert not enrol_visible(np.eye(3), np.full((3, 2), NAN)).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 12))
def test_order_length_and_names_do_not_matter(seed, most):
    voices, talking, _ = scene(seed)
    rng = np.random.default_rng(seed)
    prototypes = enrol_visible(voices, talking, most=most)
    norm = np.linalg.norm(prototypes, axis=1)
    assert np.allclose(norm[norm > 0], 1)
    order, names = rng.permutation(len(voices)), rng.permutation(talking.shape[1])
    longer = voices * rng.uniform(0.01, 100, size=(len(voices), 1))
    other = enrol_visible(longer[order], talking[order][:, names], most=most)
    np.testing.assert_allclose(other, prototypes[names], atol=1e-9)

    persons = assign(voices, prototypes, talking)
    renamed = assign(longer[order], 3 * other, talking[order][:, names])
    assert (names[renamed] == persons[order]).all()


# ------------------------------------------------------------------------------------ assignment


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999))
def test_everybody_who_was_seen_talking_is_found(seed):
    voices, talking, who = scene(seed)
    talking[[np.flatnonzero(who == person)[0] for person in range(3)]] = np.where(np.eye(3), 5, -5)
    prototypes = enrol_visible(voices, talking)
    assert (assign(voices, prototypes, talking) == who).all()
    # also where they are not visible at all
    assert (assign(voices, prototypes) == who).all()
    assert (assign(voices, prototypes, np.full_like(talking, NAN)) == who).all()


def test_an_off_screen_speaker_is_taken_for_somebody_visible():
    """The declared limit: a voice that nobody was seen with goes to whoever sounds most alike."""
    off_screen = 0.1 * A + 0.2 * B + C
    voices = np.stack([A, A, B, B, off_screen, off_screen, off_screen])
    talking = np.array(
        [[4.0, -4.0]] * 2 + [[-4.0, 4.0]] * 2 + [[-4.0, -4.0], [NAN, NAN], [NAN, -4.0]]
    )
    prototypes = enrol_visible(voices, talking)
    np.testing.assert_allclose(prototypes, [A, B])
    assert assign(voices, prototypes, talking).tolist() == [0, 0, 1, 1, 1, 1, 0]
    # even if they are alone in the picture, and evidently silent
    one = enrol_visible(voices[[0, 4]], talking[[0, 4], :1])
    assert assign(voices[[0, 4]], one, talking[[0, 4], :1]).tolist() == [0, 0]


def test_fusion_by_hand():
    prototypes = np.stack([A, B])
    voice = np.array([[0.8, 0.6, 0.0]])
    half = np.log(3.0)  # a probability of 3/4, and so a confidence of 1/2

    def person(first: float, second: float, **options: float) -> int:
        return int(assign(voice, prototypes, np.array([[first, second]]), **options)[0])

    assert person(NAN, NAN) == 0  # 0.8 : 0.6
    assert person(NAN, half) == 1  # 0.8 : 0.6 + 0.25
    assert person(NAN, half, weight=0.39) == 0  # 0.8 : 0.6 + 0.195
    assert person(NAN, half, weight=0.0) == 0
    assert person(-half, NAN) == 1  # 0.8 - 0.25 : 0.6; not being visible is no evidence
    assert person(half, half) == 0
    assert person(-np.inf, np.inf) == 1


def test_who_was_not_enrolled_gets_no_window():
    prototypes = np.stack([0 * A, -A])
    assert assign(A[None], prototypes, np.array([[9.0, -9.0]])).tolist() == [1]


@pytest.mark.parametrize("unknown", [0.0, NAN])
def test_windows_without_a_voice_go_by_sight(unknown):
    voices = np.full((4, 3), unknown)
    talking = np.array([[1.0, 2.0, 9.0], [NAN, -1.0, 9.0], [NAN, NAN, 9.0], [NAN, NAN, NAN]])
    prototypes = np.stack([A, B, 0 * C])
    assert assign(voices, prototypes, talking).tolist() == [1, 1, NOBODY, NOBODY]
    assert (assign(voices, prototypes) == NOBODY).all()


def test_if_nobody_is_enrolled_windows_are_nobodys():
    assert (assign(np.eye(3), np.zeros((2, 3)), np.full((3, 2), 9.0)) == NOBODY).all()
    assert (assign(np.eye(3), np.zeros((0, 3))) == NOBODY).all()
    assert assign(np.zeros((0, 3)), np.eye(3)).tolist() == []


def test_errors():
    with pytest.raises(ValueError, match="do not fit 3 windows"):
        enrol_visible(np.eye(3), np.zeros((2, 2)))
    for wrong in ({"certain": -1.0}, {"certain": NAN}, {"most": 0}):
        with pytest.raises(ValueError, match="give log-odds"):
            enrol_visible(np.eye(3), np.zeros((3, 2)), **wrong)
    with pytest.raises(ValueError, match="do not fit voices"):
        assign(np.eye(3), np.eye(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="do not fit voices"):
        assign(np.eye(3), np.eye(4))
    for wrong in (-1.0, NAN, np.inf):
        with pytest.raises(ValueError, match="give a number of at least 0"):
            assign(np.eye(3), np.eye(3), weight=wrong)
