"""Face identity: weights from a local file, a few good looks per track."""

import sys

import numpy as np
import pytest

from pyannote_av.core import weights
from pyannote_av.vision.crops import cut
from pyannote_av.vision.identity import (
    DlibResnet,
    FaceEmbedder,
    FaceSampler,
    InceptionResnet,
    Pictures,
    dlib_models,
    face_box,
    get_embedder,
    good,
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
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", "")


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
    with pytest.raises(ValueError, match=r'"auto", "facenet-vggface2", "dlib-resnet".*arcface'):
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
    assert get_embedder("auto").name == get_embedder("dlib-resnet").name == "dlib-resnet"
    # where there is a choice
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(checkpoint.parent))
    assert get_embedder("auto").name == "facenet-vggface2"


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
    """One person: as is, from farther away, off the middle, in the dark, blurred, mirrored"""
    import cv2

    def view(image, box, grown=0.0, shift=0.0) -> np.ndarray:
        box = np.array(box) + np.array([shift - grown, shift - grown, shift + grown, shift + grown])
        return cut(image, face_box(box, image.shape), size)

    image, width = portrait.image, portrait.image.shape[1]
    x1, y1, x2, y2 = box = np.array(portrait.box) / np.tile(image.shape[1::-1], 2)
    mirrored = 1 - x2, y1, 1 - x1, y2
    assert width > size
    return [
        view(image, box),
        view(image, box, grown=0.03),
        view(image, box, shift=0.015),
        view(cv2.convertScaleAbs(image, alpha=0.6), box),
        view(cv2.GaussianBlur(image, (0, 0), 1.5), box),
        view(np.ascontiguousarray(image[:, ::-1]), mirrored),
    ]


def test_dlib_tells_two_people_apart(dlib_resnet):
    pytest.importorskip(
        "skimage", reason="the portraits need scikit-image: pip install '.[sample]'"
    )
    from pyannote_av.simulation.faces import public_portraits

    people = [dlib_resnet(np.stack(views(p, dlib_resnet.size))) for p in public_portraits()]
    one, other = people
    same = np.concatenate([(x @ x.T)[np.triu_indices(len(x), 1)] for x in people])
    assert same.min() > 0.7
    assert (one @ other.T).max() < 0.5


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
        collector.update(index, 3, image, row())
        collector.update(index, 4, image, row(confidence=0.2))
    assert embedder.calls == 4
    assert list(collector.compute().means) == [3]
    np.testing.assert_allclose(collector.compute().means[3], [0.5**0.5, 0.5**0.5, 0], atol=1e-6)


def test_the_face_is_what_is_looked_at():
    class Keep(Mean):
        def __call__(self, faces):
            self.faces = faces
            return super().__call__(faces)

    embedder, image = Keep(), np.zeros((360, 640, 3), np.uint8)
    image[108:216, 192:320] = (0, 0, 255)  # 128 x 108 pixels: squared to 128
    FaceSampler(embedder).update(0, 0, image, row())
    assert (embedder.faces[0, 2:-2, 1:-1, 2] == 255).all()
    assert (embedder.faces[0, 0] == 0).all()
