"""Hypotheses corrected with oracle voice activity detection."""

from __future__ import annotations

import numpy as np
from pyannote.core import Annotation, Segment, Timeline


def crop_to_speech(hypothesis: Annotation, speech: Timeline) -> Annotation:
    """Crop `hypothesis` to `speech`, which removes all false alarms in silence."""
    return hypothesis.crop(speech.support(), mode="intersection")


def fill_speech(hypothesis: Annotation, speech: Timeline, reach: float = 0.15) -> Annotation:
    """Crop `hypothesis` to `speech`, and assign missed speech to a speaker.

    This gives lower error rates than cropping alone. Do not compare the two.

    Parameters
    ----------
    hypothesis : Annotation
    speech : Timeline
    reach : float, optional
        Each missed region is assigned to the speaker who is active most within this many seconds
        before and after it. If nobody is active there, it is assigned to the speaker of the
        nearest turn. If there are no turns at all, it is assigned to a new speaker.

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
        near = near.round(6)  # rounded, so that ties go to the first label
        if not turns:
            who = "filled"
        elif near.any():
            who = labels[int(near.argmax())]
        else:
            who = turns[int(np.maximum(start - last, first - end).argmin())][1]
        filled[Segment(first, last), f"filled{i}"] = who
    return filled
