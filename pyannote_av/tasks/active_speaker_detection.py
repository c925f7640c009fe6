"""Active speaker detection: find out whether a visible face produces the audible speech."""

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
from pyannote_av.tasks.recordings import SPEAKING, UNKNOWN
from pyannote_av.tasks.store_task import StoreTask, complete
from pyannote_av.tasks.track_batches import TrackBatches, buckets
from pyannote_av.tasks.track_labels import Runs, cut, labelled_runs, load_runs, save_runs

logger = logging.getLogger(__name__)

#: seconds; validation uses whole tracks up to this length
_LONGEST = 60.0


class ActiveSpeakerDetection(StoreTask):
    """Active speaker detection

    Trains the models of ``pyannote_av.models.active_speaker``. Each file of the protocol has
    ``video`` and ``face_tracks`` (FaceTracks, or the path of a file that holds them). Unless these
    tracks are labelled, it also has ``annotation``: a face then speaks whenever the speaker that
    its track is assigned to speaks.

    Parameters
    ----------
    protocol : Protocol
        pyannote.database protocol
    store : CropStore, str or Path
        Face crops and sound of the protocol's files; see ``build_store``.
    cache : str, optional
        File with the labels of the protocol's tracks. It is read if it exists. Otherwise the
        labels are collected before training and written to it. Defaults to a temporary file.
    duration : float, optional
        Longer tracks are cut into pieces of at most this many seconds. Defaults to 10.
    min_duration : float, optional
        Shorter tracks are not used for training. In seconds. Defaults to 0.12 (3 frames).
    frames_per_batch : int, optional
        Approximate number of face crops in a batch: many short tracks, or few long ones. Defaults
        to 2500, as for TalkNet. Light-ASD and LR-ASD use 2000. LoCoNet uses 600 with
        ``duration=8``, which is one of its clips.
    batch_size : int, optional
        Maximum number of tracks in a batch. Defaults to as many as `frames_per_batch` allows.
    num_workers : int, optional
        Number of processes that read training batches. Defaults to half of the CPUs.
    pin_memory : bool, optional
        See PyTorch's documentation. Defaults to False.
    augmentation : BaseWaveformTransform, optional
        torch_audiomentations waveform transform, applied last to the training waveforms.
    audio_mixing : float, optional
        Probability of mixing in the sound of another recording at -5 to 5 dB. Defaults to 0.5.
    face_transforms : bool, optional
        Whether to mirror, crop or rotate faces at random. Defaults to True.
    turned_heads : float, optional
        Probability of turning a face to the side by up to 60 degrees. Defaults to 0, as in
        published recipes.
    cameras : float, optional
        Probability of changing the light, contrast, sharpness and noise of faces. Defaults to 0,
        as in published recipes.
    dubbing : float, optional
        Probability of replacing the sound of a track by that of another recording. Its face is
        then labelled as silent. Defaults to 0, as in published recipes.
    desync : float, optional
        Maximum time by which the sound of a track is early or late, in seconds. Labels stay as they
        are. Recordings are often out of sync by a tenth of a second, and networks that never saw
        that take such faces for silent. Defaults to 0, as in published recipes.
    missing_faces : float, optional
        Probability of removing a face for up to a second. Defaults to 0.1. Published recipes do
        not do this.
    contrast : float, optional
        Weight of the contrastive loss of TalkNCE, which is published with 0.3. Defaults to 0,
        which disables it.
    metric : optional
        Validation metrics. Defaults to average precision and area under the ROC curve, both
        computed over frames.
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
        turned_heads: float = 0.0,
        cameras: float = 0.0,
        dubbing: float = 0.0,
        desync: float = 0.0,
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
        self.turned_heads = turned_heads
        self.cameras = cameras
        self.dubbing = dubbing
        self.desync = desync
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
        num_faces = self.model.num_faces
        batches = TrackBatches(
            store=self.store,
            runs=runs,
            pieces=pieces,
            batches=buckets(num_faces * pieces["length"], self.frames_per_batch, self.batch_size),
            num_faces=num_faces,
            training=training,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )
        if training:
            batches.mixing, batches.losses = self.audio_mixing, self.missing_faces
            batches.views, batches.cameras = float(self.face_transforms), self.cameras
            batches.dubbing, batches.turned_heads = self.dubbing, self.turned_heads
            batches.desync = round(self.desync * FRAME_RATE)
            if self._transform is not None:
                batches.transform = partial(_augmented, augmentation=self.augmentation)
        return batches

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        """Weighted sum of the cross entropies of all heads, averaged over labelled frames."""
        X, y = batch["X"], batch["y"]
        heads = self.model.predict(X.waveforms, X.faces, X.face_mask)
        temperature = self.model.temperature(self.model.current_epoch)
        loss = head_loss(heads, y, self.model.loss_weights, temperature) / mean_count(y != UNKNOWN)
        if self.contrast:
            # use the target face only, not the faces that provide context
            active = y[:, 0] == SPEAKING
            features = heads.acoustic_features[:, 0], heads.visual_features[:, 0]
            loss = loss + self.contrast * talk_nce(*features, active) / mean_count(active)
        self._log("train", loss, y)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Compute the loss, and the metrics of the fused head."""
        X, y = batch["X"], batch["y"]
        heads = self.model.predict(X.waveforms, X.faces, X.face_mask)
        scored = y != UNKNOWN
        if not scored.any():  # batch repeated to give all processes equally many
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
            # training losses are means already; validation losses are weighted by frame count
            batch_size=1 if stage == "train" else max(1, int((y != UNKNOWN).sum())),
        )

    def default_metric(self) -> list[Metric]:
        """Average precision and area under the ROC curve, over all frames."""
        return [BinaryAveragePrecision(), BinaryAUROC()]


def _augmented(waveforms: torch.Tensor, augmentation: BaseWaveformTransform) -> torch.Tensor:
    return augmentation(samples=waveforms, sample_rate=SAMPLE_RATE).samples
