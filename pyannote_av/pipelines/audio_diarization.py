"""Audio-only speaker diarization: pyannote's pipeline, with audio encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pyannote.audio import Inference
from pyannote.audio.core.plda import PLDA
from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput, SpeakerDiarization
from pyannote.audio.utils.powerset import Powerset
from pyannote.core import Annotation, Segment, SlidingWindow, SlidingWindowFeature

from pyannote_av.core.caching import cached
from pyannote_av.core.mixing import is_click
from pyannote_av.core.model import load_plda
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.pipeline import MediaMixin
from pyannote_av.core.posteriors import SpeakerPosteriors
from pyannote_av.core.threads import on_all_cores
from pyannote_av.models.loading import ModelReference, load_model
from pyannote_av.pipelines.chunk_embedding import embed_chunks, frame_and_pool
from pyannote_av.pipelines.clustering import AgglomerativeClustering, VBxClustering

# weight of the first and last frame of a chunk in posteriors; that of the middle is about 1
_EDGE = 0.05


class _Decisions(torch.nn.Module):
    """Decisions of a powerset model, followed by posteriors of speakers and of their number.

    Parameters
    ----------
    powerset : Powerset
    """

    def __init__(self, powerset: Powerset):
        super().__init__()
        self.powerset = powerset

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Convert log-probabilities of sets of speakers.

        Parameters
        ----------
        scores : (batch, frames, sets) tensor

        Returns
        -------
        outputs : (batch, frames, 2 x speakers + 3) half precision tensor
            Decision for each speaker, probability of each speaker, and probabilities that nobody,
            one speaker, and more speakers are active.
        """
        decisions = self.powerset(scores)
        probabilities = scores.float().exp()
        size = self.powerset.cardinality.clamp_max(2).long()
        counts = probabilities @ torch.nn.functional.one_hot(size, 3).to(probabilities)
        speakers = probabilities @ self.powerset.mapping.to(probabilities)
        return torch.cat([decisions, speakers, counts], dim=-1).half()


class _Inference(Inference):
    """Inference that also returns posteriors, and stores outputs in few large blocks.

    Upstream keeps one small array per batch. This fragments memory: 0.1 MB is lost per chunk.
    """

    BLOCK = 512  # chunks
    _block, _used = np.empty((0,)), 0

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if isinstance(self.conversion, Powerset):
            self.conversion = _Decisions(self.conversion)

    def __call__(self, file: Mapping, hook: Callable | None = None) -> SlidingWindowFeature:
        one_file = copy(self)  # concurrent calls do not share blocks
        one_file._used = len(one_file._block)
        return super(_Inference, one_file).__call__(file, hook=hook)

    def infer(self, chunks: torch.Tensor) -> np.ndarray:
        # long files are kept at half precision
        parts = chunks.float().tensor_split(min(len(chunks), torch.get_num_threads()))
        output = np.concatenate(list(on_all_cores(super().infer, parts, self.device)))
        if self._used + len(output) > len(self._block):
            size = max(self.BLOCK, len(output))
            self._block, self._used = np.empty((size, *output.shape[1:]), output.dtype), 0
        kept = self._block[self._used : self._used + len(output)]
        kept[:] = output
        self._used += len(output)
        return kept


class _Segmentations(SlidingWindowFeature):
    """Decisions of all chunks, with posteriors of speakers and of their number"""

    speakers: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_scores(cls, scores: SlidingWindowFeature) -> _Segmentations:
        """Take independent scores of speakers for decisions and posteriors."""
        found = cls(scores.data, scores.sliding_window, scores.labels)
        speaking, silent = np.moveaxis(np.stack([scores.data, 1 - scores.data]), 3, 1)
        nobody = silent.prod(axis=0)
        alone = sum(
            one * np.delete(silent, k, axis=0).prod(axis=0) for k, one in enumerate(speaking)
        )
        found.speakers = scores.data
        found.counts = np.stack([nobody, alone, (1 - nobody - alone).clip(0)], axis=-1)
        return found


class _Diarization(SlidingWindowFeature):
    """Decisions for a whole file, with the posteriors of the same speakers"""

    posteriors: SpeakerPosteriors


