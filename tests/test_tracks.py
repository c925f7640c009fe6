"""FaceTracks: construction, views, annotations, files."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pyannote.core import Segment, Timeline

from pyannote_av.core.tracks import COLUMNS, FaceTracks, Label, TrackSegment


def make(counts=(5, 3), start=0, speaking=True, seed=0, **kwargs) -> FaceTracks:
    """Tracks of `counts` frames each, one after the other from grid index `start`"""
    rng = np.random.default_rng(seed)
    n = sum(counts)
    low = rng.uniform(0, 0.5, (n, 2))
    return FaceTracks(
        time=np.concatenate([start + np.arange(c) for c in counts]) / 25,
        track=np.repeat(np.arange(len(counts)), counts),
        box=np.concatenate([low, low + rng.uniform(0.1, 0.5, (n, 2))], axis=1),
        landmarks=rng.uniform(0, 1, (n, 5, 2)),
        confidence=rng.uniform(0.5, 1, n),
        speaking=rng.normal(0, 3, n) if speaking else None,
        **kwargs,
    )


@st.composite
def any_tracks(draw):
    counts = draw(st.lists(st.integers(1, 8), max_size=4))
    tracks = make(counts or (1,), draw(st.integers(0, 10**5)), draw(st.booleans()))
    if not counts:
        return FaceTracks.empty(uri="nobody")
    names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)
    labels = draw(st.dictionaries(st.sampled_from(tracks.tracks), names))
    size = draw(st.none() | st.tuples(st.integers(1, 8000), st.integers(1, 8000)))
    return FaceTracks(
        *(getattr(tracks, name) for name in ("time", "track", "box")),
        speaking=tracks.speaking,
        label=draw(st.none() | npst.arrays(np.int8, len(tracks), elements=st.integers(-1, 2))),
        speaker=labels,
        uri=draw(st.none() | names),
        frame_size=size,
    )


def test_rows_are_sorted_whatever_the_order():
    tracks = make(label=[0, 1, 2, -1, 1, 0, 1, 2])
    order = np.random.default_rng(0).permutation(len(tracks))
    shuffled = FaceTracks(**{name: getattr(tracks, name)[order] for name in COLUMNS})
    assert shuffled == tracks
    assert (np.diff(shuffled.track) >= 0).all()
    assert tracks != make(seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": [[0.5, 0.1, 0.2, 0.2]]}, "row 0"),
        ({"box": [[10, 20, 110, 150]]}, "divide pixels"),
        ({"box": [[0.1, 0.1, np.nan, 0.2]]}, "row 0"),
        ({"time": [np.inf]}, "row 0"),
        ({"box": [[0.1, 0.2, 0.3]]}, "box must be"),
        ({"confidence": [1.0, 1.0]}, "confidence must be"),
        ({"speaker": {7: "A"}}, r"do not exist: \[7\]"),
        ({"label": [3]}, r"row 0 .*label 3 must be one of -1 \(UNKNOWN\), 0 \(NOT_SPEAKING\)"),
        ({"label": [0.5]}, "label must be whole numbers"),
        ({"label": np.array([257])}, "label must be whole numbers"),
        ({"label": [1, 1]}, "label must be"),
    ],
)
def test_wrong_content_is_refused(change, message):
    content = {"time": [0.0], "track": [0], "box": [[0.1, 0.1, 0.2, 0.2]]}
    FaceTracks(**content)
    with pytest.raises(ValueError, match=message):
        FaceTracks(**{**content, **change})


def test_a_track_is_in_one_place_at_a_time():
    with pytest.raises(ValueError, match=r"track 3 is listed twice at 1\.000 s"):
        FaceTracks(time=[1, 1], track=[3, 3], box=[[0, 0, 1, 1]] * 2)


def test_views_share_memory():
    tracks = make(speaking=False, speaker={1: "A"})
    one = tracks.of(1)
    assert one.tracks == [1]
    assert one.speaker == {1: "A"}
    one.speaking[:] = 2.0
    assert (tracks.speaking[5:] == 2.0).all()
    assert np.isnan(tracks.speaking[:5]).all()
    assert tracks.of(0).speaker == {}
    with pytest.raises(KeyError, match="no track 9"):
        tracks.of(9)


def test_crop_and_labels():
    tracks = make((10, 10), speaker={0: "A", 1: "B"})
    assert len(tracks.crop(Segment(0.08, 0.16))) == 4
    assert len(tracks.crop(Timeline([Segment(0, 0.04), Segment(0.36, 9)]))) == 4
    assert not tracks.crop(Segment(5, 6))
    assert tracks.crop(Segment(5, 6)).speaker == {}
    assert tracks.relabel({"A": "C"}).speaker == {0: "C", 1: "B"}
    assert tracks.with_speakers({1: "A"}).speaker == {1: "A"}
    assert tracks.speaker == {0: "A", 1: "B"}


def test_annotations():
    index = np.array([0, 1, 2, 4, 5, 20, 21])
    tracks = FaceTracks(
        time=index / 25,
        track=np.full(7, 4),
        box=[[0, 0, 1, 1]] * 7,
        speaking=[1, 1, -1, 1, np.nan, 0.5, 2],
        speaker={4: "A"},
        uri="file",
    )
    presence = tracks.to_annotation()
    assert presence.uri == "file"
    assert presence.labels() == [4]
    assert list(presence.get_timeline()) == [Segment(0, 0.24), Segment(0.8, 0.88)]
    assert next(iter(tracks.to_annotation(max_gap=0).get_timeline())) == Segment(0, 0.12)
    speaking = tracks.speaking_annotation(by="speaker")
    assert speaking.labels() == ["A"]
    assert list(speaking.get_timeline()) == [
        Segment(0, 0.08),
        Segment(0.16, 0.2),
        Segment(0.8, 0.88),
    ]
    assert len(tracks.speaking_annotation(threshold=1.5)) == 1
    assert not tracks.with_speakers({}).to_annotation(by="speaker")
    with pytest.raises(ValueError, match="by must be"):
        tracks.to_annotation(by="face")


@given(any_tracks())
@settings(max_examples=40, deadline=None)
def test_presence_lasts_as_long_as_there_are_rows(tracks):
    presence = tracks.to_annotation(max_gap=0.0)
    assert sum(s.duration for s, _ in presence.itertracks()) == pytest.approx(len(tracks) / 25)
    whole = Segment(0, 1e4)
    union = presence.get_timeline().support().duration()
    assert tracks.coverage(whole) == pytest.approx(union / 1e4)


def test_coverage_of_nothing():
    assert FaceTracks.empty().coverage(Segment(0, 1)) == 0.0
    assert make().coverage(Timeline()) == 0.0


@given(any_tracks())
@settings(max_examples=40, deadline=None)
def test_npz_is_exact(tmp_path_factory, tracks):
    path = tmp_path_factory.mktemp("npz") / "tracks.npz"
    tracks.write(path)
    assert FaceTracks.read(path) == tracks
    assert [p.name for p in path.parent.iterdir()] == ["tracks.npz"]


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
@given(tracks=any_tracks())
@settings(max_examples=30, deadline=None)
def test_json_round_trip(tmp_path_factory, suffix, tracks):
    path = tmp_path_factory.mktemp("json") / f"tracks{suffix}"
    tracks.write(path)
    back = FaceTracks.read(path)
    assert (back.speaker, back.uri, back.frame_size) == (
        tracks.speaker,
        tracks.uri,
        tracks.frame_size,
    )
    assert (back.track == tracks.track).all()
    np.testing.assert_allclose(back.time, tracks.time, atol=1e-9)
    np.testing.assert_allclose(back.box, tracks.box, atol=1e-5)
    np.testing.assert_allclose(back.speaking, tracks.speaking, atol=1e-3)
    assert (back.label == tracks.label).all()
    # reading and writing once more changes nothing
    back.write(path)
    assert FaceTracks.read(path) == back


def test_json_can_be_read_by_people(tmp_path):
    make(speaker={1: "SPEAKER_00"}, uri="clip", frame_size=(640, 360)).write(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text()
    content = json.loads(text)
    assert list(content) == ["uri", "frame_rate", "frame_size", "tracks"]
    assert content["frame_rate"] == 25
    first, second = content["tracks"]
    assert list(second) == [
        *("id", "speaker", "start", "end", "times", "boxes"),
        *("confidence", "speaking", "landmarks"),
    ]
    assert (second["id"], second["speaker"], second["start"], second["end"]) == (
        *(1, "SPEAKER_00"),
        *(0.0, 0.12),
    )
    assert first["speaker"] is None
    # one line a key: not one number a line, not everything on one line
    assert len(text.splitlines()) == 5 + 2 * 11 + 2


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@given(tracks=any_tracks())
@settings(max_examples=30, deadline=None)
def test_csv_round_trip(tmp_path_factory, suffix, tracks):
    path = tmp_path_factory.mktemp("csv") / f"tracks{suffix}"
    tracks.write(path)
    back = FaceTracks.read(path)
    assert (back.track == tracks.track).all()
    np.testing.assert_allclose(back.time, tracks.time, atol=1e-9)
    np.testing.assert_allclose(back.box, tracks.box, rtol=1e-5)
    np.testing.assert_array_equal(back.speaking, tracks.speaking)
    assert (back.label == tracks.label).all()
    named = {t: s for t, s in tracks.speaker.items() if not s.endswith("NA")}
    assert back.speaker == named


AVA = """\
movie,900.17,0.36,0.01,0.83,0.68,NOT_SPEAKING,movie_0900_0960:4,02NA
movie,900.21,0.36,0.01,0.83,0.68,SPEAKING_AUDIBLE,movie_0900_0960:4,02spk01
movie,900.21,0.06,0.01,0.23,0.28,SPEAKING_NOT_AUDIBLE,movie_0900_0960:1,02NA
"""


def test_ava_csv(tmp_path):
    with gzip.open(tmp_path / "movie.csv.gz", "wt") as file:
        file.write("video_id,frame_timestamp,x1,y1,x2,y2,label,entity_id,spkid\n" + AVA)
    tracks = FaceTracks.read(tmp_path / "movie.csv.gz")
    assert tracks.uri == "movie"
    assert tracks.track.tolist() == [0, 0, 1]
    assert tracks.label.tolist() == [0, 1, 2]
    assert np.isnan(tracks.speaking).all()
    assert tracks.speaker == {0: "02spk01"}


def test_columns_of_a_csv_are_found_by_their_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "score,entity_id,label,video_id,frame_timestamp,"
        "entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,mood\n"
        "0.25,a:7,,a,1.5,0.1,0.2,0.3,0.4,calm\n"
        ",a:7,SPEAKING_AUDIBLE,a,1.54,0.1,0.2,0.3,0.4,calm\n"
    )
    expected = FaceTracks(
        time=[1.5, 1.54],
        track=[7, 7],
        box=[[0.1, 0.2, 0.3, 0.4]] * 2,
        speaking=[0.25, np.nan],
        label=[Label.UNKNOWN, Label.SPEAKING_AUDIBLE],
        uri="a",
    )
    assert FaceTracks.read(path) == expected
    expected.write(path)
    assert path.read_text().splitlines()[0] == (
        "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,"
        "label,entity_id,score"
    )
    assert FaceTracks.read(path) == expected


def test_files_without_labels_can_still_be_read(tmp_path):
    tracks = make(label=[1] * 8)
    tracks.write(tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as content:
        older = {name: value for name, value in content.items() if name != "label"}
    np.savez(tmp_path / "t.npz", **older)
    assert (FaceTracks.read(tmp_path / "t.npz").label == Label.UNKNOWN).all()
    del (content := tracks.to_dict())["tracks"][1]["label"]
    (tmp_path / "t.json").write_text(json.dumps(content))
    assert FaceTracks.read(tmp_path / "t.json").label.tolist() == [1] * 5 + [-1] * 3


def test_labels_follow_their_rows():
    tracks = make(label=[0, 1, 2, -1, 1, 0, 1, 2])
    assert tracks.of(1).label.tolist() == [0, 1, 2]
    assert tracks.crop(Segment(0, 0.08)).label.tolist() == [0, 1, 0, 1]
    assert tracks != make(label=[0] * 8)


def test_csv_of_several_videos(tmp_path):
    path = tmp_path / "movies.csv"
    path.write_text(AVA + AVA.replace("movie,", "other,"))
    with pytest.raises(ValueError, match=r"movies\.csv, line 4: a second video, 'other'"):
        FaceTracks.read(path)
    assert len(FaceTracks.read(path, uri="other")) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", AVA + "movie,1,2\n", "t.csv, line 4: 3 fields"),
        ("t.csv", AVA.replace("900.21,0.06", "soon,0.06"), "t.csv, line 3: .*soon"),
        ("t.csv", AVA.replace("NOT_SPEAKING", "MUMBLING"), "t.csv, line 1: unknown label"),
        ("t.csv", AVA.replace("0.83,0.68", "0.03,0.68"), "t.csv: row 0"),
        ("t.csv", "video_id,label,entity_id\n", "t.csv, line 1: no column frame_timestamp"),
        ("t.csv", AVA[: AVA.index("\n")] + ",1,2\n", "t.csv, line 1: 11 fields where 8 or 9"),
        ("t.json", '{"uri": "a",\n "tracks": [', "t.json, line 2"),
        ("t.json", '{"turns": []}', "t.json: not a file of face tracks, no 'tracks'"),
        ("t.json", '{"tracks": [{"id": 1, "times": [0, 1], "boxes": [[0, 0, 1, 1]]}]}', "2 times"),
        ("t.json", "[1]", "t.json"),
        ("t.npz", "not a zip", "t.npz: not a file of face tracks"),
        ("t.txt", "", "t.txt: face tracks are"),
    ],
)
def test_errors_name_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        FaceTracks.read(tmp_path / name)


def test_missing_file(tmp_path):
    for suffix in (".npz", ".json", ".csv.gz"):
        with pytest.raises(FileNotFoundError):
            FaceTracks.read(tmp_path / f"nothing{suffix}")


def test_npz_with_pickle_is_not_executed(tmp_path):
    np.savez(tmp_path / "evil.npz", time=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match=r"evil\.npz"):
        FaceTracks.read(tmp_path / "evil.npz")


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    tracks = make()
    path = tmp_path / "t.json"
    tracks.write(path)
    before = path.read_bytes()
    tracks.speaker = {0: object()}  # cannot be written
    with pytest.raises(TypeError):
        tracks.write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_embeddings_stay_in_memory(tmp_path):
    tracks = make()
    tracks.embeddings = {0: np.ones(4, "f4") / 2}
    for suffix in ("npz", "json", "csv"):
        tracks.write(tmp_path / f"t.{suffix}")
        assert not FaceTracks.read(tmp_path / f"t.{suffix}").embeddings
    assert "embeddings" not in json.dumps(tracks.to_dict())
    assert list(tracks.take(tracks.track == 0).embeddings) == [0]
    assert not tracks.of(1).embeddings


def test_repr():
    assert repr(make(uri="clip")) == "<FaceTracks clip: 2 tracks, 8 boxes, 0.00-0.16 s>"
    assert repr(FaceTracks.empty()) == "<FaceTracks : 0 tracks, 0 boxes>"


def test_notebook():
    pytest.importorskip("IPython")
    assert "<table>" in make()._repr_html_()


def test_track_segment():
    segment = TrackSegment(0, 50, np.zeros((3, 4, 4), np.uint8), np.ones(3, bool))
    assert (len(segment), segment.end, segment.times.tolist()) == (3, 53, [2.0, 2.04, 2.08])
    with pytest.raises(ValueError, match="present"):
        TrackSegment(0, 0, np.zeros((3, 4, 4), np.uint8), np.ones(2, bool))
    with pytest.raises(ValueError, match="uint8"):
        TrackSegment(0, 0, np.zeros((3, 4, 4)), np.ones(3, bool))


def test_public_annotations_can_be_read(shared_data):
    path = min((shared_data / "annotations/ava_avd/tracks").glob("*.csv.gz"))
    tracks = FaceTracks.read(path)
    assert len(tracks.tracks) > 10
    assert set(tracks.label.tolist()) == {0, 1, 2}
    assert np.isnan(tracks.speaking).all()
    assert tracks.frame_rate == pytest.approx(30, abs=0.3)
