"""Shot boundaries: generated material, cross-checked against PySceneDetect."""

import numpy as np
import pytest
from media import write_media

from pyannote_av.vision.shots import ShotDetector, thumbnail

HEIGHT, WIDTH = 90, 160


def scene(seed: int) -> np.ndarray:
    """A picture with structure at several scales, wider and higher than a frame"""
    import cv2

    rng = np.random.default_rng(seed)
    image = np.zeros((3 * HEIGHT, 3 * WIDTH, 3))
    for cells, weight in ((6, 0.5), (18, 0.3), (54, 0.2)):
        coarse = rng.uniform(0, 255, (cells, cells * 16 // 9, 3)).astype(np.float32)
        image += weight * cv2.resize(coarse, (3 * WIDTH, 3 * HEIGHT), interpolation=cv2.INTER_AREA)
    tint = rng.uniform(0.3, 1.2, 3)
    return np.clip(image * tint, 0, 255).astype(np.uint8)


def shot(seed: int, frames: int, speed: float = 0.0) -> list[np.ndarray]:
    """A camera looking at a scene, moving by `speed` pixels a frame, with noise"""
    rng, image = np.random.default_rng(seed + 1000), scene(seed)
    pictures = []
    for k in range(frames):
        x, y = round(WIDTH + speed * k) % (2 * WIDTH), HEIGHT
        view = image[y : y + HEIGHT, x : x + WIDTH] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
        pictures.append(np.clip(view, 0, 255).astype(np.uint8))
    return pictures


def cuts(pictures) -> list[int]:
    detector = ShotDetector()
    return [index for index, picture in enumerate(pictures) if detector.update(picture)]


@pytest.mark.parametrize("speed", [0.0, 0.5, 2.0])
def test_hard_cuts_are_found_where_they_are(speed):
    pictures = [p for seed in range(8) for p in shot(seed, 30, speed)]
    assert cuts(pictures) == [30 * k for k in range(1, 8)]


def test_short_shots():
    pictures = [p for seed in range(6) for p in shot(seed, 6)]
    assert cuts(pictures) == [6, 12, 18, 24, 30]


def test_nothing_happens():
    assert cuts(shot(0, 100)) == []
    assert cuts(shot(0, 50, speed=3)) == []
    assert cuts([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20) == []
    assert cuts([]) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_flashes_are_no_cuts(length):
    pictures = shot(3, 40)
    for k in range(20, 20 + length):
        pictures[k] = np.clip(pictures[k].astype(int) * 2 + 120, 0, 255).astype(np.uint8)
    assert cuts(pictures) == []
    for k in range(20, 20 + length):
        pictures[k] = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    assert cuts(pictures) == []


def test_light_is_no_cut():
    pictures = [(p * (0.4 if k >= 20 else 1)).astype(np.uint8) for k, p in enumerate(shot(4, 40))]
    assert cuts(pictures) == []


def test_cut_through_black():
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 8
    assert cuts(shot(0, 20) + black + shot(1, 20)) == [28]
    # the same shot again is no new one
    assert cuts(shot(0, 20) + black + shot(0, 20)) == []


@pytest.mark.parametrize("length", [12, 25])
def test_a_dissolve_is_one_cut(length):
    one, other = shot(0, 20 + length), shot(1, length + 30)
    share = np.arange(length) / length
    mixed = [
        ((1 - s) * a + s * b).astype(np.uint8)
        for s, a, b in zip(share, one[20:], other, strict=False)
    ]
    found = cuts(one[:20] + mixed + other[length:])
    assert len(found) == 1
    assert 20 < found[0] < 20 + length + 3


def test_size_does_not_matter():
    import cv2

    pictures = [cv2.resize(p, (1280, 720)) for seed in (5, 6) for p in shot(seed, 10)]
    assert cuts(pictures) == [10]
    assert cuts([thumbnail(p) for p in pictures]) == [10]
    tiny = [cv2.resize(p, (20, 11)) for p in pictures]
    assert cuts(tiny) == [10]


def test_agrees_with_scenedetect(tmp_path):
    scenedetect = pytest.importorskip("scenedetect")
    lengths = [25, 40, 20, 60, 30]  # it takes shorter ones for flashes
    pictures = [p for seed, n in enumerate(lengths) for p in shot(seed, n, speed=0.4)]
    path = write_media(
        tmp_path / "shots.mp4",
        duration=len(pictures) / 25,
        size=(WIDTH, HEIGHT),
        audio=False,
        draw=lambda t: pictures[round(t * 25)],
    )
    theirs = [
        start.frame_num
        for start, _ in scenedetect.detect(str(path), scenedetect.AdaptiveDetector())
    ]
    assert theirs[1:] == np.cumsum(lengths)[:-1].tolist()

    from pyannote_av.core.io import Video

    detector = ShotDetector()
    ours = [f.index for f in Video().frames(path) if detector.update(f.image)]
    assert ours == theirs[1:]


@pytest.mark.parametrize(
    "name",
    [
        "debate_split_1.avi",
        pytest.param("four_way.mp4", marks=pytest.mark.slow),
        pytest.param("meeting_table.mp4", marks=pytest.mark.slow),
    ],
)
def test_real_talk_without_cuts(shared_data, name):
    from pyannote_av.core.io import Video

    path = shared_data / "clips/several" / name
    detector = ShotDetector()
    assert [f.index for f in Video().frames(path) if detector.update(f.image)] == []
