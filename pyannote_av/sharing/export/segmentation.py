"""ONNX export of segmentation networks: HMSA-Net, and those of pyannote.audio."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from pyannote.audio import Model
from torch import nn
from torch.export import Dim

from pyannote_av.core.grid import SAMPLES_PER_FRAME
from pyannote_av.models.blocks.window_attention import MASKED, WindowAttention, rotate, rotations
from pyannote_av.models.hmsanet.acoustic import SPECTRA_PER_FRAME
from pyannote_av.models.hmsanet.disa import FixedTargets
from pyannote_av.models.hmsanet.inputs import Targets, first_pass_features, unit
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.sharing.export.graph import Graph, convert

_SIZE = 112


class _AllTargets(Targets):
    """Targets that are not packed, because the mask is known only when the graph runs"""

    def __init__(self, mask: torch.Tensor):
        self.mask, self.shape = mask, mask.shape

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(0, self.shape)
        return torch.where(self.mask.reshape(*self.shape, *(1,) * (x.ndim - 2)), x, 0.0)

    def each(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(1).expand(-1, self.shape[1], *(-1,) * (x.ndim - 1))
        return x.flatten(0, 1)


class _WholeAttention(WindowAttention):
    """The same attention with a single matrix of scores, because the number of blocks is dynamic"""

    def forward(self, x, y, key_bias, query_gate=None):
        q = self.query(x).unflatten(-1, (self.num_heads, -1))
        k, v = self.key_value(y).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        rotation = rotations(q.shape[1], q.shape[-1], q)
        q, k = rotate(q, rotation * q.shape[-1] ** -0.5), rotate(k, rotation)
        position = torch.arange(q.shape[1])
        band = torch.where((position - position[:, None]).abs() <= self.window, 0.0, MASKED)
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
        scores = scores + (key_bias.transpose(1, 2).unsqueeze(2) + band)
        read = (scores.softmax(dim=-1) @ v.transpose(1, 2)).transpose(1, 2)
        if query_gate is not None:
            read = read * query_gate.unsqueeze(-1)
        return self.output(read.flatten(2))


class _AllPlaces(FixedTargets):
    """The same layer for any batch size"""

    def forward(self, z: torch.Tensor, targets: Targets) -> torch.Tensor:
        z = torch.where(targets.mask[:, :, None, None], targets.unpack(z), self.nobody)
        empty = self.nobody.expand(z.shape[0], self.max_targets, z.shape[2], -1)
        places = torch.cat([z, empty], dim=1)[:, : self.max_targets]
        return self.join(places.transpose(1, 2).flatten(2))


# modules to replace by equivalent ones that can be exported
_REPLACED: dict[type, type] = {WindowAttention: _WholeAttention, FixedTargets: _AllPlaces}


class _Logits(nn.Module):
    """``HMSANet.predict`` with all inputs, without shortcuts for missing ones"""

    def __init__(self, model: HMSANet):
        super().__init__()
        self.model = deepcopy(model)
        for module in self.model.modules():
            module.__class__ = _REPLACED.get(type(module), type(module))

    def forward(
        self,
        waveforms: torch.Tensor,
        faces: torch.Tensor,
        face_mask: torch.Tensor,
        target_mask: torch.Tensor,
        voiceprints: torch.Tensor,
        speaker_features: torch.Tensor,
        frame_mask: torch.Tensor,
        first_pass: torch.Tensor | None = None,
        num_speaking: torch.Tensor | None = None,
    ) -> torch.Tensor:
        model, targets = self.model, _AllTargets(target_mask)
        somebody, windows = target_mask.unsqueeze(2), speaker_features
        voiceprints = torch.where(somebody, unit(voiceprints, waveforms), 0.0)
        present = targets.pack(face_mask & frame_mask.unsqueeze(1) & somebody)
        frames = targets.each(frame_mask)
        corrected = None
        if model.residual is not None:
            corrected = targets.pack(first_pass_features(first_pass, num_speaking))
        a, detail = model.acoustic(
            waveforms[:, 0], voiceprints, unit(windows, waveforms), corrected, targets, frame_mask
        )
        v, picture = model.visual(targets.pack(faces), present, frames)
        z, _ = model.fusion(a, v, detail.flatten(2), picture, present, frames)
        logits, _ = model.decoder(z, detail, targets, frame_mask)
        if corrected is not None:
            logits = logits + model.residual * corrected[..., 0].flatten(1)
        return _confine(targets.unpack(logits), frame_mask)


class _Faces(nn.Module):
    """``HMSANet.visual_features`` for faces that are present in their first and last frames"""

    def __init__(self, model: HMSANet):
        super().__init__()
        self.visual = model.visual

    def forward(self, faces: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        frames = torch.arange(faces.shape[1])
        before = (frames <= frames[:, None]) & present.unsqueeze(1)
        last = torch.where(before, frames, 0).amax(dim=2)
        held = faces[torch.arange(faces.shape[0])[:, None], last].float()
        pictures = F.adaptive_avg_pool2d(held, (self.visual.face_size,) * 2)
        return self.visual.encoder(pictures) * present.unsqueeze(2)


_NAMES = (
    "waveforms",
    "faces",
    "face_mask",
    "target_mask",
    "voiceprints",
    "speaker_features",
    "frame_mask",
)
#: further inputs of networks with a first pass
_FIRST_PASS = ("first_pass", "num_speaking")


def _confine(logits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Set logits (batch, targets, 4 x frames) to 0 in padding"""
    return logits * real.repeat_interleave(SPECTRA_PER_FRAME, dim=1).unsqueeze(1)


