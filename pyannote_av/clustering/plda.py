"""Fitting of the PLDA with which VBx clustering scores speaker embeddings.

References
----------
Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006. Brümmer and de Villiers, "The
Speaker Partitioning Problem", Odyssey 2010 (two covariances). Garcia-Romero and Espy-Wilson,
"Analysis of i-vector Length Normalization in Speaker Recognition Systems", Interspeech 2011.
Landini et al., "Bayesian HMM clustering of x-vector sequences (VBx) in speaker diarization", CSL
2022 (https://github.com/BUTSpeechFIT/VBx), whose transform pyannote.audio applies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyannote_av.core.atomic import replacing

if TYPE_CHECKING:
    from pyannote.core import Annotation, Segment, Timeline

    from pyannote_av.models.loading import ModelReference

logger = logging.getLogger(__name__)

#: minimum duration of speech for an embedding, in seconds
SHORTEST = 1.0
#: ridge added to the within-speaker covariance, as a share of the average variance
_RIDGE = 1e-5
#: minimum between-speaker variance of any dimension, because pyannote divides by it
_LEAST_BETWEEN = 1e-4


class PLDAParameters(NamedTuple):
    """Parameters that ``pyannote.audio``'s ``PLDA`` reads from its two files, all float64.

    Embeddings `x` are mapped to ``y = sqrt(D) unit(sqrt(E) unit(x - mean1) @ lda - mean2)``, where
    ``unit`` divides by the Euclidean norm. They are then mapped to ``(y - mu) @ tr.T``. In this
    space, the within-speaker covariance is the identity, and the between-speaker covariance is
    ``diag(psi)``.
    """

    mean1: np.ndarray  # (E,)
    mean2: np.ndarray  # (D,)
    lda: np.ndarray  # (E, D)
    mu: np.ndarray  # (D,)
    tr: np.ndarray  # (D, D)
    psi: np.ndarray  # (D,), positive, largest first


class SpeakerEmbeddings(NamedTuple):
    """Result of :func:`plda_embeddings`."""

    embeddings: np.ndarray  # (n, E) float32, not normalised
    speakers: np.ndarray  # (n,) str
    failed: dict[str, str]  # error messages of failed files, by uri


def two_covariance(
    embeddings: np.ndarray, speakers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments of the two-covariance model: between-speaker B and within-speaker W.

    W is shrunk (Ledoit and Wolf 2004), which matters if there are few embeddings. The covariance of
    speaker means is B + W mean(1 / n_i). The estimate of B derived from it is unbiased for any
    numbers n_i of embeddings per speaker.

    Parameters
    ----------
    embeddings : (n, E) array
    speakers : (n,) array
        Labels of at least two speakers. Speakers with one embedding are not used for W.

    Returns
    -------
    mean : (E,) array
        Mean of speaker means, in which all speakers have the same weight.
    within, between : (E, E) arrays
        W is positive definite. B may be indefinite if speakers hardly differ.
    """
    from sklearn.covariance import ledoit_wolf

    _, who, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(means, who, embeddings)
    means /= counts[:, None]
    residuals = (embeddings - means[who])[counts[who] > 1]
    shrunk, _ = ledoit_wolf(residuals, assume_centered=True)
    # each speaker mean takes one degree of freedom
    within = shrunk * len(residuals) / np.sum(counts - 1)
    of_means = np.atleast_2d(np.cov(means, rowvar=False))
    # avoid a singular matrix if all embeddings of each speaker are the same
    within += _RIDGE * np.trace(within + of_means) / len(within) * np.eye(len(within))
    return means.mean(axis=0), within, of_means - within * np.mean(1 / counts)


