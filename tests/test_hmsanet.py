"""HMSA-Net: what must not matter does not, whatever is missing, for any number of speakers."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.audio.core.task import Problem, Resolution, Specifications
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from pyannote_av.core.batch import AVInput
from pyannote_av.core.model import Model, read_safetensors
from pyannote_av.models.blocks.window_attention import WindowAttention, key_bias
from pyannote_av.models.hmsanet.cgima import SynchronyEstimator, lag_correlation
from pyannote_av.models.hmsanet.inspection import attention_to, gates, plot_inspection
from pyannote_av.models.hmsanet.model import LARGE, HMSANet, HMSAOutput
from pyannote_av.tasks.losses import talk_nce

SMALL = {"width": 32, "channels": (4, 8), "attention_window": 5, "voiceprint_dimension": 16}
FUSIONS = ("cgima", "attention", "concat")
DECODERS = ("disa", "mean", "none", "fixed")


def build(seed: int = 0, **hparams) -> HMSANet:
    """A small network in evaluation mode, whose learned "unknown" vectors are not zero."""
    torch.manual_seed(seed)
    model = HMSANet(**{**SMALL, **hparams})
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def inputs(batch=2, targets=3, frames=24, seed=0, dimension=128) -> dict[str, torch.Tensor]:
    """Noise of all kinds; faces come and go, one voice is unknown and one window too."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    data = {
        "waveforms": 0.1 * noise(batch, 1, 640 * frames),
        "faces": noise(batch, targets, frames, dimension),
        "face_mask": noise(batch, targets, frames) > -0.5,
        "target_mask": torch.ones(batch, targets, dtype=torch.bool),
        "voiceprints": noise(batch, targets, 16),
        "speaker_features": noise(batch, -(-frames // 4), 16),
    }
    data["voiceprints"][0, 0] = 0
    data["speaker_features"][:, 1:2] = 0
    return data


def target_axis(data: dict, change) -> dict:
    """The same, with `change` done to what has targets."""
    names = ("faces", "face_mask", "target_mask", "voiceprints")
    return {k: change(v) if k in names else v for k, v in data.items()}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


@pytest.fixture(scope="module")
def model() -> HMSANet:
    return build()


# ------------------------------------------------------------------------------------- shapes


@torch.inference_mode()
def test_shapes(model):
    data = inputs(frames=25)
    assert model(**data).shape == (2, 100, 3)
    assert torch.equal(model(AVInput(**data)), model(**data))
    output = model.predict(**data)
    assert output.logits.shape == (2, 3, 100)
    for name in ("fused_logits", "acoustic_logits", "visual_logits", "confidence"):
        assert getattr(output, name).shape == (2, 3, 25)
    assert output.gate_logits.shape == (2, 3, 25, 2, 4)
    assert output.acoustic_sync.shape == output.visual_sync.shape == (2, 3, 25, 16)
    assert [weights.shape for weights in output.attention] == [(2, 25, 4, 3, 4)] * 2


@torch.inference_mode()
@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ({"acoustic"}, {"acoustic_logits"}),
        ({"visual"}, {"visual_logits"}),
        ({"visual", "fusion"}, {*HMSAOutput._fields} - {"logits", "attention"}),
        ({"decoder"}, {*HMSAOutput._fields}),
    ],
)
def test_what_nobody_asks_is_not_said(model, branches, said):
    """The rest is as ever."""
    data = inputs()
    everything = model.predict(**data)._asdict()
    for name, value in model.predict(**data, branches=branches)._asdict().items():
        if name == "attention":
            assert len(value) == 2 * ("decoder" in branches)
        elif name in said:
            assert torch.equal(value, everything[name])
        else:
            assert value is None


@torch.inference_mode()
def test_a_correction_of_the_first_pass_begins_with_none():
    torch.manual_seed(0)
    model = HMSANet(**SMALL, first_pass=True).eval()
    data = inputs()
    said = torch.rand(2, 3, 96)
    said[0, 1, 10:20] = -1.0  # unknown
    found = model(**data, first_pass=said).transpose(1, 2)
    known = said >= 0
    torch.testing.assert_close(found[known], said[known].clamp(0.01, 0.99))
    assert (found[~known] == 0.5).all()
    assert (model(**data) == 0.5).all()
    with pytest.raises(ValueError, match="first_pass of shape"):
        model(**data, first_pass=said[:, :, :-1])