def hmsanet(model: HMSANet) -> list[Graph]:
    """Graphs of HMSA-Net: ``logits`` at 100 Hz, and ``visual_features`` of faces.

    All inputs of ``logits`` are required. As in ``HMSANet.forward``, zeros and False mark unknown
    inputs: without faces, ``face_mask`` is all False. The number of frames must be a multiple of 4;
    other lengths are padded and marked by ``frame_mask``. Unlike the model, the graph needs memory
    that grows with the square of this number. ``visual_features`` takes faces from the first to the
    last frame in which they are present. They may be absent in between.
    """
    dimensions = model.visual_dimension, model.hparams.voiceprint_dimension
    most = model.hparams.max_targets if model.hparams.decoder == "fixed" else 64
    batch, quarter = (Dim(name, min=1, max=4096) for name in ("batch", "quarter"))
    targets = Dim("targets", min=1, max=most)
    corrects = model.residual is not None
    frames, faces, pictures = 4 * quarter, Dim("faces", max=4096), Dim("frames", min=2, max=16384)

    def inputs(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        b, s, t = sizes["batch"], sizes["targets"], sizes["frames"]

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        found = {
            "waveforms": 0.1 * noise(b, 1, SAMPLES_PER_FRAME * t),
            "faces": noise(b, s, t, dimensions[0]),
            "face_mask": noise(b, s, t) > -0.5,
            "target_mask": torch.ones(b, s, dtype=torch.bool),
            "voiceprints": noise(b, s, dimensions[1]),
            "speaker_features": noise(b, t // 4, dimensions[1]),
            "frame_mask": torch.ones(b, t, dtype=torch.bool),
        }
        # include an invisible speaker, a speaker without a voiceprint, and padding
        found["face_mask"][0, 0] = False
        found["voiceprints"][0, -1] = 0.0
        found["speaker_features"][:, 1:2] = 0.0
        found["target_mask"][1:, 1:] = False
        found["frame_mask"][1:, t // 2 :] = False
        if corrects:
            found["first_pass"] = torch.rand(b, s, 4 * t, generator=generator)
            found["first_pass"][0, -1] = -1.0
            found["num_speaking"] = torch.rand(b, 4 * t, 3, generator=generator)
        return found

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(_NAMES + _FIRST_PASS * corrects, tensors, strict=True))
        return _confine(model.predict(**given).logits, given["frame_mask"])

    def face_inputs(sizes: Mapping[str, int], generator: torch.Generator) -> dict:
        n, t = sizes["faces"], sizes["frames"]
        crops = torch.randint(256, (n, t, _SIZE, _SIZE), generator=generator).byte()
        present = torch.rand(n, t, generator=generator) > 0.3
        present[:, 0] = present[:, -1] = True
        return {"faces": crops, "present": present}

    example = {"batch": 2, "targets": 3, "frames": 28}
    face_example = {"faces": 2, "frames": 12}
    axes = {
        "waveforms": {0: batch, 2: SAMPLES_PER_FRAME * 4 * quarter},
        "faces": {0: batch, 1: targets, 2: frames},
        "face_mask": {0: batch, 1: targets, 2: frames},
        "target_mask": {0: batch, 1: targets},
        "voiceprints": {0: batch, 1: targets},
        "speaker_features": {0: batch, 1: quarter},
        "frame_mask": {0: batch, 1: frames},
    }
    if corrects:
        axes["first_pass"] = {0: batch, 1: targets, 2: 16 * quarter}
        axes["num_speaking"] = {0: batch, 1: 16 * quarter}
    face_axes = {name: {0: faces, 1: pictures} for name in ("faces", "present")}
    return [
        Graph(
            "logits",
            reference,
            inputs,
            [
                {"batch": 1, "targets": 1, "frames": 4},
                {"batch": 2, "targets": min(most, 5), "frames": 60},
                {"batch": 1, "targets": 2, "frames": 204},
            ],
            lambda: convert(_Logits(model), inputs(example, torch.Generator()), ["logits"], axes),
        ),
        Graph(
            "visual_features",
            lambda crops, present: model.visual_features(crops[None], present[None])[0],
            face_inputs,
            [{"faces": 1, "frames": 7}, {"faces": 3, "frames": 30}],
            lambda: convert(
                _Faces(model), face_inputs(face_example, torch.Generator()), ["features"], face_axes
            ),
        ),
    ]


def pyannote(model: Model) -> list[Graph]:
    """Graph of a segmentation network of pyannote.audio: ``scores`` of waveforms of any length."""

    def inputs(sizes: Mapping[str, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = sizes["batch"], model.hparams.num_channels, sizes["samples"]
        return {"waveforms": 0.1 * torch.randn(shape, generator=generator)}

    def recurrent() -> bytes:
        # the newer exporter unrolls recurrent layers, which fixes the length of the input
        file = io.BytesIO()
        example = inputs({"batch": 2, "samples": 32000}, torch.Generator())
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model.eval(),
                tuple(example.values()),
                file,
                input_names=list(example),
                output_names=["scores"],
                dynamic_axes={
                    "waveforms": {0: "batch", 2: "samples"},
                    "scores": {0: "batch", 1: "frames"},
                },
                dynamo=False,
            )
        return file.getvalue()

    sizes = [{"batch": 1, "samples": 80000}, {"batch": 3, "samples": 24321}]
    return [Graph("scores", model, inputs, sizes, recurrent)]
