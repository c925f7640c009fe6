"""Tracking on synthetic detections: what goes in is known exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.vision.detection import Detections
from pyannote_av.vision.tracking import WINDOW, Tracker, match, overlap, smooth

ASPECT = 16 / 9
SIZE = 0.2  # face height


def box_at(x: float, y: float, size: float = SIZE) -> np.ndarray:
    half = np.array([size / ASPECT, size]) / 2
    centre = np.array([x, y])
    return np.concatenate([centre - half, centre + half])


def detections(boxes, confidence=0.95) -> Detections:
    boxes = np.asarray(boxes, "f4").reshape(-1, 4)
    corners = np.stack([boxes[:, :2]] * 5, axis=1)
    return Detections(boxes, corners, np.broadcast_to(np.float32(confidence), len(boxes)))


def run(faces, frames: int, cuts=(), start: int = 0, shuffle=None, tracker=None):
    """Track; `faces(k)` gives the boxes (and confidence) of picture k, seen when a detection is due

    Returns {track: (index (T,), box (T, 4))} after checking what every result must fulfil.
    """
    tracker = tracker or Tracker()
    tracker.aspect = ASPECT
    stretches, detected = [], None
    for k in range(start, start + frames):
        cut = k in cuts
        found = None
        if detected is None or cut or k - detected >= tracker.due:
            found, detected = faces(k), k
            found = found if isinstance(found, Detections) else detections(found)
            if shuffle is not None:
                found = found[shuffle.permutation(len(found))]
        given_out = tracker.update(k, found, cut)
        # what a ring buffer of `lag` pictures can serve
        assert all(s.start >= k - tracker.lag for s in given_out)
        stretches += given_out
    stretches += tracker.finish(start + frames)
    tracks = {}
    for s in stretches:
        index, box = tracks.setdefault(s.track, ([], []))
        assert not index or s.start == index[-1] + 1
        index += range(s.start, s.start + len(s.box))
        box += list(s.box)
        assert len(s.box) == len(s.landmarks) == len(s.confidence)
    ended = [s.track for s in stretches if s.ended]
    assert sorted(ended) == sorted(tracks) == list(range(len(tracks)))
    return {t: (np.array(i), np.array(b)) for t, (i, b) in tracks.items()}


def test_still_face_is_one_track_without_holes():
    tracks = run(lambda k: [box_at(0.5, 0.5)], 103, start=7)
    assert list(tracks) == [0]
    index, box = tracks[0]
    assert index.tolist() == list(range(7, 110))
    np.testing.assert_allclose(box, np.tile(box_at(0.5, 0.5), (103, 1)), atol=1e-6)


@given(st.floats(-0.004, 0.004), st.floats(-0.003, 0.003), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_steady_motion_is_followed_exactly(vx, vy, stride):
    def face(k):
        return box_at(0.5 + vx * k, 0.5 + vy * k)

    tracks = run(lambda k: [face(k)], 100, tracker=Tracker(stride=stride))
    assert list(tracks) == [0]
    index, box = tracks[0]
    last = 99 - 99 % stride  # after the last detection the box is held
    expected = np.array([face(min(k, last)) for k in index])
    # the median lags where the motion stops
    near = index < last - WINDOW // 2
    np.testing.assert_allclose(box[near], expected[near], atol=1e-5)
    np.testing.assert_allclose(box, expected, atol=0.004 * WINDOW)


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_order_of_detections_does_not_matter(seed, count):
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(0.1, 0.9, (count, 2)), rng.normal(0, 0.003, (count, 2))
    weak = rng.uniform(size=(20, count)) < 0.2

    def faces(k):
        boxes = [box_at(*(start[i] + k * speed[i])) for i in range(count)]
        return detections(boxes)[np.flatnonzero(~weak[k // 5])]

    one = run(faces, 100)
    other = run(faces, 100, shuffle=np.random.default_rng(seed))
    assert one.keys() == other.keys()
    for track in one:
        np.testing.assert_array_equal(one[track][0], other[track][0])
        np.testing.assert_array_equal(one[track][1], other[track][1])


def test_faces_seen_together_are_different_tracks():
    places = [(0.2, 0.3), (0.5, 0.5), (0.62, 0.5), (0.8, 0.7)]
    tracks = run(lambda k: [box_at(*p) for p in places], 60)
    assert len(tracks) == 4
    centres = np.array(sorted(((b[0, :2] + b[0, 2:]) / 2).tolist() for _, b in tracks.values()))
    np.testing.assert_allclose(centres, places, atol=1e-5)


@pytest.mark.parametrize("speed", [0.003, 0.004, 0.006])
def test_crossing_faces_keep_their_ids(speed):
    def faces(k):
        # the one in front hides the other while they overlap by much
        front, back = box_at(0.2 + speed * k, 0.5), box_at(0.8 - speed * k, 0.52)
        return [front] if overlap(front[None], back[None])[0, 0] > 0.5 else [back, front]

    frames = round(0.6 / speed)
    tracks = run(faces, frames)
    assert len(tracks) == 2
    for index, box in tracks.values():
        assert index[0] == 0
        assert index[-1] == frames - 1
        moved = box[-1, 0] - box[0, 0]
        assert abs(moved) > 0.5


def test_short_absence_is_bridged_and_long_absence_is_not():
    def face_away(first, last):
        return lambda k: [] if first <= k < last else [box_at(0.3 + 0.001 * k, 0.5)]

    tracks = run(face_away(40, 50), 100)
    assert [t[0][[0, -1]].tolist() for t in tracks.values()] == [[0, 99]]
    # interpolated in between
    np.testing.assert_allclose(tracks[0][1][45], box_at(0.345, 0.5), atol=1e-5)
    tracks = run(face_away(40, 70), 100)
    assert [t[0][[0, -1]].tolist() for t in tracks.values()] == [[0, 30], [70, 99]]


def test_nothing_survives_a_cut():
    tracks = run(lambda k: [box_at(0.5, 0.5)], 100, cuts=(33, 67))
    assert [t[0][[0, -1]].tolist() for t in tracks.values()] == [[0, 32], [33, 66], [67, 99]]


@given(st.lists(st.integers(12, 40), min_size=1, max_size=6), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_shots_are_covered_to_their_last_picture(lengths, seed):
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *lengths])
    places = rng.uniform(0.2, 0.8, (len(lengths), 2))

    def face(k):
        return [box_at(*places[np.searchsorted(starts, k, side="right") - 1])]

    tracks = run(face, int(starts[-1]), cuts=set(starts[1:-1].tolist()))
    assert len(tracks) == len(lengths)
    for place, first, length, (index, box) in zip(
        places, starts, lengths, tracks.values(), strict=False
    ):
        assert index.tolist() == list(range(first, first + length))
        np.testing.assert_allclose(box, np.tile(box_at(*place), (length, 1)), atol=1e-5)


def test_face_that_left_before_the_cut_is_not_held():
    tracks = run(lambda k: [box_at(0.5, 0.5)] if k < 20 else [], 40, cuts=(29,))
    # a steady face is seen at 10, and no more at 20
    assert tracks[0][0][-1] == 10


def test_steady_faces_are_looked_at_less_often():
    def seen(faces, frames=120):
        looks = []
        run(lambda k: looks.append(k) or faces(k), frames)
        return np.diff(looks)

    still, width = [box_at(0.5, 0.5), box_at(0.2, 0.4)], SIZE / ASPECT
    assert (seen(lambda k: still)[4:] == 10).all()
    # a fifth of a face in a second is steady, a third is not
    assert (seen(lambda k: [still[0], box_at(0.1 + k * width / 5 / 25, 0.1)])[4:] == 10).all()
    assert (seen(lambda k: [still[0], box_at(0.1 + k * width / 3 / 25, 0.1)])[4:] == 5).all()
    # a face that leaves, and one that comes
    assert 5 in seen(lambda k: still if k < 60 else still[:1])[6:]
    assert 5 in seen(lambda k: still if k > 60 else still[:1])[6:]
    # nobody
    assert (seen(lambda k: []) == 5).all()


def test_a_jump_is_another_face():
    tracks = run(lambda k: [box_at(0.2 if k < 50 else 0.7, 0.5)], 100)
    assert len(tracks) == 2
    growing = run(lambda k: [box_at(0.5, 0.5, 0.1 if k < 50 else 0.4)], 100)
    assert len(growing) == 2


def test_glimpses_are_dropped():
    assert not run(lambda k: [box_at(0.5, 0.5)] if k == 20 else [], 60)
    assert not run(lambda k: [box_at(0.5, 0.5)] if k in (20, 25) else [], 60)
    assert len(run(lambda k: [box_at(0.5, 0.5)] if k in (20, 25, 30) else [], 60)) == 1


def test_weak_detections_prolong_tracks_but_begin_none():
    def faces(k, strong=range(20, 40)):
        return detections([box_at(0.5, 0.5)], 0.95 if k in strong else 0.55)

    tracks = run(faces, 100)
    assert [t[0][[0, -1]].tolist() for t in tracks.values()] == [[20, 99]]
    assert not run(lambda k: faces(k, strong=()), 100)
    # one strong moment among weak ones is not enough
    assert not run(lambda k: faces(k, strong=[20]), 100)


def test_second_box_on_a_face_is_no_second_face():
    tracks = run(lambda k: [box_at(0.5, 0.5), box_at(0.505, 0.51, 0.22)], 60)
    assert len(tracks) == 1


def test_jitter_is_smoothed():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (200, 4))
    _, box = run(lambda k: [box_at(0.5, 0.5) + noise[k]], 200)[0]
    detected = noise[::5]
    # movement per frame, against that between the raw detections
    assert np.abs(np.diff(box, axis=0)).mean() < 0.5 * np.abs(np.diff(detected, axis=0)).mean() / 5
    assert (box - box_at(0.5, 0.5)).std() < noise.std()


def test_unknown_landmarks_stay_unknown():
    def faces(k):
        found = detections([box_at(0.5, 0.5)])
        return Detections(found.box, np.full((1, 5, 2), np.nan, "f4"), found.confidence)

    tracker = Tracker()
    stretches = [s for k in range(60) for s in tracker.update(k, faces(k) if k % 5 == 0 else None)]
    stretches += tracker.finish(60)
    assert sum(len(s.box) for s in stretches) == 60
    assert all(np.isnan(s.landmarks).all() for s in stretches)


def test_match_is_optimal_not_greedy():
    # greedily, the first would take the nearest and leave nothing within reach of the second
    expected = np.array([[0, 0, 1, 1], [0.6, 0, 1.6, 1]])
    found = np.array([[0.35, 0, 1.35, 1], [-0.5, 0, 0.5, 1]])
    assert sorted(match(expected, found)) == [(0, 1), (1, 0)]
    assert match(expected, found[:0]) == []
    assert match(expected, found + 10) == []


def test_overlap():
    one = np.array([[0, 0, 2, 2.0]])
    other = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0.5, 0.5, 1.5, 1.5]])
    np.testing.assert_allclose(overlap(one, other), [[1, 1 / 7, 0, 0.25]])


@given(st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_smoothing_in_pieces_is_smoothing_at_once(count, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3))
    middle = int(rng.integers(0, count + 1))
    pieces = [smooth(rows, 0, middle).reshape(-1, 3), smooth(rows, middle, count).reshape(-1, 3)]
    np.testing.assert_array_equal(np.concatenate(pieces), smooth(rows, 0, count))
    assert (smooth(rows, 0, count)[[0, -1]] == rows[[0, -1]]).all()
