"""LR-ASD: parity with the authors' network, and what they leave undefined."""

import zlib

import numpy as np
import pytest
import torch

from pyannote_av.models.active_speaker.lrasd import LRASD
from pyannote_av.models.importers import convert, import_checkpoint


def numbers(text):
    return [float(number) for number in text.split()]


# Scores of the authors' code (commit 1b6dcd2, class ASD, evaluation mode, float32 CPU) with the
# weights of `authors_weights` on `example`: the raw output of a head for a class, by frame.
RECORDED = {
    ("fused", 1): numbers(
        "-1.4744 -1.4432 -1.4249 -1.4268 -1.4292 -1.4322 -1.4359 -1.4384 -1.4397 -1.4441 "
        "-1.4472 -1.4501 -1.4514 -1.4521 -1.4500 -1.4452 -1.4324 -1.4061 -1.3742 -1.3437"
    ),
    ("fused", 0): numbers(
        "-0.0440 -0.0572 -0.0682 -0.0640 -0.0513 -0.0314 -0.0103 0.0091 0.0250 0.0407 "
        "0.0551 0.0690 0.0798 0.0899 0.0997 0.1070 0.1074 0.0947 0.0725 0.0846"
    ),
    ("visual", 1): numbers(
        "0.3656 0.4077 0.4255 0.4417 0.4660 0.4513 0.4576 0.4523 0.4549 0.4519 "
        "0.4565 0.4522 0.4510 0.4628 0.4518 0.4667 0.4622 0.4383 0.4400 0.3683"
    ),
    ("visual", 0): numbers(
        "1.2657 1.1672 1.1068 1.0894 1.0886 1.0751 1.0852 1.0864 1.0846 1.0895 "
        "1.0822 1.0902 1.0899 1.0815 1.0857 1.1030 1.1063 1.1121 1.1795 1.2502"
    ),
}


def _conv_and_norm(name, norm, shape):
    yield f"{name}.weight", shape
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{tensor}", (shape[0],)
    yield f"{norm}.num_batches_tracked", ()


