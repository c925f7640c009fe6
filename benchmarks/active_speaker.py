"""Active speaker scores on real faces: how well, at what threshold, at what cost.

    python benchmarks/active_speaker.py DATA_FOLDER [--json FILE]

DATA_FOLDER holds ``clips/crops/{speaking,silent}/*.mp4`` (224 x 224 face crops with the sound of
their scene), ``clips/several/meeting_table.{mp4,rttm}`` (speaker 1 sits on the left, speaker 0 on
the right), ``clips/talkers/hdtf_*`` (one person each) and, for LR-ASD, ``weights``. Scores are
those of the pipeline: smoothed over 5 frames, 0 is the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from pyannote.database.util import load_rttm
from sklearn.metrics import roc_auc_score

from pyannote_av.core import weights
from pyannote_av.core.io import FRAME_RATE, Video
from pyannote_av.core.tracks import FaceTracks, TrackSegment
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.face_tracking import FaceTracking

OFFSETS = (0.0, 0.4, -0.4)


def published_crop(image: np.ndarray) -> np.ndarray:
    """From a 224 x 224 face crop to what active speaker networks see: its grey centre."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (224, 224))
    return grey[56:168, 56:168]


def score(
    pipeline: ActiveSpeakerDetection, waveform: torch.Tensor, crops: np.ndarray
) -> np.ndarray:
    """Scores of one face from beginning to end, in pieces of 12 s."""
    listener = pipeline.listen(waveform)
    present = np.ones(len(crops), bool)
    for start in range(0, len(crops), 300):
        piece = slice(start, start + 300)
        listener(TrackSegment(0, start, crops[piece], present[piece]))
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(crops), 1))
    tracks = FaceTracks(np.arange(len(crops)) / FRAME_RATE, np.zeros(len(crops)), boxes)
    return listener.scores(tracks).speaking


def summary(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUC, and accuracy at 0."""
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "accuracy at 0": float(((scores > 0) == labels).mean()),
        "faces x frames": len(scores),
    }


def crops_of_one_scene(pipeline: ActiveSpeakerDetection, folder: Path) -> dict:
    """Every frame of a clip counts as its folder says."""
    scores, means, seconds = [], {}, 0.0
    for clip in sorted(folder.glob("*/*.mp4")):
        waveform = Video().waveform(clip)
        crops = np.stack([published_crop(frame.image) for frame in Video().frames(clip)])
        begin = perf_counter()
        found = score(pipeline, waveform, crops)
        seconds += perf_counter() - begin
        scores.append((found, np.full(len(found), clip.parent.name == "speaking")))
        means[f"{clip.parent.name}/{clip.stem}"] = round(float(found.mean()), 2)
    pooled, labels = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    tracks = np.array(list(means.values())), np.array([k.startswith("sp") for k in means])
    return {
        "frames": summary(pooled, labels),
        "tracks": summary(*tracks),
        "mean score per track": means,
        "ms per face and frame": 1000 * seconds / len(pooled),
    }


def two_people_at_a_table(pipeline: ActiveSpeakerDetection, folder: Path) -> dict:
    """Faces found in the picture; whom they belong to is told by where they sit."""
    reference = next(iter(load_rttm(folder / "meeting_table.rttm").values()))
    tracks = pipeline(str(folder / "meeting_table.mp4"))
    left = tracks.box[:, [0, 2]].mean(axis=1) < 0.5
    labels = np.zeros(len(tracks), bool)
    for side, speaker in ((left, "1"), (~left, "0")):
        for turn in reference.label_timeline(speaker):
            labels |= side & np.array([turn.overlaps(t + 0.02) for t in tracks.time])
    known = np.isfinite(tracks.speaking)
    return {
        name: summary(tracks.speaking[rows], labels[rows])
        for name, rows in (("left", left & known), ("right", ~left & known), ("both", known))
    }


def talkers_out_of_sync(folder: Path) -> dict[str, list]:
    """Offset and confidence found when the sound is moved by 0, +0.4 and -0.4 s.

    Some clips are out of sync by themselves: what counts is how the answer moves.
    """
    pipeline = ActiveSpeakerDetection(scorer="synchrony")
    results = {}
    for clip in sorted(folder.glob("hdtf_*")):
        waveform = Video().waveform(clip)
        tracks = FaceTracking(embedder=None)(str(clip))
        segments = list(tracks.crops(str(clip)))
        results[clip.stem] = []
        for offset in OFFSETS:
            listener = pipeline.listen(torch.roll(waveform, round(16000 * offset), dims=1))
            for segment in segments:
                listener(segment)
            results[clip.stem].append([round(value, 2) for value in listener.offset()])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("PYANNOTE_AV_WEIGHTS", str(arguments.data / "weights"))
    clips = arguments.data / "clips"

    results = {}
    for scorer in ("lr-asd", "synchrony", "lr-asd+synchrony"):
        if "lr-asd" in scorer and weights.find("lr-asd") is None:
            print(f"{scorer}: no weights on this machine")
            continue
        pipeline = ActiveSpeakerDetection(scorer=scorer)
        results[scorer] = {
            "crops": crops_of_one_scene(pipeline, clips / "crops"),
            "meeting_table": two_people_at_a_table(pipeline, clips / "several"),
        }
        print(scorer, json.dumps(results[scorer], indent=2))
    results["offsets"] = talkers_out_of_sync(clips / "talkers")
    print("offset found, confidence, at", OFFSETS)
    for clip, found in results["offsets"].items():
        print(f"  {clip:26}", *found)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
