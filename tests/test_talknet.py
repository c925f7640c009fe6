"""TalkNet: parity with the authors' network, and what they leave undefined."""

import authors
import numpy as np
import pytest
import torch
from authors import example, numbers, real_example

from pyannote_av.core.model import Model
from pyannote_av.models.active_speaker.talknet import TalkNet
from pyannote_av.models.importers import convert, import_checkpoint

# Logits of the authors' code (commit 6d68214, evaluation mode, float32 CPU) with made-up weights.
# All heads on ten frames of noise: class 0 of every frame, then class 1.
RECORDED = {
    "fused": numbers(
        "1.37310 1.50107 1.64836 1.67716 1.64009 1.65378 1.68327 1.76155 1.49831 1.64055 "
        "-0.30620 -0.48186 -0.28043 -0.15745 -0.15626 -0.20713 -0.23231 -0.24277 -0.19107 -0.50818"
    ),
    "acoustic": numbers(
        "-0.41475 -0.24956 0.06040 -0.03433 -0.01455 -0.09417 -0.09358 -0.06376 -0.06378 -0.20783 "
        "0.43810 0.49144 0.65810 0.48605 0.46532 0.48638 0.53106 0.51923 0.51284 0.42463"
    ),
    "visual": numbers(
        "1.72012 1.40120 1.32050 1.49243 1.55232 1.53840 1.49743 1.48453 1.70521 1.17083 "
        "-0.30804 -0.30014 -0.60795 -0.75787 -0.76881 -0.76247 -0.69085 -0.46253 -0.05744 0.31951"
    ),
}
# Class 1 of a batch of two clips of six frames, which leak into each other.
RECORDED_BATCH = numbers(
    "-0.32417 -0.42949 -0.15450 -0.18571 -0.17872 -0.53174 -0.35001 -0.39471 -0.16956 -0.09233 "
    "-0.24752 -0.45469"
)
# Class 1 of every fifth frame of the first 2 s of a real face.
RECORDED_REAL = numbers(
    "-0.22986 -0.10110 0.06825 -0.16406 -0.10172 -0.11830 -0.26637 -0.14626 -0.21066 -0.14927"
)


@pytest.fixture(scope="module")
def weights():
    return authors.made_up(authors.talknet())


@pytest.fixture(scope="module")
def model(weights):
    return convert(weights, TalkNet)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


def batch(num_frames, num_faces=1):
    items = (example(num_frames, num_faces, seed) for seed in range(2))
    return [torch.cat(parts) for parts in zip(*items, strict=True)]


def test_scores_are_those_of_the_authors(model):
    heads = model.predict(*example(10))
    for name, recorded in RECORDED.items():
        logits = getattr(heads, name)
        assert logits.shape == (1, 1, 10, 2)
        np.testing.assert_allclose(logits[0, 0].T.flatten(), recorded, atol=1e-4, err_msg=name)


def test_scores_of_a_batch_as_published(model):
    published = TalkNet(per_clip_conv3d=False).eval()
    published.load_state_dict(model.state_dict())
    logits = published.predict(*batch(6)).fused
    np.testing.assert_allclose(logits[..., 1].flatten(), RECORDED_BATCH, atol=1e-4)
    mended = model.predict(*batch(6)).fused
    assert (mended - logits).abs().max() > 1e-2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("per_clip", [False, True])
def test_when_items_of_a_batch_see_each_other(weights, per_clip, training):
    """By joined clips, or by the statistics of a batch; a clip alone is the same either way"""
    model = convert(weights, TalkNet, {"per_clip_conv3d": per_clip})
    waveform, faces = batch(6)
    alone = model.predict(waveform[:1], faces[:1]).fused[0]
    if not training:
        np.testing.assert_allclose(alone, convert(weights, TalkNet).predict(*example(6)).fused[0])
    for module in model.modules():  # without dropout, which is random
        module.training = training and not isinstance(module, torch.nn.Dropout)
    first = model.predict(waveform, faces).fused[0]
    other = model.predict(waveform, torch.stack([faces[0], 255 - faces[1]])).fused[0]
    assert torch.equal(first, other) == (per_clip and not training)
    assert torch.allclose(first, alone, atol=1e-5) == (per_clip and not training)


def test_scores_on_a_real_face(model, shared_data):
    logits = model.predict(*real_example(shared_data, 50)).fused
    np.testing.assert_allclose(logits[0, 0, ::5, 1], RECORDED_REAL, atol=1e-4)


def test_number_of_parameters(model):
    classifiers = 514 + 258 + 258
    assert sum(p.numel() for p in model.parameters()) == 15_743_451 + classifiers


def test_import_of_a_file(model, weights, tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "a.model")
    imported = import_checkpoint(tmp_path / "a.model")
    assert isinstance(imported, TalkNet)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name


def test_import_names_what_does_not_fit(weights):
    wrong = dict(weights)
    del wrong["lossA.FC.bias"]
    wrong["model.audioEncoder.pproc.pca_means"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"acoustic_classifier\.bias.*pca_means"):
        convert(wrong, TalkNet)


def test_switch_is_saved(tmp_path):
    path = TalkNet(per_clip_conv3d=False).save(tmp_path)
    assert not Model.from_pretrained(path).visual.per_clip_conv3d


def test_padding_changes_nothing(model):
    waveform, faces = example(8)
    before, after = 3, 4
    padded = torch.full((1, 3, before + 8 + after, 112, 112), 200, dtype=torch.uint8)
    padded[:, :1, before : before + 8] = faces
    mask = torch.zeros(padded.shape[:3], dtype=torch.bool)
    mask[:, 0, before : before + 8] = True
    silence = torch.nn.functional.pad(waveform, (640 * before, 640 * after))
    scores = model(silence, padded, mask)
    spectra = model.spectrum(silence[:, 0], num_frames=60)[:, 4 * before : 4 * (before + 8)]
    expected = model.heads(spectra, faces[:, 0]).fused[0]
    found = scores[0, before : before + 8, 0]
    torch.testing.assert_close(found, expected[:, 1] - expected[:, 0], atol=1e-5, rtol=0)
    scores[0, before : before + 8, 0] = 0
    assert not scores.any()


def test_trains():
    with torch.inference_mode(False), torch.enable_grad():
        model = TalkNet().train()
        heads = model.predict(*(x.clone() for x in example(6, num_faces=2)))
        sum(logits.square().mean() for logits in heads).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["visual.pictures.trunk.0.shortcut.weight"]
    used = {name for name, p in model.named_parameters() if name not in without and p.grad.any()}
    for branch in ("acoustic", "visual", "fusion", "decoder", "classifier"):
        assert any(name.startswith(f"{branch}.") for name in used)
