"""Crops: geometry to the pixel, segments, tracks at other frame rates."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import shown

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.vision.crops import (
    MAX_FRAMES,
    Rows,
    Segmenter,
    crop,
    cut,
    face_square,
    grey,
    lips_square,
    on_grid,
)

NOWHERE = np.full((5, 2), np.nan)


def published(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The crop of the TalkNet and LR-ASD demos (`crop_video`, then the central 112 of 224)"""
    import cv2

    x1, y1, x2, y2 = box * ([frame.shape[1], frame.shape[0]] * 2)
    bs, scale = max(y2 - y1, x2 - x1) / 2, 0.40
    bsi = int(bs * (1 + 2 * scale))
    padded = np.pad(frame, ((bsi, bsi), (bsi, bsi)), "constant", constant_values=110)
    my, mx = (y1 + y2) / 2 + bsi, (x1 + x2) / 2 + bsi
    face = padded[
        int(my - bs) : int(my + bs * (1 + 2 * scale)),
        int(mx - bs * (1 + scale)) : int(mx + bs * (1 + scale)),
    ]
    return cv2.resize(face, (224, 224))[56:168, 56:168]


def smooth_picture(height=360, width=640, seed=0) -> np.ndarray:
    import cv2

    small = np.random.default_rng(seed).integers(0, 255, (height // 20, width // 20), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def test_face_square_by_hand():
    # 640 x 360; box of 100 x 120 pixels around (300, 160): s = 60
    box = np.array([250 / 640, 100 / 360, 350 / 640, 220 / 360])
    left, top, side = face_square(box, (360, 640))
    assert (left, top, side) == pytest.approx((300 - 42, 160 + 24 - 42, 84))


@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.floats(0.1, 0.45), st.floats(0.8, 1.3))
@settings(max_examples=40, deadline=None)
def test_face_crop_is_the_published_one(cx, cy, height, aspect):
    frame = smooth_picture()
    half_width = height * 360 / 640 / aspect / 2
    box = np.array([cx - half_width, cy - height / 2, cx + half_width, cy + height / 2])
    ours, theirs = (x.astype(float) for x in (crop(frame, box, NOWHERE), published(frame, box)))
    # theirs rounds the corners down to whole pixels, ours does not
    shift = np.abs(np.diff(theirs, axis=0)).mean() + np.abs(np.diff(theirs, axis=1)).mean()
    inside = (ours != 110) & (theirs != 110)
    assert np.abs(ours - theirs)[inside].mean() < 2 + 4 * shift
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.9


def test_whole_pixels_are_copied():
    picture = np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)
    np.testing.assert_array_equal(cut(picture, (40, 30, 112), 112), picture[30:142, 40:152])


def test_shrinking_by_two_averages_neighbours():
    picture = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8).astype(np.uint8)
    expected = picture[:80, :80].reshape(40, 2, 40, 2).mean(axis=(1, 3))
    assert np.abs(cut(picture, (0, 0, 80), 40) - expected).max() <= 1


def test_outside_is_grey():
    picture = np.full((50, 50), 200, np.uint8)
    one = cut(picture, (-25, -25, 50), 50)
    assert (one[:25] == 110).all()
    assert (one[:, :25] == 110).all()
    assert (one[25:, 25:] == 200).all()
    assert (cut(picture, (500, 500, 20), 112) == 110).all()


def test_colour_is_cut_alike():
    picture = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    one = cut(picture, (-5.3, 7.1, 30), 20)
    assert one.shape == (20, 20, 3)
    np.testing.assert_array_equal(one[..., 1], cut(picture[..., 1], (-5.3, 7.1, 30), 20))


def test_lips():
    box = np.array([0.2, 0.2, 0.4, 0.6])
    corners = NOWHERE.copy()
    corners[3:] = [[0.28, 0.5], [0.34, 0.52]]
    left, top, side = lips_square(box, corners, (100, 200))
    assert side == pytest.approx(0.64 * 40)
    assert (left + side / 2, top + side / 2) == pytest.approx((62, 51))
    # without landmarks: where mouths are in a box
    left, top, side = lips_square(box, NOWHERE, (100, 200))
    assert (left + side / 2, top + side / 2) == pytest.approx((60, 20 + 0.72 * 40))
    picture = smooth_picture()
    assert crop(picture, box, corners, region="lips").shape == (96, 96)
    assert crop(picture, box, corners, 48, "lips").shape == (48, 48)
    with pytest.raises(ValueError, match="region must be"):
        crop(picture, box, corners, region="nose")


