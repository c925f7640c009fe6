"""What all active speaker networks have in common, with random weights.

Parity with the authors' code, and what only one of them does, is in a file of its own for each.
"""

import pytest
import torch
from authors import example

from pyannote_av.core.model import Model
from pyannote_av.models.active_speaker.compact import CompactASD
from pyannote_av.models.registry import get_network, published

NETWORKS = (*published("ActiveSpeakerDetection"), "compact")
#: those that score a face without a look at the others
ALONE = tuple(name for name in NETWORKS if name != "loconet")


def slow_if_large(name: str):
    """TalkNet is larger than the others, and does nothing that none of them does"""
    return pytest.param(name, marks=[pytest.mark.slow] if name == "talknet" else [])


def build(name: str) -> Model:
    """Random weights whose normalisation is not trivial, nor the same for every channel."""
    torch.manual_seed(0)
    model = CompactASD() if name == "compact" else get_network(name)()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    torch.set_num_threads(1)
    return {name: build(name) for name in NETWORKS}


@pytest.fixture(params=[slow_if_large(name) for name in NETWORKS])
def model(request, models) -> Model:
    return models[request.param]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_scores_are_log_odds(model):
    waveform, faces = example(5, num_faces=2)
    scores, fused = model(waveform, faces), model.predict(waveform, faces).fused
    assert scores.shape == (1, 5, 2)
    assert fused.shape == (1, 2, 5, 2)
    close(scores, (fused[..., 1] - fused[..., 0]).transpose(1, 2))


def test_saved_and_read_again(model, tmp_path):
    with torch.inference_mode(False):  # weights made within take other ways through torch
        again = Model.from_pretrained(model.save(tmp_path))
    assert torch.equal(again(*example(5)), model(*example(5)))


def test_without_an_axis_of_faces_there_is_one_face(model):
    waveform, faces = example(5)
    close(model(waveform, faces[:, 0]), model(waveform, faces))


def test_batch_is_each_item_alone_in_any_order_of_faces(model):
    items = [example(6, num_faces=2, seed=seed) for seed in range(2)]
    together = model(*(torch.cat(parts) for parts in zip(*items, strict=True)))
    for one, (waveform, faces) in zip(together, items, strict=True):
        close(model(waveform, faces.flip(1))[0], one.flip(1))


@pytest.mark.parametrize("name", [slow_if_large(name) for name in ALONE])
def test_faces_are_scored_independently(models, name):
    waveform, faces = example(6, num_faces=3)
    together = models[name](waveform, faces)
    for slot in range(3):
        alone = models[name](waveform, faces[:, slot : slot + 1])
        close(together[:, :, slot : slot + 1], alone)


@pytest.mark.parametrize("name", [name for name in ALONE if name != "talknet"])
def test_padding_changes_nothing(models, name):
    waveform, faces = example(20)
    padded = torch.full((1, 3, 38, 112, 112), 200, dtype=torch.uint8)
    padded[:, :1, 7:27] = faces
    mask = torch.zeros(padded.shape[:3], dtype=torch.bool)
    mask[:, 0, 7:27] = True
    silence = torch.nn.functional.pad(waveform, (640 * 7, 640 * 11))
    scores = models[name](silence, padded, mask)
    close(scores[:, 7:27, :1], models[name](waveform, faces))
    scores[0, 7:27, 0] = 0
    assert not scores.any()


def test_absent_pixels_are_never_read(model):
    waveform, faces = example(10, num_faces=2)
    mask = torch.ones(1, 2, 10, dtype=torch.bool)
    mask[0, 0, 4:7] = False
    mask[0, 1, :3] = False
    scores = model(waveform, faces, mask)
    other = model(waveform, torch.where(mask[..., None, None], faces, 255 - faces), mask)
    assert torch.equal(scores, other)
    assert not torch.equal(scores, model(waveform, faces))
    assert not scores[0, :3, 1].any()


def test_face_that_is_never_there(model):
    waveform, faces = example(5, num_faces=2)
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    mask[:, 1] = False
    scores = model(waveform, faces, mask)
    assert not scores[..., 1].any()
    close(scores[..., :1], model(waveform, faces[:, :1]))


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_few_frames(model, num_frames):
    scores = model(*example(num_frames))
    assert scores.shape == (1, num_frames, 1)
    assert torch.isfinite(scores).all()


def test_nobody_in_the_picture(model):
    waveform, faces = example(5)
    assert model(waveform, faces[:, :0]).shape == (1, 5, 0)
    assert model.predict(waveform, faces[:, :0]).fused.shape == (1, 0, 5, 2)


def test_sound_may_end_early(model):
    waveform, faces = example(27)
    short = waveform[..., : 640 * 2]
    scores = model(short, faces)
    assert torch.isfinite(scores).all()
    close(scores, model(torch.nn.functional.pad(short, (0, 640 * 25)), faces))


def test_silence(model):
    _, faces = example(5)
    assert torch.isfinite(model(torch.zeros(1, 1, 3200), faces)).all()


def test_faces_are_needed(model):
    with pytest.raises(ValueError, match="faces"):
        model(torch.zeros(1, 1, 6400))


@pytest.mark.parametrize("name", [slow_if_large(name) for name in NETWORKS])
def test_every_branch_learns(name):
    with torch.inference_mode(False), torch.enable_grad():
        model = build(name).train()
        heads = model.predict(*(x.clone() for x in example(4, num_faces=2)))
        sum(logits.square().mean() for logits in heads if logits is not None).backward()
    branches = [name for name, one in model.named_children() if [*one.parameters()]]
    assert {"acoustic", "visual", "decoder", "classifier"} <= {*branches}
    used = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    for branch in branches:
        assert any(n.startswith(f"{branch}.") for n in used), branch
