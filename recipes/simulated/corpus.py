"""The simulated conversations that HMSA-Net is trained and tried on, from real voices and faces.

    python -m recipes.simulated.corpus DATA CORPUS [--scale 1.0] [--aside 1.0] [--workers 2]

DATA has ``speech/librispeech`` (SPEAKER-*.flac), ``portraits`` (pictures with faces),
``clips/talkers`` (people who talk) and ``noise`` (noise*.wav, rir*.wav: room responses); CORPUS
becomes a store with crops, sound, protocol, voices and a first pass: two-minute conversations of
three layouts for training, development and test, with talkers and faces of their own. To speakers
for training are added the same ones sped up and slowed down, as others; half of the conversations
for training are livelier than real ones, so that there is overlap to learn from; and in some, half
of the people are those of the clips, whose mouths are real, in rooms and noise. Every third talker
is held aside (`python -m benchmarks evidence`). Started again, it goes on where it was. ``--scale
0.1`` makes a tenth of the files; ``--aside 1`` makes all of those for development and test whatever
the scale, also with ``--scale 0``, which makes none for training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import resources
from math import ceil
from pathlib import Path
from typing import NamedTuple

from pyannote_av.core.atomic import write_text
from pyannote_av.core.reading import parse_json, read_text

SUBSETS = ("train", "development", "test")
#: of speakers in order of their names: the first for training, the next for development
TRAIN_SPEAKERS, DEVELOPMENT_SPEAKERS = 170, 30
#: of five portraits
PORTRAITS = {"train": (0, 1, 2), "development": (3,), "test": (4,)}
#: clips that show the same person
SAME_PERSON = (("grid_id2_vcd_swwp2s", "grid_pwij3p"),)
#: how much faster or slower speakers become others
SPEEDS = (0.82, 0.9, 1.1, 1.22)
MINUTES = 2


class Part(NamedTuple):
    """Conversations of one kind.

    `overlap` is a factor for the overlap of those they are like; with `real`, half of the people
    are those of clips.
    """

    subset: str
    layout: str
    files: int
    seed: int
    like: str
    overlap: float | None = None
    real: bool = False

    @property
    def name(self) -> str:
        return f"{self.subset}-{self.seed}"


PARTS = (
    Part("train", "film", 80, 1, "ava_avd"),
    Part("train", "meeting", 30, 2, "ami"),
    Part("train", "gallery", 12, 7, "ami"),
    Part("train", "film", 40, 11, "ami", 4.0),
    Part("train", "film", 20, 12, "ava_avd", 6.0),
    Part("train", "meeting", 16, 13, "ami", 4.0),
    Part("train", "film", 30, 21, "ava_avd", 3.0, real=True),
    Part("train", "gallery", 24, 22, "ami", 3.0, real=True),
    Part("train", "meeting", 8, 23, "ami", real=True),
    Part("development", "film", 5, 3, "ava_avd"),
    Part("development", "meeting", 2, 4, "ami"),
    Part("development", "gallery", 2, 8, "ami"),
    Part("test", "film", 12, 5, "ava_avd"),
    Part("test", "meeting", 7, 6, "ami"),
    Part("test", "gallery", 5, 9, "ami"),
)


def links(paths: Iterable[Path], folder: Path) -> Path:
    """A folder of links to files or folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        link = folder / path.name
        if not link.is_symlink():
            link.symlink_to(path.resolve())
    return folder


def talkers(data: Path, aside: bool | None = None) -> dict[str, list[Path]]:
    """Clips by person: those for training, those held aside, or all (None)."""
    names = {other: first for first, *others in SAME_PERSON for other in others}
    people: dict[str, list[Path]] = {}
    for path in sorted((data / "clips" / "talkers").iterdir()):
        people.setdefault(names.get(path.stem, path.stem), []).append(path)
    return {
        name: paths
        for number, (name, paths) in enumerate(people.items())
        if aside is None or (number % 3 == 1) == aside
    }


