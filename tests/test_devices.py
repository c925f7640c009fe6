"""Networks keep to one device: `meta`, which refuses tensors of others, or a GPU."""

import importlib
import inspect

import pytest
import torch
from torch.overrides import TorchFunctionMode

from pyannote_av.core.model import AVModel
from pyannote_av.core.trust import CLASSES

NETWORKS = {
    name: (module, name)
    for module, names in CLASSES["model"].items()
    if module.startswith("pyannote_av.")
    for name in names
}
OPTIONS = {
    "RelationOfEmbeddings": {"voice_dimension": 16, "face_dimension": 24},
    "FusedEmbeddings": {"voice_dimension": 16, "face_dimension": 24},
    "CorrectedSimilarity": {"voice_dimension": 16, "face_dimension": 24},
}


class AllTrue(TorchFunctionMode):
    """Answers what networks ask of masks on `meta`, where there are no values: all is there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        first = args[0] if args else None
        if torch.is_tensor(first) and first.is_meta:
            name = getattr(func, "__name__", "")
            if name in ("__bool__", "item"):
                return True
            if name in ("cpu", "tolist", "numpy"):
                there = torch.ones(first.shape, dtype=first.dtype, device="cpu")
                return there if name == "cpu" else getattr(there, name)()
            if name == "__getitem__" and torch.is_tensor(args[1]) and args[1].dtype == torch.bool:
                return first.flatten(0, args[1].ndim - 1)
            if name == "__setitem__":
                return None
            if name == "nonzero":
                size = (first.numel(), first.ndim)
                return torch.zeros(size, dtype=torch.int64, device="meta")
        return func(*args, **(kwargs or {}))


def make(name: str, device: str) -> AVModel:
    module, cls = NETWORKS[name]
    torch.manual_seed(0)
    return getattr(importlib.import_module(module), cls)(**OPTIONS.get(name, {})).to(device)


def tensors(value):
    """Tensors of an output, at any depth."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors(one)


def inputs_of(model: AVModel) -> dict[str, torch.Tensor]:
    """Two of what a network is called with, by name."""
    known, example = inspect.signature(model.forward).parameters, model.example_input_array
    named = example if isinstance(example, dict) else dict(zip(known, example, strict=False))
    return {name: torch.cat([one, one]) for name, one in named.items() if name in known}


def step(model: AVModel) -> torch.Tensor:
    """A forward pass, and a step of training."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    output = torch.nn.Module.__call__(model, **inputs_of(model))
    parts = [one for one in tensors(output) if one.is_floating_point() and one.requires_grad]
    assert parts
    loss = sum(one.float().pow(2).mean() for one in parts)
    loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    return loss


# LoCoNet groups faces by their values, which `meta` does not have
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "LoCoNet"])
def test_everything_is_on_the_device_of_the_network(name):
    model = make(name, "meta")
    with AllTrue():
        assert step(model).device.type == "meta"
        model.eval()
        with torch.inference_mode():
            output = torch.nn.Module.__call__(model, **inputs_of(model))
    assert all(one.device.type == "meta" for one in tensors(output))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_training_steps_on_a_gpu_are_those_on_a_cpu(name):
    losses = []
    for device in ("cpu", "cuda"):
        model = make(name, device)
        inputs = inputs_of(make(name, "cpu"))
        torch.manual_seed(1)
        given = {key: value.to(device) for key, value in inputs.items()}
        output = model.eval()(**given)
        losses.append([one.float().cpu() for one in tensors(output)])
        assert torch.isfinite(step(model.train()))
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("name", ["audio", "late_fusion", "hmsanet"])
def test_pipelines_on_a_gpu_give_the_turns_of_a_cpu(name, sample):
    from pyannote.metrics.diarization import DiarizationErrorRate

    from pyannote_av import Pipeline

    cpu, gpu = (
        Pipeline.from_pretrained(name).to(torch.device(device))(sample["video"]).speaker_diarization
        for device in ("cpu", "cuda")
    )
    assert DiarizationErrorRate()(cpu, gpu) < 0.01
