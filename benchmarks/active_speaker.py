"""Active speaker detection on real faces: accuracy and time of each scorer.

Example:
    python -m benchmarks active_speaker DATA --scorers compact-asd lr-asd

DATA contains ``clips`` and, for LR-ASD and Light-ASD, ``weights``:

- ``clips/crops/{speaking,silent}/*.mp4``: 224 x 224 face crops, with the sound of their scene
- ``clips/several/meeting_table.{mp4,rttm}``: speaker 1 sits on the left, speaker 0 on the right
- ``clips/several/*``: several faces, without labels
- ``clips/talkers/*`` and ``clips/single/*``: one person each, who is the only speaker

Scores are smoothed over 5 frames, and the threshold is 0, as in the pipeline. Faces are detected
once, and scored by every scorer. Writes active_speaker.json, and active_speaker_sync.json: how well
talkers are found if their sound is early or late, or that of another talker.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._data import SEGMENT, clips, score_faces
from benchmarks._runner import Results, add, table
from pyannote_av.core.grid import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    import torch

    from pyannote_av.core.tracks import FaceTracks, TrackSegment
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

OFFSETS = (0.0, 0.4, -0.4)
#: seconds by which the sound of talkers is moved, to see whether a scorer still finds them
SHIFTS = (-0.24, -0.16, -0.08, -0.04, 0.0, 0.04, 0.08, 0.16, 0.24)
SCORERS = (
    *("compact-asd", "compact-asd+synchrony", "lr-asd", "light-asd", "lr-asd-ava"),
    *("light-asd-ava", "synchrony", "lr-asd+synchrony"),
)
#: heading of the table to key of a row
COLUMNS = {
    "scorer": "scorer",
    "crops, frames: AUC": "frames_auc",
    "accuracy": "frames_accuracy",
    "crops, tracks: AUC": "tracks_auc",
    "accuracy ": "tracks_accuracy",
    "table, frames: AUC": "table_auc",
    "accuracy  ": "table_accuracy",
    "talkers: voiced above 0": "talkers",
    "worst": "talkers_worst",
    "single": "single",
    "worst ": "single_worst",
    "ms per face and frame": "ms",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data")
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS), metavar="NAME")
    add(parser, "--only", metavar="CLIP", help="use these clips only (default: all)")


def published_crop(image: np.ndarray) -> np.ndarray:
    """Input of active speaker networks: the grey centre of a 224 x 224 face crop."""
    import cv2

    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (224, 224))
    return grey[56:168, 56:168]


@dataclass
class Clip:
    """A clip and its face tracks."""

    waveform: torch.Tensor
    tracks: FaceTracks
    segments: list[TrackSegment]

    @classmethod
    def read(cls, path: Path) -> Clip:
        """Track the faces of a file."""
        from pyannote_av.core.io import Video
        from pyannote_av.pipelines.face_tracking import FaceTracking
        from pyannote_av.vision.crops import crop_video

        tracks = FaceTracking(embedder=None)(str(path))
        return cls(Video().waveform(path), tracks, list(crop_video(tracks, str(path))))

    @classmethod
    def of_crops(cls, path: Path) -> Clip:
        """One face throughout, cropped as published."""
        from pyannote_av.core.io import Video
        from pyannote_av.core.tracks import FaceTracks, TrackSegment

        crops = np.stack([published_crop(frame.image) for frame in Video().frames(path)])
        present = np.ones(len(crops), bool)
        pieces = [slice(start, start + SEGMENT) for start in range(0, len(crops), SEGMENT)]
        boxes = np.tile([0.0, 0.0, 1.0, 1.0], (len(crops), 1))
        return cls(
            Video().waveform(path),
            FaceTracks(np.arange(len(crops)) / FRAME_RATE, np.zeros(len(crops)), boxes),
            [TrackSegment(0, piece.start, crops[piece], present[piece]) for piece in pieces],
        )

    def score(self, pipeline: ActiveSpeakerDetection) -> FaceTracks:
        """Tracks with their scores."""
        return score_faces(pipeline, self.waveform, self.segments, self.tracks)[0]

    def voiced(self) -> np.ndarray:
        """Whether the sound is within 25 dB of its loud parts, for each row of the tracks."""
        from scipy.ndimage import uniform_filter1d

        samples = self.waveform[0].numpy()
        count = len(samples) // SAMPLES_PER_FRAME
        frames = samples[: count * SAMPLES_PER_FRAME].reshape(count, -1)
        level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
        is_loud = uniform_filter1d((level > np.percentile(level, 95) - 25).astype(float), 5) > 0.5
        index = np.round(self.tracks.time * FRAME_RATE).astype(int)
        return is_loud[np.clip(index, 0, len(is_loud) - 1)]


def accuracy(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AUC, and accuracy at 0."""
    from sklearn.metrics import roc_auc_score

    both = len(set(labels.tolist())) == 2
    return {
        "auc": float(roc_auc_score(labels, scores)) if both else float("nan"),
        "accuracy at 0": float(((scores > 0) == labels).mean()),
        "faces x frames": len(scores),
    }