@torch.inference_mode()
def test_what_the_first_pass_says_matters_to_networks_that_correct_it():
    data, said = (
        inputs(),
        {"first_pass": torch.rand(2, 3, 96), "num_speaking": torch.rand(2, 96, 3)},
    )
    corrects, does_not = build(first_pass=True), build()
    assert difference(does_not(**data, **said), does_not(**data)) == 0
    for name in said:
        others = {key: value for key, value in said.items() if key != name}
        assert difference(corrects(**data, **said), corrects(**data, **others)) > 1e-3
    # in another order of targets, and with padding
    order = [2, 0, 1]
    moved = target_axis(data, lambda x: x[:, order])
    said["first_pass"] = said["first_pass"][:, order]
    found = corrects(**moved, **said)
    assert found.shape == (2, 96, 3)
    padded = target_axis(moved, lambda x: torch.cat([x, torch.zeros_like(x[:, :1])], dim=1))
    said["first_pass"] = torch.cat([said["first_pass"], said["first_pass"][:, :1]], dim=1)
    assert difference(corrects(**padded, **said)[..., :3], found) < 1e-5


def test_frames_of_10_ms(model):
    assert model.num_frames(16000 * 8 + 5) == 800
    field = model.receptive_field
    assert (field.start, field.duration, field.step) == pytest.approx((0, 0.01, 0.01), abs=1e-4)


@torch.inference_mode()
def test_sound_alone(model):
    """Without faces there is the number of voiceprints, without those one target."""
    data = inputs()
    assert model(data["waveforms"]).shape == (2, 96, 1)
    assert model(data["waveforms"], voiceprints=data["voiceprints"]).shape == (2, 96, 3)
    absent = data | {"face_mask": torch.zeros_like(data["face_mask"])}
    faceless = {k: v for k, v in data.items() if k not in ("faces", "face_mask")}
    assert difference(model(**absent), model(**faceless)) == 0


@torch.inference_mode()
@pytest.mark.parametrize("targets", [1, 2, 20])
def test_any_number_of_speakers(model, targets):
    activities = model(**inputs(targets=targets))
    assert activities.shape == (2, 96, targets)
    assert activities.isfinite().all()


def test_shapes_that_do_not_fit(model):
    data = inputs()
    with pytest.raises(ValueError, match=r"faces .*\(2, 3, 23, 128\).*expected \(2, 3, 24, 128\)"):
        model(**data | {"faces": data["faces"][:, :, 1:]})
    with pytest.raises(ValueError, match=r"expected \(2, 3, 16\)"):
        model(**data | {"voiceprints": torch.ones(2, 3, 192)})
    with pytest.raises(ValueError, match="speaker_features"):
        model(**data | {"speaker_features": data["speaker_features"][:, 1:]})
    with pytest.raises(ValueError, match="16 kHz"):
        HMSANet(sample_rate=8000)


def test_large_has_the_size_of_the_lineage():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in HMSANet(**kw).parameters()) for kw in ({}, LARGE)]
    assert sizes[0] < 3e6
    assert 36e6 < sizes[1] < 42e6


# --------------------------------------------------------------- what must not change anything


@torch.inference_mode()
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 99))
def test_order_of_speakers(model, order, seed):
    data = inputs(targets=4, seed=seed)
    shuffled = model(**target_axis(data, lambda x: x[:, order]))
    assert difference(shuffled, model(**data)[..., order]) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("reach", [0, 2])
def test_padding_targets(decoder, reach):
    """Whatever is in them, and wherever they are."""
    model = build(decoder=decoder, speaker_reach=reach)
    data = inputs(targets=3)

    def pad(x):
        fill = 0 if x.dtype == torch.bool else float("nan")
        return torch.cat([x, torch.full_like(x[:, :2], fill)], dim=1)

    padded = target_axis(data, pad)
    output = model(**padded)
    assert difference(output[..., :3], model(**data)) < 1e-5
    assert not output[..., 3:].any()
    if decoder != "fixed":
        output = model(**target_axis(padded, lambda x: x.roll(1, dims=1)))
        assert difference(output[..., 1:4], model(**data)) < 1e-5


@torch.inference_mode()
def test_batch(model):
    """Items know nothing of each other, nor of how many speakers the others have."""
    data = inputs(batch=3)
    data["target_mask"][1, 1:] = False
    together = model(**data)
    for item in range(3):
        count = int(data["target_mask"][item].sum())
        alone = {k: v[item : item + 1] for k, v in data.items()}
        alone = target_axis(alone, lambda x, count=count: x[:, :count])
        assert difference(model(**alone), together[item : item + 1, :, :count]) < 1e-5


