"""Active speaker scores on real faces: how well, at what threshold, at what cost.

    python benchmarks/active_speaker.py DATA_FOLDER [--json FILE] [--scorers NAME ...]

DATA_FOLDER holds ``clips`` and, for LR-ASD and Light-ASD, ``weights``:

- ``clips/crops/{speaking,silent}/*.mp4``: 224 x 224 face crops with the sound of their scene;
- ``clips/several/meeting_table.{mp4,rttm}``: speaker 1 sits on the left, speaker 0 on the right;
- ``clips/several/*``: several faces, of which it is not known who speaks;
- ``clips/talkers/*``, ``clips/single/*``: one person each, who does all the talking.

Scores are those of the pipeline: smoothed over 5 frames, 0 is the threshold. Faces are found once
and scored by everyone.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from pyannote.database.util import load_rttm
from scipy.ndimage import uniform_filter1d
from sklearn.metrics import roc_auc_score

from pyannote_av.core import weights
from pyannote_av.core.grid import FRAME_RATE
from pyannote_av.core.io import Video
from pyannote_av.core.tracks import FaceTracks, TrackSegment
from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection
from pyannote_av.pipelines.face_tracking import FaceTracking
from pyannote_av.vision.crops import crop_video

OFFSETS = (0.0, 0.4, -0.4)
SCORERS = ("lr-asd", "light-asd", "lr-asd-ava", "light-asd-ava", "synchrony", "lr-asd+synchrony")
UNITS = ("frames", "tracks")


def published_crop(image: np.ndarray) -> np.ndarray:
    """From a 224 x 224 face crop to what active speaker networks see: its grey centre."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (224, 224))
    return grey[56:168, 56:168]


@dataclass
class Clip:
    """A clip whose faces have been found."""

    waveform: torch.Tensor
    tracks: FaceTracks
    segments: list[TrackSegment]

    @classmethod
    def read(cls, path: Path) -> Clip:
        """Track the faces of a file."""
        tracks = FaceTracking(embedder=None)(str(path))
        return cls(Video().waveform(path), tracks, list(crop_video(tracks, str(path))))

    @classmethod
    def of_crops(cls, path: Path) -> Clip:
        """One face throughout, cut as published."""
        crops = np.stack([published_crop(frame.image) for frame in Video().frames(path)])
        present = np.ones(len(crops), bool)
        pieces = [slice(start, start + 300) for start in range(0, len(crops), 300)]
        boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(crops), 1))
        return cls(
            Video().waveform(path),
            FaceTracks(np.arange(len(crops)) / FRAME_RATE, np.zeros(len(crops)), boxes),
            [TrackSegment(0, piece.start, crops[piece], present[piece]) for piece in pieces],
        )

    def score(self, pipeline: ActiveSpeakerDetection) -> FaceTracks:
        """Tracks with their scores."""
        listener = pipeline.listen(self.waveform)
        for segment in self.segments:
            listener(segment)
        return listener.scores(self.tracks)

    def voiced(self) -> np.ndarray:
        """Whether each row of the tracks is within 25 dB of the loud parts of the sound."""
        samples = self.waveform[0].numpy()
        frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
        level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
        is_loud = uniform_filter1d((level > np.percentile(level, 95) - 25).astype(float), 5) > 0.5
        index = np.round(self.tracks.time * FRAME_RATE).astype(int)
        return is_loud[np.clip(index, 0, len(is_loud) - 1)]


