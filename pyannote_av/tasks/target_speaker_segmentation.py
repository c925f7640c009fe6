"""Target speaker segmentation: estimate when given people speak, from their voices and faces.

Each chunk of a recording comes with **slots**, one per target speaker: the people who speak in the
chunk, some who speak elsewhere in the recording, others who are visible but never speak, and now
and then somebody from another recording. Each slot is known by a voiceprint, a face, or both. In
training, either may be corrupted (see
:class:`~pyannote_av.tasks.target_corruption.Corruption`). Labels say when that person speaks.
Slots come in random order and vary in number. Each output belongs to a known person, so that
permutation-invariant training is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.database import Protocol
from torch_audiomentations.core.transforms_interface import BaseWaveformTransform
from torchmetrics import Metric

from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.visual_features import VisualFeatures
from pyannote_av.data.voices import read_voices
from pyannote_av.tasks.recording_task import RecordingTask
from pyannote_av.tasks.recordings import LabelledFile
from pyannote_av.tasks.target_batches import SlotBatches, fixed_chunks
from pyannote_av.tasks.target_chunks import UNKNOWN, Pictures, Presences
from pyannote_av.tasks.target_corruption import Corruption
from pyannote_av.tasks.target_losses import BRANCHES, WEIGHTS, SlotOutput, slot_losses
from pyannote_av.tasks.target_metrics import moments, slot_metrics


class TargetSpeakerSegmentation(RecordingTask):
    """Target speaker segmentation

    Trains models with a method ``predict(waveforms, faces, face_mask, target_mask, voiceprints,
    speaker_features, branches)``, which returns the outputs of the requested branches as a
    :class:`~pyannote_av.tasks.target_losses.SlotOutput`. Each file of the protocol has
    ``annotation``, and optionally ``annotated`` and ``face_tracks`` (FaceTracks, or the path of a
    file that holds them). The tracks carry the speaker labels of the annotation.

    Parameters
    ----------
    protocol : Protocol
        pyannote.database protocol
    store : CropStore, str or Path
        Face crops and sound of the protocol's files; see ``build_store``.
    voices : str or Path, optional
        Folder that ``build_voices`` wrote. Defaults to the folder that it writes by default.
    features : bool, str or Path, optional
        Read visual features instead of face crops: True, or the folder that ``build_features``
        wrote. Defaults to False.
    cache : str, optional
        File with the labels of the protocol. It is read if it exists. Otherwise the labels are
        collected before training and written to it. Defaults to a temporary file.
    duration : float, optional
        Duration of a chunk, in seconds. Defaults to 8.
    max_slots : int, optional
        Maximum number of slots of a chunk in training. In validation, there is one slot for each
        speaker of the recording and for every other visible person. Defaults to 6.
    batch_size : int, optional
        Number of chunks in a batch. Defaults to 32.
    num_workers : int, optional
        Number of processes that read batches. Defaults to half of the CPUs.
    pin_memory : bool, optional
        See PyTorch's documentation. Defaults to False.
    losses : dict of str to float, optional
        Weights; see :func:`~pyannote_av.tasks.target_losses.slot_losses`. Losses that are not
        named have weight zero. Can be set between stages of training.
    corruption : Corruption or dict of str to float, optional
        Corruption of slots in training; ``Corruption.none()`` disables it. Can be set between
        stages of training, like `features`.
    augmentation : BaseWaveformTransform, optional
        torch_audiomentations waveform transform, applied last to the training waveforms.
    metric : optional
        Validation metrics, called with activities and labels (batch, 4 frames, slots), and
        moments; see :class:`~pyannote_av.tasks.target_metrics.SlotErrorRate`. Defaults to the
        diarization error rate, its components, and the rate under each condition.

    Notes
    -----
    Validation uses adjacent chunks without corruption. ``loss/val`` is the diarization loss or, if
    its weight is zero, the weighted sum of the other losses. ``loss/val/NAME`` is each loss.
    Metrics are logged only if the diarization loss has a weight.

    With several processes, ``Trainer`` needs ``strategy="ddp_find_unused_parameters_true"``, which
    ``pyannote-av train`` sets: a visual encoder whose features are precomputed, and heads without
    a loss, get no gradient.
    """

    TRAINS: ClassVar = {"predict": ("voiceprints", "branches")}
    NEEDS = "voices or visual features"
    SPARSE = True  # encoders with precomputed features and heads without a loss get no gradient

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        voices: str | Path | None = None,
        features: bool | str | Path = False,
        cache: str | Path | None = None,
        duration: float = 8.0,
        max_slots: int = 6,
        batch_size: int = 32,
        num_workers: int | None = None,
        pin_memory: bool = False,
        losses: Mapping[str, float] | None = None,
        corruption: Corruption | Mapping[str, float] | None = None,
        augmentation: BaseWaveformTransform | None = None,
        metric: Metric | Sequence[Metric] | dict[str, Metric] | None = None,
    ):
        super().__init__(
            protocol,
            store,
            cache=cache,
            duration=duration,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            augmentation=augmentation,
            metric=metric,
        )
        self._transform = augmentation
        self.voices = read_voices(self.store, voices)
        self.features = features
        self.max_slots = max_slots
        self.losses = WEIGHTS if losses is None else losses
        self.corruption = Corruption() if corruption is None else corruption
        self.specifications = Specifications(
            problem=Problem.MULTI_LABEL_CLASSIFICATION,
            resolution=Resolution.FRAME,
            duration=duration,
            classes=["speaking"],
        )

    @property
    def features(self) -> bool | str | Path:
        """Visual features to read instead of face crops. Can be set between stages."""
        return self._features

    @features.setter
    def features(self, features: bool | str | Path) -> None:
        self._features = features
        self.faces = Pictures(self.store)
        if features is not False:
            self.faces = VisualFeatures(self.store, None if features is True else features)

    @property
    def corruption(self) -> Corruption:
        """Corruption of slots in training. Can be set between stages, also as a mapping."""
        return self._corruption

    @corruption.setter
    def corruption(self, corruption: Corruption | Mapping[str, float]) -> None:
        given = isinstance(corruption, Corruption)
        self._corruption = corruption if given else Corruption(**corruption)

    @property
    def losses(self) -> dict[str, float]:
        """Weights of losses that are not zero."""
        return self._losses

    @losses.setter
    def losses(self, weights: Mapping[str, float]) -> None:
        if unknown := sorted(set(weights) - set(WEIGHTS)):
            raise ValueError(f"no losses are called {unknown}: there are {', '.join(WEIGHTS)}")
        self._losses = {name: float(weight) for name, weight in weights.items() if weight}
        if not self._losses or min(self._losses.values()) < 0:
            raise ValueError(f"weights of losses must be positive, not {dict(weights)}")

    def implied_hparams(self) -> dict[str, int]:
        """Dimension of voiceprints; see :class:`~pyannote_av.tasks.store_task.StoreTask`."""
        return {"voiceprint_dimension": self.voices[next(iter(self.voices))].shape[1]}

    def is_useful(self, one: LabelledFile) -> bool:
        """Whether any part of a file is annotated."""
        return len(one.regions) > 0

    def is_ready(self, uri: str) -> bool:
        """Whether speaker embeddings and visual features match the content of the store"""
        digests = self.store[uri].index["sha256"]
        arrays = {"waveform.npy": self.voices}
        if isinstance(self.faces, VisualFeatures):
            arrays["crops.npy"] = self.faces.arrays
        return all(
            uri in there and there.source(uri) == digests[name] for name, there in arrays.items()
        )

    def batches(self, subset: str, corruption: Corruption | None = None) -> SlotBatches:
        """Batches of "train" or "development" files.

        Parameters
        ----------
        subset : {"train", "development"}
        corruption : Corruption, optional
            Defaults to the corruption of the task in training, and to none in validation.
        """
        training = subset == "train"
        recordings, num_frames = self.prepared_data[subset], round(self.duration * FRAME_RATE)
        if corruption is None:
            corruption = self.corruption if training else Corruption.none()
        transform = None
        if training and self._transform is not None:
            transform = partial(_augmented, augmentation=self.augmentation)
        return SlotBatches(
            store=self.store,
            recordings=recordings,
            voices=self.voices,
            faces=self.faces if self._looks else Presences(self.store),
            num_frames=num_frames,
            batch_size=self.batch_size,
            max_slots=self.max_slots,
            chunks=None if training else fixed_chunks(recordings, num_frames),
            corruption=corruption,
            transform=transform,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )

    @property
    def _looks(self) -> bool:
        """Whether any loss depends on the appearance of faces"""
        return {BRANCHES[name] for name in self.losses} != {"acoustic"}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        """Weighted sum of losses."""
        output = self._asked(batch["X"])
        losses = slot_losses(output, batch, self.losses)
        loss = sum(self.losses[name] * part.mean() for name, part in losses.items())
        self._log("loss/train", loss, batch["y"] != UNKNOWN)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Compute the losses, and the metrics of target speakers."""
        X, y = batch["X"], batch["y"]
        if not (y != UNKNOWN).any():  # batch repeated to give all processes equally many
            return
        output = self._asked(X)
        losses = slot_losses(output, batch, self.losses)
        means = {name: part.total / part.counts.sum().clamp(min=1) for name, part in losses.items()}
        for name, mean in means.items():
            self._log(f"loss/val/{name}", mean, losses[name].counts)
        total = sum(self.losses[name] * mean for name, mean in means.items())
        self._log("loss/val", means.get("diarization", total), y != UNKNOWN)
        if output.logits is None:
            return
        activity = output.logits.transpose(1, 2).float().sigmoid()
        seen = X.face_mask.transpose(1, 2)
        self.model.validation_metric(activity, y, moments=moments(y, seen))
        self.model.log_dict(
            self.model.validation_metric,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            logger=True,
            batch_size=1,
        )

    def _asked(self, X: AVInput) -> SlotOutput:
        """Output of the branches that the weighted losses require"""
        return self.model.predict(**X.present(), branches={BRANCHES[name] for name in self.losses})

    def _log(self, name: str, value: torch.Tensor, counts: torch.Tensor) -> None:
        self.model.log(
            name,
            value,
            on_step=False,
            on_epoch=True,
            prog_bar=False,
            logger=True,
            sync_dist=True,
            # training losses are means already; validation losses are weighted by count
            batch_size=1 if name == "loss/train" else max(1, int(counts.sum())),
        )

    def default_metric(self) -> dict[str, Metric]:
        """Diarization error rate, its components, and the rate under each condition."""
        return slot_metrics()


def _augmented(waveforms: torch.Tensor, augmentation: BaseWaveformTransform) -> torch.Tensor:
    return augmentation(samples=waveforms, sample_rate=SAMPLE_RATE).samples