@torch.inference_mode()
@settings(max_examples=10, deadline=None)
@given(
    before=st.integers(0, 3).map(lambda n: 4 * n),
    after=st.integers(0, 13),
    frames=st.sampled_from([1, 2, 3, 24, 30]),
    reach=st.sampled_from([0, 2]),
)
def test_padding_frames(before, after, frames, reach):
    """Anywhere in the sequence: so what is shifted comes out shifted, exactly."""
    model = build(speaker_reach=reach)
    data = inputs(frames=frames)
    total = before + frames + after

    def pad(x, dim, start, size):
        shape = list(x.shape)
        shape[dim] = size
        fill = torch.randn(shape) if x.dtype.is_floating_point else torch.ones(shape).to(x.dtype)
        fill.narrow(dim, start, x.shape[dim]).copy_(x)
        return fill

    padded = {
        **data,
        "waveforms": pad(data["waveforms"], 2, 640 * before, 640 * total),
        "faces": pad(data["faces"], 2, before, total),
        "face_mask": pad(data["face_mask"], 2, before, total),
        "speaker_features": pad(data["speaker_features"], 1, before // 4, -(-total // 4)),
        "frame_mask": torch.zeros(2, total, dtype=torch.bool),
    }
    padded["frame_mask"][:, before : before + frames] = True
    output = model(**padded)
    real = output[:, 4 * before : 4 * (before + frames)]
    assert difference(real, model(**data)) < 1e-5
    assert output.count_nonzero() == real.count_nonzero()


@torch.inference_mode()
def test_shift(model):
    """In a long sequence, far from its ends, by any number of frames."""
    data = inputs(frames=150)
    del data["speaker_features"]
    shift = 7
    later = {
        "waveforms": data["waveforms"].roll(640 * shift, dims=2),
        "faces": data["faces"].roll(shift, dims=2),
        "face_mask": data["face_mask"].roll(shift, dims=2),
    }
    output = model(**data | later)
    middle = slice(4 * 70, 4 * 80)
    expected = model(**data).roll(4 * shift, dims=1)
    assert difference(output[:, middle], expected[:, middle]) < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("fusion", FUSIONS)
def test_absent_faces_are_not_read(fusion):
    model = build(fusion=fusion)
    data = inputs()
    absent = ~data["face_mask"].unsqueeze(-1)
    changed = data["faces"].masked_fill(absent, float("nan"))
    assert difference(model(**data | {"faces": changed}), model(**data)) == 0


@torch.inference_mode()
@pytest.mark.parametrize("visual", ["compact", "lrasd", "resnet"])
def test_pictures(visual):
    """Absent ones are not read, padding changes nothing, their features may be given instead."""
    model = build(visual=visual, face_size=28)
    data = inputs(batch=1, targets=2, frames=8)
    data["face_mask"][:] = True
    data["face_mask"][0, 0, :2] = data["face_mask"][0, 1, 3] = False
    pictures = torch.randint(256, (1, 2, 8, 56, 56)).byte()
    expected = model(**data | {"faces": pictures})

    absent = ~data["face_mask"][..., None, None]
    for fill in (255, 0):
        changed = pictures.masked_fill(absent, fill)
        assert difference(model(**data | {"faces": changed}), expected) < 1e-5

    features = model.visual_features(pictures, data["face_mask"])
    assert features.shape == (1, 2, 8, model.visual_dimension)
    assert difference(model(**data | {"faces": features}), expected) < 1e-5

    padded = {
        **data,
        "waveforms": torch.cat([data["waveforms"], torch.ones(1, 1, 3200)], dim=2),
        "faces": torch.cat([pictures, pictures[:, :, :5]], dim=2),
        "face_mask": torch.cat([data["face_mask"], torch.ones(1, 2, 5) > 0], dim=2),
        "speaker_features": torch.cat([data["speaker_features"], torch.ones(1, 2, 16)], dim=1),
        "frame_mask": (torch.arange(13) < 8).unsqueeze(0),
    }
    assert difference(model(**padded)[:, :32], expected) < 1e-5


# ----------------------------------------------------------------------------------- learning


def backward(model: HMSANet, data: dict) -> None:
    output = model.predict(**data)
    heads = (output.logits, output.fused_logits, output.acoustic_logits, output.visual_logits)
    loss = sum(bce(x.float(), torch.ones_like(x)) for x in heads)
    if output.gate_logits is not None:
        loss = loss + output.gate_logits.float().mean()
        loss = loss + (output.acoustic_sync * output.visual_sync).sum(-1).mean()
    model.zero_grad()
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_variant_learns(fusion, decoder):
    """One hyper-parameter away from each other; every parameter but the encoder's is of use."""
    model = build(fusion=fusion, decoder=decoder).train()
    data = inputs()
    data["target_mask"][1, 2] = False
    backward(model, data)
    for name, parameter in model.named_parameters():
        assert name.startswith("visual.encoder") or parameter.grad is not None, name


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("missing", ["faces", "voices", "sound", "everything", "targets"])
def test_gradients_are_finite(precision, missing):
    model = build(speaker_reach=1).train()
    data = inputs()
    if missing in ("faces", "everything"):
        data["face_mask"][:] = False
    if missing in ("voices", "everything"):
        data["voiceprints"][:] = 0
        data["speaker_features"][:] = 0
    if missing in ("sound", "everything"):
        data["waveforms"][:] = 0
    if missing == "targets":
        data["target_mask"][0] = False
        data["voiceprints"][0] = float("nan")
    enabled = precision is not torch.float32
    with torch.autocast("cpu", precision, enabled=enabled):
        backward(model, data)


def test_no_target_at_all(model):
    data = inputs()
    data["target_mask"][:] = False
    assert not model(**data).any()


def test_a_silent_recording_is_judged_by_faces(model):
    data = inputs()
    data["waveforms"][:] = 0
    activities = model(**data)
    assert activities.isfinite().all()
    assert activities.std(dim=1).min() > 1e-4


def test_overfits():
    """Who speaks is told by the face of one, the voice of another; somebody is heard by neither."""
    torch.manual_seed(0)
    model = HMSANet(**{**SMALL, "dropout": 0.0, "channels": (8, 8)})
    data = inputs(batch=2, targets=3, frames=40)
    speech = (torch.rand(2, 3, 10) > 0.5).float().repeat_interleave(16, dim=2)
    tones = torch.sin(torch.arange(25600) * torch.tensor([[0.1], [0.2], [0.4]]))
    data["waveforms"] += 0.3 * (speech.repeat_interleave(160, dim=2) * tones).sum(1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = bce(model.predict(**data).logits, speech)
        if loss < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


# --------------------------------------------------------------------------- saving, looking in


def test_saved_and_loaded(tmp_path):
    model = build(speaker_reach=1, decoder="fixed", max_targets=4)
    path = model.save(tmp_path)
    loaded = Model.from_pretrained(path)
    assert json.loads(json.dumps(dict(model.hparams))) == dict(loaded.hparams)
    with torch.inference_mode():
        assert torch.equal(loaded(**inputs()), model(**inputs()))


def test_places_of_a_fixed_decoder_run_out():
    with pytest.raises(ValueError, match="7 speakers, but the decoder has places for 6"):
        build(decoder="fixed")(**inputs(targets=7))


def test_branches_can_be_frozen(model):
    names = {name for name, _ in model.named_children()}
    assert names == {"acoustic", "visual", "fusion", "decoder"}


@torch.inference_mode()
def test_looking_inside(model):
    data = inputs()
    output = model.predict(**data)
    opening = gates(output, data["face_mask"])
    assert opening.shape == (2, 3, 24, 2)
    assert not opening[~data["face_mask"]].any()
    attention = attention_to(build(speaker_reach=2).predict(**data))
    assert torch.allclose(attention.sum(-1), torch.ones(2, 24, 3))
    assert attention[..., 1:].diagonal(dim1=-2, dim2=-1).max() < 1e-6
    figure = plot_inspection(output, data["face_mask"], names=["Ann", "Bob", "Eve"])
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["Ann", "Bob", "Eve"]
    variant = build(fusion="concat", decoder="mean").predict(**data)
    assert len(plot_inspection(variant).axes) == 6
    with pytest.raises(ValueError, match="no gates"):
        gates(variant, data["face_mask"])
    with pytest.raises(ValueError, match="no attention"):
        attention_to(variant)


# ------------------------------------------------------------------------------------- blocks


def test_lag_of_the_picture():
    """The picture is 3 frames late: likeness is 1 at lag 3, and only there."""
    sound = torch.nn.functional.normalize(torch.randn(1, 60, 32), dim=-1)
    everywhere = torch.ones(1, 60, dtype=torch.bool)
    found = lag_correlation(sound, sound.roll(3, dims=1), everywhere, everywhere)
    assert (found.argmax(dim=-1)[:, 10:50] == 5 + 3).all()
    assert torch.allclose(found[:, 10:50, 8], torch.ones(1, 40))
    assert found[:, 10:50, :8].max() < 0.5
    nobody = lag_correlation(sound, sound, everywhere, ~everywhere)
    assert not nobody.any()


@pytest.mark.slow
def test_synchrony_is_learnt():
    """Faces move as it gets louder; then gates tell who moves to another sound."""
    torch.manual_seed(0)
    mixing = torch.randn(2, 24, 16)

    def scenes(count=16, frames=100):
        level = torch.randn(count, 1, frames)
        level = torch.nn.functional.avg_pool1d(level, 5, 1, 2).transpose(1, 2) * 3
        rest = torch.randn(2, count, frames, 23)
        return [
            torch.cat([level, noise], dim=-1) @ mix for noise, mix in zip(rest, mixing, strict=True)
        ]

    everywhere = torch.ones(16, 100, dtype=torch.bool)
    estimator = SynchronyEstimator(width=16, sound_dimension=16, num_heads=2)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=1e-2)
    same = torch.zeros(16, 100, 16)  # streams tell nothing
    for _ in range(100):
        sound, picture = scenes()
        picture[8:] = picture[8:].roll(25, dims=1)
        found = estimator(same, same, sound, picture, everywhere, everywhere)
        genuine = (torch.arange(16) < 8).float().reshape(16, 1, 1, 1).expand_as(found.gate_logits)
        loss = bce(found.gate_logits, genuine)
        loss = loss + talk_nce(found.acoustic_sync[:8], found.visual_sync[:8], everywhere[:8]) / 800
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        sound, picture = scenes()
        picture[8:] = picture[8:].roll(40, dims=1)
        found = estimator(same, same, sound, picture, everywhere, everywhere)
    gates = found.gate_logits.sigmoid().mean(dim=(1, 2, 3))
    assert gates[:8].mean() > 0.7
    assert gates[8:].mean() < 0.3


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 60), window=st.integers(1, 8))
def test_window_attention_is_attention_within_a_window(frames, window):
    torch.manual_seed(frames)
    layer = WindowAttention(16, 2, window)
    x, mask = torch.randn(2, frames, 16), torch.rand(2, frames) > 0.3
    mask[:, 0] = True
    expected = WindowAttention(16, 2, window)
    expected.load_state_dict(layer.state_dict())
    found = layer(x, x, key_bias(mask))
    distance = torch.arange(frames) - torch.arange(frames)[:, None]
    for t in range(frames):
        near = mask & (distance[t].abs() <= window)
        if near.any(dim=1).all():
            expected.window = frames  # all of it, but of what is near
            alone = expected(x, x, key_bias(near))[:, t]
            assert difference(alone, found[:, t]) < 1e-5


