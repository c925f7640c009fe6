"""Simulated conversations: how real their statistics are, how exact their references, how fast.

    python benchmarks/simulation.py statistics DATA_FOLDER [--corpus ava_avd|ami] [--files 100]
    python benchmarks/simulation.py speed DATA_FOLDER [--minutes 2]
    python benchmarks/simulation.py detector DATA_FOLDER [--minutes 1]
    python benchmarks/simulation.py fit DATA_FOLDER

DATA_FOLDER holds ``speech/librispeech``, ``portraits`` and, to fit, ``annotations/{ava_avd,ami}``.

``statistics`` makes five-minute conversations, sound included, and compares them with the corpus;
every boundary of a turn is compared with the energy of the clean stem. ``speed`` gives hours of
conversation per hour of one core, by processor time. ``detector`` gives the share of reference
faces that a face detector finds (intersection over union above 0.5). ``fit`` writes the statistics
that ship with the package: turns of the train lists, visibility of the face tracks there are (those
of the test movies).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from pyannote_av.simulation.conversation import Cast, Options, converse
from pyannote_av.simulation.scene import LAYOUTS, SceneOptions
from pyannote_av.simulation.sound import SoundOptions
from pyannote_av.simulation.speech import SpeechLibrary
from pyannote_av.simulation.statistics import SHIPPED, ConversationStatistics, fit, visibility

DURATION = 300.0


def ava_avd_annotations(folder: Path, subset: str) -> dict:
    """Reference turns of a subset of AVA-AVD."""
    from pyannote_av.formats.annotations import read_rttm

    names = (folder / "split" / f"{subset}.list").read_text().split()
    return {n: read_rttm(folder / "rttms" / f"{n}.rttm")[n] for n in names}


def ava_avd_tracks(folder: Path, uris) -> dict:
    """Face tracks of clips; those of a movie are in one file, speakers prefixed with the clip."""
    from pyannote.core import Segment

    from pyannote_av.core.tracks import FaceTracks

    tracks = {}
    for path in sorted((folder / "tracks").glob("*.csv.gz")):
        movie = FaceTracks.read(path)
        for uri in uris:
            if not uri.startswith(path.name.removesuffix(".csv.gz") + "_c_"):
                continue
            clip = uri[-2:]
            first = 900 + 300 * (int(clip) - 1)
            one = movie.crop(Segment(first, first + 300))
            mine = {t: s[2:] for t, s in one.speaker.items() if s.startswith(clip)}
            tracks[uri] = one.with_speakers(mine)
    return tracks


def fit_shipped(data: Path) -> None:
    """Write the statistics that ship with the package"""
    from pyannote_av.formats.annotations import read_rttm
    from pyannote_av.simulation import statistics
    from pyannote_av.simulation.turns import calibrated

    annotations = data / "annotations"
    ava = annotations / "ava_avd"
    test = ava_avd_annotations(ava, "test")
    found = {
        "ava_avd": replace(
            fit(ava_avd_annotations(ava, "train")), **visibility(test, ava_avd_tracks(ava, test))
        ),
        "ami": fit(read_rttm(annotations / "ami" / "rttms" / "train.rttm")),
    }
    for name, one in found.items():
        path = Path(statistics.__file__).parent / "fitted" / f"{name}.json"
        print(calibrated(one).write(path), f"{path.stat().st_size} bytes")


def boundary_errors(turns, stems, bridge: float = 0.3) -> np.ndarray:
    """Seconds between each boundary of the reference and the nearest one of the energy of a stem

    Silences of `bridge` seconds end a turn in the energy; turns of one speaker that are nearer to
    each other, to 10 ms, are one in the reference.
    """
    from pyannote_av.simulation.sound import energy_turns

    errors = []
    for label, stem in stems.items():
        heard = energy_turns(stem, bridge)
        starts, ends = (np.array([getattr(s, w) for s in heard]) for w in ("start", "end"))
        for segment in turns.label_timeline(label).support(collar=bridge + 0.02):
            errors.append(np.abs(starts - segment.start).min(initial=np.inf))
            errors.append(np.abs(ends - segment.end).min(initial=np.inf))
    return np.array(errors)


def check_statistics(cast: Cast, name: str, files: int) -> None:
    """Statistics of simulated conversations next to those of the corpus"""
    from pyannote_av.simulation.turns import measure

    scene = SceneOptions(layout="film" if name == "ava_avd" else "meeting")
    # neither rooms nor noise: they change neither the turns nor the stems
    options = Options(scene=scene, sound=SoundOptions(reverberation=None, snr=None))
    turns, errors, hidden, start = [], [], np.zeros(2), time.process_time()
    for index in range(files):
        made = converse(cast, DURATION, options, seed=(100, index))
        turns.append(made.turns)
        errors.append(boundary_errors(made.turns, made.sound.stems))
        hidden += made.off_screen()
    target = cast.statistics
    wanted = {
        "mean_turn": target.mean_turn,
        "overlap_share": target.overlap_share,
        "speech_share": target.speech_share,
        "speakers": target.mean_speakers,
    }
    found = measure(turns)
    if target.off_screen_share is not None:
        wanted["off_screen_share"] = target.off_screen_share
        found["off_screen_share"] = hidden[0] / hidden[1]
    seconds = time.process_time() - start
    print(f"{name}: {files} conversations of {DURATION:g} s, {seconds:.0f} s of processor time")
    for key, value in wanted.items():
        off = 100 * (found[key] / value - 1)
        print(f"  {key:17s} corpus {value:8.4f}   simulated {found[key]:8.4f}   {off:+6.1f} %")
    errors = np.concatenate(errors)
    late = int((errors > 0.05).sum())
    print(
        f"  {len(errors)} boundaries, energy off by {1000 * np.median(errors):.1f} ms (median), "
        f"{1000 * np.quantile(errors, 0.999):.1f} ms (99.9 %), "
        f"{1000 * errors.max():.1f} ms at most; {late} off by more than 50 ms"
    )


def check_speed(cast: Cast, minutes: float) -> None:
    """Hours of conversation per core-hour of both paths"""
    from pyannote_av.simulation.chunks import simulate_chunks
    from pyannote_av.simulation.files import write_file

    for layout in LAYOUTS:
        options = Options(scene=SceneOptions(layout=layout))
        # what is read is kept: the first conversation pays for it
        next(simulate_chunks(cast, 5.0, options, seed=1))
        start, faces, count = time.process_time(), 0, int(60 * minutes / 5)
        for chunk in islice(simulate_chunks(cast, 5.0, options, seed=1), count):
            faces += chunk.present.sum() / 25
        spent = time.process_time() - start
        print(
            f"{layout}: chunks {5 * count / spent:.1f} hours of conversation per core-hour "
            f"({faces / spent:.1f} of faces, {faces / 5 / count:.2f} faces at a time)"
        )
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            write_file(cast, Path(folder), "file", 60 * minutes, options, (1, 0))
            spent = time.process_time() - start
        print(f"{layout}: files  {60 * minutes / spent:.1f} hours of conversation per core-hour")


def check_detector(cast: Cast, minutes: float, detector: str) -> None:
    """Recall of a face detector on pictures as they are in the file, every two seconds"""
    from pyannote_av.core.io import Video
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.simulation.files import write_file
    from pyannote_av.vision.detection import get_detector

    backend = get_detector(detector)
    for layout in LAYOUTS:
        options = Options(scene=SceneOptions(layout=layout))
        found, extra, pictures = [], 0, 0
        with tempfile.TemporaryDirectory() as folder:
            write_file(cast, Path(folder), "file", 60 * minutes, options, (2, 0))
            tracks = FaceTracks.read(Path(folder) / "tracks" / "file.npz")
            for frame in Video().frames(Path(folder) / "video" / "file.mp4"):
                if frame.index % 50 != 25:
                    continue
                seen = backend(frame.image)
                seen = seen[seen.confidence >= backend.min_confidence]
                truth = tracks.box[np.abs(tracks.time - frame.time) < 1e-3]
                overlap = intersection_over_union(truth, seen.box)
                found += (overlap.max(axis=1, initial=0) > 0.5).tolist()
                extra += int((overlap.max(axis=0, initial=0) < 0.1).sum())
                pictures += 1
        print(
            f"{layout}: {backend.name} finds {100 * np.mean(found):.1f} % of {len(found)} faces in "
            f"{pictures} pictures, and {extra} that are not in the reference"
        )


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) of boxes (n, 4) and (m, 4)"""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b))
    return both / (area_a[:, None] + area_b[None] - both)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("statistics", "speed", "detector", "fit"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--corpus", choices=SHIPPED, default="ava_avd")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--detector", default="auto")
    options = parser.parse_args()
    if options.what == "fit":
        fit_shipped(options.data)
        return
    from pyannote_av.simulation.faces import find_portraits, public_portraits

    pictures = options.data / "portraits"
    drawn = options.what != "statistics" and pictures.is_dir()
    cast = Cast(
        ConversationStatistics.read(options.corpus),
        SpeechLibrary(options.data / "speech" / "librispeech"),
        find_portraits(pictures) if drawn else public_portraits(),
    )
    if options.what == "statistics":
        check_statistics(cast, options.corpus, options.files)
    elif options.what == "speed":
        check_speed(cast, options.minutes)
    else:
        check_detector(cast, options.minutes, options.detector)


if __name__ == "__main__":
    main()
