"""CAM++ as a pyannote.audio embedding model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.audio.pipelines.speaker_verification import PretrainedSpeakerEmbedding

from pyannote_av.core.checkpoint import CheckpointError
from pyannote_av.core.model import Model
from pyannote_av.core.weights import find
from pyannote_av.models.embedding.campplus import CAMPPlus


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def untrained() -> CAMPPlus:
    torch.manual_seed(0)
    return CAMPPlus().eval()


@pytest.fixture(scope="module")
def trained() -> CAMPPlus:
    path = find("campplus")
    if path is None:
        pytest.skip("weights 'campplus' are not on this machine")
    return CAMPPlus.from_checkpoint(path)


def test_golden_values(trained):
    """Recorded from this implementation, whose output was that of 3D-Speaker's to 2e-5."""
    waveform, weights = noise(1, 1, 48000), torch.zeros(1, 300)
    weights[:, 50:200] = 1.0
    everywhere = [-1.2046, -0.4623, 0.6654, -1.2012, -0.8504, 1.0538, -0.6987, -0.4694]
    somewhere = [-1.1470, -0.4159, 0.5426, -1.1350, -0.9379, 1.0584, -0.7825, -0.6436]
    for expected, output in (
        (everywhere, trained(waveform)),
        (somewhere, trained(waveform, weights)),
    ):
        np.testing.assert_allclose(output[0, :8], expected, atol=1e-3)


@pytest.mark.slow
def test_tells_speakers_apart(trained, shared_data):
    from pyannote_av.core.io import Video

    files = sorted((shared_data / "speech" / "librispeech").glob("*.flac"))[::25][:10]
    assert len({file.name.split("-")[0] for file in files}) == 10
    halves = [
        Video().waveform(file)[:, start : start + 64000] for file in files for start in (0, 80000)
    ]
    embeddings = torch.nn.functional.normalize(trained(torch.stack(halves)))
    similarity = embeddings[0::2] @ embeddings[1::2].T
    same = similarity.diagonal()
    different = similarity[~torch.eye(10, dtype=torch.bool)]
    assert same.min() > different.max()


def test_gain_does_not_matter(trained):
    waveform = noise(1, 1, 32000)
    torch.testing.assert_close(trained(0.3 * waveform), trained(waveform), atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=15)
@given(num_samples=st.integers(720, 20000))
def test_number_of_frames(untrained, num_samples):
    features = untrained.frame_features(noise(1, 1, num_samples))
    assert features.shape == (1, 512, untrained.num_frames(num_samples))


def test_geometry(untrained):
    assert untrained.dimension == 192
    frames = untrained.receptive_field
    assert frames.step == pytest.approx(0.020)
    # Kaldi windows lie within the signal: the first is centred on 12.5 ms
    assert frames[0].middle == pytest.approx(0.0125, abs=1e-4)


def test_forward_is_pool_of_frame_features(untrained):
    waveforms, weights = noise(2, 1, 32000), noise(2, 3, 117).gt(0).float()
    features = untrained.frame_features(waveforms)
    torch.testing.assert_close(untrained(waveforms), untrained.pool(features))
    torch.testing.assert_close(untrained(waveforms, weights), untrained.pool(features, weights))
    assert untrained(waveforms, weights).shape == (2, 3, 192)


def test_speakers_and_batch_items_do_not_mix(untrained):
    waveforms = noise(2, 1, 32000)
    weights = noise(2, 3, 99, seed=1).gt(0).float()
    together = untrained(waveforms, weights)
    for b in range(2):
        for s in range(3):
            alone = untrained(waveforms[b : b + 1], weights[b : b + 1, s])
            torch.testing.assert_close(alone[0], together[b, s], atol=1e-4, rtol=1e-4)


def test_weights_of_one_are_no_weights(untrained):
    waveforms = noise(1, 1, 32000)
    torch.testing.assert_close(
        untrained(waveforms, torch.ones(1, 589)), untrained(waveforms), atol=1e-4, rtol=1e-4
    )


@settings(deadline=None, max_examples=20)
@given(start=st.integers(0, 80), length=st.integers(2, 19), seed=st.integers(0, 1000))
def test_masked_frames_are_not_read(untrained, start, length, seed):
    features = noise(1, 512, 99)
    weights = torch.zeros(1, 99)
    weights[:, start : start + length] = 1.0
    other = torch.where(weights[:, None] > 0, features, noise(1, 512, 99, seed=seed))
    torch.testing.assert_close(untrained.pool(other, weights), untrained.pool(features, weights))


def test_silent_speaker_has_no_embedding(untrained):
    weights = torch.zeros(2, 3, 99)
    weights[0, 1] = 1.0
    embeddings = untrained(noise(2, 1, 32000), weights)
    valid = torch.isfinite(embeddings).all(dim=-1)
    assert valid.tolist() == [[False, True, False], [False, False, False]]
    assert torch.isnan(embeddings[~valid]).all()


def test_one_frame_is_not_enough(untrained):
    weights = torch.zeros(1, 99)
    weights[:, 40] = 1.0
    assert torch.isnan(untrained(noise(1, 1, 32000), weights)).all()


def test_too_short_waveform(untrained):
    assert torch.isfinite(untrained(noise(1, 1, 720))).all()
    with pytest.raises(ValueError, match="too short"):
        untrained(noise(1, 1, 719))


def test_as_pyannote_embedding(untrained):
    embedding = PretrainedSpeakerEmbedding(untrained)
    assert (embedding.dimension, embedding.sample_rate, embedding.metric) == (192, 16000, "cosine")
    assert embedding.min_num_samples == 720
    masks = torch.stack([torch.ones(589), torch.zeros(589)])
    output = embedding(noise(2, 1, 32000), masks=masks)
    assert np.isfinite(output[0]).all()
    assert np.isnan(output[1]).all()


def test_save_and_load(untrained, tmp_path):
    loaded = Model.from_pretrained(untrained.save(tmp_path))
    waveform = noise(1, 1, 16000)
    torch.testing.assert_close(loaded(waveform), untrained(waveform))
    assert loaded.specifications == untrained.specifications


def test_other_weights_are_refused(untrained, tmp_path):
    state = untrained.state_dict()
    state.pop("head.conv1.weight")
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match=r"broken\.pt .*(\n.*)*head\.conv1\.weight"):
        CAMPPlus.from_checkpoint(tmp_path / "broken.pt")
