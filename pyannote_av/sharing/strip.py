"""Remove everything from training checkpoints that is needed only for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from pyannote_av.core.atomic import replacing
from pyannote_av.core.checkpoint import CheckpointError, load_checkpoint
from pyannote_av.core.model import AVModel, Model, architecture, plain_checkpoint
from pyannote_av.core.trust import trusting


def strip(checkpoint: str | Path, into: str | Path, trust: bool = False) -> Path:
    """Keep only the weights, hyper-parameters and lineage of a training checkpoint.

    No code in the checkpoint is executed, unless it is trusted.

    Parameters
    ----------
    checkpoint : str or Path
        A Lightning checkpoint of a model of this package or of pyannote.audio.
    into : str or Path
        File to write: ``.safetensors`` for models of this package; ``.ckpt`` or ``.bin`` for models
        of pyannote.audio, which supports only these.
    trust : bool, optional
        Allow any pickled content, and any model class.

    Returns
    -------
    path : Path
        The file written.

    Raises
    ------
    UntrustedError
        If the file holds more than plain weights, or names a class of another package.
    ValueError
        If it is no such checkpoint, or `into` has an unsuitable suffix.
    """
    checkpoint, into = Path(checkpoint), Path(into)
    with trusting(trust):
        return _strip(checkpoint, into)


def _strip(checkpoint: Path, into: Path) -> Path:
    content = load_checkpoint(checkpoint)
    ours = issubclass(architecture(content, checkpoint), AVModel)
    suffixes = (".safetensors",) if ours else (".ckpt", ".bin")
    if into.suffix not in suffixes:
        owner = "this package" if ours else "pyannote.audio"
        raise ValueError(
            f"{checkpoint} holds a model of {owner}: write it into a file that ends in "
            f"{' or '.join(suffixes)}, not {into}"
        )
    model = Model.from_pretrained(checkpoint)
    if ours:
        model.lineage = lineage(content, checkpoint)
        return model.save(into)
    with replacing(into) as temporary:
        torch.save(plain_checkpoint(content, checkpoint), temporary)
    return into


def lineage(content: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Training stages that the weights of a checkpoint went through; the unfinished one is last.

    Parameters
    ----------
    content : dict
        Content of a checkpoint.
    path : Path
        Path of the checkpoint, for messages.

    Raises
    ------
    CheckpointError
        If the lineage is not a list of stages, or holds other than plain values.
    """
    stages, steps = content["pyannote.audio"].get("lineage", []), content.get("global_step")
    try:
        stages = json.loads(json.dumps(stages))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its lineage is not a list of stages ({error})") from error
    if not isinstance(stages, list) or not all(isinstance(one, dict) for one in stages):
        raise CheckpointError(f"{path}: its lineage is not a list of stages")
    return [*stages, *([{"steps": steps}] if isinstance(steps, int) and steps else [])]
