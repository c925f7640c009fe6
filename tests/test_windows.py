"""Windows of speech: how it is cut, who is seen talking, and the turns that come of it."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline

from pyannote_av.clustering.linkage import NOBODY
from pyannote_av.clustering.windows import (
    NO_FACE,
    Entries,
    Windows,
    all_faces,
    at_once,
    cut_windows,
    entry_faces,
    hide_faces,
    same_track,
    settle,
    talking_scores,
    turns_of,
    who_talks,
)
from pyannote_av.core.tracks import FaceSamples, FaceTracks

RATE = 25


def speech_of(*regions: tuple[float, float]) -> Timeline:
    return Timeline(Segment(*region) for region in regions)


def windows_of(*own: tuple[float, float]) -> Windows:
    """Windows that nothing is listened to beyond their own time."""
    own = np.array(own, float).reshape(-1, 2)
    return Windows(own.copy(), own)


def entries_of(*pairs: tuple[int, int]) -> Entries:
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return Entries(pairs[:, 0], pairs[:, 1])


def tracks_of(*tracks: tuple[int, int, list[float]]) -> FaceTracks:
    """(track, first frame, scores by frame); None where the face is not in the picture"""
    rows = [
        (track, (first + i) / RATE, np.nan if score == "unknown" else score)
        for track, first, scores in tracks
        for i, score in enumerate(scores)
        if score is not None
    ]
    track, time, score = zip(*rows, strict=True) if rows else ((), (), ())
    box = np.tile([0.1, 0.1, 0.3, 0.4], (len(rows), 1))
    return FaceTracks(np.array(time), np.array(track), box, speaking=np.array(score, float))


def looks_of(*looks: tuple[int, int, list[float]]) -> FaceSamples:
    track, frame, vector = zip(*looks, strict=True) if looks else ((), (), np.zeros((0, 2)))
    return FaceSamples(np.array(track, int), np.array(frame, int), np.array(vector, np.float32))


# -------------------------------------------------------------------------------------- cutting


@st.composite
def speeches(draw) -> Timeline:
    """Regions with pauses between them, on a grid of 10 ms"""
    steps = draw(st.lists(st.integers(1, 2000), min_size=2, max_size=12))
    times = np.cumsum(steps) / 100
    return speech_of(*zip(times[::2], times[1::2], strict=False))


@given(speeches(), st.floats(0.1, 5), st.floats(0.02, 1))
@settings(max_examples=100, deadline=None)
def test_windows_cover_the_speech(speech, duration, share):
    step = duration * share
    windows = cut_windows(speech, duration, step)
    regions = np.array([tuple(region) for region in speech.support()]).reshape(-1, 2)
    assert len(windows) == len(windows.span) == len(windows.own)
    start, end = windows.span.T
    assert (np.diff(start) > 0).all()
    # each lies in one region, and is as long as it can be
    home = np.searchsorted(regions[:, 0], start, side="right") - 1
    assert (end <= regions[home, 1]).all()
    length = regions[home, 1] - regions[home, 0]
    np.testing.assert_allclose(end - start, np.minimum(duration, length), atol=1e-9)
    for region, (first, last) in enumerate(regions):
        mine = home == region
        own = windows.own[mine]
        # own times follow each other without gap, from the beginning of the region to its end
        assert own[0, 0] == first
        assert own[-1, 1] == last
        assert (own[1:, 0] == own[:-1, 1]).all()
        assert (own[:, 0] < own[:, 1]).all()
        assert (own[:, 0] >= start[mine] - 1e-9).all()
        assert (own[:, 1] <= end[mine] + 1e-9).all()
        assert start[mine][0] == first
        assert end[mine][-1] == pytest.approx(last, abs=1e-9)
        assert (np.diff(start[mine]) <= step + 2e-6).all()


def test_windows_by_hand():
    windows = cut_windows(speech_of((1, 4.5), (10, 10.4)), 2.0, 1.0)
    # the last window of a region ends with it
    assert windows.span.tolist() == [[1, 3], [2, 4], [2.5, 4.5], [10, 10.4]]
    # middles are 2, 3 and 3.5
    assert windows.own.tolist() == [[1, 2.5], [2.5, 3.25], [3.25, 4.5], [10, 10.4]]


def test_windows_that_fit_exactly_are_not_repeated():
    assert cut_windows(speech_of((0, 4)), 2.0, 1.0).span[:, 0].tolist() == [0, 1, 2]
    assert len(cut_windows(speech_of((0, 2)), 2.0, 1.0)) == 1
    # 0.1 + 0.2 is not 0.3
    assert len(cut_windows(speech_of((0.1, 0.1 + 0.2 + 0.6)), 0.6, 0.2)) == 2


def test_regions_that_touch_or_overlap_are_one():
    parts = cut_windows(speech_of((0, 2), (2, 3), (2.5, 6)), 2.0, 1.0)
    whole = cut_windows(speech_of((0, 6)), 2.0, 1.0)
    assert (parts.span == whole.span).all()
    assert (parts.own == whole.own).all()


def test_without_speech_there_are_no_windows():
    windows = cut_windows(Timeline(), 2.0, 1.0)
    assert len(windows) == 0
    assert windows.span.shape == windows.own.shape == (0, 2)
    tracks = tracks_of((0, 0, [1.0] * 10))
    assert talking_scores(windows, tracks).shape == (0, 1)
    entries = who_talks(windows, tracks)
    assert len(entries) == 0
    assert len(settle(windows, entries, np.zeros(0, int))) == 0
    assert not turns_of(windows, entries, [])
    assert at_once(entries, tracks).shape == same_track(entries).shape == (0, 2)


@pytest.mark.parametrize(
    ("duration", "step"), [(2, 0), (2, -1), (0, 0), (-1, -2), (1, 1.01), (np.nan, 1), (1, np.nan)]
)
def test_windows_that_do_not_cover_are_refused(duration, step):
    with pytest.raises(ValueError, match="leave gaps between them"):
        cut_windows(speech_of((0, 4)), duration, step)


# ---------------------------------------------------------------------------------- who talks


def test_scores_are_means_of_own_time():
    windows = Windows(np.array([[0, 0.4], [0.1, 0.6]]), np.array([[0, 0.2], [0.2, 0.6]]))
    tracks = tracks_of((3, 0, [1.0] * 5 + [-2.0] * 10), (7, 5, list(np.arange(10.0))))
    scores = talking_scores(windows, tracks)
    # what is listened to beyond its own time does not count
    np.testing.assert_allclose(scores, [[1, np.nan], [-2, 4.5]])


@pytest.mark.parametrize(("seen", "known"), [(4, False), (5, True), (6, True)])
def test_faces_are_scored_for_half_of_the_time_at_least(seen, known):
    windows = windows_of((1, 1.4))  # frames 25 to 34
    around, pattern = [9.0] * 25, [2.0] * seen + [None] * (10 - seen)
    for rotated in (pattern, pattern[::-1], pattern[::2] + pattern[1::2]):
        tracks = tracks_of((0, 0, around + rotated + around))
        np.testing.assert_allclose(talking_scores(windows, tracks), [[2 if known else np.nan]])
        unscored = tracks_of((0, 25, ["unknown" if x is None else x for x in rotated]))
        np.testing.assert_allclose(talking_scores(windows, unscored), [[2 if known else np.nan]])


def test_tracks_with_gaps_are_scored_where_they_are():
    tracks = tracks_of((0, 0, [1.0] * 10 + [None] * 30 + [3.0] * 10))
    windows = windows_of((0, 0.4), (0.8, 1.2), (1.6, 2.0), (0, 2.0), (5, 6))
    found = talking_scores(windows, tracks)[:, 0]
    np.testing.assert_allclose(found, [1, np.nan, 3, np.nan, np.nan])


def test_windows_shorter_than_a_frame():
    tracks = tracks_of((0, 0, [1.0, 2.0, 3.0, 4.0]))
    windows = windows_of((0.04, 0.05), (0.045, 0.06), (0.05, 0.13), (0.13, 0.135))
    # the next frame where there is none; then 2 and 3 of the grid; then none that is known
    np.testing.assert_allclose(talking_scores(windows, tracks)[:, 0], [2, 3, 3.5, np.nan])


@given(st.integers(0, 999), st.sampled_from([25, 30, 60]))
@settings(max_examples=50, deadline=None)
def test_scores_are_those_of_every_frame_by_itself(seed, rate):
    rng = np.random.default_rng(seed)
    windows = cut_windows(speech_of((0.3, 3), (3.1, 5)), rng.uniform(0.2, 2), 0.1)
    parts = [np.sort(rng.choice(5 * rate, rng.integers(1, 99), False)) / rate for _ in range(3)]
    time, track = np.concatenate(parts), np.repeat([3, 4, 9], [len(part) for part in parts])
    score = np.where(rng.random(len(time)) < 0.2, np.nan, rng.normal(size=len(time)))
    tracks = FaceTracks(time, track, np.tile([0.1, 0.1, 0.3, 0.4], (len(time), 1)), speaking=score)
    found = talking_scores(windows, tracks)
    for column, name in zip(found.T, tracks.tracks, strict=True):
        one = tracks.of(name)
        by_frame = {
            round(t * RATE): s for t, s in zip(one.time, one.speaking, strict=True) if s == s
        }
        for value, (start, end) in zip(column, windows.own, strict=True):
            first, last = (int(np.ceil(t * RATE - 1e-6)) for t in (start, end))
            frames = range(first, max(last, first + 1))
            mine = [by_frame[frame] for frame in frames if frame in by_frame]
            expected = np.mean(mine) if len(mine) >= len(frames) / 2 else np.nan
            np.testing.assert_allclose(value, expected, atol=1e-6)


def test_faces_may_be_days_apart():
    tracks = tracks_of((0, 0, [1.0] * 25), (0, 25 * 86400 * 3650, [3.0] * 25))
    day = 86400.0 * 3650
    windows = windows_of((0, 1), (5, 6), (day, day + 1))
    np.testing.assert_allclose(talking_scores(windows, tracks)[:, 0], [1, np.nan, 3])


def test_the_likeliest_comes_first():
    windows = windows_of((0, 1), (1, 2), (2, 3))
    tracks = tracks_of(
        (1, 0, [0.5] * 25 + [-1.0] * 25 + [0.2] * 25),
        (2, 0, [2.0] * 25 + [-3.0] * 25 + ["unknown"] * 25),
        (5, 0, [0.7] * 25 + [0.0] * 25),
    )
    entries = who_talks(windows, tracks)
    assert entries.window.tolist() == [0, 0, 0, 1, 2]
    # a score of 0 is not above the threshold, one that is not known neither
    assert entries.track.tolist() == [2, 5, 1, NO_FACE, 1]
    assert entries.visible.tolist() == [True, True, True, False, True]
    strict = who_talks(windows, tracks, threshold=0.6)
    assert strict.window.tolist() == [0, 0, 1, 2]
    assert strict.track.tolist() == [2, 5, NO_FACE, NO_FACE]
    lenient = who_talks(windows, tracks, threshold=-2.0)
    assert lenient.track[lenient.window == 1].tolist() == [5, 1]


def test_without_faces_every_window_has_one_entry():
    entries = who_talks(windows_of((0, 1), (1, 2)), FaceTracks.empty())
    assert entries.window.tolist() == [0, 1]
    assert entries.track.tolist() == [NO_FACE, NO_FACE]


@given(st.integers(0, 999), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_every_window_has_entries_in_order(seed, num_tracks):
    rng = np.random.default_rng(seed)
    windows = cut_windows(speech_of((0.3, 4), (5.1, 6)), 1.0, 0.4)
    firsts = rng.integers(0, 100, num_tracks).tolist()
    tracks = tracks_of(*[(10 * t, f, rng.normal(size=50)) for t, f in enumerate(firsts)])
    entries, scores = who_talks(windows, tracks), talking_scores(windows, tracks)
    assert (np.diff(entries.window) >= 0).all()
    assert set(entries.window) == set(range(len(windows)))
    assert entries.visible.sum() == (scores > 0).sum()
    column = np.searchsorted(tracks.tracks, entries.track)
    for window in range(len(windows)):
        mine = entries.window == window
        if entries.visible[mine].all():
            said = scores[window, column[mine]]
            assert (said > 0).all()
            assert (np.diff(said) <= 0).all()
        else:
            assert mine.sum() == 1
            assert not (scores[window] > 0).any()


def test_hidden_faces():
    entries = entries_of(*[(i, NO_FACE if i % 4 == 0 else i % 5) for i in range(4000)])
    shown, none = hide_faces(entries, 0.0), hide_faces(entries, 1.0)
    assert (shown.track == entries.track).all()
    assert not none.visible.any()
    some, again = hide_faces(entries, 0.3, seed=5), hide_faces(entries, 0.3, seed=5)
    assert (some.window == entries.window).all()
    assert (some.track == again.track).all()
    assert (some.track != hide_faces(entries, 0.3, seed=6).track).any()
    left = some.track[entries.visible] != NO_FACE
    assert left.mean() == pytest.approx(0.7, abs=0.03)
    kept = some.visible
    assert (some.track[kept] == entries.track[kept]).all()
    # the more are hidden, the fewer of the others are left
    assert not (hide_faces(entries, 0.6, seed=5).visible & ~some.visible).any()


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(ValueError, match="rate of missing faces"):
        hide_faces(entries_of((0, 1)), rate)


# ---------------------------------------------------------------------------------------- looks

LOOKS = looks_of(
    (1, 0, [1, 0]), (1, 25, [3, 0]), (1, 50, [5, 4]), (1, 200, [7, 7]), (4, 25, [0, 8])
)


def test_faces_are_means_of_the_looks_within():
    windows = windows_of((0, 1), (0, 1.04), (1, 2.04), (2.5, 4), (6, 7))
    entries = entries_of((0, 1), (1, 1), (1, 4), (2, 1), (3, 1), (4, 1), (4, 2), (4, NO_FACE))
    faces, visible = entry_faces(windows, entries, LOOKS)
    assert faces.dtype == np.float32
    expected = [
        [1, 0],  # the end of a window is not within it
        [2, 0],
        [0, 8],
        [4, 2],
        [5, 4],  # none within: that at 2 s is nearer than that at 8 s
        [7, 7],  # one second after the end of the window
        [0, 0],  # never looked at
        [0, 0],
    ]
    np.testing.assert_allclose(faces, expected)
    assert visible.tolist() == [True] * 6 + [False] * 2


def test_faces_of_another_time_are_none():
    windows = windows_of((3.04, 4), (5, 6.96), (9.04, 10), (40, 42))
    faces, visible = entry_faces(windows, entries_of((0, 1), (1, 1), (2, 1), (3, 1)), LOOKS)
    assert not visible.any()
    assert not faces.any()


def test_a_random_look_within():
    windows, entries = windows_of((0, 2.04), (2.5, 4)), entries_of((0, 1), (0, 4), (1, 1))
    drawn = [entry_faces(windows, entries, LOOKS, "random", seed)[0] for seed in range(40)]
    within = [[1, 0], [3, 0], [5, 4]]
    assert {tuple(faces[0]) for faces in drawn} == {tuple(one) for one in within}
    assert all(faces[1:].tolist() == [[0, 8], [5, 4]] for faces in drawn)
    again, visible = entry_faces(windows, entries, LOOKS, "random", 7)
    assert (again == drawn[7]).all()
    assert visible.all()
    with pytest.raises(ValueError, match='pick must be "mean" or "random"'):
        entry_faces(windows, entries, LOOKS, "best")


def test_faces_may_be_pictures():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    looks = FaceSamples(np.array([0, 0]), np.array([0, 10]), pictures)
    faces, visible = entry_faces(windows_of((0, 1)), entries_of((0, 0), (0, NO_FACE)), looks)
    assert faces.shape == (2, 4, 4, 3)
    # not wrapped at 256
    np.testing.assert_allclose(faces[0], pictures.astype(float).mean(axis=0))
    assert not faces[1].any()
    assert visible.tolist() == [True, False]


def test_nobody_was_looked_at():
    windows, entries = windows_of((0, 1), (1, 2)), entries_of((0, 1), (1, NO_FACE))
    for empty in (looks_of(), looks_of()._replace(vector=np.zeros((0, 0), np.float32))):
        faces, visible = entry_faces(windows, entries, empty)
        assert faces.shape == (2, *empty.vector.shape[1:])
        assert not visible.any()
        faces, visible = all_faces(windows, empty)
        assert faces.shape == (2, *empty.vector.shape[1:])
        assert not visible.any()


def test_all_faces_are_means_of_everybody():
    windows = windows_of((0, 1), (1, 2.04), (3, 4))
    faces, visible = all_faces(windows, LOOKS)
    np.testing.assert_allclose(faces, [[1, 0], [8 / 3, 4], [0, 0]])
    assert visible.tolist() == [True, True, False]


# ------------------------------------------------------------------------------------- relations


def test_faces_in_the_picture_together_are_apart():
    tracks = tracks_of(
        (1, 0, [1.0] * 50), (2, 45, [1.0] * 50), (3, 46, [1.0] * 50), (8, 100, [1.0] * 5)
    )
    entries = entries_of((0, 1), (0, NO_FACE), (1, 2), (1, 3), (2, 1), (2, 8), (3, 2))
    # 1 and 2 share five frames, 1 and 3 four; 2 and 3 nearly all; 8 comes later
    assert at_once(entries, tracks).tolist() == [[0, 2], [0, 6], [2, 3], [2, 4], [3, 6], [4, 6]]
    assert at_once(entries_of((0, NO_FACE), (1, NO_FACE)), tracks).shape == (0, 2)


def test_faces_seen_now_and_then_are_together_where_both_are():
    often, seldom = [1.0, None] * 20, [None, 1.0] * 20
    entries = entries_of((0, 1), (1, 2))
    assert not len(at_once(entries, tracks_of((1, 0, often), (2, 0, seldom))))
    assert len(at_once(entries, tracks_of((1, 0, often), (2, 0, often))))


@given(st.integers(0, 999), st.sampled_from([25, 60]))
@settings(max_examples=50, deadline=None)
def test_faces_are_together_that_share_five_frames(seed, rate):
    rng = np.random.default_rng(seed)
    parts = [np.sort(rng.choice(rate, rng.integers(1, 20), False)) / rate for _ in range(5)]
    time, track = np.concatenate(parts), np.repeat(range(5), [len(part) for part in parts])
    tracks = FaceTracks(time, track, np.tile([0.1, 0.1, 0.3, 0.4], (len(time), 1)))
    entries = entries_of(*[(i, rng.integers(-1, 5)) for i in range(8)])
    frames = [set(np.round(part * RATE).astype(int).tolist()) for part in parts]
    expected = [
        [i, j]
        for i, a in enumerate(entries.track)
        for j, b in enumerate(entries.track)
        if i < j and a != b and NO_FACE not in (a, b) and len(frames[a] & frames[b]) >= 5
    ]
    assert at_once(entries, tracks).tolist() == expected


def test_entries_of_one_track_are_the_same():
    entries = entries_of((0, 5), (0, NO_FACE), (1, 2), (2, 5), (3, 5), (4, NO_FACE), (5, 2))
    assert same_track(entries).tolist() == [[0, 3], [0, 4], [2, 6], [3, 4]]


# ---------------------------------------------------------------------------------------- turns


def test_nobody_goes_to_the_nearest():
    windows = windows_of((0, 1), (1, 2), (2, 3), (3, 4), (8, 9))
    entries = entries_of((0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (4, 1))
    clusters = np.array([NOBODY, 7, NOBODY, NOBODY, 2, NOBODY])
    # 2.5 s is as far from 1.5 s as from 3.5 s: the one before
    assert settle(windows, entries, clusters).tolist() == [0, 0, 0, 1, 1, 1]
    assert settle(windows, entries, np.full(6, NOBODY)).tolist() == [0] * 6
    assert clusters.tolist() == [NOBODY, 7, NOBODY, NOBODY, 2, NOBODY]


def test_speakers_are_numbered_as_they_appear():
    windows, entries = windows_of(*[(i, i + 1) for i in range(5)]), entries_of(*enumerate([1] * 5))
    assert settle(windows, entries, np.array([3, 0, 3, 9, 0])).tolist() == [0, 1, 0, 2, 1]


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=30),
    st.permutations(range(6)),
    st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_names_of_clusters_do_not_matter(clusters, names, seed):
    rng = np.random.default_rng(seed)
    clusters = np.array(clusters)
    borders = np.cumsum(rng.uniform(0.1, 2, len(clusters) + 1))
    windows = Windows(*[np.stack([borders[:-1], borders[1:]], axis=1)] * 2)
    entries = entries_of(*[(i, 0) for i in range(len(clusters))])
    renamed = np.where(clusters == NOBODY, NOBODY, np.array(names)[clusters])
    speakers = settle(windows, entries, clusters)
    assert (settle(windows, entries, renamed) == speakers).all()
    # those that are known stay together, and apart
    known = clusters != NOBODY
    pairs = clusters[known][:, None] == clusters[known]
    assert ((speakers[known][:, None] == speakers[known]) == pairs).all()
    _, first = np.unique(speakers, return_index=True)
    assert (np.diff(first) > 0).all()
    assert set(speakers) == set(range(max(1, len(set(clusters[known])))))


@st.composite
def conversations(draw) -> Annotation:
    """Turns longer than a window of 2 s, one after the other, some with pauses before them"""
    reference, time = Annotation(uri="talk"), 0.0
    for turn in range(draw(st.integers(1, 8))):
        time += draw(st.sampled_from([0.0, 0.0, 0.5, 3.0]))
        length = draw(st.integers(210, 900)) / 100
        name = draw(st.sampled_from("abc"))
        reference[Segment(time, time + length), turn] = name
        time += length
    return reference.support()


@given(conversations(), st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_perfect_clusters_make_the_reference(reference, step):
    windows = cut_windows(reference.get_timeline().support(), 2.0, step)
    middles = windows.own.mean(axis=1).tolist()
    names = [reference.argmax(Segment(t - 1e-3, t + 1e-3)) for t in middles]
    assume(None not in names)
    entries = entries_of(*[(i, NO_FACE) for i in range(len(windows))])
    turns = turns_of(windows, entries, names, "talk")
    assert turns.uri == "talk"
    assert turns.get_timeline().support() == reference.get_timeline().support()
    true = list(reference.itertracks(yield_label=True))
    found = list(turns.itertracks(yield_label=True))
    assert [label for *_, label in found] == [label for *_, label in true]
    for (one, *_), (other, *_) in zip(found, true, strict=True):
        # up to half of the time from one window to the next, and of the last two to each other
        assert abs(one.start - other.start) <= step / 2 + 1e-6
        assert abs(one.end - other.end) <= step / 2 + 1e-6


def test_two_speakers_of_a_window_overlap():
    windows = windows_of((0, 1), (1, 2), (2, 3), (5, 6))
    entries = entries_of((0, 4), (1, 4), (1, 9), (2, 4), (2, 9), (3, 9))
    turns = turns_of(windows, entries, ["a", "a", "b", "a", "a", "b"])
    assert turns.get_overlap() == Timeline([Segment(1, 2)])
    # entries of one speaker are no overlap, windows that touch are one turn
    assert turns.label_timeline("a") == Timeline([Segment(0, 3)])
    assert turns.label_timeline("b") == Timeline([Segment(1, 2), Segment(5, 6)])


def test_every_entry_has_a_name():
    with pytest.raises(ValueError, match="zip"):
        turns_of(windows_of((0, 1)), entries_of((0, 1)), [])