# former names of hyper-parameters, in files of earlier versions


def former_hparams(hparams) -> dict:
    former = {new: old for old, new in HMSANet.FORMER_HPARAMS.items()}
    return {former.get(name, name): value for name, value in hparams.items()}


def test_weights_saved_under_former_names_are_loaded(tmp_path):
    model = build(attention_window=7, speaker_reach=1, decoder="fixed", max_targets=3)
    path = model.save(tmp_path / "model.safetensors")
    state, metadata = read_safetensors(path)
    hparams = former_hparams(json.loads(metadata["hparams"]))
    assert {"context", "window", "max_slots"} <= hparams.keys()
    save_file(state, path, {**metadata, "hparams": json.dumps(hparams)})
    loaded = Model.from_pretrained(path)
    assert dict(loaded.hparams) == dict(model.hparams)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert Model.from_pretrained(path, context=5).hparams.attention_window == 5


@pytest.mark.parametrize("trust", [False, True])
def test_checkpoints_of_training_under_former_names_are_loaded(tmp_path, trust):
    model = build(attention_window=7, speaker_reach=1)
    model.specifications = Specifications(
        Problem.MULTI_LABEL_CLASSIFICATION, Resolution.FRAME, duration=2.0, classes=["speaking"]
    )
    content = {
        "pytorch-lightning_version": "2.0.0",
        "hyper_parameters": former_hparams(model.hparams),
        "state_dict": model.state_dict(),
    }
    model.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    loaded = Model.from_pretrained(tmp_path / "last.ckpt", trust=trust)
    assert loaded.hparams.attention_window == 7
    assert loaded.hparams.speaker_reach == 1


def test_lags_of_the_gates_are_a_hyper_parameter():
    """Weights that do not name them have the ones that were fixed before."""
    for lags, hparams in ((5, {}), (2, {"lags": 2})):
        gate = HMSANet(**SMALL, **hparams).fusion.synchrony.gate[0]
        assert gate.in_features == 2 * lags + 2 + gate.out_features
