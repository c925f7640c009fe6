"""Synchrony of lips and sound, without trained weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope
from pyannote_av.models.active_speaker.offset import estimate_offset, offset_from_curves
from pyannote_av.models.active_speaker.synchrony import SynchronyScorer, synchrony_curve

FRAMES = 250


def syllables(num_frames, seed):
    """Loudness of a talker at 25 Hz: syllables of random height and length, and pauses."""
    random = np.random.default_rng(seed)
    loudness = np.zeros(num_frames)
    position = 0
    while position < num_frames:
        length = int(random.integers(3, 8))
        bump = np.hanning(length + 2)[1:-1] * random.uniform(0.4, 1.0)
        end = min(num_frames, position + length)
        loudness[position:end] = bump[: end - position]
        position = end + (int(random.integers(5, 15)) if random.random() < 0.15 else 0)
    return loudness


def voice(loudness, seed):
    """Noise with that loudness."""
    random = np.random.default_rng(seed)
    gain = np.repeat(loudness, 640)
    signal = 0.2 * gain * random.standard_normal(len(gain))
    return torch.tensor(signal + 1e-3 * random.standard_normal(len(gain)), dtype=torch.float32)[
        None
    ]


def face(opening, seed, sway=1.0):
    """A textured face that sways; its mouth, a dark bar, opens as told (T,) in [0, 1]."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift

    random = np.random.default_rng(seed)
    texture = gaussian_filter(random.standard_normal((112, 112)), 6)
    texture = 130 + 25 * texture / texture.std()
    path = gaussian_filter1d(random.standard_normal((len(opening), 2)), 10, axis=0) * 4 * sway
    rows, columns = np.mgrid[:112, :112]
    crops = []
    for height, (dy, dx) in zip(2 + 9 * opening, path, strict=True):
        mouth = ((rows - 76) / height) ** 2 + ((columns - 56) / 18) ** 2
        picture = texture - 80 * np.exp(-(mouth**2))
        picture = shift(picture, (dy, dx), order=1, mode="nearest")
        crops.append(picture + random.standard_normal(picture.shape))
    return np.clip(crops, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """A talker, a listener, a talker who is not heard, and the sound of the first."""
    loudness = syllables(FRAMES, 1)
    return {
        "sound": voice(loudness, 2),
        "loudness": loudness,
        "talker": face(loudness, 3),
        "listener": face(np.zeros(FRAMES), 4),
        "other": face(syllables(FRAMES, 5), 6),
    }


ALL = np.ones(FRAMES, bool)


def test_the_one_whose_lips_move_with_the_sound_wins(scene):
    scorer = SynchronyScorer()
    scores = {
        who: scorer(scene["sound"], scene[who], ALL) for who in ("talker", "listener", "other")
    }
    assert scores["talker"].mean() > 0 > scores["listener"].mean()
    assert (scores["talker"] > scores["other"]).mean() > 0.9
    assert (scores["talker"] > scores["listener"]).mean() > 0.99
    assert all(s.dtype == np.float32 and s.shape == (FRAMES,) for s in scores.values())


def test_motion_of_the_head_is_not_motion_of_the_mouth():
    calm = mouth_motion(face(np.zeros(60), 1, sway=0.0))[1:, 0].mean()
    swaying = mouth_motion(face(np.zeros(60), 1, sway=1.0))[1:, 0].mean()
    talking = mouth_motion(face(syllables(60, 1), 1, sway=1.0))[1:, 0].mean()
    assert talking - swaying > 2 * (swaying - calm)


def test_brightness_is_not_motion():
    crops = face(np.zeros(40), 1, sway=0.0).astype(float)
    flicker = 0.8 + 0.2 * np.random.default_rng(0).random(40)
    steady, flickering = (
        mouth_motion(c.astype(np.uint8))[1:, 0].mean()
        for c in (crops, crops * flicker[:, None, None])
    )
    assert flickering - steady < 0.3


def test_absent_frames(scene):
    present = ALL.copy()
    present[60:140] = False
    present[200] = False
    noise = np.random.default_rng(0).integers(0, 256, scene["talker"].shape, dtype=np.uint8)
    other = np.where(present[:, None, None], scene["talker"], noise)
    scorer = SynchronyScorer()
    scores = scorer(scene["sound"], scene["talker"], present)
    assert np.array_equal(np.isnan(scores), ~present)
    np.testing.assert_array_equal(scores, scorer(scene["sound"], other, present))
    assert np.nanmean(scores) > 0


def test_motion_needs_two_pictures_in_a_row():
    present = np.array([True, False, True, True, False, True])
    motion = mouth_motion(face(np.zeros(6), 1), present)
    assert np.isfinite(motion[:, 0]).tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 10])
