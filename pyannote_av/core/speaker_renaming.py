"""Renaming of speakers in results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from pyannote.core import Annotation


def check_names(labels: Sequence[str], names: Mapping[str, str], merge: bool = False) -> None:
    """Raise ValueError if speakers cannot be renamed.

    Parameters
    ----------
    labels : sequence of str
        Speakers of a result.
    names : mapping of str to str
        New name by label.
    merge : bool, optional
        Allow several speakers to get one name.
    """
    if unknown := [label for label in names if label not in labels]:
        there = ", ".join(map(repr, labels[:10])) + (", ..." if len(labels) > 10 else "")
        raise ValueError(f"there is no speaker {unknown[0]!r}: there is {there or 'no speaker'}")
    if wrong := [name for name in names.values() if not isinstance(name, str)]:
        raise ValueError(f"names of speakers are text, not {wrong[0]!r}")
    counts = Counter(names.get(label, label) for label in labels)
    if not merge and (twice := [name for name, count in counts.items() if count > 1]):
        same = [label for label in labels if names.get(label, label) == twice[0]]
        raise ValueError(
            f"speakers {' and '.join(map(repr, same))} would both be called {twice[0]!r}: "
            "with merge=True they become one speaker"
        )


def rename_turns(annotation: Annotation, names: Mapping[str, str]) -> Annotation:
    """Copy of an annotation with renamed labels, at once: ``{"A": "B", "B": "A"}`` swaps two."""
    renamed = Annotation(uri=annotation.uri, modality=annotation.modality)
    for segment, track, label in annotation.itertracks(yield_label=True):
        renamed[segment, track] = names.get(label, label)
    return renamed


def rename_embeddings(
    embeddings: np.ndarray, old: Annotation, names: Mapping[str, str]
) -> np.ndarray:
    """Embeddings (num_speakers, dimension) in the order of the labels after renaming.

    Speakers that become one get the mean of their embeddings, weighted by their seconds of speech.
    Missing embeddings (NaN) do not count.

    Parameters
    ----------
    embeddings : (num_speakers, dimension) array
        In the order of ``old.labels()``.
    old : Annotation
        Turns before renaming.
    names : mapping of str to str
    """
    labels = old.labels()
    sums: dict[str, np.ndarray] = {}
    weights: Counter = Counter()
    for label, vector in zip(labels, embeddings, strict=True):
        name = names.get(label, label)
        sums.setdefault(name, np.zeros_like(vector))
        if np.isfinite(vector).all():
            seconds = old.label_duration(label)
            sums[name] = sums[name] + seconds * vector
            weights[name] += seconds
    order = sorted(sums, key=lambda name: rename_turns(old, names).labels().index(name))
    rows = [sums[n] / weights[n] if weights[n] else np.full_like(sums[n], np.nan) for n in order]
    return np.stack(rows) if rows else embeddings