def authors_shapes():
    """Names and shapes of the tensors in the authors' checkpoints."""
    for encoder, axis in (("visual", "s"), ("audio", "m")):
        for block, (width, out) in enumerate(((1, 32), (32, 64), (64, 128)), start=1):
            for kind in (axis, "t"):
                for stage, kernel in ((1, 5), (2, 3)):
                    channels = {"1": (out // 2, width), "2": (out, out // 2)}[str(stage)]
                    channels = channels if kind != "t" else (out, out)
                    size = {
                        "s": (1, kernel, kernel),
                        "m": (kernel, 1),
                        "t": (kernel, 1, 1) if encoder == "visual" else (1, kernel),
                    }[kind]
                    where = f"model.{encoder}Encoder.block{block}.{kind}"
                    yield from _conv_and_norm(
                        f"{where}_{stage}", f"{where}_norm_{stage}", (*channels, *size)
                    )
    for where, width in (("fusion", 256), ("detector.attention", 128)):
        yield from _conv_and_norm(
            f"model.{where}.attention", f"model.{where}.bn", (width, width, 1)
        )
    for direction in ("forward", "backward"):
        gru = f"model.detector.gru_{direction}"
        yield from ((f"{gru}.weight_ih_l0", (192, 256)), (f"{gru}.weight_hh_l0", (192, 64)))
        yield from ((f"{gru}.bias_ih_l0", (192,)), (f"{gru}.bias_hh_l0", (192,)))
    for head in ("lossAV", "lossV"):
        yield from ((f"{head}.FC.weight", (2, 128)), (f"{head}.FC.bias", (2,)))


def authors_weights():
    """A checkpoint as the authors write them, with values that depend on the name only."""
    state = {}
    for name, shape in authors_shapes():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
            continue
        random = np.random.default_rng(zlib.crc32(name.encode()))
        values = random.standard_normal(shape) / max(1.0, np.prod(shape[1:])) ** 0.5
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif "norm" in name or ".bn." in name:
            values = 0.1 * values + name.endswith("weight")
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


def example(num_frames, num_faces=1, seed=0):
    random = np.random.default_rng(seed)
    waveform = 0.1 * random.standard_normal((1, 1, 640 * num_frames))
    faces = random.integers(0, 256, (1, num_faces, num_frames, 112, 112), dtype=np.uint8)
    return torch.tensor(waveform, dtype=torch.float32), torch.tensor(faces)


@pytest.fixture(scope="module")
def model():
    return convert(authors_weights(), LRASD)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


def test_scores_are_those_of_the_authors(model):
    heads = model.predict(*example(20))
    assert heads.fused.shape == (1, 1, 20, 2)
    for (head, of), recorded in RECORDED.items():
        np.testing.assert_allclose(getattr(heads, head)[0, 0, :, of], recorded, atol=1e-4)


def test_training_is_as_published():
    assert LRASD.loss_weights == {"fused": 1.0, "visual": 0.5}
    assert (LRASD.learning_rate, LRASD.learning_rate_decay) == (1e-3, 0.95)
    assert LRASD.weight_decay == 0.01
    assert [LRASD.temperature(epoch) for epoch in (0, 10, 60)] == [1.0, 1.0, 1.0]


def test_import_of_a_file(model, tmp_path):
    torch.save(authors_weights(), tmp_path / "some.model")
    imported = LRASD.from_checkpoint(tmp_path / "some.model")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name
    assert not imported.training


def test_import_accepts_weights_of_parallel_training(model):
    state = {f"module.{name}": tensor for name, tensor in authors_weights().items()}
    converted = convert(state, LRASD).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, converted[name]), name


def test_import_names_what_does_not_fit(tmp_path):
    state = authors_weights()
    del state["lossAV.FC.bias"]
    state["something.else"] = torch.zeros(1)
    state["lossV.FC.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.model")
    with pytest.raises(ValueError, match=r"wrong\.model") as error:
        import_checkpoint(tmp_path / "wrong.model", "lr-asd")
    for name in ("classifier.bias", "something.else", "lossV.FC.bias"):
        assert name in str(error.value)


def test_import_of_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "list.model")
    with pytest.raises(ValueError, match=r"list\.model"):
        import_checkpoint(tmp_path / "list.model")


def test_absent_pixels_are_never_read(model):
    waveform, faces = example(30, num_faces=2)
    mask = torch.ones(1, 2, 30, dtype=torch.bool)
    mask[0, 0, 10:18] = False
    mask[0, 1, :5] = False
    scores = model(waveform, faces, mask)
    noise = torch.randint(0, 256, faces.shape, dtype=torch.uint8)
    other = model(waveform, torch.where(mask[..., None, None], faces, noise), mask)
    assert torch.equal(scores, other)
    assert not torch.equal(scores[..., 0], model(waveform, faces)[..., 0])


# every tenth score of the authors' code on the first 4 s of crops/speaking/0.mp4
@pytest.mark.parametrize(
    ("weights", "recorded"),
    [
        (
            "lr_asd_finetuning_TalkSet.model",
            numbers("1.7976 2.9229 4.4594 4.7277 3.7633 3.6958 4.0488 4.7233 4.8107 4.7500"),
        ),
        (
            "lr_asd_pretrain_AVA.model",
            numbers("-1.6643 1.9374 3.6083 3.1726 1.4292 0.1708 1.1760 2.4746 1.9842 0.6715"),
        ),
    ],
)
def test_public_weights_on_a_real_face(shared_data, weights, recorded):
    import cv2

    from pyannote_av.core.io import Video

    path = shared_data / "weights" / weights
    if not path.is_file():
        pytest.skip(f"no {weights} on this machine")
    clip = shared_data / "clips" / "crops" / "speaking" / "0.mp4"
    waveform = Video().waveform(clip)[None, :, : 640 * 100]
    faces = [
        cv2.resize(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), (224, 224))[56:168, 56:168]
        for frame in Video().frames(clip, end=4.0)
    ]
    model = LRASD.from_checkpoint(path)
    scores = model.predict(waveform, torch.from_numpy(np.stack(faces))[None]).fused[0, 0, ::10, 1]
    np.testing.assert_allclose(scores, recorded, atol=1e-3)