def test_a_few_frames(scene, num_frames):
    present = np.ones(num_frames, bool)
    sound = scene["sound"][:, : 640 * num_frames]
    scores = SynchronyScorer()(sound, scene["talker"][:num_frames], present)
    assert scores.shape == (num_frames,)
    assert np.isfinite(scores).all()


def test_face_that_is_never_there(scene):
    scores = SynchronyScorer()(scene["sound"], scene["talker"], ~ALL)
    assert np.isnan(scores).all()


def test_nobody_is_heard_in_silence(scene):
    silence = torch.zeros(1, 640 * FRAMES)
    assert (SynchronyScorer()(silence, scene["talker"], ALL) < 0).all()


def test_sound_may_end_early(scene):
    scores = SynchronyScorer()(scene["sound"][:, : 640 * (FRAMES - 25)], scene["talker"], ALL)
    assert np.isfinite(scores).all()
    assert scores[:200].mean() > 0 > scores[-15:].max()


def test_frozen_picture(scene):
    still = np.repeat(scene["talker"][:1], FRAMES, axis=0)
    assert (SynchronyScorer()(scene["sound"], still, ALL) < 0).all()


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.05, 1.0), seed=st.integers(0, 2**31))
def test_loudness_does_not_matter(gain, seed):
    envelope = speech_envelope(voice(syllables(100, seed), seed)[0].numpy(), 100)
    softer = speech_envelope(gain * voice(syllables(100, seed), seed)[0].numpy(), 100)
    difference = softer - envelope
    assert np.ptp(difference, axis=0).max() < 0.2


@settings(deadline=None, max_examples=20)
@given(num_samples=st.integers(0, 9000), num_frames=st.integers(1, 20))
def test_envelope_is_as_long_as_asked(num_samples, num_frames):
    signal = np.random.default_rng(0).standard_normal(num_samples)
    envelope = speech_envelope(signal, num_frames)
    assert envelope.shape == (num_frames, 5)
    assert np.isfinite(envelope).all()


def test_envelope_frames_lie_on_the_grid():
    signal = np.zeros(640 * 20, np.float32)
    signal[640 * 7 : 640 * 8] = np.random.default_rng(0).standard_normal(640)
    assert speech_envelope(signal, 20).sum(axis=1).argmax() == 7


@pytest.mark.parametrize("offset", [-0.4, -0.12, 0.0, 0.12, 0.4])
def test_offset_is_found(scene, offset):
    # positive: the sound is late
    sound = torch.roll(scene["sound"], round(16000 * offset), dims=1)[0].numpy()
    motion, envelope = mouth_motion(scene["talker"]), speech_envelope(sound, FRAMES)
    found, confidence = estimate_offset(motion, envelope)
    assert found == pytest.approx(offset, abs=0.08)
    assert confidence > 0.5


def test_offset_of_strangers_is_not_believed(scene):
    envelope = speech_envelope(scene["sound"][0].numpy(), FRAMES)
    for who in ("other", "listener"):
        _, confidence = estimate_offset(mouth_motion(scene[who]), envelope)
        assert confidence < 0.5


def test_offset_without_evidence():
    assert offset_from_curves([], []) == (0.0, 0.0)
    motion, envelope = np.full((100, 17), np.nan), np.zeros((100, 5))
    assert estimate_offset(motion, envelope)[1] < 0.5
    assert estimate_offset(motion[:10], envelope[:10]) == (0.0, 0.0)


def test_curve_of_nothing_is_flat():
    curve = synchrony_curve(np.full((100, 17), np.nan), np.zeros((100, 5)), 5)
    np.testing.assert_array_equal(curve, np.zeros(11))


def test_peaks_at_the_border_or_that_disagree_are_not_believed():
    lags = np.arange(-25, 26)

    def bump(at):
        return np.exp(-(((lags - at) / 2.0) ** 2)) + 0.02 * np.cos(lags)

    assert offset_from_curves([bump(8)] * 4, [5.0] * 4) == (
        pytest.approx(0.32, abs=0.01),
        pytest.approx(1.0, abs=0.01),
    )
    assert offset_from_curves([bump(24)] * 4, [5.0] * 4)[1] == 0.0
    assert offset_from_curves([bump(-15), bump(15)] * 2, [5.0, 4.0] * 2)[1] == 0.0
    assert offset_from_curves([bump(8)], [5.0])[1] == 0.0


def test_wrong_crop_size_is_named():
    with pytest.raises(ValueError, match="96"):
        mouth_motion(np.zeros((3, 96, 96), np.uint8))
