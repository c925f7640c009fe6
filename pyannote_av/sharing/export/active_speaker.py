"""ONNX export of active speaker networks, whose graphs scorers run with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch

from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.active_speaker.export import PARTS, in_parts, score_alone, to_onnx
from pyannote_av.sharing.export.graph import Graph

_SIZES = ({"batch": 1, "frames": 7}, {"batch": 3, "frames": 41})


def active_speaker(model: ActiveSpeakerModel) -> list[Graph]:
    """Graphs of an active speaker network; see ``active_speaker.export.to_onnx``."""
    converted = cache(lambda: to_onnx(model))

    def raw(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        batch, frames = sizes["batch"], sizes["frames"]
        sound = 0.1 * torch.randn(batch, 640 * frames, generator=generator)
        faces = torch.randint(256, (batch, frames, 112, 112), generator=generator).byte()
        return model.spectrum(sound, num_frames=4 * frames), faces

    def encoded(*given: Any) -> tuple[torch.Tensor, ...]:
        spectra, faces = raw(*given)
        return model.acoustic_features(spectra), model.visual_features(faces)

    makers: dict[str, tuple[Callable, Callable]] = {
        "acoustic_features": (lambda *given: raw(*given)[:1], _of(model, "acoustic_features")),
        "visual_features": (lambda *given: raw(*given)[1:], _of(model, "visual_features")),
        "fuse": (encoded, _of(model, "fuse")),
        "heads": (raw, partial(score_alone, model)),
    }

    def graph(name: str) -> Graph:
        make, reference = makers[name]

        def inputs(*given: Any) -> dict[str, torch.Tensor]:
            return {f"input{i}": x for i, x in enumerate(make(*given))}

        return Graph(name, reference, inputs, _SIZES, lambda: converted()[name])

    return [graph(name) for name in (PARTS if in_parts(model) else ("heads",))]


def _of(model: ActiveSpeakerModel, name: str) -> Callable:
    """A method that only some networks have"""
    return lambda *inputs: getattr(model, name)(*inputs)
