"""Honest files with bytes changed, read again and again: only documented errors may come out.

``python tests/fuzz.py --seconds 900`` reads for a quarter of an hour, prints how many inputs were
read or refused, and keeps the inputs that broke a rule in ``--keep``. Every input follows from its
number: ``--seed`` and a number give the same bytes again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from media import Pictures, Sound, write_streams

SECONDS = 30.0  # for one input
MEMORY = 1.5 * 2**30  # bytes, imports included
STEPS = 3 * 3600 * 25  # of the grid of pictures


# --- honest files -------------------------------------------------------------------------------

SMALL = {"size": (64, 48), "duration": 0.4}


def media_seeds(folder: Path) -> dict[str, Path]:
    """Small media files of many containers and codecs, by name"""
    sound = {"duration": 0.4}
    plain = {**SMALL, "codec": "mpeg4"}
    kinds = {
        "a.mp4": [Pictures(**SMALL), Sound(**sound)],
        "turned.mp4": [Pictures(**SMALL, matrix=(0, 1, 1, 0)), Sound(**sound), Sound(**sound)],
        "a.mkv": [Pictures(**SMALL), Sound(**sound), Sound(codec="flac", **sound)],
        "a.webm": [Pictures(**SMALL, codec="libvpx"), Sound(codec="libopus", **sound)],
        "a.ts": [Pictures(**SMALL), Sound(codec="mp2", **sound)],
        "a.mpg": [Pictures(**SMALL, codec="mpeg2video"), Sound(codec="mp2", **sound)],
        "a.avi": [Pictures(**plain), Sound(codec="libmp3lame", **sound)],
        "a.flv": [Pictures(**SMALL, codec="flv"), Sound(rate=44100, **sound)],
        "a.mov": [
            Pictures(**SMALL, codec="mjpeg", pixels="yuvj420p"),
            Sound(codec="pcm_s16le", **sound),
        ],
        "a.mxf": [Pictures(**SMALL, codec="mpeg2video"), Sound(codec="pcm_s16le", **sound)],
        "a.wmv": [Pictures(**SMALL, codec="wmv2"), Sound(codec="libmp3lame", **sound)],
        "a.gif": [Pictures(**SMALL, codec="gif", pixels="rgb8")],
        "a.ogg": [Sound(codec="libopus", **sound)],
        "a.wav": [Sound(codec="pcm_s16le", **sound)],
        "a.mp3": [Sound(codec="libmp3lame", **sound)],
        "a.flac": [Sound(codec="flac", **sound)],
        "a.aac": [Sound(**sound)],
    }
    seeds = {name: write_streams(folder / name, *streams) for name, streams in kinds.items()}
    for name, flags in (("fast.mp4", "+faststart"), ("parts.mp4", "frag_keyframe+empty_moov")):
        seeds[name] = write_streams(
            folder / name, Pictures(**SMALL), Sound(**sound), movflags=flags
        )
    interlaced = Pictures(**SMALL, codec="mpeg2video", options={"flags": "+ildct+ilme"})
    seeds["fields.ts"] = write_streams(folder / "fields.ts", interlaced)
    return seeds


RTTM = "".join(
    f"SPEAKER talk 1 {k}.250 0.500 <NA> <NA> speaker{k % 2} <NA> <NA>\n" for k in range(8)
)
CONFIG = """\
version: 3.1.0
pipeline:
  name: pyannote_av.pipelines.late_fusion.LateFusion
  params:
    audio: audio
    max_offset: 1.0
params:
  margin: 1.0
  faces: {stride: 5, max_gap: 0.6}
"""
TRAINING = """\
protocol: Some.SpeakerDiarization.Protocol
into: experiments/some
task:
  name: TargetSpeakerSegmentation
  params: {store: data/store, duration: 4.0, batch_size: 8}
model: {name: HMSANet}
stages:
  - {name: fusion, train: [fusion, decoder], max_epochs: 10, learning_rate: 3.0e-4}
  - {name: joint, max_epochs: 20, learning_rate: 3.0e-5, schedule: cosine, patience: 5}
