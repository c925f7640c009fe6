"""Load the models that the configuration of a pipeline refers to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyannote.audio import Model as _Model

from pyannote_av.core.hub import locate
from pyannote_av.core.model import Model
from pyannote_av.core.weights import REGISTRY, require
from pyannote_av.models.embedding.campplus import CAMPPlus

#: a name known to ``core.weights``, a path, a hub identifier, the mapping that ``$model/...`` in a
#: configuration file resolves to, or the model itself
ModelReference = str | Path | Mapping | _Model


def load_model(
    reference: ModelReference,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> _Model:
    """Load a segmentation or embedding model.

    Parameters
    ----------
    reference : str, Path, mapping or Model
        A name known to ``core.weights``, a path (a pyannote checkpoint, a folder, a
        ``.safetensors`` file, or plain CAM++ weights in a ``.pt`` file), a hub identifier, a
        mapping with ``checkpoint`` and optionally ``subfolder`` and ``revision``, or a model,
        which is returned in evaluation mode.
    token, cache_dir : optional
        Token and cache folder for the Hugging Face hub.

    Returns
    -------
    model : pyannote.audio.Model
        In evaluation mode.
    """
    if isinstance(reference, _Model):
        return reference.eval()
    if isinstance(reference, str) and reference in REGISTRY:
        path = require(reference)
    else:
        path = locate(reference, token, cache_dir)
    if path.suffix == ".pt":
        return CAMPPlus.from_checkpoint(path)
    return Model.from_pretrained(path)
