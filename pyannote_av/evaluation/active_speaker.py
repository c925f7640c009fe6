"""Metrics of active speaker detection, computed as in the literature.

Labels are those of AVA-ActiveSpeaker (:class:`~pyannote_av.core.tracks.Label`): 1 (speaking and
audible) is positive, 0 (not speaking) and 2 (speaking, not audible) are negative, and rows with -1
(not annotated) are left out. Labels may also be an array of bool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyannote_av.core.tracks import FaceTracks, Label
from pyannote_av.evaluation.active_speaker_result import ActiveSpeakerResult, ActiveSpeakerScore

if TYPE_CHECKING:
    from pyannote_av.evaluation.matching import FaceRows

__all__ = [
    "ActiveSpeakerResult",
    "ActiveSpeakerScore",
    "evaluate",
    "evaluate_files",
    "evaluate_speakers",
    "evaluate_tracks",
]

#: faces narrower than the first width are small, wider than the second are large (pixels)
SMALL, LARGE = 64, 128


def _labelled(scores: np.ndarray, labels: np.ndarray, **others) -> tuple[np.ndarray, ...]:
    """Check arrays; return the scores, bool labels, and a mask of the annotated rows"""
    scores, labels = np.asarray(scores), np.asarray(labels)
    for name, values in {"labels": labels, **others}.items():
        if scores.ndim != 1 or np.shape(values) != scores.shape:
            raise ValueError(f"{np.shape(values)} {name} for {scores.shape} scores, not (N,) both")
    if (wrong := ~np.isin(labels, list(Label))).any():
        raise ValueError(f"label of row {(i := int(wrong.argmax()))} is {labels[i]}, not -1 to 2")
    known = labels != Label.UNKNOWN
    if scores.dtype.kind == "f" and (missing := known & np.isnan(scores)).any():
        raise ValueError(f"row {int(missing.argmax())} is annotated but has no score (NaN)")
    return scores, labels == Label.SPEAKING_AUDIBLE, known


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    frame: np.ndarray | None = None,
    width: np.ndarray | None = None,
    threshold: float = 0.0,
) -> ActiveSpeakerResult:
    """Metrics of AVA-ActiveSpeaker, overall and by number and size of faces.

    Parameters
    ----------
    scores : (N,) array
        One speaking score per face and frame. Higher means more likely to be speaking.
    labels : (N,) array
        Bool, or :class:`~pyannote_av.core.tracks.Label`.
    frame : (N,) array, optional
        Number of the frame of each face. Adds groups ``1 face``, ``2 faces``, ``3 faces`` and
        ``4+ faces``, by number of faces in the frame (annotated or not).
    width : (N,) array, optional
        Width of the faces in pixels. Adds groups ``small`` (below 64), ``middle`` and ``large``
        (above 128).
    threshold : float
        Threshold for F1 and accuracy.

    Returns
    -------
    result : ActiveSpeakerResult
        Its first group is ``all``.

    Raises
    ------
    ValueError
        When arrays differ in length, or an annotated face has no score.

    References
    ----------
    Roth et al., "AVA-ActiveSpeaker: an audio-visual dataset for active speaker detection", ICASSP
    2020. Alcázar et al., "Active speakers in context", CVPR 2020, section 4 (the groups).
    """
    given = {
        name: np.asarray(values)
        for name, values in {"frame": frame, "width": width}.items()
        if values is not None
    }
    scores, labels, known = _labelled(scores, labels, **given)
    groups = {"all": known}
    if frame is not None:
        _, index, counts = np.unique(given["frame"], return_inverse=True, return_counts=True)
        faces = counts[index]
        groups |= {f"{n} face{'s' * (n > 1)}": known & (faces == n) for n in (1, 2, 3)}
        groups["4+ faces"] = known & (faces > 3)
    if width is not None:
        pixels = given["width"]
        if (wrong := ~(pixels > 0)).any():
            raise ValueError(f"width of row {(i := int(wrong.argmax()))} is {pixels[i]}")
        groups["small"] = known & (pixels < SMALL)
        groups["middle"] = known & (pixels >= SMALL) & (pixels <= LARGE)
        groups["large"] = known & (pixels > LARGE)
    return ActiveSpeakerResult(
        tuple(
            ActiveSpeakerScore.of(name, scores[rows], labels[rows], threshold)
            for name, rows in groups.items()
        ),
        threshold,
    )


def evaluate_speakers(
    scores: np.ndarray, labels: np.ndarray, speakers: np.ndarray, threshold: float = 0.0
) -> ActiveSpeakerResult:
    """Metrics per speaker and their mean, as on the Columbia data set.

    Parameters
    ----------
    scores, labels, threshold
        As for :func:`evaluate`.
    speakers : (N,) array of str
        Speaker of each face.

    Returns
    -------
    result : ActiveSpeakerResult
        Its first group is ``mean``, the unweighted mean over speakers (NaN if it is NaN for one of
        them). The other groups are the speakers, sorted by name.

    References
    ----------
    Chakravarty and Tuytelaars, "Cross-modal supervision for learning active speaker detection in
    video", ECCV 2016.
    """
    speakers = np.asarray(speakers)
    scores, labels, known = _labelled(scores, labels, speakers=speakers)
    rows = {name: known & (speakers == name) for name in np.unique(speakers[known]).tolist()}
    if not rows:
        raise ValueError("no annotated face")
    each = [
        ActiveSpeakerScore.of(str(name), scores[at], labels[at], threshold)
        for name, at in rows.items()
    ]
    shares = (np.mean([getattr(s, f.name) for s in each]) for f in fields(each[0])[3:])
    mean = ActiveSpeakerScore(
        "mean", sum(s.faces for s in each), sum(s.speaking for s in each), *map(float, shares)
    )
    return ActiveSpeakerResult((mean, *each), threshold)


def _widths(rows: FaceRows, frame_width: int | Mapping[str, int] | None) -> np.ndarray | None:
    """(N,) widths of faces in pixels; None if the widths of frames are unknown"""
    if frame_width is None:
        return None
    videos = rows.video.categories
    if isinstance(frame_width, Mapping):
        if unknown := [video for video in videos if video not in frame_width]:
            raise ValueError(f"frame_width has no video {unknown[0]!r}")
        pixels = np.array([frame_width[video] for video in videos])[rows.video.codes]
    else:
        pixels = frame_width
    # rounded: a face of 64 pixels may be 63.9999 wide in fractions of the frame
    return np.round((rows.box[:, 2] - rows.box[:, 0]) * pixels, 2)


def evaluate_files(
    reference: str | Path,
    prediction: str | Path,
    frame_width: int | Mapping[str, int] | None = None,
    threshold: float = 0.0,
) -> ActiveSpeakerResult:
    """Metrics of a file of predictions in the official format of AVA-ActiveSpeaker.

    Rows are matched by video, time and entity. Both files may be gzipped, and the header line is
    optional; see :func:`~pyannote_av.evaluation.matching.read_rows`.

    Parameters
    ----------
    reference : str or Path
        Columns video_id, frame_timestamp, entity_box_x1, entity_box_y1, entity_box_x2,
        entity_box_y2, label and entity_id.
    prediction : str or Path
        The same columns and score. All labels must be SPEAKING_AUDIBLE or empty.
    frame_width : int or mapping of video to int, optional
        Width of the pictures in pixels, for the breakdown by face size.
    threshold : float
        Threshold for F1 and accuracy. Use 0 for log-odds and 0.5 for probabilities.

    Raises
    ------
    ValueError
        With file and line of the first row that is malformed, duplicated, without counterpart, or
        whose box differs from that of its counterpart. The official script ignores rows without
        counterpart if both files have the same number of rows.
    """
    from pyannote_av.evaluation.matching import match, read_rows

    rows = read_rows(reference)
    predicted = read_rows(prediction, scored=True)
    scores = predicted.score[match(rows, predicted)]
    return evaluate(scores, rows.label, rows.frame(), _widths(rows, frame_width), threshold)


def evaluate_tracks(
    reference: FaceTracks | Iterable[FaceTracks],
    prediction: FaceTracks | Iterable[FaceTracks] | None = None,
    frame_width: int | Mapping[str, int] | None = None,
    threshold: float = 0.0,
    by: str = "condition",
) -> ActiveSpeakerResult:
    """Metrics of the ``speaking`` scores of face tracks.

    Parameters
    ----------
    reference : FaceTracks, or several of different uri
        Face tracks with ``label``.
    prediction : the same, optional
        Face tracks with ``speaking``. They must have the same rows, which are matched by uri, time
        (to the millisecond) and track. Defaults to `reference`.
    frame_width : int or mapping of uri to int, optional
        Width of the pictures in pixels, if the reference has no ``frame_size``.
    threshold : float
        Threshold for F1 and accuracy.
    by : {"condition", "speaker"}
        Return the result of :func:`evaluate` or of :func:`evaluate_speakers`. The latter leaves
        out tracks of unknown speakers.

    Raises
    ------
    ValueError
        With the first row that has no counterpart.
    """
    from pyannote_av.evaluation.matching import match, track_rows

    if by not in ("condition", "speaker"):
        raise ValueError(f'by must be "condition" or "speaker", not {by!r}')
    reference = [reference] if isinstance(reference, FaceTracks) else list(reference)
    rows = track_rows(reference, "the reference")
    if prediction is None:
        scores = rows.score
    else:
        prediction = [prediction] if isinstance(prediction, FaceTracks) else list(prediction)
        predicted = track_rows(prediction, "the prediction")
        scores = predicted.score[match(rows, predicted, tolerance=1e-3)]
    if (missing := (rows.label != Label.UNKNOWN) & np.isnan(scores)).any():
        raise ValueError(f"{rows.where(int(missing.argmax()))} is annotated but has no score (NaN)")
    if by == "speaker":
        names = [t.speaker.get(int(track)) for t in reference for track in t.track]
        named = np.array([name is not None for name in names], bool)
        speakers = np.array([name for name in names if name is not None])
        return evaluate_speakers(scores[named], rows.label[named], speakers, threshold)
    if all(tracks.frame_size for tracks in reference):
        frame_width = {tracks.uri or "": tracks.frame_size[0] for tracks in reference}
    return evaluate(scores, rows.label, rows.frame(), _widths(rows, frame_width), threshold)
