"""What a hypothesis would be, had it known where speech is."""

from __future__ import annotations

import numpy as np
from pyannote.core import Annotation, Segment, Timeline


def crop_to_speech(hypothesis: Annotation, speech: Timeline) -> Annotation:
    """`hypothesis` without what lies outside `speech`: no false alarm in silence is left."""
    return hypothesis.crop(speech.support(), mode="intersection")


def fill_speech(hypothesis: Annotation, speech: Timeline, reach: float = 0.15) -> Annotation:
    """`hypothesis` cropped to `speech`, and what it missed of `speech` given to somebody.

    Figures that were made so look better than those of cropping alone: never compare the two.

    Parameters
    ----------
    hypothesis : Annotation
    speech : Timeline
    reach : float, optional
        Every stretch that nobody has goes to who speaks most within so many seconds before and
        after it; where nobody does, to who is nearest; where there is nobody, to a new speaker.

    References
    ----------
    ``rttm_filter_with_vad.py`` of the MISP2022 baseline,
    https://github.com/mispchallenge/misp2022_baseline
    """
    speech = speech.support()
    filled = crop_to_speech(hypothesis, speech)
    turns = [(segment, label) for segment, _, label in filled.itertracks(yield_label=True)]
    start, end = np.array([tuple(segment) for segment, _ in turns], float).reshape(-1, 2).T
    labels = filled.labels()
    speaker = np.array([labels.index(label) for _, label in turns], int)
    for i, (first, last) in enumerate(filled.get_timeline().support().gaps(support=speech)):
        before = np.clip(np.minimum(end, first) - np.maximum(start, first - reach), 0, None)
        after = np.clip(np.minimum(end, last + reach) - np.maximum(start, last), 0, None)
        near = np.bincount(speaker, weights=before + after, minlength=len(labels))
        near = near.round(6)  # equally near is equally near: then the first label
        if not turns:
            who = "filled"
        elif near.any():
            who = labels[int(near.argmax())]
        else:
            who = turns[int(np.maximum(start - last, first - end).argmin())][1]
        filled[Segment(first, last), f"filled{i}"] = who
    return filled
