"""ONNX graphs: conversion, and comparison with the original networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

#: largest allowed difference between the outputs of ONNX Runtime and torch for random inputs
TOLERANCE = 1e-4

#: function that makes input tensors, by name, for given sizes of axes
Inputs = Callable[[Mapping[str, int], torch.Generator], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Graph:
    """A part of a model that is exported to one file.

    Attributes
    ----------
    name : str
        Name of the file, without suffix.
    reference : callable
        Computes the expected outputs from the tensors of `inputs`, in order.
    inputs : callable
        Makes random inputs of given sizes.
    sizes : sequence of mapping
        Sizes of axes, by name, to compare at. They differ from those used for the conversion.
    convert : callable
        Makes the content of the file.
    """

    name: str
    reference: Callable[..., Any]
    inputs: Inputs
    sizes: Sequence[Mapping[str, int]]
    convert: Callable[[], bytes]


def convert(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, Any]],
) -> bytes:
    """Convert a module with torch's exporter.

    Parameters
    ----------
    module : Module
    inputs : mapping of str to tensor
        Example inputs. Dynamic axes must be longer than 1; otherwise they become constants.
    outputs : sequence of str
        Names of the outputs.
    axes : mapping of str to mapping of int to torch.export.Dim
        Dynamic axes of each input.

    Returns
    -------
    graph : bytes
    """
    # the fused attention kernel has no equivalent in ONNX
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(dict(axes.get(name, {})) for name in inputs),
                custom_translation_table={torch.ops.aten.median.dim: _median},
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return program.model_proto.SerializeToString()


def _median(x, dim: int, keepdim: bool = False):
    """Lower median along an axis of fixed length, which torch's exporter does not support"""
    from onnxscript import opset18 as op

    size = x.shape[dim]
    if keepdim or not isinstance(size, int):
        raise NotImplementedError("median is converted for axes of known length, without keepdim")
    half = (size + 1) // 2
    values, indices = op.TopK(x, op.Constant(value_ints=[half]), axis=dim, largest=0)
    last = op.Constant(value_int=half - 1)
    return op.Gather(values, last, axis=dim), op.Gather(indices, last, axis=dim)


def session(graph: bytes):
    """An ONNX Runtime session on the CPU, with as many threads as torch uses.

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    """
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise ImportError(
            "ONNX Runtime is not installed: pip install 'pyannote-av[onnx]'"
        ) from error
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # hide warnings about constants that it cannot fold
    return InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def difference(graph: Graph, content: bytes, seed: int = 0) -> float:
    """Largest difference between the outputs of ONNX Runtime and the model for random inputs.

    ``torch.onnx.export(verify=True)`` cannot replace this. It compares the graph at the size of the
    example only, with the exported module instead of the model; it logs a difference above 0.005
    instead of refusing it; and only the newer exporter has it.

    Parameters
    ----------
    graph : Graph
    content : bytes
        Converted graph.
    seed : int, optional

    Returns
    -------
    difference : float
        Maximum over all sizes and outputs. Infinite if shapes differ, or only one output has NaN.
    """
    run = session(content)
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for sizes in graph.sizes:
        inputs = graph.inputs(sizes, generator)
        expected = graph.reference(*inputs.values())
        # the graph omits inputs that have no effect
        feed = {one.name: inputs[one.name].numpy() for one in run.get_inputs()}
        found = run.run(None, feed)
        expected = (expected,) if torch.is_tensor(expected) else expected
        for theirs, ours in zip(found, expected, strict=True):
            ours = ours.numpy()
            if theirs.shape != ours.shape or (np.isnan(theirs) != np.isnan(ours)).any():
                return float("inf")
            if theirs.size:
                worst = max(worst, float(np.nanmax(np.abs(theirs - ours), initial=0.0)))
    return worst
