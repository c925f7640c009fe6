"""Light-ASD: parity with the authors' network, and what is its own among the networks."""

import numpy as np
import pytest
import torch
from authors import batch_norm, example, layer, made_up, numbers, real_example

from pyannote_av.models.active_speaker.lightasd import LightASD
from pyannote_av.models.importers import convert, import_checkpoint

# Raw outputs of the authors' code (commit ed38c23, class ASD, evaluation mode, float32 CPU) with
# made-up weights on 20 frames of noise, for each head: classes 0 and 1.
RECORDED = {
    "fused": (
        numbers(
            "0.2320 0.2839 0.3074 0.3094 0.3117 0.3107 0.3072 0.3044 0.3049 0.2986 "
            "0.2948 0.2926 0.2879 0.2791 0.2635 0.2444 0.2172 0.1673 0.0983 -0.0009"
        ),
        numbers(
            "-0.2028 -0.2150 -0.2192 -0.2145 -0.2054 -0.1947 -0.1881 -0.1859 -0.1806 -0.1764 "
            "-0.1715 -0.1649 -0.1615 -0.1560 -0.1487 -0.1445 -0.1382 -0.1289 -0.1201 -0.1224"
        ),
    ),
    "visual": (
        numbers(
            "0.0596 0.1911 0.1040 0.0894 0.1743 0.1448 0.1428 0.1470 0.1108 0.1657 "
            "0.1253 0.1367 0.1228 0.1543 0.1080 0.0798 0.1134 0.1988 0.4076 0.3717"
        ),
        numbers(
            "-0.4207 -0.6298 -0.5085 -0.4804 -0.4967 -0.4459 -0.4437 -0.4471 -0.4614 -0.4412 "
            "-0.4523 -0.5054 -0.4444 -0.5047 -0.4671 -0.4304 -0.3862 -0.3899 -0.4354 -0.3372"
        ),
    ),
}


def authors_shapes():
    """Names and shapes of the tensors in the authors' checkpoints."""
    for encoder, axis in (("visual", "s"), ("audio", "m")):
        for block, (width, out) in enumerate(((1, 32), (32, 64), (64, 128)), start=1):
            where = f"model.{encoder}Encoder.block{block}"
            layers = {"last": (out, out, 1, 1)}
            for k in (3, 5):
                layers[f"{axis}_{k}"] = (out, width, *((k, k) if axis == "s" else (k, 1)))
                layers[f"t_{k}"] = (out, out, *((k, 1) if axis == "s" else (1, k)))
            for name, shape in layers.items():
                if axis == "s":  # of three dimensions: time comes first
                    time, space = (shape[2], (1, 1)) if name.startswith("t") else (1, shape[2:])
                    shape = (*shape[:2], time, *space)
                yield from layer(f"{where}.{name}", *shape, bias=False)
                yield from batch_norm(f"{where}.bn_{name}", out)
    for direction in ("forward", "backward"):
        gru = f"model.GRU.gru_{direction}"
        for tensor, shape in (("weight", (384, 128)), ("bias", (384,))):
            yield from ((f"{gru}.{tensor}_ih_l0", shape), (f"{gru}.{tensor}_hh_l0", shape))
    for head in ("lossAV", "lossV"):
        yield from layer(f"{head}.FC", 2, 128)


def authors_weights():
    """A checkpoint as the authors write them, with values that depend on the name only."""
    return made_up(authors_shapes())


@pytest.fixture(scope="module")
def model():
    return convert(authors_weights(), LightASD)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("head", RECORDED)
def test_heads_are_those_of_the_authors(model, head):
    found = getattr(model.predict(*example(20)), head)
    assert found.shape == (1, 1, 20, 2)
    np.testing.assert_allclose(found[0, 0].T, RECORDED[head], atol=1e-4)


def test_scores_are_log_odds(model):
    silent, speaking = np.array(RECORDED["fused"])
    np.testing.assert_allclose(model(*example(20))[0, :, 0], speaking - silent, atol=2e-4)


def test_size(model):
    assert len(authors_weights()) == 192
    # as published, where the two classifiers, that training code holds, are not counted
    assert sum(p.numel() for p in model.parameters()) == 1_021_120 + 2 * 258


def test_training_is_as_published():
    assert LightASD.loss_weights == {"fused": 1.0, "visual": 0.5}
    assert (LightASD.learning_rate, LightASD.learning_rate_decay) == (1e-3, 0.95)
    assert LightASD.weight_decay == 0
    assert [LightASD.temperature(epoch) for epoch in (0, 10)] == pytest.approx([1.3, 1.1])


def test_random_weights_are_drawn_as_published():
    torch.manual_seed(0)
    model = LightASD()
    kernel = model.visual.block3.temporal[1][0].weight
    assert kernel.std() == pytest.approx((2 / kernel[0].numel()) ** 0.5, rel=0.05)
    assert model.decoder.past.weight_hh_l0.std() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert not model.decoder.future.bias_ih_l0.any()


def test_import_recognises_the_network(model, tmp_path):
    torch.save(authors_weights(), tmp_path / "some.model")
    imported = import_checkpoint(tmp_path / "some.model")
    assert isinstance(imported, LightASD)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name


def test_every_weight_learns():
    with torch.inference_mode(False), torch.enable_grad():
        model = LightASD().train()
        waveform, faces = example(8, num_faces=2)
        heads = model.predict(waveform.clone(), faces.clone())
        (heads.fused.square().mean() + heads.visual.square().mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# every tenth output, for each head, of the authors' code on the first 4 s of crops/speaking/0.mp4
@pytest.mark.parametrize(
    ("weights", "fused", "visual"),
    [
        (
            "light_asd_finetuning_TalkSet.model",
            numbers("3.9685 6.6143 6.7866 6.5140 6.4025 6.3479 6.3383 6.5493 6.3317 5.9458"),
            numbers("0.2908 4.0810 5.0430 4.2447 2.1376 0.9012 3.1360 4.6758 3.2114 3.0465"),
        ),
        (
            "light_asd_pretrain_AVA_CVPR.model",
            numbers("-0.8645 0.9322 1.2243 0.7352 0.3169 0.0003 0.0223 0.4117 0.2685 -0.0333"),
            numbers("-1.5973 -0.0054 0.4891 0.1274 -0.6549 -0.6402 -0.7416 0.2527 -1.2705 -0.2694"),
        ),
    ],
)
def test_public_weights_on_a_real_face(shared_data, weights, fused, visual):
    path = shared_data / "weights" / weights
    if not path.is_file():
        pytest.skip(f"no {weights} on this machine")
    heads = LightASD.from_checkpoint(path).predict(*real_example(shared_data, 100))
    np.testing.assert_allclose(heads.fused[0, 0, ::10, 1], fused, atol=1e-3)
    np.testing.assert_allclose(heads.visual[0, 0, ::10, 1], visual, atol=1e-3)
