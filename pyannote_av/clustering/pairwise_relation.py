"""Pairwise relation: whether two windows have the same speaker.

Training uses episodes, like AVR-Net. An episode has one support and one query window per speaker,
and compares all support windows with all query windows. Speaker labels are valid within the scope
of the protocol. If the scope is "file", speakers of different files are different people, and both
windows of a speaker come from the same file.

References
----------
Xu, Song, Tsutsui, Feng, Ye, Shou. AVA-AVD: audio-visual speaker diarization in the wild. ACM
Multimedia 2022.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.database import Protocol
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC

from pyannote_av.clustering.clustering_error import (
    ClusteringDER,
    FileBatches,
    clustering_errors,
)
from pyannote_av.clustering.episodes import Episodes
from pyannote_av.clustering.labelled_windows import MediaWindows, WindowReader, label_windows
from pyannote_av.clustering.pair_scores import episode_scores, score_pairs
from pyannote_av.clustering.window_task import WindowTask
from pyannote_av.data.crop_store import CropStore

# windows per forward pass of the backbones in validation by clustering
_BATCH = 16


class PairwiseRelation(WindowTask):
    """Pairwise relation

    Trains models with ``audio_map``, ``face_map`` and ``relate_in_order``, such as
    :class:`~pyannote_av.clustering.avrnet.AVRNet`.

    Parameters
    ----------
    protocol : Protocol
        pyannote.database protocol, for diarization or, if each file has one speaker, for speaker
        verification. Its ``scope`` defines where speaker labels are valid.
    store : CropStore, str or Path
        See ``build_store``.
    inputs : {"embeddings", "media"}, optional
        Model inputs: voice and face embeddings, or audio and face crops.
    speaker_embeddings, face_embeddings : str or Path, optional
        For "embeddings": folders written by ``build_speaker_embeddings`` and
        ``build_face_embeddings``.
    cache : str, optional
        File with the prepared metadata of the protocol. It is read if it exists, and otherwise
        written before training. Defaults to a temporary file.
    duration, step : float, optional
        Duration of windows, and step between them, in seconds. Default to 2 and 0.5, as published.
    ways : int, optional
        Speakers per episode. Defaults to 20, as published.
    per_recording : int, optional
        Maximum number of speakers per recording in an episode, if there are enough recordings.
        Defaults to 1, as published. With more, networks also learn to distinguish people recorded
        in the same room.
    videos : str, optional
        Regular expression, matched at the beginning of the uri of a file. Files with the same
        first group are clips of one video, such as ``"(.+)_c_"`` in AVA-AVD. Their speakers are
        never together in an episode, because they may be the same people under other names. By
        default, each file is a video of its own.
    missing : float, optional
        Probability that the face of a window is hidden in training. Defaults to 0.5.
    face : {"random", "mean"}, optional
        Face of a window: a random face sample, or the mean of all of them. Defaults to "random"
        for "media", as published, and to "mean" for "embeddings".
    validation : {"pairs", "der"}, optional
        Choose epochs by the loss of pairs of windows in episodes, or by the diarization error rate
        of clustering whole development files, as published; see
        :class:`~pyannote_av.clustering.clustering_error.ClusteringDER`. "der" compares all windows
        of each file in every epoch, which takes much longer.
    batch_size : int, optional
        Episodes per batch. Defaults to 3.
    batches_per_epoch : int, optional
        Defaults to 100. Validation uses a fifth of it.
    num_workers : int, optional
        Number of data loading processes. Defaults to half of the CPUs.
    pin_memory : bool, optional
        See PyTorch's documentation. Defaults to False.
    metric : optional
        Validation metric of scores and labels of pairs. Defaults to the area under the ROC curve.
        Not used with ``validation="der"``.

    Notes
    -----
    As in the authors' code, the loss of an episode is the sum of squared errors over all pairs, and
    the mean over episodes and orders. This fits their learning rate (Adam, 5e-4, weight decay
    1e-4): the optimizer adds the weight decay to the gradient.

    Networks with a method ``classify``, such as
    :class:`~pyannote_av.clustering.single_stream.SingleStream`, learn to classify the training
    speakers instead. The validation is the same.

    In training, face crops are mirrored and blurred, each with probability 0.5. Embeddings are not
    augmented. In validation, no face is hidden.
    """

    TRAINS: ClassVar = {"audio_map": (), "face_map": (), "relate_in_order": ()}

    def __init__(
        self,
        protocol: Protocol,
        store: CropStore | str | Path,
        inputs: Literal["embeddings", "media"] = "embeddings",
        speaker_embeddings: str | Path | None = None,
        face_embeddings: str | Path | None = None,
        cache: str | Path | None = None,
        duration: float = 2.0,
        step: float = 0.5,
        ways: int = 20,
        per_recording: int = 1,
        videos: str | None = None,
        missing: float = 0.5,
        face: Literal["random", "mean"] | None = None,
        validation: Literal["pairs", "der"] = "pairs",
        batch_size: int = 3,
        batches_per_epoch: int = 100,
        num_workers: int | None = None,
        pin_memory: bool = False,
        metric: Metric | Sequence[Metric] | dict[str, Metric] | None = None,
    ):
        if inputs not in ("embeddings", "media"):
            raise ValueError(f'inputs must be "embeddings" or "media", not {inputs!r}')
        if ways < 2 or per_recording < 1:
            raise ValueError(
                "an episode needs at least 2 speakers, and at least 1 of each recording"
            )
        if face is None:
            face = "random" if inputs == "media" else "mean"
        if face not in ("random", "mean") or (face == "mean" and inputs == "media"):
            raise ValueError(
                f'face must be "random", or "mean" for embeddings, not {face!r} for {inputs}: '
                "pictures of different moments have no mean"
            )
        if validation not in ("pairs", "der"):
            raise ValueError(f'validation must be "pairs" or "der", not {validation!r}')
        if validation == "der" and metric is not None:
            raise ValueError('metric is for validation="pairs": "der" has its own')
        self.videos, self.face, self.validation = videos, face, validation
        self.inputs = inputs
        self._duration = duration
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
        self.ways, self.per_recording = ways, per_recording
        self.missing, self.batches_per_epoch = missing, batches_per_epoch
        self.specifications = Specifications(
            problem=Problem.BINARY_CLASSIFICATION,
            resolution=Resolution.CHUNK,
            duration=duration,
            classes=["same"],
        )

    def _reader(self, speaker_embeddings, face_embeddings) -> WindowReader:
        if self.inputs == "media":
            return MediaWindows(self.store, self._duration)
        return super()._reader(speaker_embeddings, face_embeddings)

    @property
    def _across(self) -> bool:
        """Whether speaker labels are valid across files"""
        return next(self.protocol.train())["scope"] != "file"

    def _video(self, uri: str) -> str:
        """The video that a file is a clip of"""
        match = self.videos and re.match(self.videos, uri)
        return match[1] if match else uri

    def batches(self, subset: str) -> Episodes | FileBatches:
        """Batches of episodes of "train" or "development" files, or of whole files."""
        training = subset == "train"
        files = [label_windows(one, self.duration, self.step) for one in self.prepared_data[subset]]
        if not training and self.validation == "der":
            files = [one for one in files if len(one.windows)]
            self._development = files
            return FileBatches(files, self.reader, self.face)
        names = [self._video(one.recording.uri) for one in files]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return Episodes(
            files=files,
            reader=self.reader,
            across=self._across,
            ways=self.ways,
            per_recording=self.per_recording,
            videos=[numbers[name] for name in names],
            episodes=self.batch_size,
            missing=self.missing if training else 0.0,
            pick=self.face,
            varied=training,
            length=self.batches_per_epoch if training else max(1, self.batches_per_epoch // 5),
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)) if training else 0,
        )

    def compare(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of all pairs of a batch, and their labels.

        Returns
        -------
        scores : (orders, episodes x ways x ways) tensor
        same : (episodes x ways x ways,) tensor
        """
        shape, visible = batch["visible"].shape, batch["visible"]
        maps = self._maps(*(batch[name].flatten(0, 2) for name in ("audio", "faces", "visible")))
        audio, face = (one.unflatten(0, shape) for one in maps)
        return episode_scores(self.model, audio, face, visible, batch["speakers"])

    def _maps(self, audio, faces, visible) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio and face maps of (windows, ...) inputs"""
        if faces.ndim == 2 and not visible.any():
            # without any face in the batch, the dimension of face embeddings is unknown
            faces = audio.new_zeros(len(audio), self.model.hparams.face_dimension)
        if faces.ndim == 4:  # face crops, one per window
            faces, visible = faces.permute(0, 3, 1, 2).unsqueeze(1), visible.unsqueeze(1)
        return self.model.audio_map(audio), self.model.face_map(faces, visible)

    def classify(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross entropy of the speakers of all windows of a batch.

        Raises
        ------
        ValueError
            If there are more speakers than outputs.
        """
        known, needed = self.model.hparams.num_speakers, int(batch["speakers"].max()) + 1
        if needed > known:
            raise ValueError(
                f"{self.protocol.name} has at least {needed} training speakers: build "
                f"{type(self.model).__name__} with num_speakers of at least that, not {known}"
            )
        parts = [batch[name].flatten(0, 2) for name in ("audio", "faces", "visible")]
        who = batch["speakers"].unsqueeze(1).expand(-1, 2, -1).flatten()
        return F.cross_entropy(self.model.classify(*self._maps(*parts), parts[2]), who)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict:
        """Squared error of scores, or cross entropy of speakers."""
        if hasattr(self.model, "classify"):
            loss = self.classify(batch)
        else:
            loss = self._loss(*self.compare(batch))
        self._log("loss/train", loss, self.batch_size)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Compute the squared error, and the validation metric of pairs."""
        if not batch["counts"]:  # duplicate batch that pads distributed validation
            return
        if self.validation == "der":
            self.model.validation_metric(*self.cluster(batch))
            self.model.log_dict(
                self.model.validation_metric, on_epoch=True, prog_bar=True, batch_size=1
            )
            return
        scores, same = self.compare(batch)
        self._log("loss/val", self._loss(scores, same), self.batch_size)
        self.model.validation_metric(scores.mean(dim=0).float(), same.int())
        self.model.log_dict(
            self.model.validation_metric, on_epoch=True, prog_bar=True, batch_size=self.batch_size
        )

    def _loss(self, scores: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        return self.ways**2 * (scores - same.to(scores)).square().mean()

    def cluster(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Errors of clustering a development file at all thresholds, and its seconds of speech."""
        one = self._development[int(batch["file"])]
        parts = (batch[name].split(_BATCH) for name in ("audio", "faces", "visible"))
        maps = [self._maps(*some) for some in zip(*parts, strict=True)]
        audio, face = (torch.cat(some) for some in zip(*maps, strict=True))
        scores = score_pairs(self.model, audio, face, batch["visible"])
        errors, total = clustering_errors(one, scores.float().cpu().numpy())
        return audio.new_tensor(errors), audio.new_tensor(total)

    def default_metric(self) -> dict[str, Metric]:
        """Area under the ROC curve of pairs, or error rate of clustering."""
        if self.validation == "der":
            return {"ClusteringDER": ClusteringDER()}
        return {"PairAUROC": BinaryAUROC()}

    @property
    def val_monitor(self) -> tuple[str, str]:
        """Name of the value to minimise."""
        return ("ClusteringDER" if self.validation == "der" else "loss/val"), "min"
