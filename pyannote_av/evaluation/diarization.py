"""Diarization metrics computed as in md-eval-22, under the conditions that papers report."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from pyannote.core import Annotation, Timeline
from scipy.optimize import linear_sum_assignment

from pyannote_av.core.text import match_names
from pyannote_av.evaluation.cells import Cells
from pyannote_av.evaluation.diarization_result import DiarizationResult
from pyannote_av.evaluation.diarization_score import RULES, DiarizationScore, Rule
from pyannote_av.evaluation.oracle_vad import crop_to_speech, fill_speech

logger = logging.getLogger(__name__)


#: automatic: the unchanged hypothesis; oracle: without speech outside that of the reference;
#: oracle+fill: in addition, missed speech is assigned to a speaker
VADS = ("automatic", "oracle", "oracle+fill")


def match_speakers(overlap: np.ndarray) -> np.ndarray:
    """Optimal mapping of reference speakers to hypothesis labels, which maximises correct time.

    Parameters
    ----------
    overlap : (R, H) float
        Seconds during which both are active.

    Returns
    -------
    match : (R,) int
        Index of the label of each speaker, -1 for speakers without a label.
    """
    match = np.full(len(overlap), -1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    match[rows] = np.where(overlap[rows, columns] > 0, columns, -1)
    return match


def recognised(cells: Cells, match: np.ndarray) -> np.ndarray:
    """(C, R) bool: whether a reference speaker and the matching label are both active."""
    guess = np.zeros_like(cells.reference)
    guess[:, match >= 0] = cells.hypothesis[:, match[match >= 0]]
    return guess & cells.reference


def co_activity(cells: Cells, scored: np.ndarray) -> np.ndarray:
    """(R, H) seconds during which a speaker and a label are both active in `scored` cells."""
    weight = cells.duration * scored
    return (cells.reference * weight[:, None]).T @ cells.hypothesis.astype(float)


def score_errors(
    cells: Cells, match: np.ndarray, scored: np.ndarray
) -> tuple[float, float, float, float]:
    """Seconds of reference speech, false alarm, missed speech and confusion in `scored` cells."""
    weight = cells.duration * scored
    spoken, guessed = cells.reference.sum(axis=1), cells.hypothesis.sum(axis=1)
    right = recognised(cells, match).sum(axis=1)
    counts = (
        spoken,
        np.maximum(guessed - spoken, 0),
        np.maximum(spoken - guessed, 0),
        np.minimum(spoken, guessed) - right,
    )
    total, false_alarm, missed, confusion = (float(weight @ count) for count in counts)
    return total, false_alarm, missed, confusion


def _jaccard(overlap: np.ndarray, spoken: np.ndarray, guessed: np.ndarray) -> float:
    """Sum over speakers of one minus the Jaccard index, minimised over mappings (dscore)."""
    errors = 1 - overlap / (spoken[:, None] + guessed - overlap)
    best = errors[linear_sum_assignment(errors)]
    return float(best.sum() + len(spoken) - len(best))


def score_file(
    reference: Annotation,
    hypothesis: Annotation,
    uem: Timeline | None = None,
    rules: Mapping[str, Rule] = RULES,
) -> dict[str, DiarizationScore]:
    """Score one file.

    The result is that of md-eval-22. Speakers are matched to labels over the whole evaluation map,
    before collars and overlap are removed (pyannote.metrics matches them afterwards). Overlapping
    turns of one speaker count once. Turns outside the map have collars too. dscore first crops
    turns to the map, which adds collars at its borders. To reproduce its result, pass
    ``reference.crop(uem)``.

    Parameters
    ----------
    reference, hypothesis : Annotation
    uem : Timeline, optional
        Scored regions. Defaults to the whole file, as in dscore.
    rules : mapping of name to Rule, optional

    Returns
    -------
    scores : dict of name to DiarizationScore
    """
    uem = uem.support() if uem is not None else None
    timelines = [] if uem is None else [uem]
    scores = {}
    for name, rule in rules.items():
        cells = Cells.of(reference, hypothesis, timelines, rule.collar)
        inside = np.ones(len(cells.duration), bool) if uem is None else cells.inside(uem)
        overlap = co_activity(cells, inside)
        scored, several = inside.copy(), cells.reference.sum(axis=1) - 1
        if rule.collar > 0:
            scored &= ~cells.in_collar(rule.collar)
        if not rule.overlap:
            scored &= several < 1
        total, false_alarm, missed, confusion = score_errors(cells, match_speakers(overlap), scored)
        weight = cells.duration * inside
        spoken, guessed = weight @ cells.reference, weight @ cells.hypothesis
        # ignore speakers and labels that are never active inside the map
        overlap = overlap[spoken > 0][:, guessed > 0]
        spoken, guessed = spoken[spoken > 0], guessed[guessed > 0]
        scores[name] = DiarizationScore(
            total=total,
            false_alarm=false_alarm,
            missed=missed,
            confusion=confusion,
            overlapped=float((cells.duration * scored) @ np.maximum(several, 0)),
            speakers=len(spoken),
            guessed=len(guessed),
            speaker_errors=_jaccard(overlap, spoken, guessed),
            files=1,
            right_count=int(len(spoken) == len(guessed)),
            count_error=abs(len(spoken) - len(guessed)),
            pure=float(overlap.max(axis=0, initial=0).sum()),
            clustered=float(guessed.sum()),
            covered=float(overlap.max(axis=1, initial=0).sum()),
            spoken=float(spoken.sum()),
        )
    return scores


def paired(
    references: Mapping[str, Annotation], hypotheses: Mapping[str, Annotation], system: str
) -> list[str]:
    """Names of the files to score; raises ValueError if one of them has no hypothesis."""
    if not references:
        raise ValueError("there is no reference to score against")
    if missing := sorted(references.keys() - hypotheses.keys()):
        raise ValueError(
            f"{system} has nothing on {', '.join(map(repr, missing[:5]))}"
            + (f" and {len(missing) - 5} more files" if len(missing) > 5 else "")
            + "; for a file without speech, give an empty annotation "
            "(in a folder: an empty RTTM file of that name)"
        )
    if others := sorted(hypotheses.keys() - references.keys()):
        logger.warning("%s has %d files without reference, not scored", system, len(others))
    return sorted(references)


def evaluate(
    references: Mapping[str, Annotation],
    hypotheses: Mapping[str, Annotation],
    uem: Mapping[str, Timeline] | None = None,
    vad: Mapping[str, Timeline] | None = None,
    system: str = "hypothesis",
    tracks: str | None = None,
) -> DiarizationResult:
    """Score a system under all conditions that papers report.

    Parameters
    ----------
    references, hypotheses : mapping of uri to Annotation
        A uri that is spelled differently (in another Unicode form, or with ``_`` for a space) is
        found in any of the mappings, with a warning.
    uem : mapping of uri to Timeline, optional
        Scored regions. Defaults to whole files.
    vad : mapping of uri to Timeline, optional
        Speech regions for the oracle conditions. Defaults to the turns of the reference.
    system : str, optional
        Name of the system.
    tracks : {"found", "given"}, optional
        Whether the system found the face tracks itself. Only stored with the result.

    Returns
    -------
    result : DiarizationResult
        Scores for all combinations of :data:`VADS` and :data:`RULES`, per file and in total.

    Raises
    ------
    ValueError
        When a file has no hypothesis, evaluation map or speech regions.
    """
    scores: dict[tuple[str, str], dict[str, DiarizationScore]] = {}
    hypotheses = match_names(references, hypotheses, system)
    uem = uem and match_names(references, uem, "the evaluation maps")
    vad = vad and match_names(references, vad, "the speech regions")
    for uri in paired(references, hypotheses, system):
        reference, hypothesis = references[uri], hypotheses[uri]
        for what, given in (("evaluation map", uem), ("speech regions", vad)):
            if given is not None and uri not in given:
                raise ValueError(f"no {what} of {uri!r}")
        speech = reference.get_timeline() if vad is None else vad[uri]
        as_if = {
            "automatic": hypothesis,
            "oracle": crop_to_speech(hypothesis, speech),
            "oracle+fill": fill_speech(hypothesis, speech),
        }
        for name in VADS:
            one = score_file(reference, as_if[name], None if uem is None else uem[uri])
            for rule, score in one.items():
                scores.setdefault((name, rule), {})[uri] = score
    return DiarizationResult(system, scores, tracks)
