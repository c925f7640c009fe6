"""Face detectors and networks of face identity, side by side.

Examples:
    python -m benchmarks faces DATA
    python -m benchmarks faces DATA --only "group photographs" crops

DATA holds ``portraits`` (photographs) and ``clips/talkers`` (one talker each), on which thresholds
were chosen. Measured are, for MTCNN and YuNet, the CPU time per picture, the faces found in group
photographs, and how far the squares that are cropped around a face agree; for dlib's network and
SFace, the CPU time per face and how well two pictures tell whether they show the same person; and
the speaking scores of talkers with crops of either detector. All on one thread. Pictures go through
both networks one after the other, and ratios are those of the same picture. Writes faces.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from time import process_time
from typing import NamedTuple

import numpy as np

from benchmarks._data import clips, existing
from benchmarks._runner import Results, add, rounded

#: number of faces that are visible in photographs of groups, counted by hand
VISIBLE = {
    "vh_group-1": 14,
    "vh_group-2": 3,
    "vh_group-3": 4,
    "vh_group-4": 5,
    "vh_group-5": 7,
    "vh_group-6": 3,
    "vh_group-7": 4,
    "vh_solvay1927": 29,
    "vh_stock-group-1": 15,
    "vh_stock-group-2": 4,
}
#: photographs of one person each, with different expressions
PERSONS = ("vh_stock-emotions-a", "vh_stock-emotions-b")
#: two recordings that may show the same person
DOUBTFUL = {"grid_id2_vcd_swwp2s", "grid_pwij3p"}
#: sizes of pictures whose detection is timed
SIZES = ((640, 360), (1280, 720))
#: number of pictures, faces and talkers that are timed or scored
TIMED, SCORED = 15, 5


class Face(NamedTuple):
    """A face in a picture. `source` is the file, `person` may be the same in several files."""

    source: str
    person: str
    image: np.ndarray
    box: np.ndarray


def options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add(parser, "data")
    add(parser, "--only", choices=PARTS, default=list(PARTS))


def read(path: Path) -> np.ndarray:
    """Photograph as (H, W, 3) uint8 RGB."""
    import cv2

    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def stills(path: Path, step: int = 25) -> Iterator[np.ndarray]:
    """A picture of each second of a recording."""
    from pyannote_av.core.io import Video

    return (frame.image for frame in islice(Video().frames(path), 0, None, step))


def framed(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A photograph in the middle of a grey picture of this width and height."""
    import cv2

    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((size[1], size[0], 3), 110, np.uint8)
    top, left = (size[1] - small.shape[0]) // 2, (size[0] - small.shape[1]) // 2
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture


def times(functions: dict[str, Callable], inputs: list[dict[str, np.ndarray]]) -> dict:
    """Median milliseconds of functions, and median ratio of the first to the second one."""
    found = {name: [] for name in functions}
    for one in inputs:
        for name, function in functions.items():
            begin = process_time()
            function(one[name])
            found[name].append(1000 * (process_time() - begin))
    # the first input warms up
    first, second = (np.array(each[1:]) for each in found.values())
    medians = {name: float(np.median(each[1:])) for name, each in found.items()}
    return {**medians, "ratio": float(np.median(first / second))}


def detectors() -> dict:
    """Both detectors."""
    from pyannote_av.vision.detection import MTCNN, YuNet

    return {"mtcnn": MTCNN(), "yunet": YuNet()}


def embedders() -> dict:
    """Both networks of identity."""
    from pyannote_av.vision.identity import DlibResnet, SFace

    return {"dlib-resnet": DlibResnet(), "sface": SFace()}


def squared(face: Face, size: int) -> np.ndarray:
    """Picture of a face that embedders get."""
    from pyannote_av.vision.crops import cut
    from pyannote_av.vision.identity import face_box

    return cut(face.image, face_box(face.box, face.image.shape), size)


