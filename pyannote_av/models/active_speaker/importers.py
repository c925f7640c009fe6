"""Checkpoints of other people's active speaker detectors, read safely and mapped to our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from pyannote_av.core.model import load_checkpoint
from pyannote_av.models.active_speaker.lrasd import LRASD

# first and second convolution along each axis
_STAGE = {"1": "0", "2": "1"}
_LAYER = {"": "0", "norm_": "1"}
_DIRECTION = {"forward": "", "backward": "_reverse"}


def _lrasd_name(name: str) -> str | None:
    """Our name of one of LR-ASD's tensors; None when it is not one."""
    name = name.removeprefix("module.")
    if match := re.fullmatch(
        r"model\.(visual|audio)Encoder\.block(\d)\.([smt])_(norm_)?(\d)\.(\w+)", name
    ):
        encoder, block, axis, norm, stage, tensor = match.groups()
        encoder = {"visual": "visual", "audio": "acoustic"}[encoder]
        axis = {"s": "spatial", "m": "spectral", "t": "temporal"}[axis]
        return f"{encoder}.block{block}.{axis}.{_STAGE[stage]}.{_LAYER[norm or '']}.{tensor}"
    if match := re.fullmatch(r"model\.detector\.gru_(forward|backward)\.(\w+)", name):
        return f"decoder.gru.{match[2]}{_DIRECTION[match[1]]}"
    if match := re.fullmatch(r"model\.(fusion|detector\.attention)\.(attention|bn)\.(\w+)", name):
        where = {"fusion": "fusion", "detector.attention": "decoder.attention"}[match[1]]
        return f"{where}.gate.{ {'attention': 0, 'bn': 1}[match[2]] }.{match[3]}"
    if match := re.fullmatch(r"loss(AV|V)\.FC\.(\w+)", name):
        return f"{ {'AV': 'classifier', 'V': 'visual_classifier'}[match[1]] }.{match[2]}"
    return None


def convert_lrasd(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename LR-ASD's tensors to those of :class:`LRASD`.

    Parameters
    ----------
    tensors : mapping of str to tensor
        State dict of the authors' ``ASD`` class.

    Returns
    -------
    state : dict of str to tensor
        State dict of :class:`LRASD`, complete and with nothing left over.

    Raises
    ------
    ValueError
        Naming the tensors that are missing, not known, or of another shape.
    """
    expected = LRASD().state_dict()
    state, unknown, misfits = {}, [], []
    for theirs, tensor in tensors.items():
        ours = _lrasd_name(theirs)
        if ours not in expected:
            unknown.append(theirs)
            continue
        shape = expected[ours].shape
        # kernels of three dimensions, one of which at least is 1 long, are two-dimensional here
        if tensor.ndim == 5 and tensor.squeeze().shape == expected[ours].squeeze().shape:
            tensor = tensor.reshape(shape)
        if tensor.shape != shape:
            misfits.append(f"{theirs} is {tuple(tensor.shape)}, not {tuple(shape)}")
        state[ours] = tensor
    missing = sorted(expected.keys() - state.keys())
    if missing or unknown or misfits:
        raise ValueError(
            "these are not the weights of LR-ASD: "
            f"missing {missing or 'nothing'}, unexpected {unknown or 'nothing'}, "
            f"of another shape {misfits or 'nothing'}"
        )
    return state


def import_lrasd(path: str | Path) -> LRASD:
    """Read a checkpoint of the LR-ASD authors.

    Parameters
    ----------
    path : str or Path
        A ``.model`` file from the folder ``weight`` of https://github.com/Junhua-Liao/LR-ASD;
        read without executing anything in it.

    Returns
    -------
    model : LRASD
        In evaluation mode.

    Raises
    ------
    ValueError
        When the file does not hold exactly the weights of LR-ASD.
    """
    tensors = load_checkpoint(path)
    if not isinstance(tensors, Mapping) or not all(map(torch.is_tensor, tensors.values())):
        raise ValueError(f"{path} does not hold a flat set of weights, as LR-ASD's files do")
    try:
        state = convert_lrasd(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    model = LRASD()
    model.load_state_dict(state, strict=True)
    return model.eval()