class AudioDiarization(MediaMixin, SpeakerDiarization):
    """Audio-only speaker diarization.

    The method and hyper-parameters are those of ``pyannote.audio``'s ``SpeakerDiarization``.
    The embedding network, however, encodes every part of the audio once, instead of once for every
    chunk and local speaker, and skips parts without speech. The default models work offline.

    Parameters
    ----------
    segmentation : str, Path, mapping or Model, optional
        Segmentation model; see :func:`load_model`.
    segmentation_step : float, optional
        Step between chunks, as a ratio of their duration.
    embedding : str, Path, mapping or Model, optional
        Speaker embedding model; see :func:`load_model`.
    embedding_exclude_overlap : bool, optional
        Compute embeddings from non-overlapping speech only, where a speaker has any.
    plda : str, Path, mapping or PLDA, optional
        A folder with ``xvec_transform.npz`` and ``plda.npz`` fitted to the embedding model.
        Embeddings are then clustered by VBx instead of agglomerative clustering.
    segmentation_batch_size, embedding_batch_size : int, optional
        Chunks, or as long parts of the audio, per forward pass. The defaults are the fastest on
        CPU.
    der_variant : dict, optional
        Options of the metric that ``Optimizer`` minimises.
    token, cache_dir : optional
        Token and cache folder for models of the Hugging Face hub.

    Hyper-parameters
    ----------------
    segmentation.min_duration_off, and clustering.{threshold, method, min_cluster_size} or, with a
    PLDA, clustering.{threshold, Fa, Fb}.

    Usage
    -----
    >>> output = AudioDiarization()("interview.mp4", max_speakers=4)
    >>> for turn, speaker in output.speaker_diarization: ...
    """

    #: long files may keep their sound at half precision
    HALF_PRECISION: ClassVar[bool] = True

    def __init__(
        self,
        segmentation: ModelReference = "segmentation-3.0",
        segmentation_step: float = 0.25,
        embedding: ModelReference = "campplus",
        embedding_exclude_overlap: bool = True,
        plda: str | Path | Mapping | PLDA | None = None,
        segmentation_batch_size: int = 8,
        embedding_batch_size: int = 1,
        der_variant: Mapping | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
    ):
        if plda is not None:
            plda = load_plda(plda, token, cache_dir)
        super().__init__(
            segmentation=load_model(segmentation, token, cache_dir),
            segmentation_step=segmentation_step,
            embedding=load_model(embedding, token, cache_dir),
            embedding_exclude_overlap=embedding_exclude_overlap,
            # upstream requires a PLDA for any clustering: an empty placeholder, never used
            plda=plda or PLDA.__new__(PLDA),
            clustering="VBxClustering" if plda else "AgglomerativeClustering",
            segmentation_batch_size=segmentation_batch_size,
            embedding_batch_size=embedding_batch_size,
            der_variant=dict(der_variant) if der_variant else None,
        )
        duration = self.segmentation_model.specifications.duration
        self._segmentation = _Inference(
            self.segmentation_model,
            duration=duration,
            step=segmentation_step * duration,
            skip_aggregation=True,
            batch_size=segmentation_batch_size,
        )
        metric = self._embedding.metric
        self.clustering = (
            VBxClustering(plda, metric=metric) if plda else AgglomerativeClustering(metric=metric)
        )

    def default_parameters(self) -> dict[str, dict[str, Any]]:
        """Hyper-parameters that suit the default models."""
        if self.klustering == "VBxClustering":
            clustering = {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8}
        else:
            # middle of a plateau (0.40 to 0.49) on 34 conversations of real talkers and of
            # LibriSpeech with noise; their mean DER is 19.6 %, and 19.8 to 21.1 % at other steps
            # between 0.1 and 0.5
            clustering = {"method": "average", "threshold": 0.43, "min_cluster_size": 2}
        return {"segmentation": {"min_duration_off": 0.0}, "clustering": clustering}

    def get_segmentations(self, file: Mapping, hook: Callable | None = None):
        """Segment each chunk.

        Parameters
        ----------
        file : mapping
        hook : callable, optional

        Returns
        -------
        segmentations : (num_chunks, num_frames, num_speakers) SlidingWindowFeature
        """
        progress = hook and partial(hook, "segmentation", None)
        scores = cached(
            file,
            "segmentation",
            self._segmentation,
            lambda: self._segmentation(file, hook=progress),
        )
        if not self._segmentation.model.specifications.powerset:
            return _Segmentations.of_scores(scores)
        number = (scores.data.shape[2] - 3) // 2
        decisions, speakers, counts = np.split(scores.data, [number, 2 * number], axis=2)
        # iterating over a SlidingWindowFeature changes it: do not share the cached one
        found = _Segmentations(decisions.astype(np.float32), scores.sliding_window)
        found.speakers, found.counts = speakers, counts
        return found

    def get_embeddings(
        self,
        file: Mapping,
        binary_segmentations: SlidingWindowFeature,
        exclude_overlap: bool = False,
        hook: Callable | None = None,
    ) -> np.ndarray:
        """Embed each local speaker of each chunk, with one forward pass over the audio.

        Parameters
        ----------
        file : mapping
        binary_segmentations : (num_chunks, num_frames, num_speakers) SlidingWindowFeature
        exclude_overlap : bool, optional
            See :func:`~pyannote_av.pipelines.chunk_embedding.embedding_masks`.
        hook : callable, optional

        Returns
        -------
        embeddings : (num_chunks, num_speakers, dimension) array
            NaN for inactive local speakers.
        """
        # segmentations of powerset models are binary whatever the threshold
        powerset = self._segmentation.model.specifications.powerset
        threshold = None if powerset else self.segmentation.threshold
        models = self._segmentation, self._embedding, self.embedding_batch_size

        def embed() -> np.ndarray:
            functions = frame_and_pool(getattr(self._embedding, "model_", None))
            if functions is None:
                # pyannote's method writes to the mapping
                return super(AudioDiarization, self).get_embeddings(
                    {**file}, binary_segmentations, exclude_overlap, hook
                )
            waveform, _ = self._audio(file)
            return embed_chunks(
                *functions,
                waveform,
                binary_segmentations,
                dimension=self._embedding.dimension,
                sample_rate=self._audio.sample_rate,
                exclude_overlap=exclude_overlap,
                min_num_samples=self._embedding.min_num_samples if exclude_overlap else 0,
                batch_size=self.embedding_batch_size,
                device=self._embedding.device,
                progress=hook and partial(hook, "embeddings", None),
            )

        return cached(file, "embeddings", (models, threshold, exclude_overlap), embed)

    def reconstruct(
        self,
        segmentations: SlidingWindowFeature,
        hard_clusters: np.ndarray,
        count: SlidingWindowFeature,
    ) -> SlidingWindowFeature:
        """Aggregate clustered segmentations into a diarization.

        The result is the same as upstream's, but memory does not grow with
        chunks x frames x speakers. It has the posteriors of the same speakers as an attribute.
        Frames in the middle of a chunk count more in them.

        Parameters
        ----------
        segmentations : (num_chunks, num_frames, num_local_speakers) SlidingWindowFeature
        hard_clusters : (num_chunks, num_local_speakers) array
            Negative for local speakers that are ignored.
        count : (total_num_frames, 1) SlidingWindowFeature
            Number of active speakers per frame.

        Returns
        -------
        diarization : (total_num_frames, num_speakers) SlidingWindowFeature
            Binary.
        """
        if not isinstance(segmentations, _Segmentations):
            segmentations = _Segmentations.of_scores(segmentations)
        frames = count.sliding_window
        num_frames = segmentations.data.shape[1]
        shape = len(count) + num_frames, np.max(hard_clusters) + 1
        votes, speakers = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        counts, weights = np.zeros((shape[0], 3), np.float32), np.zeros((shape[0], 1), np.float32)
        window = _EDGE + np.hamming(num_frames + 2)[1:-1, None].astype(np.float32)
        for i, (clusters, (chunk, scores)) in enumerate(
            zip(hard_clusters, segmentations, strict=True)
        ):
            first = frames.closest_frame(chunk.start + 0.5 * frames.duration)
            rows = slice(first, first + num_frames)
            for k in np.unique(clusters[clusters >= 0]):
                own = clusters == k
                votes[rows, k] += scores[:, own].max(axis=1)
                speakers[rows, k] += window[:, 0] * segmentations.speakers[i][:, own].max(axis=1)
            counts[rows] += window * segmentations.counts[i]
            weights[rows] += window
        # the aggregated scores are passed on as one single chunk
        votes, weights = votes[: len(count)], np.maximum(weights[: len(count)], 1e-6)
        whole = SlidingWindow(start=frames.start, duration=(len(count) - 1) * frames.step)
        decided = self.to_diarization(SlidingWindowFeature(votes[np.newaxis], whole), count)
        found = _Diarization(decided.data, decided.sliding_window, decided.labels)
        found.posteriors = SpeakerPosteriors(
            frames,
            [str(k) for k in range(shape[1])],
            (speakers[: len(count)] / weights).astype(np.float16),
            (counts[: len(count)] / weights).astype(np.float16),
        )
        return found

    def diarize(
        self, file: Mapping, hook: Callable | None = None, **bounds: int | None
    ) -> AVDiarizeOutput:
        """Diarize a file prepared by :meth:`prepare_one`. Arguments are those of :meth:`apply`.

        Returns
        -------
        output : AVDiarizeOutput
            Includes speaker embeddings and posteriors, also while hyper-parameters are being
            optimized. There are no speakers in silence, nor in a click in silence.
        """
        if is_click(file["waveform"][0].cpu().numpy(), file["sample_rate"]):
            nobody = Annotation(uri=file["uri"])
            embeddings = np.zeros((0, self._embedding.dimension))
            return AVDiarizeOutput(nobody, nobody.copy(), embeddings)
        hook, decided = self.setup_hook(file, hook), []

        def keep(step: str, artifact: Any = None, **details: Any) -> None:
            if step == "discrete_diarization":
                decided.append(artifact)
            hook(step, artifact, **details)

        output = super().apply(file, hook=keep, **bounds)
        output = tidy(output, file["waveform"].shape[1] / file["sample_rate"])
        for one in decided:
            output.posteriors = one.posteriors.named_as(one.data, output.speaker_diarization)
        return output

    def apply(
        self,
        file: Mapping,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        hook: Callable | None = None,
    ) -> AVDiarizeOutput | Annotation:
        """Diarize a file prepared by :meth:`prepare_one`; see :meth:`__call__`.

        Returns
        -------
        output : AVDiarizeOutput
            With a ``report`` of the file. Only its ``speaker_diarization`` while hyper-parameters
            are being optimized.
        """
        report = Report.of_file(file)
        report.reasons.append("this pipeline uses the sound alone")
        with report.stage("audio"):
            output = self.diarize(
                file,
                num_speakers=num_speakers,
                min_speakers=min_speakers,
                max_speakers=max_speakers,
                hook=hook,
            )
        if self.training:
            return output.speaker_diarization
        output.report = report
        return output