def sources(data: Path, folder: Path) -> None:
    """``speech/SUBSET`` and ``portraits/SUBSET``, with nobody in two of them."""
    utterances = sorted((data / "speech" / "librispeech").glob("*.flac"))
    speakers = sorted({path.name.split("-")[0] for path in utterances})
    first = TRAIN_SPEAKERS, TRAIN_SPEAKERS + DEVELOPMENT_SPEAKERS
    who = dict(
        zip(
            SUBSETS,
            (speakers[: first[0]], speakers[slice(*first)], speakers[first[1] :]),
            strict=True,
        )
    )
    portraits = sorted(path for path in (data / "portraits").iterdir() if path.suffix != ".md")
    for subset in SUBSETS:
        own = [path for path in utterances if path.name.split("-")[0] in who[subset]]
        links(own, folder / "speech" / subset)
        if subset == "train":
            for path in own:
                for speed in SPEEDS:
                    sped_up(path, speed, folder / "speech" / subset)
        chosen = [p for number, p in enumerate(portraits) if number % 5 in PORTRAITS[subset]]
        links(chosen, folder / "portraits" / subset)
    for name, paths in talkers(data, aside=False).items():
        links(paths, folder / "clips" / name)
    links(sorted((data / "noise").glob("noise*.wav"))[:-1], folder / "noises")
    links(sorted((data / "noise").glob("rir*.wav"))[:-1], folder / "responses")


def sped_up(path: Path, speed: float, folder: Path) -> None:
    """Another speaker: pitch and formants move along."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    speaker, rest = path.name.split("-", 1)
    into = folder / f"{speaker}x{round(100 * speed)}-{rest}"
    if into.is_file():
        return
    samples, rate = soundfile.read(path, dtype="float32")
    changed = resample(torch.from_numpy(samples)[None], round(rate * speed), rate)[0]
    part = into.with_suffix(".part")
    soundfile.write(part, changed.numpy(), rate, format="FLAC")
    part.rename(into)


def simulate(part: Part, folder: Path, scale: float, workers: int) -> Path:
    """The conversations of a part, in a folder of their own."""
    statistics = part.like
    if part.overlap is not None:
        fitted = resources.files("pyannote_av.simulation") / "fitted" / f"{part.like}.json"
        content = parse_json(fitted.read_text("utf-8"), str(fitted))
        content["overlap_factor"] = part.overlap
        statistics = str(write_text(folder / f"{part.name}.json", json.dumps(content)))
    into = folder / part.name
    options = {
        "into": into,
        "speech": folder / "speech" / part.subset,
        "portraits": folder / "portraits" / part.subset,
        "files": ceil(scale * part.files),
        "minutes": MINUTES,
        "speakers": "2-6" if part.layout == "film" else "2-5",
        "layout": part.layout,
        "statistics": statistics,
        "seed": part.seed,
        "subset": part.subset,
        "workers": workers,
    }
    if part.real:
        options |= {name: folder / name for name in ("clips", "noises", "responses")}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = Path(sys.executable).with_name("pyannote-av")
    subprocess.run([command, "simulate", "--store", *words], check=True)
    return into


def join(folders: dict[Part, Path], corpus: Path) -> None:
    """One protocol, and one store, of all parts."""
    lists: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
    for part, folder in folders.items():
        lists[part.subset] += read_text(folder / "lists" / f"{part.subset}.txt").split()
        for kind in ("audio", "rttm", "shards", "tracks", "uem"):
            links((folder / kind).iterdir(), corpus / kind)
    for subset, uris in lists.items():
        write_text(corpus / "lists" / f"{subset}.txt", "\n".join(uris) + "\n")
    # those of parts name their subset only
    text = "Databases:\n  Simulated: audio/{uri}.wav\nProtocols:\n  Simulated:\n"
    text += "    SpeakerDiarization:\n      Simulated:\n        scope: file\n"
    for subset in SUBSETS:
        text += f"        {subset}:\n          uri: lists/{subset}.txt\n"
        text += "          annotation: rttm/{uri}.rttm\n          annotated: uem/{uri}.uem\n"
        text += "          audio: audio/{uri}.wav\n          face_tracks: tracks/{uri}.npz\n"
    write_text(corpus / "database.yml", text)


def build(data: Path, corpus: Path, scale: float, workers: int, aside: float | None = None) -> None:
    """All of it; `aside` is the scale of what is not for training, if another one."""
    from pyannote_av.data.crop_store import CropStore
    from pyannote_av.data.first_pass import build_first_pass
    from pyannote_av.data.speaker_embeddings import build_speaker_embeddings

    folder = corpus / "parts"
    sources(data, folder)
    scales = dict.fromkeys(SUBSETS, scale if aside is None else aside) | {"train": scale}
    made = [part for part in PARTS if scales[part.subset]]
    join({part: simulate(part, folder, scales[part.subset], workers) for part in made}, corpus)
    store = CropStore(corpus)
    print(build_speaker_embeddings(store, progress=True))
    print(build_first_pass(store, progress=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--aside", type=float, help="scale of development and test (default: same)")
    parser.add_argument("--workers", type=int, default=0, help="processes that simulate")
    given = parser.parse_args()
    build(given.data, given.corpus, given.scale, given.workers, given.aside)


if __name__ == "__main__":
    main()
