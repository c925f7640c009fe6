"""The face tracking pipeline on generated videos of two real faces."""

import threading
import warnings
from functools import partial

import numpy as np
import pytest
from media import write_media
from pyannote.core import Segment
from test_detection import astronaut, grace_hopper

from pyannote_av.core.pictures import Picture, on_grid
from pyannote_av.fusion.identities import find_identities
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.crops import crop_video
from pyannote_av.vision.detection import Detections, YuNet, get_detector
from pyannote_av.vision.identity import SAME_PERSON, FaceSampler, Pictures
from pyannote_av.vision.streaming import MAX_FACES, DetectionPass, KnownPass
from pyannote_av.vision.tracking import Tracker

WIDTH, HEIGHT = 480, 270
SIDE = 200  # pixels of the pasted portraits
CUT = 2.4


def portraits() -> list[np.ndarray]:
    import cv2

    one, other = astronaut()[10:260, 100:350], grace_hopper()[60:410, 90:440]
    return [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in (one, other)]


def place(face: int, t: float) -> tuple[int, int]:
    """Upper left corner of a portrait"""
    if t < CUT:
        return (round(10 + 12 * t), 20) if face == 0 else (round(260 - 10 * t), round(40 + 8 * t))
    return (250, round(60 - 10 * (t - CUT)))


def draw(t: float) -> np.ndarray:
    """Two people; from CUT on another shot, of the second one alone, in the place of the first"""
    rng = np.random.default_rng(int(t >= CUT))
    image = np.kron(rng.integers(40, 160, (9, 16, 3)), np.ones((30, 30, 1))).astype(np.uint8)
    for face in (0, 1) if t < CUT else (1,):
        x, y = place(face, t)
        image[y : y + SIDE, x : x + SIDE] = PORTRAITS[face]
    return image


PORTRAITS = portraits()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return write_media(path, duration=4.0, size=(WIDTH, HEIGHT), draw=draw, audio=False)


class Segments(list):
    """A collector that keeps all segments."""

    def update(self, segment):
        self.append(segment)

    def compute(self):
        return list(self)


@pytest.fixture(scope="module", params=["yunet", pytest.param("mtcnn", marks=pytest.mark.slow)])
def pipeline(request):
    pipeline = FaceTracking(detector=request.param, embedder=None)
    pipeline.instantiate(pipeline.default_parameters())
    return pipeline


@pytest.fixture(scope="module")
def result(film, pipeline):
    segments = Segments()
    tracks = pipeline(film, collectors=[segments])
    return tracks, segments


def test_three_tracks(result):
    tracks, _ = result
    assert tracks.uri == "film"
    assert tracks.frame_size == (WIDTH, HEIGHT)
    spans = [(tracks.of(t).time[0], tracks.of(t).time[-1]) for t in tracks.tracks]
    # from the first picture to the last one before the cut, and from the cut to the end
    np.testing.assert_allclose(spans, [(0, CUT - 0.04)] * 2 + [(CUT, 3.96)], atol=1e-6)
    assert tracks.coverage(Segment(0, 4)) == pytest.approx(1)


def test_boxes_follow_the_faces(result, pipeline):
    tracks, _ = result
    detector = get_detector(pipeline.detector_name)
    still = [detector(p).box[0] * SIDE for p in PORTRAITS]
    # which portrait is which track: by the place
    for track in tracks.tracks:
        one = tracks.of(track)
        middle = (one.box[0, 0] + one.box[0, 2]) / 2
        face = int(one.time[0] >= CUT or middle > 0.5)
        places = np.array([place(face, t) for t in one.time])
        expected = (np.tile(places, 2) + still[face]) / ([WIDTH, HEIGHT] * 2)
        error = np.abs(one.box - expected) * ([WIDTH, HEIGHT] * 2)
        size = still[face][3] - still[face][1]
        assert error.mean() < 0.05 * size
        assert error.max() < 0.15 * size
        mouth = one.landmarks[:, 3:].mean(axis=1)
        assert (mouth > one.box[:, :2]).all()
        assert (mouth < one.box[:, 2:]).all()


def test_statistics(result):
    stats = result[0].stats
    assert (stats.frames, stats.shots, stats.frame_rate) == (100, 2, 25.0)
    assert stats.face_share == 1.0
    assert 60 < stats.face_height < 150
    assert 60 < stats.brightness < 160


def test_crops_are_those_on_demand(result, film):
    tracks, segments = result
    assert sorted(s.track for s in segments) == [0, 1, 2]
    demanded = sorted(crop_video(tracks, film), key=lambda s: s.track)
    for one, other in zip(sorted(segments, key=lambda s: s.track), demanded, strict=True):
        assert (one.track, one.start) == (other.track, other.start)
        np.testing.assert_array_equal(one.crops, other.crops)
        assert one.present.all()
        assert one.crops.shape[1:] == (112, 112)
        np.testing.assert_allclose(one.times, tracks.of(one.track).time, atol=1e-9)