def crops_of_one_scene(pipeline: ActiveSpeakerDetection, clips: dict[Path, Clip]) -> dict:
    """Each frame of a clip has the label of its folder."""
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
        "frames": accuracy(pooled, labels),
        "tracks": accuracy(*tracks),
        "mean score per track": means,
        "ms per face and frame": 1000 * seconds / len(pooled),
    }


def two_people_at_a_table(pipeline: ActiveSpeakerDetection, clip: Clip, rttm: Path) -> dict:
    """Accuracy of each seat and of both; faces are assigned to speakers by their position."""
    from pyannote.database.util import load_rttm

    reference = next(iter(load_rttm(rttm).values()))
    tracks = clip.score(pipeline)
    left = tracks.box[:, [0, 2]].mean(axis=1) < 0.5
    labels = np.zeros(len(tracks), bool)
    for side, speaker in ((left, "1"), (~left, "0")):
        for turn in reference.label_timeline(speaker):
            labels |= side & np.array([turn.overlaps(t + 0.02) for t in tracks.time])
    known = np.isfinite(tracks.speaking)
    return {
        name: accuracy(tracks.speaking[rows], labels[rows])
        for name, rows in (("left", left & known), ("right", ~left & known), ("both", known))
    }


def one_person_each(pipeline: ActiveSpeakerDetection, clips: dict[Path, Clip]) -> dict:
    """Share of voiced frames in which the only person is detected as speaking."""
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


def moved(clip: Clip, seconds: float) -> Clip:
    """A clip whose sound is later by some seconds."""
    import torch

    waveform = torch.roll(clip.waveform, round(SAMPLE_RATE * seconds), dims=1)
    return replace(clip, waveform=waveform)


