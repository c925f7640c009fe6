"""Fitting of the PLDA that VBx clustering scores speaker embeddings with.

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

#: seconds of speech below which an embedding says little about the speaker
SHORTEST = 1.0
#: share of the average variance that is added to that of speakers, in any direction
_RIDGE = 1e-5
#: between-speaker variance of what does not tell speakers apart; pyannote divides by it
_LEAST_BETWEEN = 1e-4


class PLDAParameters(NamedTuple):
    """What ``pyannote.audio``'s ``PLDA`` reads from its two files; all float64.

    With ``unit`` the division by the Euclidean length, embeddings `x` are mapped to
    ``y = sqrt(D) unit(sqrt(E) unit(x - mean1) @ lda - mean2)``, then to ``(y - mu) @ tr.T``, where
    the covariance within speakers is the identity, and the one between speakers ``diag(psi)``.
    """

    mean1: np.ndarray  # (E,)
    mean2: np.ndarray  # (D,)
    lda: np.ndarray  # (E, D)
    mu: np.ndarray  # (D,)
    tr: np.ndarray  # (D, D)
    psi: np.ndarray  # (D,), positive, largest first


class SpeakerEmbeddings(NamedTuple):
    """What :func:`plda_embeddings` found."""

    embeddings: np.ndarray  # (n, E) float32, as they come out of the model
    speakers: np.ndarray  # (n,) str
    failed: dict[str, str]  # why files have none, by uri


def two_covariance(
    embeddings: np.ndarray, speakers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments of the two-covariance model: speakers vary by B, embeddings of a speaker by W.

    W is shrunk (Ledoit and Wolf 2004), which matters where embeddings are few. Means of speakers
    vary by B + W mean(1 / n_i), from which B is unbiased for any numbers n_i of embeddings.

    Parameters
    ----------
    embeddings : (n, E) array
    speakers : (n,) array
        Labels. At least two speakers; those of one embedding do not count in W.

    Returns
    -------
    mean : (E,) array
        Of speakers, whatever the number of their embeddings.
    within, between : (E, E) arrays
        W is positive definite. B may not be where speakers hardly differ.
    """
    from sklearn.covariance import ledoit_wolf

    _, who, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(means, who, embeddings)
    means /= counts[:, None]
    residuals = (embeddings - means[who])[counts[who] > 1]
    shrunk, _ = ledoit_wolf(residuals, assume_centered=True)
    # a speaker's mean takes one degree of freedom
    within = shrunk * len(residuals) / np.sum(counts - 1)
    of_means = np.atleast_2d(np.cov(means, rowvar=False))
    # where embeddings of a speaker are all alike it would be singular
    within += _RIDGE * np.trace(within + of_means) / len(within) * np.eye(len(within))
    return means.mean(axis=0), within, of_means - within * np.mean(1 / counts)


def fit_plda(
    embeddings: np.ndarray, speakers: Iterable[int] | Iterable[str], dimension: int = 128
) -> PLDAParameters:
    """Fit what maps embeddings to where VBx compares them.

    Centre, length-normalise, LDA, centre, length-normalise, two-covariance PLDA by moments.

    Parameters
    ----------
    embeddings : (n, E) array
        As they come out of the model: centring before length normalisation makes it matter how
        long they are, and diarization does not normalise them.
    speakers : (n,) int or str
        Whose they are.
    dimension : int, optional
        Of the LDA, at most E and one less than there are speakers. pyannote.audio uses 128 at most.

    Raises
    ------
    ValueError
        When shapes do not fit, values are not finite, there are fewer than two speakers, or none
        has two embeddings.
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
    """The arguments of :func:`fit_plda` as arrays, if they are of use"""
    embeddings = np.asarray(embeddings, np.float64)
    speakers = np.asarray(speakers if isinstance(speakers, np.ndarray) else list(speakers))
    if embeddings.ndim != 2 or speakers.shape != embeddings.shape[:1]:
        shapes = f"{embeddings.shape} and {speakers.shape}"
        raise ValueError(f"(n, E) embeddings and (n,) speakers are expected, not {shapes}")
    if not np.isfinite(embeddings).all():
        raise ValueError("some embeddings are not finite: drop them first")
    counts = np.unique(speakers, return_counts=True)[1]
    if len(counts) < 2:
        raise ValueError(f"a PLDA needs two speakers or more, there is {len(counts)}")
    if counts.max() < 2:
        raise ValueError("no speaker has two embeddings: how much one varies is unknown")
    if (embeddings == embeddings[0]).all():
        raise ValueError("all embeddings are the same")
    return embeddings, speakers


def _of_length(vectors: np.ndarray, length: float) -> np.ndarray:
    """Rows scaled to a length; zero stays zero"""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return length * vectors / np.maximum(norms, np.finfo(float).tiny)


def save_plda(folder: str | Path, parameters: PLDAParameters) -> Path:
    """Write what ``AudioDiarization(plda=folder)`` and ``PLDA.from_pretrained(folder)`` read.

    Returns
    -------
    folder : Path
        With ``xvec_transform.npz`` and ``plda.npz``; created if missing.
    """
    folder = Path(folder)
    mean1, mean2, lda, mu, tr, psi = parameters
    # one block: that they both appear, or none, when writing fails
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
    """Where exactly one speaker speaks.

    Parameters
    ----------
    annotation : Annotation
    annotated : Timeline, optional
        Outside of it nothing is known.
    duration : float, optional
        In seconds: segments last so long at most, and 1 s at least.
    most : int, optional
        Segments per speaker, evenly spread over all there are.

    Raises
    ------
    ValueError
        When `duration` or `most` is less than 1.
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
    """Embed the speakers of a protocol's files, from where they speak alone.

    Parameters
    ----------
    files : iterable of mapping
        With ``annotation``, and perhaps ``annotated`` and ``scope``: the same label is the same
        speaker within a file only, unless that is "database" or "global". Without ``audio`` or
        ``video``, files are looked for where ``database.yml`` says. One that cannot be used is
        reported, and does not stop the others.
    embedding : str, Path, mapping or Model, optional
        See :func:`~pyannote_av.models.loading.load_model`.
    duration, most : optional
        See :func:`single_speaker_segments`; `most` is for each file.
    progress : bool, optional
        Show a bar.
    """
    from rich.progress import track

    from pyannote_av.models.loading import load_model

    model = load_model(embedding)
    embeddings, speakers, failed = [], [], {}
    for file in track(list(files), "Speakers", disable=not progress):
        try:
            pairs = list(_embeddings_of(file, model, duration, most))
        except Exception as error:  # decoders, loaders and protocols raise anything
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
            continue  # sound that is missing is filled with zeros
        with torch.inference_mode():
            vector = model(part[None].to(model.device))[0].cpu().numpy()
        yield str(label) if whose is None else f"{whose}/{label}", vector
