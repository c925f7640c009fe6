"""Export active speaker networks to ONNX, and run them with ONNX Runtime."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.loconet import LoCoNet
from pyannote_av.models.active_speaker.scene import NUM_FACES
from pyannote_av.models.blocks.separable import fold

#: methods that become one graph each, for networks whose encoders can run separately
PARTS = ("acoustic_features", "visual_features", "fuse")

# number of frames in the example for tracing; graphs accept any number
_EXAMPLE = 30


def in_parts(model: nn.Module) -> bool:
    """Whether the encoders of a network can run separately from fusion."""
    return all(hasattr(model, part) for part in PARTS)


def score_alone(model: nn.Module, spectra: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Fused logits (n, frames, 2) of faces (n, frames, 112, 112), each without context faces.

    Networks that compare the faces of a scene receive each face as its own context.
    """
    if not isinstance(model, LoCoNet):
        output = model.heads(spectra, faces)
        return output if torch.is_tensor(output) else output.fused
    # equals `heads` for scenes, one by one, that repeat one face three times
    acoustic = model.acoustic(spectra)
    if model.visual.per_clip_conv3d:  # all three are alike, so one is encoded
        fused, *_ = model._fuse(acoustic, model.visual(faces))
        scene = fused[:, None].expand(-1, NUM_FACES, -1, -1)
    else:
        acoustic, faces = (x.repeat_interleave(NUM_FACES, dim=0) for x in (acoustic, faces))
        fused, *_ = model._fuse(acoustic, model.visual(faces, joined=NUM_FACES))
        scene = fused.unflatten(0, (-1, NUM_FACES))
    return model.classifier(model.decoder(scene))[:, 0]


class _Function(nn.Module):
    """Wrap a function of a model as a module."""

    def __init__(self, model: nn.Module, function: Callable[..., torch.Tensor]):
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


@torch.no_grad()
def to_onnx(model: ActiveSpeakerModel) -> dict[str, bytes]:
    """Convert a network to ONNX.

    Parameters
    ----------
    model : ActiveSpeakerModel

    Returns
    -------
    graphs : dict of str to bytes
        Content of ONNX files, by the method of the model that each one computes:
        ``acoustic_features``, ``visual_features`` and ``fuse`` where the network has them,
        ``heads`` (see :func:`score_alone`) otherwise. Batch and time axes are dynamic. Face crops
        are uint8. ``model.spectrum`` is not part of the graphs.
    """
    model = fold(model).cpu()
    faces = torch.full((1, _EXAMPLE, 112, 112), 110, dtype=torch.uint8)
    spectra = model.spectrum(torch.zeros(1, 640 * _EXAMPLE), num_frames=4 * _EXAMPLE)
    if not in_parts(model):
        return {"heads": _trace_whole(model, spectra, faces)}
    acoustic, visual = model.acoustic_features(spectra), model.visual_features(faces)
    return {
        "acoustic_features": _trace(model, model.acoustic_features, spectra),
        "visual_features": _trace(model, model.visual_features, faces),
        "fuse": _trace(model, model.fuse, acoustic, visual),
    }


def _trace(model: nn.Module, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> bytes:
    """Convert a function that may contain recurrent layers.

    The newer exporter unrolls recurrent layers, and such a graph runs for one length only.
    """
    file = io.BytesIO()
    names = [f"input{i}" for i in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Function(model, function).eval(),
            inputs,
            file,
            input_names=names,
            output_names=["output"],
            dynamic_axes={name: {0: "batch", 1: "time"} for name in [*names, "output"]},
            dynamo=False,
        )
    return file.getvalue()


def _trace_whole(model: nn.Module, spectra: torch.Tensor, faces: torch.Tensor) -> bytes:
    """Convert a network made of convolutions and attention.

    The older exporter treats the sequence length in attention as a constant.
    """
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Function(model, partial(score_alone, model)).eval(),
            # a batch size of one would be treated as a constant too
            (spectra.repeat(2, 1, 1), faces.repeat(2, 1, 1, 1)),
            input_names=["input0", "input1"],
            output_names=["output"],
            dynamic_shapes=(({0: batch, 1: 4 * time}, {0: batch, 1: time}),),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    return program.model_proto.SerializeToString()


def export(model: ActiveSpeakerModel, folder: str | Path) -> list[Path]:
    """Write a network as ONNX files, one per graph of :func:`to_onnx`.

    Parameters
    ----------
    model : ActiveSpeakerModel
    folder : str or Path

    Returns
    -------
    paths : list of Path
        ``<folder>/<method>.onnx``
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, graph in to_onnx(model).items():
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(graph)
    return paths


class OnnxNetwork:
    """Run a network with ONNX Runtime, on the CPU, with as many threads as torch uses.

    Parameters
    ----------
    model : ActiveSpeakerModel
        Network to convert, in memory.

    Raises
    ------
    ImportError
        When ONNX Runtime is not installed.

    Notes
    -----
    An object has ``spectrum`` and the converted methods among ``acoustic_features``,
    ``visual_features``, ``fuse`` and ``heads``. These methods take tensors and return CPU tensors.
    """

    def __init__(self, model: ActiveSpeakerModel):
        try:
            from onnxruntime import InferenceSession, SessionOptions
        except ImportError as error:
            raise ImportError(
                "ONNX Runtime is not installed: pip install 'pyannote-av[onnx]'"
            ) from error
        self.spectrum = model.spectrum
        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        for name, graph in to_onnx(model).items():
            session = InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            setattr(self, name, _Run(session))


class _Run:
    def __init__(self, session):
        self._session = session
        self._names = [each.name for each in session.get_inputs()]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        arrays = [np.ascontiguousarray(each.cpu().numpy()) for each in inputs]
        (output,) = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return torch.from_numpy(output)
