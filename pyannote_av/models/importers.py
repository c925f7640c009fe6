"""Safely read checkpoints published by the authors of networks, and map tensors to our names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pyannote_av.core.checkpoint import CheckpointError, load_checkpoint
from pyannote_av.core.model import AVModel
from pyannote_av.core.trust import trusting
from pyannote_av.models.registry import get_network, published

# prefixes that wrappers for distributed training add to tensor names
_WRAPPERS = ("module.", "model.module.")


def _unwrap(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in sorted(_WRAPPERS, key=len, reverse=True):
        if all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def convert(tensors: Mapping[str, torch.Tensor], network: type[AVModel]) -> AVModel:
    """Build a network from the authors' weights.

    Parameters
    ----------
    tensors : mapping of str to tensor
        The authors' state dict.
    network : class
        Class of the network.

    Returns
    -------
    model : AVModel
        In evaluation mode.

    Raises
    ------
    ValueError
        When a tensor is missing, unknown or of a wrong shape. The message lists all of them.
    """
    model = network()
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


def import_checkpoint(
    path: str | Path, network: str | type[AVModel] | None = None, trust: bool = False
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

    Returns
    -------
    model : AVModel
        In evaluation mode.

    Raises
    ------
    ValueError
        When the file does not contain exactly the weights of the network.
    """
    with trusting(trust):
        tensors = load_checkpoint(path)
    # checkpoints of AVR-Net contain weights and the training state
    if isinstance(tensors, Mapping) and isinstance(tensors.get("model"), Mapping):
        tensors = tensors["model"]
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in tensors.items()
    ):
        raise CheckpointError(
            f"{path} does not hold a flat set of weights, as the authors' files do"
        )
    if network is None:
        network = _recognise(tensors)
    if isinstance(network, str):
        if network not in published():
            raise ValueError(f"unknown network {network!r}: choose from {', '.join(published())}")
        network = get_network(network)
    try:
        return convert(tensors, network)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _recognise(tensors: Mapping[str, torch.Tensor]) -> type[AVModel]:
    """Return the network that maps the largest number of tensor names."""
    names = list(_unwrap(tensors))

    def known(network: type[AVModel]) -> int:
        return sum(network.rename(name) is not None for name in names)

    return max(map(get_network, published()), key=known)