def summary(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUC, and accuracy at 0."""
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "accuracy at 0": float(((scores > 0) == labels).mean()),
        "faces x frames": len(scores),
    }


def crops_of_one_scene(pipeline: ActiveSpeakerDetection, clips: dict[Path, Clip]) -> dict:
    """Every frame of a clip counts as its folder says."""
    scores, means, seconds = [], {}, 0.0
    for path, clip in clips.items():
        begin = perf_counter()
        found = clip.score(pipeline).speaking
        seconds += perf_counter() - begin
        scores.append((found, np.full(len(found), path.parent.name == "speaking")))
        means[f"{path.parent.name}/{path.stem}"] = round(float(found.mean()), 2)
    pooled, labels = (np.concatenate(parts) for parts in zip(*scores, strict=True))
    tracks = np.array(list(means.values())), np.array([k.startswith("sp") for k in means])
    return {
        "frames": summary(pooled, labels),
        "tracks": summary(*tracks),
        "mean score per track": means,
        "ms per face and frame": 1000 * seconds / len(pooled),
    }


def two_people_at_a_table(pipeline: ActiveSpeakerDetection, clip: Clip, rttm: Path) -> dict:
    """Faces found in the picture; whom they belong to is told by where they sit."""
    reference = next(iter(load_rttm(rttm).values()))
    tracks = clip.score(pipeline)
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


def one_person_each(pipeline: ActiveSpeakerDetection, clips: dict[Path, Clip]) -> dict:
    """Share of the voiced frames at which the only person there is said to speak."""
    found = {}
    for path, clip in clips.items():
        tracks, voiced = clip.score(pipeline), clip.voiced()
        scores = tracks.speaking[voiced & np.isfinite(tracks.speaking)]
        found[path.stem] = {
            "voiced above 0": round(float((scores > 0).mean()), 3) if len(scores) else None,
            "median": round(float(np.median(scores)), 2) if len(scores) else None,
        }
    shares = [each["voiced above 0"] or 0.0 for each in found.values()]
    return {"mean": round(float(np.mean(shares)), 3), "worst": min(shares), "clips": found}


def several_without_labels(pipeline: ActiveSpeakerDetection, clip: Clip) -> dict:
    """What is said of each track of at least a second, in order of how often it speaks."""
    tracks, voiced = clip.score(pipeline), clip.voiced()
    found = {}
    for track in tracks.tracks:
        rows = tracks.track_slice(track)
        scores = tracks.speaking[rows][voiced[rows] & np.isfinite(tracks.speaking[rows])]
        if len(scores) >= FRAME_RATE:
            x, y = (tracks.box[rows][:, [i, i + 2]].mean() for i in (0, 1))
            found[f"{track} at {x:.2f}, {y:.2f}"] = {
                "voiced above 0": round(float((scores > 0).mean()), 3),
                "mean": round(float(scores.mean()), 2),
                "frames": len(scores),
            }
    return dict(sorted(found.items(), key=lambda each: -each[1]["voiced above 0"]))


def talkers_out_of_sync(clips: dict[Path, Clip]) -> dict[str, list]:
    """Offset and confidence found when the sound is moved by 0, +0.4 and -0.4 s.

    Some clips are out of sync by themselves: what counts is how the answer moves.
    """
    pipeline = ActiveSpeakerDetection(scorer="synchrony")
    results = {}
    for path, clip in clips.items():
        results[path.stem] = []
        for offset in OFFSETS:
            moved = torch.roll(clip.waveform, round(16000 * offset), dims=1)
            listener = pipeline.listen(moved)
            for segment in clip.segments:
                listener(segment)
            results[path.stem].append([round(value, 2) for value in listener.offset()])
    return results


def judge(scorer: str, clips: dict[Path, Clip], folder: Path) -> dict:
    """All figures of one scorer."""
    pipeline = ActiveSpeakerDetection(scorer=scorer)

    def under(*names: str) -> dict[Path, Clip]:
        return {path: clip for path, clip in clips.items() if path.parent.name in names}

    table = folder / "several" / "meeting_table.mp4"
    return {
        "crops": crops_of_one_scene(pipeline, under("speaking", "silent")),
        "meeting_table": two_people_at_a_table(pipeline, clips[table], table.with_suffix(".rttm")),
        "talkers": one_person_each(pipeline, under("talkers")),
        "single": one_person_each(pipeline, under("single")),
        "several": {
            path.stem: several_without_labels(pipeline, clip)
            for path, clip in under("several").items()
        },
    }


def row(scorer: str, found: dict) -> str:
    """The figures that matter, as a row of a Markdown table."""
    crops, table = found["crops"], found["meeting_table"]["both"]
    cells = [scorer]
    cells += [f"{crops[of]['auc']:.3f} / {crops[of]['accuracy at 0']:.3f}" for of in UNITS]
    cells += [f"{table['auc']:.3f} / {table['accuracy at 0']:.3f}"]
    cells += [f"{found[of]['mean']:.3f} ({found[of]['worst']:.2f})" for of in ("talkers", "single")]
    cells += [f"{crops['ms per face and frame']:.2f}"]
    return f"| {' | '.join(cells)} |"


HEADER = """\
| scorer | crops, frames: AUC / accuracy | crops, tracks | table, frames | talkers: voiced above 0 \
(worst) | single | ms per frame |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS))
    arguments = parser.parse_args()
    os.environ.setdefault("PYANNOTE_AV_WEIGHTS", str(arguments.data / "weights"))
    folder = arguments.data / "clips"

    clips = {path: Clip.of_crops(path) for path in sorted(folder.glob("crops/*/*.mp4"))}
    for kind in ("talkers", "single", "several"):
        for path in sorted(folder.glob(f"{kind}/*")):
            if path.suffix in {".mp4", ".mpg", ".avi"}:
                clips[path] = Clip.read(path)

    results, rows = {}, []
    for scorer in arguments.scorers:
        try:
            results[scorer] = judge(scorer, clips, folder)
        except weights.MissingWeightsError as error:
            print(f"{scorer}: {error}")
            continue
        rows.append(row(scorer, results[scorer]))
        print(scorer, json.dumps(results[scorer], indent=2))
    print(HEADER, *rows, sep="\n")
    talkers = {path: clip for path, clip in clips.items() if path.stem.startswith("hdtf_")}
    results["offsets"] = talkers_out_of_sync(talkers)
    print("offset found, confidence, at", OFFSETS)
    for clip, found in results["offsets"].items():
        print(f"  {clip:26}", *found)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