def dubbed(clip: Clip, other: Clip) -> Clip:
    """A clip with the sound of another one, repeated if it is shorter."""
    length = clip.waveform.shape[1]
    repeated = other.waveform.repeat(1, -(-length // other.waveform.shape[1]))
    return replace(clip, waveform=repeated[:, :length])


def talkers_by_shift(scorers: Iterable[str], clips: dict[Path, Clip]) -> dict[str, dict]:
    """Share of voiced frames above 0, by scorer and talker, for each of ``SHIFTS``.

    Some clips are out of sync themselves. A scorer that needs sync finds their talkers at another
    shift than 0. "dubbed" is the mean with the sound of the next talker, for whom nobody should be
    found.
    """
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    results: dict[str, dict] = {}
    others = [*list(clips.values())[1:], *list(clips.values())[:1]]
    changed = {p: dubbed(c, o) for (p, c), o in zip(clips.items(), others, strict=True)}
    for scorer in scorers:
        pipeline = ActiveSpeakerDetection(scorer=scorer)
        found = [
            one_person_each(pipeline, {path: moved(clip, shift) for path, clip in clips.items()})
            for shift in SHIFTS
        ]
        shares = {
            path.stem: [one["clips"][path.stem]["voiced above 0"] for one in found]
            for path in clips
        }
        results[scorer] = {
            "mean": [one["mean"] for one in found],
            "dubbed": one_person_each(pipeline, changed)["mean"],
            **shares,
        }
    return results


def several_without_labels(pipeline: ActiveSpeakerDetection, clip: Clip) -> dict:
    """Scores of each track of at least a second, ordered by how often it speaks."""
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
    """Detected offset and its confidence when the sound is shifted by 0, +0.4 and -0.4 s.

    Some clips are out of sync themselves, so only the differences between the offsets matter.
    """
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    pipeline = ActiveSpeakerDetection(scorer="synchrony")
    results = {}
    for path, clip in clips.items():
        results[path.stem] = []
        for offset in OFFSETS:
            waveform = moved(clip, offset).waveform
            _, found = score_faces(pipeline, waveform, clip.segments, clip.tracks)
            results[path.stem].append([round(value, 2) for value in found])
    return results


def measure(scorer: str, clips: dict[Path, Clip]) -> dict:
    """All figures of one scorer, for the groups of clips that are there."""
    from pyannote_av.pipelines.active_speaker_detection import ActiveSpeakerDetection

    pipeline, found = ActiveSpeakerDetection(scorer=scorer), {}

    def under(*names: str) -> dict[Path, Clip]:
        return {path: clip for path, clip in clips.items() if path.parent.name in names}

    if crops := under("speaking", "silent"):
        found["crops"] = crops_of_one_scene(pipeline, crops)
    for path, clip in under("several").items():
        if path.with_suffix(".rttm").is_file():
            found[path.stem] = two_people_at_a_table(pipeline, clip, path.with_suffix(".rttm"))
        found.setdefault("several", {})[path.stem] = several_without_labels(pipeline, clip)
    for group in ("talkers", "single"):
        if some := under(group):
            found[group] = one_person_each(pipeline, some)
    return found


def row(scorer: str, found: dict) -> dict:
    """Row of the table."""
    cells = {"scorer": scorer}
    for name, part in (("frames", "crops"), ("tracks", "crops"), ("table", "meeting_table")):
        one = found.get(part, {}).get("both" if name == "table" else name, {})
        cells |= {f"{name}_auc": one.get("auc"), f"{name}_accuracy": one.get("accuracy at 0")}
    for name in ("talkers", "single"):
        one = found.get(name, {})
        cells |= {name: one.get("mean"), f"{name}_worst": one.get("worst")}
    return {**cells, "ms": found.get("crops", {}).get("ms per face and frame")}


def run(given: argparse.Namespace, results: Results) -> None:
    """Score all clips with all scorers."""
    from pyannote_av.core.weights import MissingWeightsError

    crops = clips(given.data, ("crops/speaking", "crops/silent"), given.only)
    scenes = clips(given.data, ("talkers", "single", "several"), given.only)
    loaded = {path: Clip.of_crops(path) for path in crops}
    loaded |= {path: Clip.read(path) for path in scenes}
    content, rows = {}, []
    for scorer in given.scorers:
        try:
            content[scorer] = measure(scorer, loaded)
        except MissingWeightsError as error:
            rows.append({"scorer": scorer, "error": str(error)})
            continue
        rows.append(row(scorer, content[scorer]))
    print(table(rows, COLUMNS))
    talkers = {path: clip for path, clip in loaded.items() if path.stem.startswith("hdtf_")}
    content["offsets"] = talkers_out_of_sync(talkers)
    print(f"\noffset (s) and confidence, sound shifted by {OFFSETS} s")
    for name, found in content["offsets"].items():
        print(f"  {name:26}", *found)
    results.write("active_speaker", content)
    by_shift = talkers_by_shift([name for name in given.scorers if name in content], talkers)
    results.write("active_speaker_sync", {"shifts": SHIFTS, "scorers": by_shift})
    print(f"\nvoiced frames of talkers above 0, sound later by {SHIFTS} s, sound of another talker")
    for name, found in by_shift.items():
        print(f"  {name:26}", *found["mean"], found["dubbed"])