def test_crops_show_the_same_part_of_the_face(result):
    # the portrait is rigid: crops along a track look alike, those of two people do not
    _, segments = result
    means = {s.track: s.crops.astype(float).mean(axis=0) for s in segments}

    def alike(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    for segment in segments:
        for one in segment.crops[::10]:
            likeness = {track: alike(one, mean) for track, mean in means.items()}
            assert likeness[segment.track] > 0.65
            assert min(likeness.values()) < likeness[segment.track] - 0.2
    assert sum(alike(means[track], means[2]) > 0.85 for track in (0, 1)) == 1


class Broken(Segments):
    """A collector that fails."""

    def update(self, segment):
        super().update(segment)
        raise ArithmeticError("no more room")


def test_collectors_run_in_another_thread(film):
    pipeline, where = FaceTracking(embedder=None), []

    class Where(Segments):
        def update(self, segment):
            where.append(threading.current_thread())

    pipeline(film, collectors=[Where()])
    assert len(where) > 1
    assert len(set(where)) == 1
    assert where[0] is not threading.current_thread()
    assert not where[0].is_alive()


def test_collector_that_fails(film):
    broken, last = Broken(), Segments()
    before = threading.active_count()
    with pytest.raises(ArithmeticError, match="no more room"):
        FaceTracking(embedder=None)(film, collectors=[broken, last])
    assert broken
    assert not last
    assert threading.active_count() == before


def test_crops_of_a_part(result, film):
    tracks, segments = result
    whole = {s.track: s for s in segments}
    part = list(crop_video(tracks.crop(Segment(1.0, 1.6)), film))
    assert [(s.track, s.start, len(s)) for s in part] == [(0, 25, 15), (1, 25, 15)]
    for segment in part:
        np.testing.assert_array_equal(segment.crops, whole[segment.track].crops[25:40])


def test_lips_on_demand(result, film):
    tracks, _ = result
    lips = list(crop_video(tracks, film, region="lips"))
    assert sum(len(s) for s in lips) == len(tracks)
    assert lips[0].crops.shape[1:] == (96, 96)


def test_known_tracks(result, film, pipeline, tmp_path):
    tracks, segments = result
    path = tmp_path / "tracks.npz"
    tracks.write(path)

    def detector(image):
        raise AssertionError("detector was run")

    known = FaceTracking(detector=detector, embedder=None)
    for file, given in (
        (film, tracks),
        ({"video": film, "face_tracks": tracks}, None),
        ({"video": film, "face_tracks": path}, None),
        (film, str(path)),
    ):
        again = Segments()
        back = known.apply(file, tracks=given, collectors=[again])
        assert back == tracks
        assert back.stats == tracks.stats
        for one, other in zip(
            sorted(segments, key=lambda s: s.track),
            sorted(again, key=lambda s: s.track),
            strict=True,
        ):
            np.testing.assert_array_equal(one.crops, other.crops)
    with pytest.raises(TypeError, match="face_tracks must be"):
        known.apply({"video": film, "face_tracks": 3})


def test_progress(film, pipeline):
    seen = []

    def hook(name, artifact, file=None, total=None, completed=None):
        seen.append((name, total, completed))

    pipeline(film, hook=hook)
    assert {name for name, _, _ in seen} == {"face_tracking"}
    assert {total for _, total, _ in seen} == {4}
    assert [completed for *_, completed in seen] == [0, 1, 2, 3, 4]


def test_video_that_starts_late(tmp_path, pipeline):
    path = write_media(
        tmp_path / "late.mp4",
        duration=3.0,
        size=(WIDTH, HEIGHT),
        video_start=1.2,
        draw=lambda t: draw(0.0),
    )
    segments = Segments()
    tracks = pipeline(path, collectors=[segments])
    assert tracks.time.min() == pytest.approx(1.2, abs=0.041)
    assert tracks.time.max() == pytest.approx(2.96, abs=0.041)
    assert all(s.times[0] == pytest.approx(tracks.time.min()) for s in segments)


def test_low_frame_rate(tmp_path):
    calls = []

    class Counting(YuNet):
        def __call__(self, image):
            calls.append(1)
            return super().__call__(image)

    path = write_media(
        tmp_path / "slow.mp4",
        duration=4.0,
        fps=2,
        size=(WIDTH, HEIGHT),
        draw=lambda t: draw(0.0),
        audio=False,
    )
    pipeline = FaceTracking(detector=Counting(), embedder=None)
    tracks = pipeline.instantiate(pipeline.default_parameters())(path)
    # a picture shown for 12 grid frames is looked at once
    assert len(calls) == 8
    assert tracks.tracks == [0, 1]
    assert tracks.stats.frame_rate == pytest.approx(2, abs=0.1)


def test_without_pictures(tmp_path, pipeline):
    path = write_media(tmp_path / "sound.mp4", duration=1.0, video=False)
    tracks = pipeline(path)
    assert not tracks
    assert tracks.stats.frames == 0


def test_without_faces(tmp_path, pipeline):
    path = write_media(tmp_path / "noone.mp4", duration=1.0)
    segments = Segments()
    tracks = pipeline(path, collectors=[segments])
    assert not tracks
    assert not segments
    assert tracks.stats.frames == 25
    assert tracks.stats.face_share == 0


def test_in_memory(pipeline):
    frames = np.stack([draw(0.0)] * 25)
    tracks = pipeline({"frames": frames, "timestamps": 5 + np.arange(25) / 25, "uri": "memory"})
    assert tracks.uri == "memory"
    assert tracks.tracks == [0, 1]
    assert tracks.time[0] == 5.0


def test_damage_is_told(tmp_path, pipeline):
    from media import truncate

    path = write_media(
        tmp_path / "short.mp4",
        duration=3.0,
        size=(WIDTH, HEIGHT),
        draw=draw,
        faststart=True,
        gop=10,
    )
    truncate(path, 0.6)
    problems = []
    tracks = pipeline(path, problems=problems)
    assert tracks
    assert any("short.mp4" in problem for problem in problems)


class Crowd:
    """Finds `count` faces standing still"""

    name, min_confidence = "crowd", 0.5

    def __init__(self, count):
        self.count = count

    def __call__(self, image):
        x = (np.arange(self.count) + 0.1) / self.count
        size = 0.5 / self.count * (1 + np.arange(self.count) / self.count)
        box = np.stack([x, 0 * x + 0.2, x + size, 0 * x + 0.2 + size], axis=1).astype("f4")
        return Detections(box, np.full((self.count, 5, 2), np.nan, "f4"), np.ones(self.count, "f4"))


def test_bounds(tmp_path):
    """Segments, faces and pictures in memory are limited, whatever the file"""
    path = write_media(tmp_path / "long.mp4", duration=16.0, size=(64, 36), draw=blank, audio=False)
    pipeline = FaceTracking(detector=Crowd(30), embedder=None)
    pipeline.instantiate(pipeline.default_parameters())
    lengths, ends, kept = [], {}, []

    class Ends:
        def update(self, segment):
            lengths.append(len(segment))
            assert segment.start == ends.get(segment.track, 0)
            ends[segment.track] = segment.end

    import pyannote_av.pipelines.face_tracking as module

    class Watched(module.DetectionPass):
        def _process(self, frame, cut):
            super()._process(frame, cut)
            kept.append(len(self._pictures))

    original, module.DetectionPass = module.DetectionPass, Watched
    try:
        tracks = pipeline(path, collectors=[Ends()])
    finally:
        module.DetectionPass = original
    assert max(lengths) == 300
    assert set(ends.values()) == {400}
    assert len(tracks.tracks) == MAX_FACES
    assert max(kept) < 40
    # the largest ones
    assert tracks.box[:, 0].min() > 0.3


def blank(t):
    return np.full((36, 64, 3), 90, np.uint8)


def test_identity(film):
    class Colour:
        name, size = "colour", 16

        def __call__(self, faces):
            assert faces.shape[1:] == (16, 16, 3)
            vector = faces.reshape(len(faces), -1, 3).astype("f4").mean(axis=1) - 90
            return vector / np.linalg.norm(vector, axis=1, keepdims=True)

    pipeline = FaceTracking(detector="mtcnn", embedder=Colour())
    pipeline.instantiate(pipeline.default_parameters())
    assert (pipeline.detector_name, pipeline.embedder_name) == ("mtcnn", "colour")
    tracks = pipeline(film)
    assert sorted(tracks.embeddings) == [0, 1, 2]
    again = pipeline.apply(film, tracks=tracks)
    assert again.embeddings is tracks.embeddings
    tracks.embeddings = {}
    assert sorted(pipeline.apply(film, tracks=tracks).embeddings) == [0, 1, 2]


def test_parameters(film):
    pipeline = FaceTracking(detector="mtcnn", embedder=None)
    assert not pipeline.instantiated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.instantiate({"stride": 12, "max_gap": 0.6, "min_duration": 2.0})
    tracks = pipeline(film)
    # the second shot lasts 1.6 s
    assert tracks.tracks == [0, 1]


@pytest.mark.parametrize(
    ("clip", "detector", "people"),
    [
        pytest.param("several/meeting_table.mp4", "yunet", 2, marks=pytest.mark.slow),
        pytest.param("several/four_way.mp4", "yunet", 5, marks=pytest.mark.slow),
        ("single/person_2.mp4", "yunet", 1),
        ("several/debate_split_1.avi", "yunet", 2),
        pytest.param("several/debate_split_1.avi", "mtcnn", 2, marks=pytest.mark.slow),
    ],
)
def test_real_clips(shared_data, clip, detector, people):
    """Faces visible throughout are one track each, from beginning to end, and nothing else is"""
    pipeline = FaceTracking(detector=detector, embedder=None)
    pipeline.instantiate(pipeline.default_parameters())
    tracks = pipeline(shared_data / "clips" / clip)
    assert len(tracks.tracks) == people
    assert len(tracks) == people * tracks.stats.frames


def test_default_networks(film):
    pipeline = FaceTracking()
    pipeline.instantiate(pipeline.default_parameters())
    assert (pipeline.detector_name, pipeline.embedder_name) == ("yunet", "sface")
    tracks = pipeline(film)
    assert sorted(tracks.embeddings) == [0, 1, 2]
    # the person after the cut is one of the two before it
    distance = [1 - tracks.embeddings[track] @ tracks.embeddings[2] for track in (0, 1)]
    assert min(distance) < SAME_PERSON - 0.2
    assert max(distance) > SAME_PERSON + 0.1
    groups = find_identities(tracks, offset=0, min_face=24, identity_threshold=SAME_PERSON)
    assert sorted(len(one.tracks) for one in groups.identities) == [1, 2]


# ------------------------------------------------------------------------- conversion of pictures


class OneFace:
    """A detector that finds a face in the middle of pictures of one size"""

    name, min_confidence = "one", 0.5

    def __init__(self, long_side: int | None = None):
        self.sizes = set()
        if long_side:
            self.long_side = long_side

    def __call__(self, image):
        self.sizes.add(image.shape[1::-1])
        box = np.array([[0.4, 0.3, 0.6, 0.7]], "f4")
        landmarks = [[0.45, 0.4], [0.55, 0.4], [0.5, 0.5], [0.46, 0.6], [0.54, 0.6]]
        return Detections(box, np.array([landmarks], "f4"), np.array([0.9], "f4"))


def watched(size: tuple[int, int], count: int, converted: list):
    """Frames whose conversions are noted as (index, format, size)"""

    def convert(index, pixels, wanted, filtering):
        converted.append((index, pixels, wanted))
        return np.full((*wanted[::-1], 3)[: 2 if pixels == "gray" else 3], 90, np.uint8)

    pictures = [Picture(k / 25, 0.04, size, partial(convert, k)) for k in range(count)]
    return on_grid(pictures, 25.0)


def test_pictures_are_converted_no_further_than_needed():
    converted, detector = [], OneFace(long_side=160)
    run = DetectionPass(detector, Tracker(0.5))
    for frame in watched((1280, 720), 60, converted):
        run.update(frame)
    assert len(run.finish()) == 60
    thumbnails = [(k, "rgb24", (214, 120)) for k in range(60)]
    # the face is steady
    detections = [(k, "rgb24", (160, 90)) for k in (0, 5, *range(10, 60, 10))]
    assert sorted(converted) == sorted(thumbnails + detections)
    assert detector.sizes == {(160, 90)}


def test_colour_at_full_resolution_is_for_identity_only():
    converted, sampler, segments = [], FaceSampler(Pictures(32), 1.0), Segments()
    run = DetectionPass(OneFace(long_side=160), Tracker(0.5), [segments], sampler)
    for frame in watched((1280, 720), 60, converted):
        run.update(frame)
    tracks = run.finish()
    whole = [(index, pixels) for index, pixels, size in converted if size == (1280, 720)]
    samples = sampler.compute().frame.tolist()
    assert len(samples) == 2
    assert [index for index, pixels in whole if pixels == "rgb24"] == samples
    assert [index for index, pixels in whole if pixels == "gray"] == list(range(60))
    # with known tracks, too; pictures without faces are not even made grey
    converted.clear()
    sampler = FaceSampler(Pictures(32), 1.0)
    run = KnownPass(tracks.crop(Segment(0.8, 1.2)), [segments], sampler)
    for frame in watched((1280, 720), 60, converted):
        run.update(frame)
    run.finish()
    whole = [(index, pixels) for index, pixels, size in converted if size == (1280, 720)]
    samples = sampler.compute().frame.tolist()
    assert [index for index, pixels in whole if pixels == "rgb24"] == samples
    assert [index for index, pixels in whole if pixels == "gray"] == list(range(20, 30))


def test_detectors_of_unknown_needs_get_whole_pictures():
    detector = OneFace()
    run = DetectionPass(detector, Tracker(0.5))
    for frame in watched((1280, 720), 10, []):
        run.update(frame)
    run.finish()
    assert detector.sizes == {(1280, 720)}