loggers: [csv]
seed: 0
"""
ROWS = "".join(f"talk,{k * 0.04:.2f},0.1,0.1,0.2,0.2,NOT_SPEAKING,talk:1\n" for k in range(1, 5))
TEXTS = {
    "a.rttm": RTTM,
    "a.uem": "talk 1 0.000 8.000\nother 1 1.5 2.5\n",
    "a.lab": "0.000 1.000 speech\n2.000 3.000 speech\n",
    "a.csv": "uri,video,audio,num_speakers,audio_track\na,a.mp4,,2,mix\nb,b.mp4,b.wav,,1\n",
    "rows.csv": ROWS,
    "a.yaml": CONFIG,
    "training.yaml": TRAINING,
    "a.txt": "a.mp4\nb.mp4\n",
}


def data_seeds(folder: Path) -> dict[str, Path]:
    """References, tracks, tables, configurations and manifests, by name"""
    from pyannote_av.core.tracks import FaceTracks

    seeds = {}
    for name, text in TEXTS.items():
        seeds[name] = folder / name
        seeds[name].write_text(text)
    tracks = FaceTracks(
        time=np.arange(6) / 25,
        track=[1, 1, 1, 2, 2, 2],
        box=[[0.1, 0.1, 0.2, 0.2]] * 6,
        speaking=[0.5, -0.5, 1.0, 2.0, 0.0, 0.0],
        speaker={1: "a", 2: "b"},
        uri="talk",
        frame_size=(640, 480),
    )
    for name in ("tracks.json", "tracks.json.gz", "tracks.csv", "tracks.csv.gz", "tracks.npz"):
        tracks.write(folder / name)
        seeds[name] = folder / name
    return seeds


# --- changes ------------------------------------------------------------------------------------

#: numbers and words at which readers break
ODD = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"nan", b"inf"]
ODD += [
    b"-1",
    b"1e999",
    b"\r\n",
    b"\t",
    b" ",
    b",",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{",
    b"[",
    b"&a",
]
ODD += [b"*a", b"!!python/name:os.system", b"9" * 40, "é".encode(), "\u202e".encode(), b"\x1b[2J"]


def change(content: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Bytes that are changed in one to four ways"""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        # headers are at the beginning or at the end, and most of what breaks
        reach = len(data) if rng.random() < 0.5 else min(len(data), 2048)
        place = int(rng.integers(reach))
        if rng.random() < 0.25:
            place = len(data) - 1 - place
        length = int(2 ** rng.uniform(0, 9))
        kind = int(rng.integers(8))
        if kind == 0:
            data[place] = int(rng.integers(256))
        elif kind == 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            for position in rng.integers(0, len(data), int(rng.integers(1, 60))):
                data[int(position)] = int(rng.integers(256))
        elif kind == 3:
            word = ODD[int(rng.integers(len(ODD)))]
            data[place : place + (len(word) if rng.random() < 0.5 else 0)] = word
        elif kind == 4:
            del data[place : place + length]
        elif kind == 5:
            data[place:place] = data[place : place + length] * int(rng.integers(1, 20))
        elif kind == 6:
            del data[place:]
        else:
            other = others[int(rng.integers(len(others)))]
            start = int(rng.integers(len(other)))
            data[place : place + length] = other[start : start + length]
    return bytes(data)


# --- readers ------------------------------------------------------------------------------------


def _check_name(error: Exception, path: Path) -> None:
    """An error has to name the file, which those of other libraries do not"""
    if path.name not in str(error):
        raise AssertionError(f"does not name the file: {error!r}") from error


def read_media(path: Path) -> None:
    """All that can be read of a media file"""
    from pyannote.core import Segment

    from pyannote_av.core.files import MediaError
    from pyannote_av.core.io import Video

    video, refused = Video(), []

    def frames(file, **part):
        steps = 0
        for frame in video.frames(file, problems=[], **part):
            steps += frame.image.shape[:2] == frame.grey.shape
        assert steps < STEPS, f"{steps} pictures"

    readers = [
        lambda: video.streams(path),
        lambda: video.get_duration(path),
        lambda: video.waveform(path, []),
        lambda: video.waveform({"video": path, "audio_track": "mix"}, []),
        lambda: frames(path),
        lambda: frames(path, start=0.2, end=0.3),
        lambda: video.crop(path, Segment(0.1, 0.2)),
    ]
    for read in readers:
        try:
            read()
        except MediaError as error:
            _check_name(error, path)
            refused.append(error)
    if len(refused) == len(readers):
        raise refused[0]


