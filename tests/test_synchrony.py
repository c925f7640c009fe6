"""Synchrony of lips and sound, without trained weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.models.active_speaker.motion import mouth_motion, speech_envelope
from pyannote_av.models.active_speaker.offset import estimate_offset, offset_from_curves
from pyannote_av.models.active_speaker.synchrony import (
    SynchronyScorer,
    acoustic_view,
    held_out_projections,
    synchrony_curve,
    synchrony_features,
    visual_view,
)

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


def projections_by_definition(visual, acoustic, lag):
    """One lag, one fold and one row at a time, with inverse square roots of covariances."""
    x, y = np.full(len(visual), np.nan), np.full(len(visual), np.nan)
    rows = [
        i for i, row in enumerate(visual) if np.isfinite(row).all() and 0 <= i + lag < len(acoustic)
    ]
    if len(rows) < 25:
        return x, y

    def inverse_root(covariance):
        ridge = np.trace(covariance) / len(covariance) + 1e-9
        values, vectors = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
        return vectors / np.sqrt(values) @ vectors.T

    v, a = visual[rows], acoustic[np.array(rows) + lag]
    for test in np.array_split(np.arange(len(rows)), 4):
        train = np.setdiff1d(np.arange(len(rows)), test)
        v0, a0 = v - v[train].mean(axis=0), a - a[train].mean(axis=0)
        roots = [inverse_root(np.cov(each[train].T, bias=True)) for each in (v0, a0)]
        left, _, right = np.linalg.svd(roots[0] @ (v0[train].T @ a0[train] / len(train)) @ roots[1])
        for target, centred, direction in (
            (x, v0, roots[0] @ left[:, 0]),
            (y, a0, roots[1] @ right[0]),
        ):
            projected = centred @ direction
            target[np.array(rows)[test]] = projected[test] / (projected[train].std() + 1e-6)
    return x, y


def related_views(num_frames, num_audio_frames, seed, absent):
    """Motion (T, 17) that partly follows an envelope (T', 5), NaN where the face is absent."""
    random = np.random.default_rng(seed)
    motion = random.standard_normal((num_frames, 17))
    envelope = random.standard_normal((num_audio_frames, 5))
    both = min(num_frames, num_audio_frames)
    motion[:both, :3] += envelope[:both, 1:4]
    motion[list(absent)] = np.nan
    return motion, envelope


@settings(deadline=None, max_examples=25)
@given(
    num_frames=st.integers(2, 120),
    shorter=st.integers(-30, 30),
    seed=st.integers(0, 2**31),
    absence=st.floats(0, 1),
)
def test_projections_are_those_of_the_definition(num_frames, shorter, seed, absence):
    absent = np.flatnonzero(np.random.default_rng(seed + 1).random(num_frames) < absence**2)
    motion, envelope = related_views(num_frames, max(1, num_frames - shorter), seed, absent)
    lags = [-7, -1, 0, 4]
    with np.errstate(all="ignore"):
        visual, acoustic = visual_view(motion), acoustic_view(envelope)
    x, y = held_out_projections(visual, acoustic, lags)
    assert x.shape == y.shape == (4, num_frames)
    for i, lag in enumerate(lags):
        expected_x, expected_y = projections_by_definition(visual, acoustic, lag)
        np.testing.assert_array_equal(np.isnan(x[i]), np.isnan(expected_x))
        # both may change sign
        np.testing.assert_allclose(x[i] * y[i], expected_x * expected_y, atol=1e-7)
        np.testing.assert_allclose(np.abs(x[i]), np.abs(expected_x), atol=1e-7)


def test_curve_and_features_are_those_of_the_definition():
    motion, envelope = related_views(120, 110, 3, absent=[0, 40, 41, 42, 90])
    visual, acoustic = visual_view(motion), acoustic_view(envelope)

    def correlation(lag):
        x, y = projections_by_definition(visual, acoustic, lag)
        known = np.isfinite(x)
        return (x * y)[known].sum() / np.sqrt((x[known] ** 2).sum() * (y[known] ** 2).sum())

    curve = synchrony_curve(motion, envelope, 6)
    np.testing.assert_allclose(curve, [correlation(lag) for lag in range(-6, 7)], atol=1e-6)
    features = synchrony_features(motion, envelope, 5)
    assert np.array_equal(np.isnan(features).any(axis=1), np.isnan(motion[:, 0]))
    expected = max(correlation(lag) for lag in range(-5, 6, 2))
    np.testing.assert_allclose(np.nanmax(features[:, 2]), expected, atol=1e-6)


def test_constant_audio_or_motion_correlates_with_nothing():
    motion, envelope = related_views(100, 100, 0, absent=())
    for pair in ((motion, np.ones((100, 5))), (np.ones((100, 17)), envelope)):
        np.testing.assert_allclose(synchrony_curve(*pair, 3), 0.0, atol=1e-6)


def residual_by_definition(before, after):
    """What is left of the change of one crop after a fit to all pixels outside the mouth."""
    size = len(before)
    mean = (before + after) / 2
    gy, gx = (gradient[1:-1, 1:-1] for gradient in np.gradient(mean))
    y, x = (
        grid[1:-1, 1:-1] for grid in np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    )
    terms = [gx, gy, gx * x, gx * y, gy * x, gy * y, mean[1:-1, 1:-1], np.ones_like(x)]
    basis = np.stack([term.reshape(-1) for term in terms], axis=1)
    change = (after - before)[1:-1, 1:-1].reshape(-1)
    mouth = np.zeros((size, size), bool)
    mouth[28:48, 14:42] = True
    known = basis[~mouth[1:-1, 1:-1].reshape(-1)]
    gram = known.T @ known + 1e-3 * len(basis) * np.eye(8)
    fit = np.linalg.solve(gram, known.T @ change[~mouth[1:-1, 1:-1].reshape(-1)])
    return (change - basis @ fit)[mouth[1:-1, 1:-1].reshape(-1)].reshape(20, 28)


@pytest.mark.parametrize("size", [56, 112])
def test_motion_is_that_of_the_definition(scene, size):
    crops = scene["talker"][:40, :: 112 // size, :: 112 // size]
    present = np.ones(40, bool)
    present[[3, 20]] = False
    motion = mouth_motion(crops, present)
    block = size // 56
    small = crops.astype(float).reshape(40, 56, block, 56, block).mean(axis=(2, 4))
    for i in range(40):
        if i == 0 or not (present[i] and present[i - 1]):
            assert np.isnan(motion[i]).all()
            continue
        residual = residual_by_definition(small[i - 1], small[i])
        contrast = small[i, 4:52, 8:48].std() + 2.0
        cells = residual.reshape(4, 5, 4, 7).mean(axis=(1, 3)).reshape(-1) / contrast
        energy = np.log(np.sqrt(np.square(residual).mean()) / contrast + 0.005)
        np.testing.assert_allclose(motion[i], [energy, *cells], atol=1e-4)
