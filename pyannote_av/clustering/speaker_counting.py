"""Speaker counting: number of speakers, their activity, and similarity of windows.

References
----------
Singh, Villalba, Dehak. Count your speakers! Multitask learning for multimodal speaker diarization.
Interspeech 2025.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.database import Protocol
from torchmetrics import MeanMetric, Metric

from pyannote_av.clustering.counting_batches import CountingBatches
from pyannote_av.clustering.counting_losses import counting_losses, num_speakers, total_loss
from pyannote_av.clustering.labelled_windows import label_windows
from pyannote_av.clustering.window_task import WindowTask
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.recordings import UNKNOWN


class SpeakerCounting(WindowTask):
    """Speaker counting

    Trains :class:`~pyannote_av.clustering.cysmsd.CYSMSD`.

    Parameters
    ----------
    protocol, store, speaker_embeddings, face_embeddings, cache, num_workers, pin_memory
        As in :class:`~pyannote_av.clustering.pairwise_relation.PairwiseRelation`.
    duration, step : float, optional
        Duration of windows, and step between them, in seconds. Default to 1.5 and 0.75, as
        published.
    beta : float, optional
        Weight of activity and contrastive losses. The weight of the count is ``1 - beta``. Defaults
        to 0.5.
    temperature, reach : optional
        See :func:`~pyannote_av.clustering.counting_losses.nt_xent`.
    contrastive : {"supcon", "published"}, optional
        Contrastive loss. "supcon" has every positive in a term of its own and is bounded. The
        published equation is not; see
        :func:`~pyannote_av.clustering.counting_losses.nt_xent`.
    margin : float, optional
        Margin of the published contrastive loss. None for none. Defaults to 1.
    assignment : {"best", "arrival"}, optional
        Order of speakers in the activity loss; see
        :func:`~pyannote_av.clustering.counting_losses.assign_speakers`. The paper gives none.
    excerpt, left_out, mirrored : float, optional
        Probabilities of augmentations, which are not in the paper; see
        :class:`~pyannote_av.clustering.counting_batches.CountingBatches`. Default to 0.5 each.
        Without them, each recording is only one training example of the count.
    batch_size : int, optional
        Recordings in a batch. Defaults to 16.
    metric : optional
        Validation metric. It is called with 1 for each recording whose rounded predicted count is
        correct, and 0 for others. Defaults to the share of recordings with a correct count.
    """

    TRAINS: ClassVar = {"forward": ("speaker_embeddings", "faces", "face_mask", "window_mask")}

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        speaker_embeddings: str | Path | None = None,
        face_embeddings: str | Path | None = None,
        cache: str | Path | None = None,
        duration: float = 1.5,
        step: float = 0.75,
        beta: float = 0.5,
        temperature: float = 0.3,
        reach: int = 8,
        contrastive: Literal["supcon", "published"] = "supcon",
        margin: float | None = 1.0,
        assignment: Literal["best", "arrival"] = "best",
        excerpt: float = 0.5,
        left_out: float = 0.5,
        mirrored: float = 0.5,
        batch_size: int = 16,
        num_workers: int | None = None,
        pin_memory: bool = False,
        metric: Metric | Sequence[Metric] | dict[str, Metric] | None = None,
    ):
        super().__init__(
            protocol,
            store,
            speaker_embeddings,
            face_embeddings,
            step,
            cache=cache,
            duration=duration,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            metric=metric,
        )
        if contrastive not in ("supcon", "published"):
            raise ValueError(f'contrastive must be "supcon" or "published", not {contrastive!r}')
        if assignment not in ("best", "arrival"):
            raise ValueError(f'assignment must be "best" or "arrival", not {assignment!r}')
        self.contrastive, self.margin, self.assignment = contrastive, margin, assignment
        self.beta, self.temperature, self.reach = beta, temperature, reach
        self.excerpt, self.left_out, self.mirrored = excerpt, left_out, mirrored
        self.specifications = Specifications(
            problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=duration
        )

    def batches(self, subset: str) -> CountingBatches:
        """Batches of "train" or "development" files."""
        files = [label_windows(one, self.duration, self.step) for one in self.prepared_data[subset]]
        return CountingBatches(
            files=[one for one in files if len(one.windows)],
            reader=self.reader,
            batch_size=self.batch_size,
            training=subset == "train",
            excerpt=self.excerpt,
            left_out=self.left_out,
            mirrored=self.mirrored,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )

    def _losses(self, batch: dict[str, torch.Tensor]):
        face_mask = batch["face_mask"]
        # without any face in the batch, the dimension of face embeddings may be unknown
        faces = batch["faces"] if face_mask.any() else None
        output = self.model(batch["speaker_embeddings"], faces, face_mask, batch["window_mask"])
        losses = counting_losses(
            output,
            batch["y"],
            self.temperature,
            self.reach,
            self.contrastive,
            self.margin,
            self.assignment,
        )
        return output, losses

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict:
        """Weighted sum of losses."""
        _, losses = self._losses(batch)
        loss = total_loss({name: one.mean() for name, one in losses.items()}, self.beta)
        self._log("loss/train", loss, len(batch["y"]))
        return {"loss": loss}

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Compute losses, and the metric of correct counts."""
        y = batch["y"]
        if not (y != UNKNOWN).any():  # duplicate batch that pads distributed validation
            return
        output, losses = self._losses(batch)
        means = {name: one.total / one.counts.sum().clamp(min=1) for name, one in losses.items()}
        self._log("loss/val", total_loss(means, self.beta), len(y))
        for name, mean in means.items():
            self._log(f"loss/val/{name}", mean, len(y))
        right = output.count.round().clamp(min=1) == num_speakers(y)
        self.model.validation_metric(right.float())
        self.model.log_dict(
            self.model.validation_metric, on_epoch=True, prog_bar=True, batch_size=len(y)
        )

    def default_metric(self) -> dict[str, Metric]:
        """Share of recordings with a correct speaker count."""
        return {"CountAccuracy": MeanMetric()}
