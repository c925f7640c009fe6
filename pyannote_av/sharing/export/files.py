"""Export of models to folders of ONNX files with a description."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pyannote.audio import Model
from pyannote.audio.core.task import Resolution

from pyannote_av import __version__
from pyannote_av.clustering.avrnet import AVRNet
from pyannote_av.clustering.cysmsd import CYSMSD
from pyannote_av.clustering.embedded import FusedEmbeddings, RelationOfEmbeddings
from pyannote_av.core.atomic import replacing, write_text
from pyannote_av.core.checksums import digest
from pyannote_av.core.model import AVModel
from pyannote_av.core.weights import REGISTRY, require
from pyannote_av.models.active_speaker.base import ActiveSpeakerModel
from pyannote_av.models.embedding.campplus import CAMPPlus
from pyannote_av.models.hmsanet.model import HMSANet
from pyannote_av.models.importers import import_checkpoint
from pyannote_av.models.loading import load_model
from pyannote_av.sharing.export.active_speaker import active_speaker
from pyannote_av.sharing.export.embedding import campplus
from pyannote_av.sharing.export.graph import TOLERANCE, Graph, difference, session
from pyannote_av.sharing.export.relation import avrnet, cysmsd, embedded
from pyannote_av.sharing.export.segmentation import hmsanet, pyannote

#: file that describes the graphs of a folder
DESCRIPTION = "export.json"

_NETWORKS: dict[type, Callable[[Any], list[Graph]]] = {
    ActiveSpeakerModel: active_speaker,
    HMSANet: hmsanet,
    AVRNet: avrnet,
    RelationOfEmbeddings: embedded,
    FusedEmbeddings: embedded,
    CYSMSD: cysmsd,
    CAMPPlus: campplus,
}


class ParityError(ValueError):
    """The outputs of a graph differ from those of its model."""


def load(reference: str | Path) -> Model:
    """Load a model by the name of its weights, a file, a folder or an identifier of the hub."""
    path = require(str(reference)) if str(reference) in REGISTRY else Path(reference)
    if path.suffix == ".model":
        return import_checkpoint(path)
    return load_model(reference)


def graphs_of(model: Model) -> list[Graph]:
    """Graphs that a model is exported to.

    Raises
    ------
    ValueError
        If models of this class cannot be exported.
    """
    for network, make in _NETWORKS.items():
        if isinstance(model, network):
            return make(model.eval().cpu())
    if not isinstance(model, AVModel) and model.specifications.resolution == Resolution.FRAME:
        return pyannote(model.eval().cpu())
    names = ", ".join(network.__name__ for network in _NETWORKS)
    raise ValueError(
        f"{type(model).__name__} cannot be converted to ONNX: {names} and segmentation networks of "
        "pyannote.audio can"
    )


def export(model: Model, folder: str | Path) -> Path:
    """Compare a model with its ONNX graphs, and write the graphs.

    Parameters
    ----------
    model : Model
        See :func:`graphs_of`.
    folder : str or Path
        Output folder. It receives ``<graph>.onnx`` for every graph, and ``export.json``: names,
        types and axes of inputs and outputs (dynamic axes have names), sha256, and the largest
        difference found.

    Returns
    -------
    path : Path
        Path of ``export.json``.

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    ParityError
        If a graph differs from the model by more than :data:`TOLERANCE`. Nothing is written.
    ValueError
        If models of this class cannot be exported.
    """
    folder = Path(folder)
    contents, described = {}, {}
    for graph in graphs_of(model):
        content = graph.convert()
        found = difference(graph, content)
        if not found <= TOLERANCE:
            raise ParityError(
                f"graph {graph.name!r} of {type(model).__name__} differs from the model by "
                f"{found:.2g}, more than {TOLERANCE:g}: it is not written"
            )
        contents[graph.name] = content
        described[graph.name] = {
            "file": f"{graph.name}.onnx",
            "sha256": digest([content]),
            **_interface(content),
            "parity": {"largest_difference": found, "at": [dict(size) for size in graph.sizes]},
        }
    for name, content in contents.items():
        with replacing(folder / f"{name}.onnx") as temporary:
            temporary.write_bytes(content)
    cls = type(model)
    description = {
        "model": f"{cls.__module__}.{cls.__qualname__}",
        "pyannote_av": __version__,
        "torch": str(torch.__version__),
        "tolerance": TOLERANCE,
        "graphs": described,
    }
    return write_text(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")


def _interface(content: bytes) -> dict[str, Any]:
    run = session(content)
    return {
        kind: [{"name": one.name, "type": one.type, "shape": one.shape} for one in these]
        for kind, these in (("inputs", run.get_inputs()), ("outputs", run.get_outputs()))
    }
