"""Filterbank features: the numbers of Kaldi, for batches."""

from pathlib import Path

import pytest
import torch
import torchaudio.compliance.kaldi as kaldi
from hypothesis import given, settings
from hypothesis import strategies as st

from pyannote_av.models.blocks.fbank import Fbank, mel_filters

fbank = Fbank()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_filters", "sample_rate"), [(80, 16000), (40, 16000), (23, 8000)])
def test_parity_with_kaldi(num_filters, sample_rate):
    waveforms = noise(3, 2 * sample_rate)
    ours = Fbank(num_filters, sample_rate)(waveforms)
    options = {"num_mel_bins": num_filters, "sample_frequency": sample_rate, "dither": 0.0}
    theirs = torch.stack([kaldi.fbank(w[None], **options) for w in waveforms])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_parity_with_kaldi_on_speech_and_silence():
    import pyannote.audio

    from pyannote_av.core.io import Video

    waveform = Video().waveform(Path(pyannote.audio.__file__).parent / "sample" / "sample.wav")
    waveform[:, 16000:32000] = 0.0  # digital silence
    theirs = kaldi.fbank(waveform, num_mel_bins=80, sample_frequency=16000, dither=0.0)
    torch.testing.assert_close(fbank(waveform)[0], theirs, atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=30)
@given(num_samples=st.integers(400, 4000))
def test_number_of_frames(num_samples):
    assert fbank(noise(1, num_samples)).shape == (1, fbank.num_frames(num_samples), 80)


def test_shift_by_one_step_shifts_frames():
    waveform = noise(1, 8000)
    torch.testing.assert_close(fbank(waveform[:, 160:]), fbank(waveform)[:, 1:])


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.1, 10.0))
def test_gain_is_an_offset(gain):
    waveform = noise(1, 8000)
    offset = 2 * torch.log(torch.tensor(gain))
    torch.testing.assert_close(fbank(gain * waveform), fbank(waveform) + offset, atol=1e-3, rtol=0)


def test_too_short():
    assert fbank.num_frames(399) == 0
    with pytest.raises(ValueError, match="399 samples"):
        fbank(noise(1, 399))


def test_filters_are_triangles_within_the_band():
    filters = mel_filters(80, 512, 16000)
    assert filters.shape == (257, 80)
    assert (filters >= 0).all()
    assert (filters <= 1).all()
    assert (filters[0] == 0).all(), "0 Hz lies below the band"
    assert (filters.sum(dim=0) > 0).all()


def test_constants_are_not_weights():
    assert not Fbank().state_dict()
