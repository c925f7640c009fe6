"""Joint clustering: hand-computed cases, invariances, and the oddities of the original."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.clustering.joint_clustering import face_clusters, join, spectral_clusters, unit
from pyannote_av.clustering.linkage import NOBODY, threshold_clusters


def windows_of(
    speakers: int = 4, each: int = 20, noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Windows in random order, and who speaks in them."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(speakers), each))
    means = np.linalg.qr(rng.normal(size=(24, 24)))[0][:speakers] * np.sqrt(24)
    return means[who] + noise * rng.normal(size=(len(who), 24)), who


def together(clusters: np.ndarray) -> np.ndarray:
    return clusters[:, None] == clusters


def in_order(clusters: np.ndarray) -> bool:
    found, first = np.unique(clusters[clusters != NOBODY], return_index=True)
    return found.tolist() == list(range(len(found))) and bool((np.diff(first) > 0).all())


# ---------------------------------------------------------------------------------------- voices


@pytest.mark.parametrize("each", [3, 20])  # by the tree, by the spectrum
@pytest.mark.parametrize("speakers", [1, 2, 5, 9])
def test_speakers_are_counted_and_found(speakers, each):
    x, who = windows_of(speakers, each if speakers > 1 else 3 * each)
    clusters = spectral_clusters(x)
    assert (together(clusters) == together(who)).all()
    assert in_order(clusters)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), speakers=st.integers(1, 6), each=st.sampled_from([3, 15, 45]))
def test_order_and_length_do_not_matter(seed, speakers, each):
    x, _ = windows_of(speakers, each, seed=seed)
    rng = np.random.default_rng(seed)
    clusters, order = spectral_clusters(x), rng.permutation(len(x))
    assert (spectral_clusters(x) == clusters).all()
    longer = x * rng.uniform(0.01, 100, size=(len(x), 1))
    assert (spectral_clusters(longer) == clusters).all()
    assert (together(spectral_clusters(x[order])) == together(clusters[order])).all()


@settings(max_examples=30, deadline=None)
@given(
    bounds=st.tuples(*3 * [st.none() | st.integers(1, 60)]),
    size=st.sampled_from([0, 1, 2, 5, 39, 40, 50]),
    noise=st.sampled_from([0.0, 0.3, 3.0]),
)
def test_bounds_hold_to_the_end(bounds, size, noise):
    exact, low, high = bounds
    if low and high and low > high:
        low, high = high, low
    rng = np.random.default_rng(size)
    x = windows_of(5, 10, seed=size)[0][:size] + noise * rng.normal(size=(size, 24))
    clusters = spectral_clusters(x, exact, low, high)
    count = len(np.unique(clusters))
    assert in_order(clusters)
    assert min(exact or low or 1, size) <= count <= min(exact or high or max(15, low or 0), size)


def test_edge_cases():
    rng = np.random.default_rng(0)
    assert spectral_clusters(np.zeros((0, 8))).tolist() == []
    assert spectral_clusters(rng.normal(size=(1, 8)), min_speakers=3).tolist() == [0]
    for size in (2, 39, 40, 100):
        same = np.tile(rng.normal(size=8), (size, 1))
        assert (spectral_clusters(same) == 0).all()
    assert spectral_clusters(np.eye(3), num_speakers=5).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="min_clusters must be smaller"):
        spectral_clusters(np.eye(9), min_speakers=5, max_speakers=3)
    for wrong in (0.0, -1.0, 2.0, np.nan):
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            spectral_clusters(np.eye(9), pruning=wrong)
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            spectral_clusters(np.eye(9), merge=wrong)


@pytest.mark.parametrize("unknown", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("each", [5, 20])
def test_windows_of_which_nothing_is_known(unknown, each):
    x, who = windows_of(each=each)
    x[[3, 7]] = unknown
    clusters = spectral_clusters(x)
    assert np.flatnonzero(clusters == NOBODY).tolist() == [3, 7]
    known = clusters != NOBODY
    assert (together(clusters[known]) == together(who[known])).all()
    assert (clusters[known] == spectral_clusters(x[known])).all()
    assert (spectral_clusters(np.full((3, 16), unknown)) == NOBODY).all()


@pytest.mark.parametrize(
    ("alike", "each", "speakers"), [(0.35, 19, 2), (0.45, 19, 1), (0.45, 20, 2)]
)
def test_few_windows_are_clustered_by_a_tree(alike, each, speakers):
    """Which does not tell apart what is more alike than 0.4; with 40 windows, there is a gap."""
    who = np.repeat([0, 1], each)
    x = np.array([[1.0, 0.0], [alike, np.sqrt(1 - alike**2)]])[who]
    clusters = spectral_clusters(x)
    assert (clusters == (who if speakers == 2 else 0)).all()
    if each == 19:
        assert (clusters == threshold_clusters(x, 0.6)).all()


def test_windows_alone_join_the_nearest_speaker():
    # two of each of two speakers, and one between them that is nearer to the second
    x = np.array([[1, 0, 0.0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0.2, 0.3, 1]])
    assert spectral_clusters(x).tolist() == [0, 0, 1, 1, 1]
    assert spectral_clusters(x, min_speakers=3).tolist() == [0, 0, 1, 1, 2]
    # odd, but so in the original: if all are alone, they are one
    assert spectral_clusters(np.eye(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("each", [10, 30])
def test_speakers_who_sound_alike_are_merged(each):
    rng = np.random.default_rng(0)
    who = np.repeat([0, 1, 2], each)
    means = np.array([[1, 0.0, 0], [0.9, np.sqrt(1 - 0.81), 0], [0, 0, 1]])
    x = means[who] + 0.01 * rng.normal(size=(len(who), 3))
    assert (spectral_clusters(x) == np.repeat([0, 1], [2 * each, each])).all()
    assert (spectral_clusters(x, num_speakers=3) == who).all()
    if each == 30:  # the tree would not have told them apart
        assert (spectral_clusters(x, merge=0.95) == who).all()


def test_more_pieces_than_speakers_allowed():
    """A graph of 20 pieces has no gap among its first eigenvalues: as many as allowed."""
    x, who = windows_of(20, 8, noise=0.0)
    assert len(np.unique(spectral_clusters(x))) == 15
    assert (together(spectral_clusters(x, max_speakers=25)) == together(who)).all()


# ----------------------------------------------------------------------------------------- faces


def test_faces_are_joined_by_their_mean_similarity():
    def at(degrees: float) -> np.ndarray:
        return 3.0 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    # 7 and 5 are one; their mean similarity with 9 is (cos 70° + cos 80°) / 2 = 0.258, so although
    # 7 and 9 are less alike than the threshold, and complete linkage would leave 9 alone ...
    embeddings = {7: at(0), 5: at(10), 9: at(80), 2: at(200)}
    spans = {track: [(100 * i, 100 * i + 50)] for i, track in enumerate([7, 5, 9, 2, 4])}
    assert face_clusters(embeddings, spans) == [[7, 5, 9], [2], [4]]
    assert face_clusters(embeddings, spans, threshold=0.27) == [[7, 5], [9], [2], [4]]
    # ... unless one of them is on screen together with it
    spans[5] = [(100, 260)]
    assert face_clusters(embeddings, spans) == [[7, 5], [9], [2], [4]]
    assert face_clusters({}, {}) == []
    assert face_clusters({}, {3: [(0, 9)], 1: [(0, 9)]}) == [[3], [1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999))
def test_names_of_tracks_do_not_matter_and_simultaneous_tracks_stay_apart(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    starts = rng.integers(0, 400, size)
    spans = {t: [(int(s), int(s) + 40)] for t, s in enumerate(starts)}
    embeddings = {t: rng.normal(size=4) for t in spans if rng.random() < 0.9}
    groups = face_clusters(embeddings, spans)
    assert sorted(track for group in groups for track in group) == list(range(size))
    for group in groups:
        times = np.sort(starts[group])
        assert (np.diff(times) > 40 - 4).all()  # no more than 4 frames in common
        assert len(group) == 1 or set(group) <= set(embeddings)
    names = dict(enumerate(rng.permutation(1000)[:size].tolist()))
    renamed = face_clusters(
        {names[t]: 9.0 * e for t, e in embeddings.items()}, {names[t]: s for t, s in spans.items()}
    )
    assert renamed == [[names[t] for t in group] for group in groups]


# ----------------------------------------------------------------------------------- both at once

A, B, C = np.eye(3)


def tiled(count: int) -> np.ndarray:
    """Windows of 1.5 s every 0.75 s."""
    start = 0.75 * np.arange(count)
    return np.stack([start, start + 1.5], axis=1)


def apart(count: int) -> np.ndarray:
    """Windows of 2 s every 3 s."""
    start = 3.0 * np.arange(count)
    return np.stack([start, start + 2.0], axis=1)


def test_clusters_with_the_same_face_are_one_speaker():
    voices = np.stack([A, A, A, B, B, B, C, C])
    audio = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    # the face is seen in one window of each of the first two clusters, and in no other
    face = [(0.0, 2.0), (9.0, 11.0)]
    assert join(audio, apart(8), [face], voices).tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert join(audio, apart(8), [face[:1]], voices).tolist() == audio.tolist()


def test_a_cluster_with_two_faces_is_split_by_voice():
    # one cluster of three speakers; the first two windows show who they are
    voices = np.stack([A, B, B + 0.1 * A, A + 0.2 * B, C + 0.1 * A, C + 0.1 * B])
    faces = [[(0.0, 2.0)], [(3.0, 5.0)]]
    found = join(np.zeros(6, int), apart(6), faces, voices)
    # the third speaker, who is never seen, is lost: the declared limit of the method
    assert found.tolist() == [0, 1, 1, 0, 0, 1]
    # nor does it help that the first face is seen in the third window: voices decide
    assert join(np.zeros(6, int), apart(6), [[(0.0, 2.0), (6.0, 7.0)], faces[1]], voices)[2] == 1


def test_a_split_crosses_clusters():
    """What one cluster has of a face, and what another has, become one speaker."""
    voices = np.stack([A, B, A, B, B, B])
    audio = np.array([0, 0, 0, 0, 1, 1])
    faces = [[(0.0, 2.0)], [(3.0, 5.0), (12.0, 14.0)]]
    assert join(audio, apart(6), faces, voices).tolist() == [0, 1, 0, 1, 1, 1]


def test_how_long_a_face_has_to_talk():
    voices, audio, windows = np.stack([A, A, B, B]), np.array([0, 0, 1, 1]), apart(4)

    def same(*face: tuple[float, float]) -> bool:
        """Whether the face, which the first cluster has, is also that of the second."""
        return len(set(join(audio, windows, [[(0.0, 2.0), *face]], voices))) == 1

    assert same((6.0, 6.6))
    assert not same((6.0, 6.5))
    assert same((6.0, 6.3), (7.0, 7.3))  # in all
    assert not same((5.0, 6.4))
    # a voice takes more than a second of one window, in one go
    faces = [(0.0, 1.0), (1.0, 2.0), (6.0, 7.0)]
    assert join(audio, windows, [faces], voices).tolist() == [0, 0, 1, 1]
    assert join(audio, windows, [[*faces, (9.0, 10.1)]], voices).tolist() == [0, 0, 0, 0]


def test_the_last_window_of_a_cluster_does_not_count():
    """Odd, but so in the original."""
    voices, audio = np.stack([A, A, B]), np.array([0, 0, 1])
    face = [(0.0, 2.0), (6.0, 8.0)]  # is all there is of the second cluster
    assert join(audio, apart(3), [face], voices).tolist() == [0, 0, 1]
    audio, voices = np.array([0, 0, 1, 1]), np.stack([A, A, B, B])
    assert join(audio, apart(4), [face], voices).tolist() == [0, 0, 0, 0]


def test_overlapping_windows_are_not_counted_twice():
    voices, audio = np.stack([A] * 4 + [B] * 4), np.repeat([0, 1], 4)
    # 0.4 s that lie in two windows of the second cluster
    assert len(set(join(audio, tiled(8), [[(0.0, 1.5), (4.0, 4.4)]], voices))) == 2
    assert len(set(join(audio, tiled(8), [[(0.0, 1.5), (4.0, 4.6)]], voices))) == 1


def test_join_edge_cases():
    audio = np.array([4, NOBODY, 4, 2])
    voices = np.stack([A, 0 * A, A, B])
    # nothing to see
    for faces in ([], [[]], [[(50.0, 60.0)]], [[(3.0, 5.0)]]):
        assert join(audio, apart(4), faces, voices).tolist() == [0, NOBODY, 0, 1]
    assert join(audio, apart(4), [[(0.0, 20.0)]], voices).tolist() == [0, NOBODY, 0, 1]
    assert join(np.zeros(0, int), np.zeros((0, 2)), [[(0.0, 1.0)]], np.zeros((0, 3))).tolist() == []
    with pytest.raises(ValueError, match="4 clusters, 3 windows and 4 voices"):
        join(audio, apart(3), [], voices)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999))
def test_join_is_indifferent_to_order_names_and_length(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    voices, audio = rng.normal(size=(size, 8)), rng.integers(-1, 4, size)
    windows = tiled(size)
    faces = []
    for _ in range(rng.integers(0, 4)):
        cuts = np.sort(rng.uniform(0, 0.75 * size + 1, 2 * rng.integers(1, 5)))
        faces.append([tuple(span) for span in cuts.reshape(-1, 2)])
    found = join(audio, windows, faces, voices)
    assert in_order(found)
    assert ((found == NOBODY) == (audio == NOBODY)).all()
    longer = voices * rng.uniform(0.01, 100, size=(size, 1))
    assert (join(audio, windows, faces, longer) == found).all()
    names = np.r_[rng.permutation(50)[:4], NOBODY]
    assert (join(names[audio], windows, faces, voices) == found).all()
    assert (join(audio, windows, faces[::-1], voices) == found).all()
    order = rng.permutation(size)
    shuffled = join(audio[order], windows[order], faces, voices[order])
    assert (together(shuffled) == together(found[order])).all()


def test_unit():
    x = unit(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0]]))
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0], [0, 0]])


# ------------------------------------------------------------------------------ from end to end


def test_faces_mend_what_voices_got_wrong():
    """Two speakers in one cluster, and one in two: seen talking, they are told apart, and joined.

    The off-screen speaker keeps a cluster.
    """
    rng = np.random.default_rng(0)
    who = np.repeat([0, 1, 2, 0, 1, 2], 20)
    voices = np.stack([A, B, C])[who] + 0.1 * rng.normal(size=(120, 3))
    audio = np.where(who == 2, 2, np.repeat([0, 0, 2, 1, 0, 2], 20))
    windows = tiled(120)
    # the last of a turn overlaps the next
    faces = [[(0.0, 8.0), (46.5, 53.0)], [(16.0, 29.0)]]
    assert (together(join(audio, windows, faces, voices)) == together(who)).all()
