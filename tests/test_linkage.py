"""Clusters of items whose distances are known: those of scipy, but for what is known for sure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from pyannote_av.clustering.linkage import pair_clusters


def together(clusters) -> np.ndarray:
    clusters = np.asarray(clusters)
    return clusters[:, None] == clusters


def distances(size: int, seed: int) -> np.ndarray:
    """Between points of some clouds"""
    rng = np.random.default_rng(seed)
    clouds = rng.normal(size=(3, 4))
    return pdist(clouds[rng.integers(3, size=size)] + 0.4 * rng.normal(size=(size, 4)))


def in_order(clusters: np.ndarray) -> bool:
    """Whether clusters are numbered as they appear"""
    _, first = np.unique(clusters, return_index=True)
    return (np.diff(first) > 0).all() and set(clusters) == set(range(len(first)))


@given(st.integers(2, 25), st.floats(0, 4), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_average_linkage(size, threshold, seed):
    distance = distances(size, seed)
    clusters = pair_clusters(distance, threshold)
    expected = fcluster(linkage(distance, "average"), threshold, "distance")
    assert (together(clusters) == together(expected)).all()
    assert in_order(clusters)


def test_by_hand():
    # 0 and 1 are 1 apart; 2 is 2 and 4 from them, 3 on average; 3 is 8 or 9 from all
    distance = np.array([1.0, 2.0, 8.0, 4.0, 9.0, 9.0])
    assert pair_clusters(distance, 0.9).tolist() == [0, 1, 2, 3]
    assert pair_clusters(distance, 1.0).tolist() == [0, 0, 1, 2]
    assert pair_clusters(distance, 2.9).tolist() == [0, 0, 1, 2]
    assert pair_clusters(distance, 3.0).tolist() == [0, 0, 0, 1]
    assert pair_clusters(distance, 9.0).tolist() == [0, 0, 0, 0]
    # two that are apart are not joined even at their small distance
    assert pair_clusters(distance, 9.0, apart=[[0, 1]]).tolist() == [0, 1, 0, 0]
    assert pair_clusters(distance, 0.5, same=[[3, 0]]).tolist() == [0, 1, 2, 0]
    assert distance.tolist() == [1, 2, 8, 4, 9, 9]


@given(st.integers(2, 20), st.integers(1, 25), st.integers(0, 999), st.booleans())
@settings(max_examples=50, deadline=None)
def test_number_of_speakers(size, wanted, seed, apart):
    distance = distances(size, seed)
    pairs = [[0, size - 1]] if apart else None
    clusters = pair_clusters(distance, 0.5, num_speakers=wanted, apart=pairs)
    assert len(set(clusters)) == min(wanted, size)
    assert in_order(clusters)
    expected = fcluster(linkage(distance, "average"), min(wanted, size), "maxclust")
    if not apart:
        assert (together(clusters) == together(expected)).all()
    low = pair_clusters(distance, 99.0, min_speakers=wanted)
    assert len(set(low)) == min(wanted, size)
    high = pair_clusters(distance, -1.0, max_speakers=wanted)
    assert len(set(high)) == min(wanted, size)


@given(st.integers(2, 20), st.integers(1, 25), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_a_counter_sees_the_tree_and_keeps_to_bounds(size, counted, seed):
    distance, trees = distances(size, seed), []

    def counter(tree):
        trees.append(tree)
        return counted

    clusters = pair_clusters(distance, 0.0, max_speakers=6, counter=counter)
    assert clusters.max() + 1 == min(counted, size, 6)
    np.testing.assert_array_equal(trees[0], linkage(distance, "average"))
    assert pair_clusters(distance, 0.0, num_speakers=2, counter=counter).max() + 1 == 2


def test_bounds_that_contradict_each_other():
    with pytest.raises(ValueError, match="min_clusters must be smaller"):
        pair_clusters(distances(6, 0), 0.5, min_speakers=4, max_speakers=2)


def constrained(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of the same, all of their pairs, and pairs of different groups that are apart"""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, max(2, size // 2), size)
    first, second = np.triu_indices(size, 1)
    alike = group[first] == group[second]
    same = np.stack([first, second], axis=1)[alike]
    groups = rng.random((size, size)) < 0.3
    groups |= groups.T
    apart = np.stack([first, second], axis=1)[~alike & groups[group[first], group[second]]]
    # in whatever order they come
    for pairs in (same, apart):
        turned = rng.random(len(pairs)) < 0.5
        pairs[turned] = pairs[turned, ::-1]
        rng.shuffle(pairs)
    return group, same, apart


@given(st.integers(2, 16), st.floats(0, 5), st.integers(0, 9999))
@settings(max_examples=80, deadline=None)
def test_what_is_known_for_sure(size, threshold, seed):
    group, same, apart = constrained(size, seed)
    distance = distances(size, seed)
    clusters = pair_clusters(distance, threshold, same=same, apart=apart)
    assert together(clusters)[together(group)].all()
    assert not any(clusters[a] == clusters[b] for a, b in apart)
    assert in_order(clusters)
    # unless there may not be as many speakers
    assert len(set(pair_clusters(distance, threshold, num_speakers=1, apart=apart))) == 1
    # and who are the same are not told apart while there are others to be
    most = len(set(group))
    exactly = pair_clusters(distance, threshold, num_speakers=most, same=same, apart=apart)
    assert (together(exactly) == together(group)).all()


def test_apart_are_joined_last():
    """Where there may be two speakers only, other clusters are joined before"""
    x = np.array([[0.0], [0.1], [5.0], [5.2], [50.0], [50.1]])
    distance = pdist(x)
    assert pair_clusters(distance, 1.0).tolist() == [0, 0, 1, 1, 2, 2]
    two = pair_clusters(distance, 1.0, max_speakers=2)
    assert two.tolist() == [0, 0, 0, 0, 1, 1]
    two = pair_clusters(distance, 1.0, max_speakers=2, apart=[[0, 2]])
    assert two[0] != two[2]
    assert len(set(two)) == 2
    assert len(set(pair_clusters(distance, 1.0, max_speakers=1, apart=[[0, 2]]))) == 1


@pytest.mark.parametrize("threshold", [1.0, 100.0, 1e6])
def test_no_threshold_joins_who_are_apart(threshold):
    """However large it is compared with distances"""
    distance = np.full(6, 0.01)
    clusters = pair_clusters(distance, threshold, apart=[[0, 1], [0, 2], [1, 2]])
    assert len(set(clusters[:3])) == 3
    assert len(set(clusters)) == 3


@pytest.mark.parametrize("pair", [[0, 1], [2, 3], [0, 3], [1, 2]])
def test_the_same_stay_together_whatever_is_as_near(pair):
    """Distances of 0 to others do not come first"""
    square = 0.9 * (1 - np.eye(4))
    square[[0, 2, 1, 3], [2, 0, 3, 1]] = 0.0
    clusters = pair_clusters(squareform(square), 0.1, same=[pair])
    assert clusters[pair[0]] == clusters[pair[1]]


@given(st.integers(2, 16), st.floats(0, 3), st.integers(0, 9999), st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_order_of_items_does_not_matter(size, threshold, seed, known):
    rng = np.random.default_rng(seed)
    square, order = squareform(distances(size, seed)), rng.permutation(size)
    place = order.argsort()
    same, apart = constrained(size, seed)[1:] if known else (None, None)
    moved = {"same": place[same], "apart": place[apart]} if known else {}
    clusters = pair_clusters(squareform(square), threshold, same=same, apart=apart)
    permuted = pair_clusters(squareform(square[order][:, order]), threshold, **moved)
    assert (together(permuted) == together(clusters[order])).all()


def test_one_item():
    nothing = np.zeros(0)
    assert pair_clusters(nothing, 0.5).tolist() == [0]
    assert pair_clusters(nothing, 0.5, num_speakers=3).tolist() == [0]
    assert pair_clusters(nothing, 0.5, same=np.zeros((0, 2), int), apart=[]).tolist() == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_distances_must_be_known(value):
    distance = distances(5, 0)
    distance[[2, 7]] = value
    with pytest.raises(ValueError, match="2 distances are not finite"):
        pair_clusters(distance, 0.5)
