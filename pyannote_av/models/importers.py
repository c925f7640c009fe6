"""Safely read checkpoints published by the authors of networks, and map tensors to our names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pyannote_av.core.checkpoint import CheckpointError, load_checkpoint
from pyannote_av.core.model import AVModel
from pyannote_av.core.trust import trusting
from pyannote_av.models.registry import get_network, published

# prefixes that wrappers for training add to tensor names
_WRAPPERS = ("module.", "model.module.", "__S__.", "module.__S__.")


def _unwrap(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in sorted(_WRAPPERS, key=len, reverse=True):
        if all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def convert(
    tensors: Mapping[str, torch.Tensor],
    network: type[AVModel],
    hparams: Mapping[str, Any] | None = None,
) -> AVModel:
    """Build a network from the authors' weights.

    Parameters
    ----------
    tensors : mapping of str to tensor
        The authors' state dict.
    network : class
        Class of the network.
    hparams : mapping, optional
        Hyper-parameters of the network, instead of those of the authors.

    Returns
    -------
    model : AVModel
        In evaluation mode. Its outputs are those of the authors' code, unless `hparams` change
        them.

    Raises
    ------
    ValueError
        When a tensor is missing, unknown or of a wrong shape. The message lists all of them. Also
        when the network has no such hyper-parameter.
    """
    hparams = hparams or {}
    if unknown := sorted(hparams.keys() - inspect.signature(network.__init__).parameters.keys()):
        raise ValueError(f"{network.__name__} has no {', '.join(unknown)}")
    model = network(**{**network.PUBLISHED, **hparams})
    expected = model.state_dict()
    state, unknown, misfits = {}, [], []
    for theirs, tensor in _unwrap(tensors).items():
        ours = network.rename(theirs)
        if ours not in expected:
            unknown.append(theirs)
            continue
        shape = expected[ours].shape
        # the authors' kernels may have axes of length 1 that ours lack
        if tensor.squeeze().shape == expected[ours].squeeze().shape:
            tensor = tensor.reshape(shape)
        if tensor.shape != shape:
            misfits.append(f"{theirs} is {tuple(tensor.shape)}, not {tuple(shape)}")
        state[ours] = tensor
    missing = sorted(expected.keys() - state.keys())
    if missing or unknown or misfits:
        raise ValueError(
            f"these are not the weights of {network.__name__}: "
            f"missing {missing or 'nothing'}, unexpected {unknown or 'nothing'}, "
            f"of another shape {misfits or 'nothing'}"
        )
    model.load_state_dict(state, strict=True)
    return model.eval()


def import_part(
    path: str | Path, model: AVModel, part: str, prefix: str, trust: bool = False
) -> None:
    """Load a branch of a network from a checkpoint of that branch alone, in place.

    Parameters
    ----------
    path : str or Path
        The authors' file. Tensors that do not belong to the branch are ignored.
    model : AVModel
    part : str
        Name of the branch in `model`.
    prefix : str
        Prefix of the names of the branch's tensors in the authors' checkpoints of the whole
        network.
    trust : bool, optional
        Unpickle the whole file. This can execute arbitrary code.

    Raises
    ------
    ValueError
        When a tensor of the branch is missing or of a wrong shape. The message lists all of them.
    """
    branch = model.get_submodule(part)
    expected = branch.state_dict()
    state = {}
    for theirs, tensor in _unwrap(_read(path, trust)).items():
        ours = type(model).rename(prefix + theirs) or ""
        if ours.startswith(f"{part}."):
            state[ours.removeprefix(f"{part}.")] = tensor
    missing = sorted(expected.keys() - state.keys())
    misfits = [
        f"{name} is {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if missing or misfits:
        raise CheckpointError(
            f"{path}: these are not the weights of {part!r} of {type(model).__name__}: missing "
            f"{missing or 'nothing'}, of another shape {misfits or 'nothing'}"
        )
    branch.load_state_dict({name: state[name] for name in expected})


def import_checkpoint(
    path: str | Path,
    network: str | type[AVModel] | None = None,
    trust: bool = False,
    hparams: Mapping[str, Any] | None = None,
) -> AVModel:
    """Read a checkpoint published by the authors of a network.

    Parameters
    ----------
    path : str or Path
        A ``.model``, ``.pt`` or ``.ckpt`` file. Code in it is not executed unless
        `trust` is set.
    network : str or class, optional
        A class, or the name of its published weights, such as ``"lr-asd"`` (see
        :func:`pyannote_av.models.registry.published`). By default, the network is recognised from
        the names of the tensors.
    trust : bool, optional
        Unpickle the whole file. This can execute arbitrary code.
    hparams : mapping, optional
        See :func:`convert`.

    Returns
    -------
    model : AVModel
        In evaluation mode.

    Raises
    ------
    ValueError
        When the file does not contain exactly the weights of the network.
    """
    tensors = _read(path, trust)
    if network is None:
        network = _recognise(tensors)
    if isinstance(network, str):
        if network not in published():
            raise ValueError(f"unknown network {network!r}: choose from {', '.join(published())}")
        network = get_network(network)
    try:
        return convert(tensors, network, hparams)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(path: str | Path, trust: bool) -> Mapping[str, torch.Tensor]:
    """Weights in an authors' file"""
    with trusting(trust):
        tensors = load_checkpoint(path)
    # checkpoints of AVR-Net contain weights and the training state
    for key in ("model", "state_dict"):
        if isinstance(tensors, Mapping) and isinstance(tensors.get(key), Mapping):
            tensors = tensors[key]
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in tensors.items()
    ):
        raise CheckpointError(
            f"{path} does not hold a flat set of weights, as the authors' files do"
        )
    return tensors


def _recognise(tensors: Mapping[str, torch.Tensor]) -> type[AVModel]:
    """Return the network that maps the largest number of tensor names."""
    names = list(_unwrap(tensors))

    def known(network: type[AVModel]) -> int:
        return sum(network.rename(name) is not None for name in names)

    return max(map(get_network, published()), key=known)
