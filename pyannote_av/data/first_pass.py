"""Precomputed first pass of the files of a store: who speaks according to the sound alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.caching import checksum
from pyannote_av.core.grid import SAMPLE_RATE, SAMPLES_PER_FRAME, STEPS
from pyannote_av.data.array_store import ArrayStore, FillReport, fill, open_arrays
from pyannote_av.data.crop_store import CropStore

if TYPE_CHECKING:
    from pyannote_av.pipelines.audio_diarization import AudioDiarization


def first_pass_folder(store: CropStore) -> Path:
    """Default folder of :func:`build_first_pass`."""
    return store.folder / "first_pass"


def build_first_pass(
    store: CropStore,
    uris: Iterable[str] | None = None,
    pipeline: str | Path | AudioDiarization = "audio",
    folder: str | Path | None = None,
    progress: bool = False,
) -> FillReport:
    """Diarize the sound of the files of a store, and write the posteriors.

    Existing ones are kept, unless the sound or the pipeline changed. The array of a file with T
    frames and K speakers is (4 T, K + 3) float16: the probability of each speaker, and those that
    nobody, one speaker, and two or more speakers are active; see
    :class:`~pyannote_av.core.posteriors.SpeakerPosteriors`.

    Parameters
    ----------
    store : CropStore
    uris : iterable of str, optional
        Files of the store. Defaults to all of them.
    pipeline : str, Path or AudioDiarization, optional
        Audio-only pipeline; see :meth:`pyannote_av.Pipeline.from_pretrained`.
    folder : str or Path, optional
        Defaults to ``first_pass`` in the folder of the store.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    report : FillReport
    """
    from pyannote_av.core.pipeline import Pipeline

    if isinstance(pipeline, (str, Path)):
        pipeline = Pipeline.from_pretrained(pipeline)
    made_by = {"pipeline": type(pipeline).__name__, "checksum": checksum(pipeline)}
    uris = store.uris if uris is None else uris
    sources = {uri: store[uri].index["sha256"]["waveform.npy"] for uri in uris}
    return fill(
        first_pass_folder(store) if folder is None else folder,
        made_by,
        sources,
        partial(_posteriors_of, store, pipeline),
        "First pass" if progress else None,
    )


def _posteriors_of(store: CropStore, pipeline: AudioDiarization, uri: str) -> np.ndarray:
    import torch

    waveform = torch.from_numpy(store.sound(uri))[None]
    num_steps = STEPS * (waveform.shape[1] // SAMPLES_PER_FRAME)
    file = {"uri": uri, "waveform": waveform, "sample_rate": SAMPLE_RATE}
    output = pipeline.diarize(pipeline.prepare_one(file))
    if output.posteriors is None:  # silence
        return np.tile(np.float16([1, 0, 0]), (num_steps, 1))
    speakers, counts = output.posteriors.at_steps(num_steps)
    return np.concatenate([speakers, counts], axis=1).astype(np.float16)


def read_first_pass(store: CropStore, folder: str | Path | None = None) -> ArrayStore:
    """Open the posteriors that :func:`build_first_pass` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder holds none.
    """
    folder = first_pass_folder(store) if folder is None else Path(folder)
    return open_arrays(folder, "posteriors of a first pass", "build_first_pass")
