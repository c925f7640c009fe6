"""Statistics of a prepared corpus, and scores of systems on it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pyannote.core import Annotation, Timeline

from recipes.recipe import Recipe

#: speaking score (log-odds) of a face that a system does not score: it counts as silent
_SILENT = -20.0


def open_protocol(recipe: Recipe, folder: Path, protocol: str | None, subset: str) -> list[Any]:
    """Open a prepared protocol and return its files in order.

    Raises
    ------
    FileNotFoundError
        If the corpus is not prepared.
    ValueError
        If the protocol or subset does not exist, or a file is listed twice.
    """
    from pyannote.database import registry

    chosen = recipe.protocol(protocol)
    database = Path(folder) / "database.yml"
    if not database.is_file():
        raise FileNotFoundError(
            f"{folder} is not prepared: python -m recipes {recipe.name} prepare"
        )
    if subset not in chosen.subsets:
        names = ", ".join(chosen.subsets)
        raise ValueError(f"{recipe.full_name(chosen)} has no subset {subset!r}; it has {names}")
    with warnings.catch_warnings():
        # database.yml in the working directory may define the same protocol for another folder
        warnings.filterwarnings("ignore", "Replacing existing")
        registry.load_database(database)
    files = list(getattr(registry.get_protocol(recipe.full_name(chosen)), subset)())
    uris = [file["uri"] for file in files]
    if not files:
        raise ValueError(f"{recipe.full_name(chosen)}, {subset}: there are no files")
    if twice := next((uri for uri in uris if uris.count(uri) > 1), None):
        raise ValueError(f"{recipe.full_name(chosen)}, {subset}: {twice!r} is listed twice")
    return files


def _tracks(file: Mapping) -> Any:
    """Face tracks of a file, or None"""
    from pyannote_av.core.tracks import FaceTracks

    try:
        return FaceTracks.read(file["face_tracks"]) if "face_tracks" in file else None
    except FileNotFoundError:
        return None


def describe(files: Sequence[Mapping]) -> dict[str, Any]:
    """Compute statistics of the references in seconds, counts or percent.

    ``floor`` and ``floor_collar`` are the error rates of a perfect system that never outputs two
    speakers at the same time, without collar and with a collar of 0.25 s a side. The following are
    computed over files whose face tracks name their speakers. ``own_face`` is the share of speech
    during which the speaker's own face is on screen. ``visible_speech`` is the share of speech
    during which this face is labelled as audibly speaking.
    """
    from pyannote_av.core.tracks import Label
    from pyannote_av.evaluation.conditions import visible_speech
    from pyannote_av.evaluation.diarization import score_file
    from pyannote_av.evaluation.diarization_score import DiarizationScore

    totals: dict[str, DiarizationScore] = {}
    speakers, on_screen, visible, tracked = [], np.zeros(2), np.zeros(2), 0
    num_tracks = num_labelled = 0
    scored = speech = 0.0
    for file in files:
        annotation, annotated = file["annotation"], file["annotated"]
        for rule, score in score_file(annotation, Annotation(), annotated).items():
            totals[rule] = totals[rule] + score if rule in totals else score
        speakers.append(len(annotation.crop(annotated).labels()))
        scored += annotated.duration()
        speech += annotation.get_timeline().crop(annotated).support().duration()
        if (tracks := _tracks(file)) is None:
            continue
        num_tracks += len(tracks.tracks)
        num_labelled += int((tracks.label != Label.UNKNOWN).sum())
        if tracks.speaker:
            tracked += 1
            on_screen += visible_speech(annotation, tracks, annotated)
            if (tracks.label != Label.UNKNOWN).any():
                talking = tracks.take(tracks.label == Label.SPEAKING_AUDIBLE)
                visible += visible_speech(annotation, talking, annotated)
    figures = {
        "files": len(files),
        "scored_seconds": scored,
        "speech_seconds": speech,
        "speaker_seconds": totals["Full"].total,
        "fewest_speakers": min(speakers),
        "mean_speakers": float(np.mean(speakers)),
        "most_speakers": max(speakers),
        "floor": 100 * totals["Full"].floor,
        "floor_collar": 100 * totals["Fair"].floor,
    }
    if num_tracks:
        figures |= {"face_tracks": num_tracks, "labelled_faces": num_labelled}
    for name, (covered, spoken) in (("own_face", on_screen), ("visible_speech", visible)):
        if spoken:
            figures |= {"tracked_files": tracked, name: float(100 * covered / spoken)}
    return figures


def run(files: Sequence[Mapping], pipeline: str, given: bool, device: str) -> dict[str, Annotation]:
    """Run a pipeline on every file, with the face tracks of the corpus if `given`."""
    import torch

    from pyannote_av import Pipeline
    from pyannote_av.evaluation.sweeps import diarization

    loaded = Pipeline.from_pretrained(pipeline)
    loaded.to(torch.device(device))
    columns = ("uri", "video", "audio", "face_tracks") if given else ("uri", "video", "audio")
    return {
        file["uri"]: diarization(loaded, {name: file[name] for name in columns if name in file})
        for file in files
    }


def diarization_scores(
    files: Sequence[Mapping],
    pipelines: Sequence[str],
    hypotheses: Sequence[Path],
    given: bool = False,
    device: str = "cpu",
) -> tuple[list, list, list]:
    """Score pipelines and RTTM files: results, comparisons, and tables by condition."""
    from pyannote_av.core.text import match_names
    from pyannote_av.evaluation.conditions import conditions
    from pyannote_av.evaluation.diarization import evaluate
    from pyannote_av.evaluation.significance import compare
    from pyannote_av.formats.annotations import read_rttm

    references: dict[str, Annotation] = {file["uri"]: file["annotation"] for file in files}
    maps: dict[str, Timeline] = {file["uri"]: file["annotated"] for file in files}
    systems = {
        name: (run(files, name, given, device), "given" if given else "found") for name in pipelines
    }
    systems |= {
        str(path): (match_names(references, read_rttm(path), path), None) for path in hypotheses
    }
    faces = {file["uri"]: _tracks(file) for file in files}
    known = faces if all(tracks is not None for tracks in faces.values()) else None
    results = [
        evaluate(references, turns, maps, system=name, tracks=tracks)
        for name, (turns, tracks) in systems.items()
    ]
    tables = [
        conditions(references, turns, maps, known, system=name)
        for name, (turns, _) in systems.items()
    ]
    return results, compare(results), tables


def active_speaker_scores(files: Sequence[Mapping], scorer: str) -> Any:
    """Evaluate an active speaker scorer on the face tracks of the corpus, at 25 Hz."""
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.evaluation.active_speaker import evaluate_tracks
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    pipeline = ActiveSpeakerDetection(scorer=scorer)
    scored: list[FaceTracks] = []
    for file in files:
        tracks = pipeline({name: file[name] for name in ("uri", "video", "face_tracks")})
        speaking = np.nan_to_num(tracks.speaking, nan=_SILENT)
        scored.append(replace(tracks, speaking=speaking, uri=file["uri"]))
    return evaluate_tracks(scored)


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Write statistics and scores as JSON."""
    from pyannote_av.core.atomic import write_text

    write_text(path, json.dumps(figures, indent=1) + "\n")
