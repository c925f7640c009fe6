"""AMI meetings, in the setup of BUT (Landini et al., 2022): forced alignment, words only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from pyannote_av.formats.annotations import read_uem
from pyannote_av.formats.lists import read_names
from recipes import Expected, Protocol, Recipe
from recipes.corpus import File, place, speech_of, turns_of
from recipes.fetch import Download, checksums
from recipes.media import Gallery

LISTS = ("train", "dev", "test")

_SETUP = "https://raw.githubusercontent.com/BUTSpeechFIT/AMI-diarization-setup"
_COMMITS = {
    "uems": "4906e91db2c942909732ef740c7ee9705602b7a4",
    "lists": "126863e146ce533e339041a7f65c5c6a3cf83223",
    "only_words": "126863e146ce533e339041a7f65c5c6a3cf83223",
}
_CORPUS = "https://groups.inf.ed.ac.uk/ami/AMICorpusMirror/amicorpus"
#: manual annotations of the corpus, which include the table of cameras
_MANUAL = "https://groups.inf.ed.ac.uk/ami/AMICorpusAnnotations/ami_public_manual_1.6.2.zip"
#: closeup cameras, one per participant; no room has five
CAMERAS = ("Closeup1", "Closeup2", "Closeup3", "Closeup4")


def _gallery(folder: Path, uri: str) -> Gallery:
    meeting = folder / "amicorpus" / uri
    cameras = tuple(meeting / "video" / f"{uri}.{camera}.avi" for camera in CAMERAS)
    # cameras may be missing; if all are, keep the first one for the error message
    cameras = tuple(path for path in cameras if path.is_file()) or cameras[:1]
    return Gallery(cameras, meeting / "audio" / f"{uri}.Mix-Headset.wav")


def read_seats(path: Path) -> dict[str, dict[str, str]]:
    """Read the speaker at each closeup camera (people swap seats between meetings).

    Parameters
    ----------
    path : Path
        ``corpusResources/meetings.xml`` of the manual annotations.

    Returns
    -------
    seats : dict of meeting to dict of camera to speaker
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}, line {error.position[0]}: {error}") from error
    return {
        meeting.get("observation", ""): {
            speaker.get("camera", ""): speaker.get("global_name", "")
            for speaker in meeting.iter("speaker")
        }
        for meeting in root.iter("meeting")
    }


def _seats(seats: dict[str, dict[str, str]], uri: str, video: Gallery) -> dict[str, str]:
    """CSV file with the position (column and row of the grid) of each participant"""
    if uri not in seats:
        return {}
    columns = math.ceil(math.sqrt(len(video.cameras)))
    lines = [
        f"{camera},{place % columns},{place // columns},{seats[uri].get(camera, '')}\n"
        for place, path in enumerate(video.cameras)
        for camera in [path.name.split(".")[1]]
    ]
    return {f"seats/{uri}.csv": "camera,column,row,speaker\n" + "".join(lines)}


def files(folder: Path) -> Iterator[File]:
    """Yield the meetings of the three lists."""
    table = folder / "manual" / "corpusResources" / "meetings.xml"
    seats = read_seats(table) if table.is_file() else {}
    words = folder / "only_words" if (folder / "only_words").is_dir() else folder
    for name in LISTS:
        for uri in read_names(folder / "lists" / f"{name}.meetings.txt"):
            path = folder / "uems" / name / f"{uri}.uem"
            maps = read_uem(path)
            if uri not in maps:
                raise ValueError(f"{path} has no entry for {uri!r}")
            turns = turns_of(words / "rttms" / name / f"{uri}.rttm", uri)
            # the reference of TS3007c extends 10 s beyond its evaluation map
            annotation, problems = place(uri, turns, maps[uri], cut=uri == "TS3007c")
            video = _gallery(folder, uri)
            speech = words / "labs" / name / f"{uri}.lab"
            yield File(
                uri,
                name,
                annotation,
                maps[uri],
                lab=speech_of(speech) if speech.is_file() else None,
                media={"video": video},
                texts=_seats(seats, uri, video),
                problems=problems,
            )


def downloads(folder: Path) -> Iterable[Download]:
    """Yield the references, with checksums, and then the audio and cameras of all meetings."""
    for path, digest in checksums(Path(__file__).with_name("SHA256SUMS")).items():
        commit = _COMMITS[path.split("/")[0]]
        yield Download(f"{_SETUP}/{commit}/{path}", path, digest)
    yield Download(_MANUAL, "manual/ami_public_manual_1.6.2.zip", unpack=True)
    for name in LISTS:
        meetings = folder / "lists" / f"{name}.meetings.txt"
        for uri in read_names(meetings) if meetings.is_file() else ():
            paths = [f"video/{uri}.{camera}.avi" for camera in CAMERAS]
            for path in [f"audio/{uri}.Mix-Headset.wav", *paths]:
                yield Download(f"{_CORPUS}/{uri}/{path}", f"amicorpus/{uri}/{path}")


RECIPE = Recipe(
    name="ami",
    database="AMI",
    licence="corpus CC BY 4.0, references Apache-2.0",
    files=files,
    protocols=(
        Protocol(
            "only_words",
            {"train": "train", "development": "dev", "test": "test"},
            {"face_tracks": ""},
            scope="global",
        ),
    ),
    expected={"train": Expected(136), "dev": Expected(18, 8.77), "test": Expected(16, 8.53)},
    downloads=downloads,
    instructions="""\
Run `get --only lists/` first, then `get` (references, sound and cameras, about 100 GB). A camera
that the server lacks (some meetings) is reported; `prepare` goes on with the others.
""",
)
