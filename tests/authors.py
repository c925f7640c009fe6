"""Checkpoints as the authors of TalkNet and LoCoNet write them, with made-up weights."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def numbers(text):
    return [float(number) for number in text.split()]


def example(num_frames, num_faces=1, seed=0):
    """Noise: waveforms (1, 1, samples) and faces (1, num_faces, frames, 112, 112)."""
    random = np.random.default_rng(seed)
    waveform = 0.1 * random.standard_normal((1, 1, 640 * num_frames))
    faces = random.integers(0, 256, (1, num_faces, num_frames, 112, 112), dtype=np.uint8)
    return torch.tensor(waveform, dtype=torch.float32), torch.tensor(faces)


def real_example(folder, num_frames):
    """The first frames of a real face that speaks, in the same form."""
    import cv2

    from pyannote_av.core.io import Video

    clip = folder / "clips" / "crops" / "speaking" / "0.mp4"
    waveform = Video().waveform(clip)[None, :, : 640 * num_frames]
    faces = [
        cv2.resize(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), (224, 224))[56:168, 56:168]
        for frame in Video().frames(clip, end=num_frames / 25)
    ]
    return waveform, torch.from_numpy(np.stack(faces))[None, None]


def made_up(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Values that depend on the name of a tensor only, and keep the size of what they act on."""
    state = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
            continue
        random = np.random.default_rng(zlib.crc32(name.encode()))
        values = random.standard_normal(shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif len(shape) > 1 and not name.endswith(("gamma", "beta")):
            values = values / np.prod(shape[1:]) ** 0.5
        else:
            values = 0.1 * values + name.endswith((".weight", ".gamma"))
        if shape == (1,):  # slope of a PReLU
            values = 0.25 * values
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def batch_norm(name: str, channels: int) -> Shapes:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{tensor}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def attention(name: str, width: int) -> Shapes:
    yield f"{name}.self_attn.in_proj_weight", (3 * width, width)
    yield f"{name}.self_attn.in_proj_bias", (3 * width,)
    yield from layer(f"{name}.self_attn.out_proj", width, width)
    yield from layer(f"{name}.linear1", 4 * width, width)
    yield from layer(f"{name}.linear2", width, 4 * width)
    for norm in ("norm1", "norm2"):
        yield from layer(f"{name}.{norm}", width)


def visual(has_unused_shortcut: bool) -> Shapes:
    """The visual branch of both networks."""
    name = "model.visualFrontend"
    yield from layer(f"{name}.frontend3D.0", 64, 1, 5, 7, 7, bias=False)
    yield from batch_norm(f"{name}.frontend3D.1", 64)
    before = 64
    for i, width in enumerate((64, 128, 256, 512), start=1):
        where = f"{name}.resnet.layer{i}"
        yield from layer(f"{where}.conv1a", width, before, 3, 3, bias=False)
        for conv in ("conv2a", "conv1b", "conv2b"):
            yield from layer(f"{where}.{conv}", width, width, 3, 3, bias=False)
        for norm in ("bn1a", "outbna", "bn1b", "outbnb"):
            yield from batch_norm(f"{where}.{norm}", width)
        if before != width or has_unused_shortcut:
            yield from layer(f"{where}.downsample", width, before, 1, 1, bias=False)
        before = width
    for i in range(5):
        where = f"model.visualTCN.net.{i}.net"
        yield from batch_norm(f"{where}.1", 512)
        yield from layer(f"{where}.2", 512, 1, 3, bias=False)
        yield f"{where}.3.weight", (1,)
        yield from ((f"{where}.4.{tensor}", (1, 512, 1)) for tensor in ("gamma", "beta"))
        yield from layer(f"{where}.5", 512, 512, 1, bias=False)
    yield from layer("model.visualConv1D.net.0", 256, 512, 5)
    yield from batch_norm("model.visualConv1D.net.1", 256)
    yield from layer("model.visualConv1D.net.3", 128, 256, 1)


def common() -> Shapes:
    """Cross attention and classifiers of both networks."""
    yield from attention("model.crossA2V", 128)
    yield from attention("model.crossV2A", 128)
    for head, width in (("AV", 256), ("A", 128), ("V", 128)):
        yield from layer(f"loss{head}.FC", 2, width)


def residual_stages(name: str, widths: Sequence[int]) -> Shapes:
    """Residual network of 34 layers with squeeze and excitation."""
    before = widths[0]
    for i, (width, count) in enumerate(zip(widths, (3, 4, 6, 3), strict=True), start=1):
        for j in range(count):
            where = f"{name}.layer{i}.{j}"
            yield from layer(f"{where}.conv1", width, before, 3, 3, bias=False)
            yield from batch_norm(f"{where}.bn1", width)
            yield from layer(f"{where}.conv2", width, width, 3, 3, bias=False)
            yield from batch_norm(f"{where}.bn2", width)
            yield from layer(f"{where}.se.fc.0", width // 8, width)
            yield from layer(f"{where}.se.fc.2", width, width // 8)
            if before != width:
                yield from layer(f"{where}.downsample.0", width, before, 1, 1, bias=False)
                yield from batch_norm(f"{where}.downsample.1", width)
            before = width


def talknet() -> Shapes:
    """Tensors of a checkpoint of TalkNet."""
    yield from visual(has_unused_shortcut=True)
    name = "model.audioEncoder"
    yield from layer(f"{name}.conv1", 16, 1, 7, 7, bias=False)
    yield from batch_norm(f"{name}.bn1", 16)
    yield from residual_stages(name, (16, 32, 64, 128))
    yield from attention("model.selfAV", 256)
    yield from common()


def loconet() -> Shapes:
    """Tensors of a checkpoint of LoCoNet, without the prefixes of parallel training."""
    yield from visual(has_unused_shortcut=False)
    name = "model.audioEncoder"
    widths = (1, 64, 128, 256, 256, 512, 512)
    for i, place in enumerate((0, 3, 6, 8, 11, 13)):
        yield from layer(f"{name}.features.{place}", widths[i + 1], widths[i], 3, 3)
    yield f"{name}.deconv.weight", (512, 256, 2, 2)
    yield f"{name}.deconv.bias", (256,)
    yield from layer(f"{name}.conv1", 256, 512, 1, 1)
    yield from layer(f"{name}.conv2", 128, 256, 1, 1)
    for i in range(3):
        where = f"model.convAV.{2 * i}"
        yield from layer(f"{where}.conv2d", 768, 256, 3, 7)
        yield from layer(f"{where}.ln", 256)
        yield from layer(f"{where}.conv2d_1x1", 512, 256, 1, 1)
        yield from layer(f"{where}.conv2d_1x1_2", 256, 512, 1, 1)
        yield from attention(f"model.convAV.{2 * i + 1}", 256)
    yield from common()