def data_readers(name: str) -> list[Callable[[Path], object]]:
    """Readers of a kind of data files"""
    from pyannote_av.batch.inputs import expand
    from pyannote_av.batch.manifest import read_manifest
    from pyannote_av.core.pipeline_config import read_config
    from pyannote_av.core.reading import read_json, read_lines, read_npz, read_text, read_yaml
    from pyannote_av.core.tracks import FaceTracks
    from pyannote_av.evaluation.matching import read_rows
    from pyannote_av.formats.annotations import read_lab, read_rttm, read_uem
    from pyannote_av.training.config import TrainingConfig

    return {
        "a.rttm": [read_rttm],
        "a.uem": [read_uem],
        "a.lab": [read_lab],
        "a.csv": [read_manifest],
        "rows.csv": [FaceTracks.read, read_rows],
        "a.yaml": [read_config, read_yaml],
        "training.yaml": [TrainingConfig.read],
        "a.txt": [read_text, lambda path: list(read_lines(path)), lambda path: expand([path])],
        "tracks.json": [FaceTracks.read, read_json],
        "tracks.npz": [FaceTracks.read, read_npz],
    }.get(name, [FaceTracks.read])


def read_data(path: Path, name: str) -> None:
    """All readers of a data file; the documented errors are ValueError and OSError"""
    refused, readers = [], data_readers(name)
    for read in readers:
        try:
            read(path)
        except (ValueError, OSError) as error:
            _check_name(error, path)
            refused.append(error)
    if len(refused) == len(readers):
        raise refused[0]


# --- run ----------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came out of a run"""

    read: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak: float = 0.0

    @property
    def inputs(self) -> int:
        """Number of inputs that were tried"""
        return self.read.total() + self.refused.total() + len(self.broken)


def peak_memory() -> int:
    """Most memory that this process has used, in bytes"""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


def inputs(seeds: dict[str, Path], seed: int, first: int = 0) -> Iterator[tuple[int, str, bytes]]:
    """Number, name and bytes of endlessly many inputs, the seeds in turn"""
    contents = {name: path.read_bytes() for name, path in sorted(seeds.items())}
    names, others = list(contents), list(contents.values())
    for number in count(first):
        name = names[number % len(names)]
        rng = np.random.default_rng([seed, number])
        yield number, name, change(contents[name], rng, others)


def run(
    folder: Path,
    kind: str,
    number: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    first: int = 0,
    keep: Path | None = None,
) -> Outcome:
    """Read inputs until their number or the time is over

    Parameters
    ----------
    folder : Path
    kind : {"media", "data"}
    number : int, optional
    seconds : float, optional
    seed, first : int
        Of the inputs.
    keep : Path, optional
        Folder for inputs that break a rule. The input at work is there, too, in case that the
        process dies.
    """
    (folder / "seeds").mkdir(parents=True)
    seeds = (media_seeds if kind == "media" else data_seeds)(folder / "seeds")
    outcome, begin = Outcome(), time.monotonic()
    for k, name, content in inputs(seeds, seed, first):
        if (number is not None and k - first >= number) or (
            seconds is not None and time.monotonic() - begin > seconds
        ):
            return outcome
        path = folder / f"input{k}{name[name.index('.') :]}"
        path.write_bytes(content)
        if keep is not None:
            (keep / "at_work").write_text(f"{kind} {seed} {k} {name}\n")
        start = time.monotonic()
        try:
            read_media(path) if kind == "media" else read_data(path, name)
            outcome.read[name] += 1
        except (ValueError, OSError):
            outcome.refused[name] += 1
        except Exception:
            _note(outcome, keep, path, k, name)
        took, peak = time.monotonic() - start, peak_memory()
        if took > SECONDS:
            _note(outcome, keep, path, k, name, f"took {took:.0f} s")
        if peak > max(MEMORY, outcome.peak):
            _note(outcome, keep, path, k, name, f"memory rose to {peak / 2**20:.0f} MiB")
        outcome.slowest, outcome.peak = max(outcome.slowest, took), max(outcome.peak, peak)
        path.unlink()
    return outcome


def _note(outcome, keep, path, number, name, why: str | None = None) -> None:
    why = why or traceback.format_exc(limit=-3)
    outcome.broken.append(f"input {number} ({name}): {why}")
    if keep is not None:
        (keep / f"{number}-{name}").write_bytes(path.read_bytes())


def main() -> None:
    """Read inputs, and print what came out as JSON"""
    import tempfile
    import warnings

    warnings.simplefilter("ignore")  # of damage, which is what files have
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["media", "data"], default="media")
    parser.add_argument("--number", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(
            Path(folder) / "fuzz",
            asked.kind,
            asked.number,
            asked.seconds,
            asked.seed,
            asked.first,
            asked.keep,
        )
    content = {
        "inputs": outcome.inputs,
        "read": dict(outcome.read),
        "refused": dict(outcome.refused),
        "slowest": round(outcome.slowest, 2),
        "peak": round(outcome.peak / 2**20),
        "broken": outcome.broken,
    }
    json.dump(content, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
