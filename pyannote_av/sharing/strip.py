"""Training checkpoints, without what only training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyannote_av.core.atomic import replacing
from pyannote_av.core.checkpoint import load_checkpoint
from pyannote_av.core.model import NEEDED, AVModel, Model, architecture
from pyannote_av.core.trust import trusting


def strip(checkpoint: str | Path, into: str | Path, trust: bool = False) -> Path:
    """Keep weights, hyper-parameters and lineage of a training checkpoint, and nothing else.

    Nothing in the checkpoint is executed, unless it is trusted.

    Parameters
    ----------
    checkpoint : str or Path
        A checkpoint of Lightning, of a model of this package or of pyannote.audio.
    into : str or Path
        The file to write: ``.safetensors`` for models of this package; ``.ckpt`` or ``.bin`` for
        those of pyannote.audio, which reads nothing else.
    trust : bool, optional
        Unpickle whatever the checkpoint holds, and build whatever class it names.

    Returns
    -------
    path : Path
        The file written.

    Raises
    ------
    UntrustedError
        When the file holds more than plain weights, or names a class of somebody else.
    ValueError
        When it is no such checkpoint, or `into` has a suffix that does not suit the model.
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
        model.lineage = lineage(content)
        return model.save(into)
    with replacing(into) as temporary:
        torch.save({key: content[key] for key in NEEDED if key in content}, temporary)
    return into


def lineage(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Stages that the weights of a checkpoint went through, the unfinished one last."""
    steps = content.get("global_step")
    return [*content["pyannote.audio"].get("lineage", []), *([{"steps": steps}] if steps else [])]
