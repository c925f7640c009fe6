"""Target speaker segmentation: estimate when given people speak, from their voices and faces.

Each chunk of a recording comes with **targets**: the people who speak in the chunk, some who speak
elsewhere in the recording, others who are visible but never speak, and now and then somebody from
another recording. Each target is known by a voiceprint, a face, or both. In training, either may be
corrupted (see :class:`~pyannote_av.tasks.target_corruption.Corruption`). Labels say when that
person speaks. Targets come in random order and vary in number. Each output belongs to a known
person, so that permutation-invariant training is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.database import Protocol
from torch_audiomentations.core.transforms_interface import BaseWaveformTransform
from torchmetrics import Metric

from pyannote_av.core.batch import AVInput
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE
from pyannote_av.core.renaming import current_names
from pyannote_av.core.trust import UntrustedError, policy, used_trust
from pyannote_av.data.crop_store import CropStore
from pyannote_av.data.first_pass import read_first_pass
from pyannote_av.data.speaker_embeddings import read_speaker_embeddings
from pyannote_av.data.visual_features import VisualFeatures
from pyannote_av.tasks.first_pass import FirstPass
from pyannote_av.tasks.losses import (
    TargetOutput,
    Total,
    acoustic_loss,
    contrast_loss,
    diarization_loss,
    fused_loss,
    gate_loss,
    visual_loss,
)
from pyannote_av.tasks.recordings import UNKNOWN, LabelledFile
from pyannote_av.tasks.store_task import RecordingTask
from pyannote_av.tasks.target_batches import TargetBatches, fixed_chunks
from pyannote_av.tasks.target_chunks import Pictures, Presences
from pyannote_av.tasks.target_corruption import Corruption
from pyannote_av.tasks.target_metrics import moments, target_metrics


class Loss(NamedTuple):
    """A loss of the task.

    Attributes
    ----------
    weight : float
        Default weight.
    branch : str
        Branch of the network that it needs.
    function : callable
        Returns the loss of an output and a batch, or None for networks that lack what it needs.
    """

    weight: float
    branch: str
    function: Callable[[TargetOutput, Mapping[str, torch.Tensor]], Total | None]


#: losses by name; weights of streams as in TalkNet, of contrast as in TalkNCE, others are guesses
LOSSES = {
    "diarization": Loss(1.0, "decoder", diarization_loss),
    "fused": Loss(0.4, "fusion", fused_loss),
    "acoustic": Loss(0.4, "acoustic", acoustic_loss),
    "visual": Loss(0.4, "visual", visual_loss),
    "nce": Loss(0.3, "fusion", contrast_loss),
    "gate": Loss(0.2, "fusion", gate_loss),
}


def loss_named(name: str) -> Loss:
    """A loss of :data:`LOSSES`, or one of another package by its dotted name.

    Parameters
    ----------
    name : str
        Such as ``"diarization"``, or ``"my_package.losses.MARGIN"`` for a :class:`Loss` there.

    Raises
    ------
    UntrustedError
        For a dotted name without ``trust=True``, because importing a module executes it.
    ValueError
        If there is no such loss.
    """
    module, _, attribute = name.rpartition(".")
    if name in LOSSES:
        return LOSSES[name]
    if not module:
        raise ValueError(f"unknown losses {[name]}: choose from {', '.join(LOSSES)}")
    if not policy().trust:
        raise UntrustedError(
            f"the loss {name!r} is code of another package. Pass trust=True (--trust on the "
            "command line) if you know and trust its origin."
        )
    used_trust(f"loss {name!r} is imported")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no loss {name!r} ({error})") from error
    if not isinstance(found, Loss):
        raise ValueError(f"{name} is a {type(found).__name__}, not a {Loss.__module__}.Loss")
    return found


def target_losses(
    output: TargetOutput,
    batch: Mapping[str, torch.Tensor],
    names: Collection[str],
    losses: Mapping[str, Loss] = LOSSES,
) -> dict[str, Total]:
    """Unweighted losses by name.

    Parameters
    ----------
    output : TargetOutput
    batch : mapping
        With ``y``, ``acoustic``, ``visual`` and ``sync``; see
        :class:`~pyannote_av.tasks.target_batches.TargetBatches`.
    names : collection of str
        Losses to compute. Those that need gates are left out for a network without gates.
    losses : dict of str to Loss, optional
        Losses by name.
    """
    found = {name: one.function(output, batch) for name, one in losses.items() if name in names}
    return {name: total for name, total in found.items() if total is not None}


class TargetSpeakerSegmentation(RecordingTask):
    """Target speaker segmentation

    Trains models with a method ``predict(waveforms, faces, face_mask, target_mask, voiceprints,
    speaker_features, branches)``, which returns the outputs of the requested branches as a
    :class:`~pyannote_av.tasks.losses.TargetOutput`. Each file of the protocol has
    ``annotation``, and optionally ``annotated`` and ``face_tracks`` (FaceTracks, or the path of a
    file that holds them). The tracks carry the speaker labels of the annotation.

    Parameters
    ----------
    protocol : Protocol
        pyannote.database protocol
    store : CropStore, str or Path
        Face crops and sound of the protocol's files; see ``build_store``.
    speaker_embeddings : str or Path, optional
        Folder that ``build_speaker_embeddings`` wrote. Defaults to the folder that it writes by
        default.
    features : bool, str or Path, optional
        Read visual features instead of face crops: True, or the folder that ``build_features``
        wrote. Defaults to False.
    first_pass : bool, str or Path, optional
        Give the model the output of a first pass over the sound (for HMSANet with `first_pass`):
        True, or the folder that ``build_first_pass`` wrote. Defaults to False.
    cache : str, optional
        File with the labels of the protocol. It is read if it exists. Otherwise the labels are
        collected before training and written to it. Defaults to a temporary file.
    duration : float, optional
        Duration of a chunk, in seconds. Defaults to 8.
    max_targets : int, optional
        Maximum number of targets of a chunk in training. In validation, all speakers of the
        recording and all other visible persons are targets. Defaults to 6.
    batch_size : int, optional
        Number of chunks in a batch. Defaults to 32.
    num_workers : int, optional
        Number of processes that read batches. Defaults to half of the CPUs.
    pin_memory : bool, optional
        See PyTorch's documentation. Defaults to False.
    losses : dict of str to float, optional
        Weights of :data:`LOSSES`. Losses that are not named have weight zero. Can be set between
        stages of training.
    corruption : Corruption or dict of str to float, optional
        Corruption of targets in training; ``Corruption.none()`` disables it. Can be set between
        stages of training, like `features`.
    augmentation : BaseWaveformTransform, optional
        torch_audiomentations waveform transform, applied last to the training waveforms.
    metric : optional
        Validation metrics, called with activities and labels (batch, 4 frames, targets), and
        moments; see :class:`~pyannote_av.tasks.target_metrics.TargetErrorRate`. Defaults to the
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
    FORMER_PARAMS: ClassVar = {"max_slots": "max_targets", "voices": "speaker_embeddings"}
    NEEDS = "speaker embeddings or visual features"
    SPARSE = True  # encoders with precomputed features and heads without a loss get no gradient

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        speaker_embeddings: str | Path | None = None,
        features: bool | str | Path = False,
        first_pass: bool | str | Path = False,
        cache: str | Path | None = None,
        duration: float = 8.0,
        max_targets: int = 6,
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
        self.speaker_embeddings = read_speaker_embeddings(self.store, speaker_embeddings)
        self.features = features
        self.first_pass = None
        if first_pass is not False:
            folder = None if first_pass is True else first_pass
            self.first_pass = FirstPass(read_first_pass(self.store, folder))
        self.max_targets = max_targets
        defaults = {name: one.weight for name, one in LOSSES.items()}
        self.losses = defaults if losses is None else losses
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
        """Corruption of targets in training. Can be set between stages, also as a mapping."""
        return self._corruption

    @corruption.setter
    def corruption(self, corruption: Corruption | Mapping[str, float]) -> None:
        given = isinstance(corruption, Corruption)
        if not given:
            named = current_names(corruption, Corruption.FORMER_PARAMS, "corruption")
            corruption = Corruption(**named)
        self._corruption = corruption

    @property
    def losses(self) -> dict[str, float]:
        """Weights of losses that are not zero."""
        return self._losses

    @losses.setter
    def losses(self, weights: Mapping[str, float]) -> None:
        if unknown := sorted(name for name in weights if name not in LOSSES and "." not in name):
            raise ValueError(f"unknown losses {unknown}: choose from {', '.join(LOSSES)}")
        own = {name: loss_named(name) for name in weights if name not in LOSSES}
        self._functions = {**LOSSES, **own}
        self._losses = {name: float(weight) for name, weight in weights.items() if weight}
        if not self._losses or min(self._losses.values()) < 0:
            raise ValueError(f"weights of losses must be positive, not {dict(weights)}")

    def implied_hparams(self) -> dict[str, int]:
        """Dimension of voiceprints; see :class:`~pyannote_av.tasks.store_task.StoreTask`."""
        some = next(iter(self.speaker_embeddings))
        return {"voiceprint_dimension": self.speaker_embeddings[some].shape[1]}

    def is_useful(self, one: LabelledFile) -> bool:
        """Whether any part of a file is annotated."""
        return len(one.regions) > 0

    def is_ready(self, uri: str) -> bool:
        """Whether speaker embeddings and visual features match the content of the store"""
        digests = self.store[uri].index["sha256"]
        arrays = {"waveform.npy": self.speaker_embeddings}
        if isinstance(self.faces, VisualFeatures):
            arrays["crops.npy"] = self.faces.arrays
        needed = list(arrays.items())
        if self.first_pass is not None:
            needed.append(("waveform.npy", self.first_pass.posteriors))
        return all(uri in there and there.source(uri) == digests[name] for name, there in needed)

    def batches(self, subset: str, corruption: Corruption | None = None) -> TargetBatches:
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
        return TargetBatches(
            store=self.store,
            recordings=recordings,
            speaker_embeddings=self.speaker_embeddings,
            faces=self.faces if self._needs_faces else Presences(self.store),
            num_frames=num_frames,
            batch_size=self.batch_size,
            max_targets=self.max_targets,
            chunks=None if training else fixed_chunks(recordings, num_frames),
            corruption=corruption,
            transform=transform,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
            first_pass=self.first_pass,
        )

    @property
    def _needs_faces(self) -> bool:
        """Whether any loss depends on the appearance of faces"""
        return self._branches != {"acoustic"}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        """Weighted sum of losses."""
        output = self._predict(batch["X"])
        losses = target_losses(output, batch, self.losses, self._functions)
        loss = sum(self.losses[name] * part.mean() for name, part in losses.items())
        self._log("loss/train", loss, batch["y"] != UNKNOWN)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Compute the losses, and the metrics of target speakers."""
        X, y = batch["X"], batch["y"]
        if not (y != UNKNOWN).any():  # batch repeated to give all processes equally many
            return
        output = self._predict(X)
        losses = target_losses(output, batch, self.losses, self._functions)
        means = {name: part.total / part.counts.sum().clamp(min=1) for name, part in losses.items()}
        for name, mean in means.items():
            self._log(f"loss/val/{name}", mean, losses[name].counts)
        total = sum(self.losses[name] * mean for name, mean in means.items())
        self._log("loss/val", means.get("diarization", total), y != UNKNOWN)
        if output.logits is None:
            return
        activity = output.logits.transpose(1, 2).float().sigmoid()
        visible = X.face_mask.transpose(1, 2)
        self.model.validation_metric(activity, y, moments=moments(y, visible))
        self.model.log_dict(
            self.model.validation_metric,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            logger=True,
            batch_size=1,
        )

    @property
    def _branches(self) -> set[str]:
        """Branches of the network that the weighted losses need"""
        return {self._functions[name].branch for name in self.losses}

    def _predict(self, X: AVInput) -> TargetOutput:
        return self.model.predict(**X.present(), branches=self._branches)

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
        return target_metrics()


def _augmented(waveforms: torch.Tensor, augmentation: BaseWaveformTransform) -> torch.Tensor:
    return augmentation(samples=waveforms, sample_rate=SAMPLE_RATE).samples