def fit_plda(
    embeddings: np.ndarray, speakers: Iterable[int] | Iterable[str], dimension: int = 128
) -> PLDAParameters:
    """Fit the embedding transform and the PLDA of VBx clustering.

    The steps are: centre, length-normalise, LDA, centre, length-normalise, and two-covariance PLDA
    by moments.

    Parameters
    ----------
    embeddings : (n, E) array
        Raw output of the embedding model. Do not normalise embeddings: diarization does not, and
        their norm matters because they are centred before length normalisation.
    speakers : (n,) int or str
        Speaker of each embedding.
    dimension : int, optional
        Dimension of the LDA. It is reduced to E, or to the number of speakers minus one, if larger.
        pyannote.audio uses at most 128.

    Raises
    ------
    ValueError
        If shapes do not match, values are not finite, there are fewer than two speakers, or no
        speaker has two embeddings.
    """
    from scipy.linalg import eigh

    embeddings, speakers = _checked(embeddings, speakers)
    size, num_speakers = embeddings.shape[1], len(np.unique(speakers))
    if dimension < 1:
        raise ValueError(f"dimension must be 1 or more, not {dimension}")
    wanted, dimension = dimension, min(dimension, size, num_speakers - 1)
    if dimension < wanted:
        logger.warning(
            "LDA to %d dimensions instead of %d: embeddings have %d, and there are %d speakers",
            *(dimension, wanted, size, num_speakers),
        )
    mean1, _, _ = two_covariance(embeddings, speakers)
    normalised = _of_length(embeddings - mean1, np.sqrt(size))
    mean, within, between = two_covariance(normalised, speakers)
    _, axes = eigh(between, within)  # most discriminative last
    lda = axes[:, ::-1][:, :dimension]
    mean2 = mean @ lda
    reduced = _of_length(normalised @ lda - mean2, np.sqrt(dimension))
    mu, within, between = two_covariance(reduced, speakers)
    psi, axes = eigh(between, within)
    psi = np.maximum(psi[::-1], _LEAST_BETWEEN)
    return PLDAParameters(mean1, mean2, lda, mu, np.ascontiguousarray(axes.T[::-1]), psi)


def _checked(embeddings, speakers) -> tuple[np.ndarray, np.ndarray]:
    """Convert the arguments of :func:`fit_plda` to arrays, and check them"""
    embeddings = np.asarray(embeddings, np.float64)
    speakers = np.asarray(speakers if isinstance(speakers, np.ndarray) else list(speakers))
    if embeddings.ndim != 2 or speakers.shape != embeddings.shape[:1]:
        shapes = f"{embeddings.shape} and {speakers.shape}"
        raise ValueError(f"(n, E) embeddings and (n,) speakers are expected, not {shapes}")
    if not np.isfinite(embeddings).all():
        raise ValueError("some embeddings are not finite: drop them first")
    counts = np.unique(speakers, return_counts=True)[1]
    if len(counts) < 2:
        raise ValueError(f"a PLDA needs at least two speakers, not {len(counts)}")
    if counts.max() < 2:
        raise ValueError("no speaker has two embeddings: the variation within a speaker is unknown")
    if (embeddings == embeddings[0]).all():
        raise ValueError("all embeddings are the same")
    return embeddings, speakers


def _of_length(vectors: np.ndarray, length: float) -> np.ndarray:
    """Scale rows to the given norm; zero stays zero"""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return length * vectors / np.maximum(norms, np.finfo(float).tiny)


def save_plda(folder: str | Path, parameters: PLDAParameters) -> Path:
    """Save a PLDA for ``AudioDiarization(plda=folder)`` and ``PLDA.from_pretrained(folder)``.

    Returns
    -------
    folder : Path
        Folder with ``xvec_transform.npz`` and ``plda.npz``. It is created if missing.
    """
    folder = Path(folder)
    mean1, mean2, lda, mu, tr, psi = parameters
    # one block, so that both files appear, or none if writing fails
    with (
        replacing(folder / "plda.npz") as plda,
        replacing(folder / "xvec_transform.npz") as transform,
    ):
        np.savez(transform, mean1=mean1, mean2=mean2, lda=lda)
        np.savez(plda, mu=mu, tr=tr, psi=psi)
    return folder


