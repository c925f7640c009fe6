"""Batches of a task for one process, each of them those of two processes together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad
from torch.utils.data import Dataset

from pyannote_av.core.batch import AVInput

UNKNOWN = -1


class Merged(Dataset):
    """Batch k has the items of what two processes would see in step k."""

    def __init__(self, batches, shuffled: bool):
        self.batches, self.shuffled, self.seed = batches, shuffled, batches.seed

    def __len__(self) -> int:
        return len(self.batches) // 2

    def _order(self, count: int, epoch: int) -> np.ndarray:
        order = np.arange(count)
        return np.random.default_rng([self.seed, epoch]).permutation(order)

    def __getitem__(self, key):
        epoch, index, counts = key
        position, order = index, np.arange(len(self.batches))
        if self.shuffled:
            position = int(np.flatnonzero(self._order(len(self), epoch) == index)[0])
            order = self._order(len(self.batches), epoch)
        pair = [self.batches[epoch, int(i), counts] for i in order[2 * position : 2 * position + 2]]
        return {name: merge([one[name] for one in pair], name) for name in pair[0]}


def merge(values: list, name: str):
    """One after the other, padded to the same shape."""
    if isinstance(values[0], AVInput):
        parts = [one.present() for one in values]
        return AVInput(**{key: merge([part[key] for part in parts], key) for key in parts[0]})
    if values[0].ndim == 0:
        return values[0]
    shape = np.max([value.shape[1:] for value in values], axis=0)
    label = UNKNOWN if name in ("y", "acoustic", "visual", "sync") else 0
    padded = []
    for value in values:
        widths = [(0, int(new - old)) for old, new in zip(value.shape[1:], shape, strict=True)]
        flat = [edge for width in reversed(widths) for edge in width]
        padded.append(pad(value, flat, value=label) if any(flat) else value)
    return torch.cat(padded)


def fit(kind: str, folder: Path, into: Path, devices: int) -> None:
    """Twenty steps of a task on two processes, or on one with batches of both."""
    from test_target_speaker_task import TINY, URIS, Conversations

    from pyannote_av.clustering.cysmsd import CYSMSD
    from pyannote_av.clustering.speaker_counting import SpeakerCounting
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.models.hmsanet.model import HMSANet
    from pyannote_av.tasks import TargetSpeakerSegmentation
    from pyannote_av.training import Stage, optimize

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Adam would not mind a factor, and mind noise where there should be no gradient; in large
    # steps, what rounding does grows beyond any tolerance
    rate = {"optimizer": "SGD", "learning_rate": 0.01}
    protocol, store = Conversations(folder, URIS[:2], URIS[1:]), CropStore(folder)
    # batch normalisation sees the batch of its process; what has it is frozen or left out
    if kind == "HMSANet":
        model = HMSANet(**TINY, visual="compact")
        task = TargetSpeakerSegmentation(
            protocol, store, duration=0.8, batch_size=1, num_workers=0, max_targets=3
        )
        stage = Stage(name="one", train=("acoustic", "fusion", "decoder"), max_epochs=99, **rate)
    else:
        model = CYSMSD(counter="mean", dropout=0.0, masking=0.0)
        task = SpeakerCounting(protocol, store, batch_size=1, num_workers=0, excerpt=1.0)
        stage = Stage(name="one", max_epochs=99, **rate)
    if devices == 1:
        batches = task.batches
        task.batches = lambda subset: Merged(batches(subset), subset == "train")
    quiet = {"enable_progress_bar": False, "accelerator": "cpu", "max_steps": 20}
    strategy = "ddp_find_unused_parameters_true" if devices > 1 else "auto"
    optimize(model, task, [stage], into, devices=devices, strategy=strategy, **quiet)


if __name__ == "__main__":
    fit(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