def tidy(output: DiarizeOutput, duration: float) -> AVDiarizeOutput:
    """Cut turns at the end of the file, and number speakers by first appearance.

    Parameters
    ----------
    output : DiarizeOutput
    duration : float
        Duration of the file, in seconds.

    Returns
    -------
    output : AVDiarizeOutput
        Speakers are renamed to ``SPEAKER_00``, ``SPEAKER_01``, ..., and rows of
        ``speaker_embeddings`` are reordered accordingly. Speakers without an embedding get NaN
        (zeros upstream).
    """
    inside = Segment(0.0, duration)
    diarization = output.speaker_diarization
    rows = dict(zip(diarization.labels(), output.speaker_embeddings, strict=True))
    diarization = diarization.crop(inside)
    order = sorted(diarization.labels(), key=lambda label: diarization.label_timeline(label)[0])
    names = {label: f"SPEAKER_{i:02d}" for i, label in enumerate(order)}
    former = {name: label for label, name in names.items()}

    diarization = diarization.rename_labels(names)
    exclusive = output.exclusive_speaker_diarization.crop(inside).rename_labels(names)
    embeddings = np.empty((len(order), output.speaker_embeddings.shape[1]))
    for i, name in enumerate(diarization.labels()):
        embeddings[i] = rows[former[name]]
    embeddings[~embeddings.any(axis=1)] = np.nan
    return AVDiarizeOutput(diarization, exclusive, embeddings)
