"""Active speaker detection: does this face speak the speech that is heard?"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.database import Protocol
from torch_audiomentations.core.transforms_interface import BaseWaveformTransform
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.data.crop_store import CropStore
from pyannote_av.tasks.losses import head_loss, mean_count, talk_nce
from pyannote_av.tasks.store_task import StoreTask
from pyannote_av.tasks.track_batches import TrackBatches, buckets
from pyannote_av.tasks.track_labels import (
    SPEAKING,
    UNKNOWN,
    Runs,
    complete,
    cut,
    labelled_runs,
    load_runs,
    save_runs,
)

logger = logging.getLogger(__name__)

#: seconds; validation sees whole tracks, up to this
_LONGEST = 60.0


class ActiveSpeakerDetection(StoreTask):
    """Active speaker detection

    Trains models of ``pyannote_av.models.active_speaker`` on a protocol whose files have
    ``video``, ``face_tracks`` (FaceTracks, or the path of a file of them) and, unless these tracks
    are labelled, ``annotation``: a face then speaks when the speaker of its track does.

    Parameters
    ----------
    protocol : Protocol
        pyannote.database protocol
    store : CropStore, str or Path
        Crops and sound of its files; see ``build_store``.
    cache : str, optional
        Labels of the protocol's tracks are collected before training; where this file does
        not exist they are written to it, where it exists they are read from it. Defaults to a
        temporary file.
    duration : float, optional
        Longer tracks are cut into pieces of at most that many seconds. Defaults to 10.
    min_duration : float, optional
        Shorter tracks are left out of training, in seconds. Defaults to 0.12 (3 frames).
    frames_per_batch : int, optional
        Pictures in a batch, about: many short tracks, or few long ones. Defaults to 2500 (TalkNet;
        2000 for Light-ASD and LR-ASD; 600 is one of LoCoNet's clips, with ``duration=8``).
    batch_size : int, optional
        Tracks in a batch at most. Defaults to as many as `frames_per_batch` allows.
    num_workers : int, optional
        Processes that read training batches. Defaults to half of the CPUs.
    pin_memory : bool, optional
        See PyTorch's documentation. Defaults to False.
    augmentation : BaseWaveformTransform, optional
        torch_audiomentations waveform transform, applied to training waveforms last.
    audio_mixing : float, optional
        Probability that a track of another recording is mixed in at -5 to 5 dB. Defaults to 0.5.
    face_transforms : bool, optional
        Mirror, crop or rotate faces. Defaults to True.
    cameras : float, optional
        Probability that faces are in other light, with other contrast, sharpness and noise.
        Defaults to 0: published recipes do without.
    dubbing : float, optional
        Probability that a track is heard with the sound of another recording, which its face does
        not speak. Defaults to 0: published recipes do without.
    missing_faces : float, optional
        Probability that a face is lost for up to a second. Defaults to 0.1; published recipes do
        without.
    contrast : float, optional
        Weight of the contrastive loss of TalkNCE, which is published with 0.3. Defaults to 0:
        none.
    metric : optional
        Validation metrics. Defaults to average precision and area under the ROC curve of frames.
    """

    TRAINS: ClassVar = {"heads": ("spectra", "faces"), "predict": ("face_mask",), "temperature": ()}

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        cache: str | Path | None = None,
        duration: float = 10.0,
        min_duration: float = 0.12,
        frames_per_batch: int = 2500,
        batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool = False,
        augmentation: BaseWaveformTransform | None = None,
        audio_mixing: float = 0.5,
        face_transforms: bool = True,
        cameras: float = 0.0,
        dubbing: float = 0.0,
        missing_faces: float = 0.1,
        contrast: float = 0.0,
        metric: Metric | Sequence[Metric] | dict[str, Metric] | None = None,
    ):
        complete(protocol)
        super().__init__(
            protocol,
            cache=cache,
            duration=duration,
            min_duration=min_duration,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            augmentation=augmentation,
            metric=metric,
        )
        self._transform = augmentation
        self.store = store if isinstance(store, CropStore) else CropStore(store)
        self.frames_per_batch = frames_per_batch
        self.audio_mixing = audio_mixing
        self.face_transforms = face_transforms
        self.cameras = cameras
        self.dubbing = dubbing
        self.missing_faces = missing_faces
        self.contrast = contrast
        self.specifications = Specifications(
            problem=Problem.BINARY_CLASSIFICATION,
            resolution=Resolution.FRAME,
            duration=duration,
            min_duration=min_duration,
            classes=["speaking"],
        )

    def collect(self, files: Iterable[Mapping], subset: str) -> Runs:
        """Labels of the tracks of a subset; see :class:`StoreTask`."""
        runs = labelled_runs(self._stored(files, subset))
        if not len(runs.table):
            raise ValueError(
                f"{self.protocol.name}: no track of its {subset} files is labelled and in the "
                f"store {self.store.folder}"
            )
        return runs

    def save(self, path: Path, subsets: Mapping[str, Runs]) -> None:
        """See :class:`StoreTask`."""
        save_runs(path, self.protocol.name, subsets)

    def load(self, path: Path) -> tuple[str, dict[str, Runs]]:
        """See :class:`StoreTask`."""
        return load_runs(path)

    def _stored(self, files, subset: str):
        missing = []
        for file in files:
            if file["uri"] in self.store:
                yield file
            else:
                missing.append(file["uri"])
        if missing:
            logger.warning(
                "%d %s files of %s are not in the store %s and left aside (%s): build it again",
                len(missing),
                subset,
                self.protocol.name,
                self.store.folder,
                ", ".join(missing[:5]),
            )

    def batches(self, subset: str) -> TrackBatches:
        """Batches of "train" or "development" files."""
        runs, training = self.prepared_data[subset], subset == "train"
        longest = round((self.duration if training else _LONGEST) * FRAME_RATE)
        shortest = round(self.min_duration * FRAME_RATE) if training else 1
        pieces = cut(runs, longest, shortest)
        short = int((runs.table["length"] < shortest).sum())
        logger.info("%d %s tracks are shorter than %d frames: left out", short, subset, shortest)
        if not len(pieces):
            raise ValueError(f"{self.protocol.name}: no {subset} track has {shortest} frames")
        slots = self.model.num_slots
        batches = TrackBatches(
            store=self.store,
            runs=runs,
            pieces=pieces,
            batches=buckets(slots * pieces["length"], self.frames_per_batch, self.batch_size),
            num_slots=slots,
            training=training,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )
        if training:
            batches.mixing, batches.losses = self.audio_mixing, self.missing_faces
            batches.views, batches.cameras = float(self.face_transforms), self.cameras
            batches.dubbing = self.dubbing
            if self._transform is not None:
                batches.transform = partial(_augmented, augmentation=self.augmentation)
        return batches

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        """Weighted sum of all heads' cross entropies, mean over labelled frames."""
        X, y = batch["X"], batch["y"]
        heads = self.model.predict(X.waveforms, X.faces, X.face_mask)
        temperature = self.model.temperature(self.model.current_epoch)
        loss = head_loss(heads, y, self.model.loss_weights, temperature) / mean_count(y != UNKNOWN)
        if self.contrast:
            # of the face to learn from, not of those that give it context
            active = y[:, 0] == SPEAKING
            features = heads.acoustic_features[:, 0], heads.visual_features[:, 0]
            loss = loss + self.contrast * talk_nce(*features, active) / mean_count(active)
        self._log("train", loss, y)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss, and metrics of the fused head."""
        X, y = batch["X"], batch["y"]
        heads = self.model.predict(X.waveforms, X.faces, X.face_mask)
        scored = y != UNKNOWN
        if not scored.any():  # repeated for the sake of another process
            return
        self._log("val", head_loss(heads, y, self.model.loss_weights) / scored.sum(), y)
        probability = heads.fused[scored].float().softmax(dim=-1)[:, 1]
        self.model.validation_metric(probability, y[scored])
        self.model.log_dict(
            self.model.validation_metric,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            logger=True,
            batch_size=1,
        )

    def _log(self, stage: str, loss: torch.Tensor, y: torch.Tensor) -> None:
        self.model.log(
            f"loss/{stage}",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=False,
            logger=True,
            sync_dist=True,
            # losses of steps are means already; those of validation are put together by count
            batch_size=1 if stage == "train" else max(1, int((y != UNKNOWN).sum())),
        )

    def default_metric(self) -> list[Metric]:
        """Average precision, and area under the ROC curve, over all frames."""
        return [BinaryAveragePrecision(), BinaryAUROC()]


def _augmented(waveforms: torch.Tensor, augmentation: BaseWaveformTransform) -> torch.Tensor:
    return augmentation(samples=waveforms, sample_rate=SAMPLE_RATE).samples
