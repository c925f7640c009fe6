"""Validation of networks that compare windows by the clustering error of whole files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from torch.utils.data import Dataset
from torchmetrics import Metric

from pyannote_av.clustering.labelled_windows import LabelledWindows, WindowReader, faces_of
from pyannote_av.core.grid import FRAME_RATE, STEP_RATE

#: similarities at which clustering stops
THRESHOLDS = np.arange(0.02, 1.0, 0.02)


@dataclass
class FileBatches(Dataset):
    """Windows of whole files, indexed by (epoch, index, counts): one file per batch.

    Parameters
    ----------
    files : sequence of LabelledWindows
    reader : WindowReader
    pick : {"mean", "random"}
        See :func:`~pyannote_av.clustering.windows.entry_faces`.
    seed : int
    """

    files: Sequence[LabelledWindows]
    reader: WindowReader
    pick: str
    seed: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | tuple[int, int, bool]) -> dict[str, torch.Tensor]:
        """One file.

        Returns
        -------
        batch : dict
            ``audio`` and ``faces`` (windows, ...) and ``visible`` (windows,), with the face of the
            speaker who talks most in each window; ``file``, the index of the file; ``counts``.
        """
        _, index, counts = key if isinstance(key, tuple) else (0, key, True)
        one = self.files[index]
        uri, samples = one.recording.uri, self.reader.face_samples(one.recording.uri)
        loudest = overlap(one).argmax(axis=1)
        faces = np.zeros((len(one.windows), *samples.vector.shape[1:]), np.float32)
        visible = np.zeros(len(faces), bool)
        for person in np.unique(loudest):
            rows = np.flatnonzero(loudest == person)
            faces[rows], visible[rows] = faces_of(
                samples, one, rows, int(person), self.pick, self.seed
            )
        found = {"audio": self.reader.audio(uri, one.windows), "faces": faces, "visible": visible}
        batch = {name: torch.from_numpy(value) for name, value in found.items()}
        return {**batch, "file": torch.tensor(index), "counts": torch.tensor(bool(counts))}


def overlap(one: LabelledWindows) -> np.ndarray:
    """Seconds for which each speaker talks in the own part of each window: (n, speakers)."""
    start, end = one.windows.own.T
    shared = np.zeros((len(start), max(1, one.recording.num_speakers)))
    for speaker, first, last in one.recording.turns.tolist():
        common = np.minimum(end, last / STEP_RATE) - np.maximum(start, first / STEP_RATE)
        shared[:, speaker] += np.clip(common, 0, None)
    return shared


def clustering_errors(
    one: LabelledWindows, scores: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[np.ndarray, float]:
    """Errors of average linkage at some thresholds, with known speech and one speaker per window.

    Parameters
    ----------
    one : LabelledWindows
    scores : (n (n - 1) / 2,) array
        Similarities of windows, in the order of ``scipy.spatial.distance.pdist``.
    thresholds : sequence of float, optional
        Clusters are not merged below these similarities.

    Returns
    -------
    errors : (thresholds,) array
        Seconds of speech that are missed or given to a wrong speaker. There is no false alarm.
    total : float
        Seconds of speech in the annotated regions of the file.
    """
    shared = overlap(one)
    total = sum(
        max(0.0, min(last / STEP_RATE, end) - max(first / STEP_RATE, start))
        for start, end in (one.recording.regions / FRAME_RATE).tolist()
        for _, first, last in one.recording.turns.tolist()
    )
    errors = np.full(len(thresholds), total)
    tree = linkage(1.0 - scores, "average") if len(shared) > 1 else None
    for i, threshold in enumerate(thresholds):
        alone = np.zeros(len(shared), int)
        clusters = alone if tree is None else fcluster(tree, 1.0 - threshold, "distance") - 1
        hits = np.eye(clusters.max(initial=-1) + 1)[clusters].T @ shared
        errors[i] -= hits[linear_sum_assignment(hits, maximize=True)].sum()
    return errors, total


class ClusteringDER(Metric):
    """Diarization error rate of clustering, without collar, at the best common threshold.

    Speech is known, and each window has one speaker, so there is no false alarm, and overlapping
    speech is missed.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("errors", torch.zeros(len(THRESHOLDS)), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, errors: torch.Tensor, total: torch.Tensor) -> None:
        """Add a file; see :func:`clustering_errors`."""
        self.errors += errors
        self.total += total

    def compute(self) -> torch.Tensor:
        """Error rate, from 0."""
        return self.errors.min() / self.total.clamp_min(1e-6)