def test_grey_is_bounded():
    assert grey(shown(np.zeros((2160, 3840, 3), "u1"))).shape == (1080, 1920)
    image = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    luma = image @ [0.299, 0.587, 0.114]
    assert np.abs(grey(shown(image)) - luma).max() <= 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_segments_hold_all_crops_in_order(steps):
    indices = np.cumsum(steps)
    segmenter, segments = Segmenter(), []
    for index in indices:
        picture = np.full((4, 4), index % 251, np.uint8)
        segments += segmenter.add(7, int(index), picture)
    segments += segmenter.close_all()
    assert not list(segmenter.close_all())
    got = [i for s in segments for i in np.arange(s.start, s.end)[s.present]]
    assert got == indices.tolist()
    assert all(a.end <= b.start for a, b in pairwise(segments))
    for segment in segments:
        assert len(segment) <= MAX_FRAMES
        assert segment.present[0]
        assert segment.present[-1]
        values = segment.crops[segment.present][:, 0, 0]
        assert (values == np.arange(segment.start, segment.end)[segment.present] % 251).all()
        assert (segment.crops[~segment.present] == 0).all()
        # absences of a second or more are not stored
        assert np.diff(np.flatnonzero(segment.present)).max(initial=1) <= 25


def test_long_track_is_cut_at_twelve_seconds():
    segmenter, segments = Segmenter(), []
    for index in range(1000):
        segments += segmenter.add(0, index, np.zeros((2, 2), np.uint8))
    segments += segmenter.close(0)
    assert [len(s) for s in segments] == [300, 300, 300, 100]


def tracks_at(rate: float, seconds: float, digits: int | None = None) -> FaceTracks:
    time = 10.0 + np.arange(round(seconds * rate)) / rate
    low = np.stack([0.1 + 0.01 * time, 0.2 + 0.005 * time], axis=1)
    return FaceTracks(
        time=time if digits is None else time.round(digits),
        track=np.zeros(len(time)),
        box=np.concatenate([low, low + 0.2], axis=1),
        speaking=np.where(time < 11, 1.0, -1.0),
        speaker={0: "A"},
    )


@pytest.mark.parametrize("rate", [24, 29.97, 30, 50, 10, 5])
def test_other_frame_rates(rate):
    tracks = tracks_at(rate, 2.0, digits=2)
    grid = on_grid(tracks)
    index = grid.time * 25
    np.testing.assert_allclose(index, index.round(), atol=1e-9)
    assert (np.diff(index.round()) == 1).all()
    assert abs(grid.time[0] - tracks.time[0]) <= 0.021
    assert abs(grid.time[-1] - tracks.time[-1]) <= 0.021
    np.testing.assert_allclose(grid.box[:, 0], 0.1 + 0.01 * grid.time, atol=3e-4)
    assert grid.speaker == {0: "A"}
    assert set(np.sign(grid.speaking)) <= {-1, 0, 1}


def test_on_the_grid_nothing_changes():
    tracks = tracks_at(25, 2.0)
    assert on_grid(tracks) is tracks
    empty = FaceTracks.empty()
    assert on_grid(empty) is empty


def test_gaps_are_not_filled():
    tracks = tracks_at(30, 3.0)
    holed = tracks.take((tracks.time < 10.99) | (tracks.time > 11.98))
    grid = on_grid(holed)
    assert not ((grid.time > 11.02) & (grid.time < 11.94)).any()
    np.testing.assert_allclose(grid.box[:, 0], 0.1 + 0.01 * grid.time, atol=3e-4)
    single = FaceTracks(time=[1.01], track=[3], box=[[0, 0, 1, 1]])
    assert on_grid(single).time.tolist() == [1.0]


def test_labels_of_the_nearest_rows_come_along():
    tracks = FaceTracks(
        time=np.arange(3) / 30 + 2,
        track=np.zeros(3),
        box=[[0, 0, 1, 1]] * 3,
        label=[0, 1, 2],
    )
    grid = on_grid(tracks)
    assert grid.time.tolist() == [2, 2.04, 2.08]
    assert grid.label.tolist() == [0, 1, 2]


def test_rows():
    tracks = FaceTracks(
        time=np.array([5, 6, 6, 7]) / 25, track=[0, 0, 1, 1], box=[[0, 0, 1, 1]] * 4
    )
    rows = Rows(tracks)
    assert [rows[i].tolist() for i in (4, 5, 6, 7, 8)] == [[], [0], [1, 2], [3], []]