def single_speaker_segments(
    annotation: Annotation, annotated: Timeline | None = None, duration: float = 3.0, most: int = 20
) -> list[tuple[Any, Segment]]:
    """Segments in which exactly one speaker is active.

    Parameters
    ----------
    annotation : Annotation
    annotated : Timeline, optional
        Annotated regions. Everything outside is ignored.
    duration : float, optional
        Maximum duration of segments, in seconds. The minimum is 1 s.
    most : int, optional
        Maximum number of segments per speaker, evenly spread over all segments of the speaker.

    Raises
    ------
    ValueError
        If `duration` or `most` is less than 1.
    """
    from pyannote.core import Segment

    if duration < SHORTEST or most < 1:
        raise ValueError(f"{most} segments of at most {duration} s: both must be 1 or more")
    if annotated is not None:
        annotation = annotation.crop(annotated.support())
    overlap = annotation.get_overlap()
    found = []
    for label in annotation.labels():
        segments = [
            Segment(start, min(start + duration, alone.end))
            for alone in annotation.label_timeline(label).support().extrude(overlap)
            for start in np.arange(alone.start, alone.end - SHORTEST + 1e-6, duration).tolist()
        ]
        kept = np.linspace(0, len(segments) - 1, min(most, len(segments))).round().astype(int)
        found += [(label, segments[i]) for i in kept]
    return found


def plda_embeddings(
    files: Iterable[Mapping[str, Any]],
    embedding: ModelReference = "campplus",
    duration: float = 3.0,
    most: int = 20,
    progress: bool = False,
) -> SpeakerEmbeddings:
    """Embed the speakers of a protocol's files, from non-overlapping speech.

    Parameters
    ----------
    files : iterable of mapping
        Files with ``annotation``, and optionally ``annotated`` and ``scope``. Labels are valid
        within one file, unless ``scope`` is "database" or "global". Files without ``audio`` or
        ``video`` are located with ``database.yml``. A file that fails is reported, and the others
        are still processed.
    embedding : str, Path, mapping or Model, optional
        See :func:`~pyannote_av.models.loading.load_model`.
    duration, most : optional
        See :func:`single_speaker_segments`. `most` applies per file.
    progress : bool, optional
        Show a progress bar.
    """
    from rich.progress import track

    from pyannote_av.models.loading import load_model

    model = load_model(embedding)
    embeddings, speakers, failed = [], [], {}
    for file in track(list(files), "Speakers", disable=not progress):
        try:
            pairs = list(_embeddings_of(file, model, duration, most))
        except Exception as error:  # decoders, loaders and protocols raise any exception
            failed[str(file["uri"])] = f"{type(error).__name__}: {error}"
            logger.warning("%s: %s", file["uri"], failed[str(file["uri"])])
            continue
        speakers += [speaker for speaker, _ in pairs]
        embeddings += [vector for _, vector in pairs]
    vectors = np.array(embeddings, np.float32).reshape(-1, model.dimension)
    finite = np.isfinite(vectors).all(axis=1)
    return SpeakerEmbeddings(vectors[finite], np.array(speakers, np.str_)[finite], failed)


def _embeddings_of(file: Mapping[str, Any], model, duration: float, most: int):
    """(speaker, (E,) array) pairs of one file"""
    import torch
    from pyannote.core import Segment, Timeline
    from pyannote.database import FileFinder, registry

    from pyannote_av.core.io import Video

    annotation, annotated = file.get("annotation"), file.get("annotated")
    if annotation is None:
        raise ValueError("there is no annotation")
    scope = file.get("scope") or "file"
    whose = {"file": file["uri"], "database": file.get("database")}.get(scope)
    rate = model.hparams.sample_rate
    in_columns = {"audio", "video", "waveform"} & set(file)
    if not in_columns and file.get("database") in registry.sources:
        file = {"uri": file["uri"], "audio": FileFinder()(file)}
    waveform = Video(sample_rate=rate).waveform(file)
    whole = Segment(0, waveform.shape[1] / rate)
    inside = Timeline([whole]) if annotated is None else annotated.crop(whole)
    for label, segment in single_speaker_segments(annotation, inside, duration, most):
        part = waveform[:, round(segment.start * rate) : round(segment.end * rate)]
        if not part.any():
            continue  # missing audio is filled with zeros
        with torch.inference_mode():
            vector = model(part[None].to(model.device))[0].cpu().numpy()
        yield str(label) if whose is None else f"{whose}/{label}", vector
