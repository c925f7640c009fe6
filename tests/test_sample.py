"""The sample file: what is in it, and that picture, sound and reference agree."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from pyannote.database.util import load_rttm

pytest.importorskip("skimage", reason="the sample needs scikit-image: pip install '.[sample]'")

from pyannote_av.core.tracks import FaceTracks
from pyannote_av.simulation.portrait import act, loudness
from pyannote_av.simulation.sample import _inside, sample


@pytest.fixture(scope="module", name="made")
def made_of_the_run(request) -> dict[str, Path]:
    return request.getfixturevalue("sample")


@pytest.fixture(scope="module")
def frames(made) -> np.ndarray:
    """(T, H, W, 3) uint8 RGB, every picture of the file."""
    with av.open(str(made["video"])) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.fixture(scope="module")
def tracks(made) -> FaceTracks:
    return FaceTracks.read(made["tracks"])


@pytest.fixture(scope="module")
def lip_motion(frames, tracks) -> np.ndarray:
    """(2, T - 1) mean change around the mouth from one picture to the next, per face."""
    height, width = frames.shape[1:3]
    motion = []
    for track in tracks.tracks:
        left, right = tracks.of(track).landmarks[0, 3:] * [width, height]
        size = right[0] - left[0]
        x = slice(int(left[0]), int(right[0]))
        y = slice(int(left[1] - 0.3 * size), int(left[1] + 0.8 * size))
        mouth = frames[:, y, x].mean(axis=3)
        motion.append(np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2)))
    return np.stack(motion)


def test_streams_and_duration(made):
    with av.open(str(made["video"])) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 640, 360)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 16000, 1)
        assert float(video.average_rate) == 25
        pts = [float(frame.time) for frame in container.decode(video)]
    np.testing.assert_allclose(pts, np.arange(750) / 25, atol=1e-6)


def test_nothing_unfinished_is_left_behind(made):
    assert sorted(path.name for path in made["video"].parent.iterdir()) == [
        "sample.mp4",
        "sample.rttm",
        "sample.tracks.npz",
    ]


def test_sound_is_pyannotes_sample_without_delay(made):
    from scipy.io import wavfile

    from pyannote_av.core.io import Video
    from pyannote_av.simulation.sample import _recording

    _, original = wavfile.read(_recording()[0])
    decoded = Video().waveform(made["video"])[0].numpy()
    assert abs(len(decoded) - len(original)) < 2048
    window = original[160_000:320_000].astype(float)
    scores = [np.dot(window, decoded[160_000 + lag : 320_000 + lag]) for lag in range(-50, 51)]
    assert abs(int(np.argmax(scores)) - 50) <= 1


def test_reference_tracks_agree_with_the_rttm(made, tracks):
    reference = load_rttm(made["rttm"])["sample"]
    assert tracks.uri == "sample"
    assert tracks.frame_size == (640, 360)
    assert sorted(tracks.speaker.values()) == sorted(reference.labels())
    for track, speaker in tracks.speaker.items():
        one = tracks.of(track)
        turns = reference.label_timeline(speaker)
        # away from the very edges of turns
        for time, label in zip(one.time, one.label, strict=True):
            inside = any(turn.start <= time < turn.end for turn in turns)
            edge = any(min(abs(time - t.start), abs(time - t.end)) < 1e-3 for t in turns)
            assert edge or (label == 1) == inside


def test_a_detector_finds_both_faces_where_the_reference_says(frames, tracks):
    import torch
    from facenet_pytorch import MTCNN

    torch.manual_seed(0)
    picked = frames[::50]
    boxes, _ = MTCNN(keep_all=True, min_face_size=60).detect(
        [np.ascontiguousarray(f) for f in picked]
    )
    found = []
    for index, detected in enumerate(boxes):
        detected = np.zeros((0, 4)) if detected is None else detected / [640, 360, 640, 360]
        for track in tracks.tracks:
            truth = tracks.of(track).box[index * 50]
            found.append(max((_iou(box, truth) for box in detected), default=0.0) > 0.6)
    assert np.mean(found) >= 0.9


def _iou(a, b) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_silent_lips_keep_still(lip_motion, tracks):
    for track in tracks.tracks:
        speaking = tracks.of(track).label == 1
        # frames whose neighbours agree: no turn begins or ends there
        steady = np.convolve(speaking, np.ones(9), "same")[1:]
        talks, rests = lip_motion[track][steady == 9], lip_motion[track][steady == 0]
        assert len(talks) > 100
        assert len(rests) > 100
        assert np.mean(talks) > 3 * np.mean(rests)
        assert np.mean(rests) > 0.01  # idle, not frozen


def test_lips_move_with_the_sound(made, frames, tracks):
    """How dark the mouth is follows the loudness of its speaker, best at no delay."""
    from pyannote_av.core.io import Video

    reference = load_rttm(made["rttm"])["sample"]
    waveform = Video().waveform(made["video"])[0].numpy()
    for track, speaker in tracks.speaker.items():
        own = _inside(reference.label_timeline(speaker), np.arange(len(waveform)) / 16000)
        loud = loudness(waveform * own, 16000, len(frames))
        corners = tracks.of(track).landmarks[:, 3:] * [640, 360]
        x, y = corners.mean(axis=(0, 1)).astype(int)
        dark = -frames[:, y : y + 16, x - 6 : x + 6].mean(axis=(1, 2, 3))
        scores = [
            np.corrcoef(loud[10:-10], np.roll(dark, -lag)[10:-10])[0, 1] for lag in range(-5, 6)
        ]
        assert np.argmax(scores) == 5
        assert scores[5] > 0.8


@pytest.mark.slow
def test_it_is_the_same_every_time_and_cached(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PYANNOTE_AV_CACHE", str(tmp_path / "not" / "there"))
    first = sample()
    for path in made.values():
        assert first.with_name(path.name).read_bytes() == path.read_bytes()
    changed = first.stat().st_mtime_ns
    assert sample() == first
    assert first.stat().st_mtime_ns == changed


def test_silence_leaves_the_mouth_closed():
    assert not loudness(np.zeros(16000), 16000, 25).any()
    motion = act(np.zeros(250), np.random.default_rng(0))
    assert motion.mouth.max() < 0.1
    assert motion.blink.max() == 1


def test_without_scikit_image_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['skimage'] = sys.modules['skimage.data'] = None\n"
        "from pyannote_av.simulation.sample import make_sample\n"
        f"make_sample({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "pip install 'pyannote-av[sample]'" in done.stderr
    assert not list(tmp_path.iterdir())
