"""MFCC: the numbers of python_speech_features, batched and differentiable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.models.blocks.mfcc import MFCC

reference = pytest.importorskip("python_speech_features")


def published(signal: torch.Tensor) -> np.ndarray:
    """What the published code computes from 16-bit samples."""
    return reference.mfcc(
        signal.double().numpy() * 32768, 16000, numcep=13, winlen=0.025, winstep=0.010
    )


@settings(deadline=None, max_examples=30)
@given(
    num_samples=st.integers(1, 20000),
    level=st.floats(1e-4, 1.0),
    seed=st.integers(0, 2**31),
)
def test_parity(num_samples, level, seed):
    signal = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed)) * level
    ours = MFCC()(signal)
    theirs = published(signal)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_parity_on_silence():
    signal = torch.zeros(8000)
    signal[4000:4800] = torch.randn(800, generator=torch.Generator().manual_seed(0)) * 0.1
    np.testing.assert_allclose(MFCC()(signal).numpy(), published(signal), atol=1e-3)


def test_batch_is_each_signal_alone():
    mfcc = MFCC()
    signals = torch.randn(3, 2, 7000, generator=torch.Generator().manual_seed(0)) * 0.1
    together = mfcc(signals)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(together[i, j], mfcc(signals[i, j]), atol=1e-4, rtol=0)


def test_number_of_frames_can_be_chosen():
    mfcc = MFCC()
    signal = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    natural = mfcc(signal)
    assert natural.shape == (1, 99, 13)
    torch.testing.assert_close(mfcc(signal, num_frames=40), natural[:, :40])
    longer = mfcc(signal, num_frames=140)
    torch.testing.assert_close(longer[:, :98], natural[:, :98])
    torch.testing.assert_close(longer, mfcc(torch.nn.functional.pad(signal, (0, 6640)))[:, :140])
    # silence is the same frame after frame
    torch.testing.assert_close(longer[:, 102:], longer[:, 101:-1])


def test_gradients_are_finite():
    signal = (torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1).double()
    signal = signal.float().requires_grad_()
    MFCC()(signal, num_frames=120).square().mean().backward()
    assert torch.isfinite(signal.grad).all()
    assert signal.grad.abs().sum() > 0


def test_constants_are_not_weights():
    assert not MFCC().state_dict()