def group_photographs(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict[str, int]:
    """Number of visible faces, and of detections that can begin a track."""
    found = {"visible": sum(VISIBLE.values())}
    for name, detector in detectors().items():
        seen = {photo: detector(photographs[photo]).confidence for photo in VISIBLE}
        counts = {photo: int((one >= detector.min_confidence).sum()) for photo, one in seen.items()}
        found[name] = sum(min(count, VISIBLE[photo]) for photo, count in counts.items())
    return found


def squares(found, k: int, shape: tuple[int, ...]) -> tuple[tuple[float, float, float], ...]:
    """Squares that are cropped around the face and the lips of detection `k`."""
    from pyannote_av.vision.crops import face_square, lips_square

    return face_square(found.box[k], shape), lips_square(found.box[k], found.landmarks[k], shape)


def agreement(images: Iterable[np.ndarray], detectors: dict) -> dict:
    """Squares of the second detector relative to those of the first one."""
    from pyannote_av.vision.tracking import match

    rows = []
    for image in images:
        unit = np.array([image.shape[1], image.shape[0]] * 2)
        found = [detector(image) for detector in detectors.values()]
        for i, j in match(found[0].box * unit, found[1].box * unit):
            pairs = zip(
                squares(found[0], i, image.shape), squares(found[1], j, image.shape), strict=True
            )
            row = []
            for (left, top, side), (x, y, size) in pairs:
                shift = np.array([x - left, y - top]) + (size - side) / 2
                row += [size / side, *shift / side]
            rows.append(row)
    names = [f"{region} {what}" for region in ("face", "lips") for what in ("side", "x", "y")]
    medians, spread = np.median(rows, axis=0).tolist(), np.std(rows, axis=0).tolist()
    return {
        "faces": len(rows),
        "median": dict(zip(names, medians, strict=True)),
        "standard deviation": dict(zip(names, spread, strict=True)),
    }


def faces_of(photographs: dict[str, np.ndarray], talkers: list[Path]) -> list[Face]:
    """Faces that are large and clear enough to be embedded, of YuNet."""
    from pyannote_av.vision.detection import YuNet
    from pyannote_av.vision.identity import good

    detector, found = YuNet(), []
    recordings = [(path.stem, image) for path in talkers for image in stills(path)]
    for source, image in [*photographs.items(), *recordings]:
        seen = detector(image)
        for k, box in enumerate(seen.box):
            row = np.concatenate([box, seen.landmarks[k].ravel(), seen.confidence[[k]]])
            if good(row, image.shape):
                person = source if len(seen) == 1 else f"{source} {k}"
                person = next((one for one in PERSONS if source.startswith(one)), person)
                found.append(Face(source, person, image, box))
    return found


def verification(embedder, faces: list[Face]) -> dict[str, float]:
    """How well the distance of two faces tells whether they show one person.

    Pairs of different people are those within a photograph, and those with a talker or one of
    PERSONS, because other photographs may show the same people.
    """
    from sklearn.metrics import roc_auc_score

    from pyannote_av.vision.identity import SAME_PERSON

    vectors = np.concatenate([embedder(squared(one, embedder.size)[None]) for one in faces])
    distance = 1 - vectors @ vectors.T
    person, source = (
        np.array([getattr(one, key) for one in faces]) for key in ("person", "source")
    )
    known = np.array([one in PERSONS or one.startswith(("grid", "hdtf")) for one in person])
    doubtful = np.isin(person, list(DOUBTFUL))
    same = person[:, None] == person
    different = ~same & ((source[:, None] == source) | known | known[:, None])
    different &= ~(doubtful & doubtful[:, None])
    upper = np.triu(np.ones_like(same), 1)
    one, other = distance[same & upper], distance[different & upper]
    label = np.repeat([0, 1], [len(one), len(other)])
    return {
        "pairs of one person": len(one),
        "pairs of two people": len(other),
        "AUC": float(roc_auc_score(label, np.concatenate([one, other]))),
        "taken for two people %": float(100 * (one > SAME_PERSON).mean()),
        "taken for one person %": float(100 * (other <= SAME_PERSON).mean()),
    }


def speaking_scores(path: Path, scorer) -> dict:
    """Scores of the frames of a talker, with crops of either detector."""
    from torch.nn.functional import pad

    from pyannote_av.core.grid import SAMPLES_PER_FRAME
    from pyannote_av.core.io import Video
    from pyannote_av.pipelines.face_tracking import FaceTracking
    from pyannote_av.vision.crops import crop_video

    waveform, scores = Video().waveform(path), {"mtcnn": {}, "yunet": {}}
    for detector, known in scores.items():
        tracks = FaceTracking(detector=detector, embedder=None)(path)
        for part in crop_video(tracks, path):
            begin, end = (SAMPLES_PER_FRAME * k for k in (part.start, part.start + len(part)))
            sound = waveform[:, begin:end]
            sound = pad(sound, (0, end - begin - sound.shape[1]))
            values = scorer(sound, part.crops, part.present)
            known |= dict(enumerate(values.tolist(), part.start))
    common = sorted(set(scores["mtcnn"]) & set(scores["yunet"]))
    one, other = (np.array([scores[name][k] for k in common]) for name in ("mtcnn", "yunet"))
    return {
        "talker": path.stem,
        "frames mtcnn": len(scores["mtcnn"]),
        "frames yunet": len(scores["yunet"]),
        "score mtcnn": float(one.mean()),
        "score yunet": float(other.mean()),
        "speaking mtcnn %": float(100 * (one > 0).mean()),
        "speaking yunet %": float(100 * (other > 0).mean()),
        "correlation": float(np.corrcoef(one, other)[0, 1]),
    }


def detection_times(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict:
    """Milliseconds per picture."""
    pictures = list(photographs.values())[:: max(1, len(photographs) // TIMED)]
    both = detectors()
    return {
        f"{width}x{height}": times(
            both, [dict.fromkeys(both, framed(one, (width, height))) for one in pictures]
        )
        for width, height in SIZES
    }


def embedding_times(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict:
    """Milliseconds per face."""
    faces, both = faces_of(photographs, []), embedders()
    inputs = [
        {name: squared(one, embedder.size)[None] for name, embedder in both.items()}
        for one in faces[:: max(1, len(faces) // TIMED)]
    ]
    return times(both, inputs)


def crops(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict:
    """Agreement of the crops of both detectors."""
    recorded = (image for path in talkers for image in stills(path))
    return agreement(chain(photographs.values(), recorded), detectors())


def identities(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict:
    """Verification with both networks."""
    faces = faces_of(photographs, talkers)
    return {name: verification(one, faces) for name, one in embedders().items()}


def scores(photographs: dict[str, np.ndarray], talkers: list[Path]) -> dict:
    """Speaking scores of some talkers."""
    from pyannote_av.models.active_speaker.scorers import get_scorer

    scorer, some = get_scorer("compact-asd"), talkers[:: max(1, len(talkers) // SCORED)]
    return {"talkers": [speaking_scores(path, scorer) for path in some[:SCORED]]}


PARTS = {
    "detection times": detection_times,
    "embedding times": embedding_times,
    "group photographs": group_photographs,
    "scores": scores,
    "crops": crops,
    "identities": identities,
}


def run(given: argparse.Namespace, results: Results) -> None:
    """Compare detectors and networks of identity."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = existing(given.data / "portraits")
    photographs = {path.stem: read(path) for path in sorted(folder.glob("*.jpg"))}
    talkers = clips(given.data, ["talkers"])
    for part in given.only:
        found = rounded(PARTS[part](photographs, talkers), 5)
        results.update("faces", part, {"opencv": cv2.__version__, **found})
        print(part, found, sep=": ", flush=True)
