"""Data files as nobody honest writes them, each with the reader that somebody would call on it.

``CASES`` has, by name, a function that writes the file into a folder and returns its path and the
reader. All of them are to be refused with :class:`ReadError`.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pyannote_av.core.protocols import files_of
from pyannote_av.core.reading import read_json, read_npy, read_npz, read_text, read_yaml
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.data.array_store import ArrayStore
from pyannote_av.data.crop_shard import Shard
from pyannote_av.evaluation.matching import read_rows
from pyannote_av.formats.annotations import read_lab, read_rttm, read_uem
from pyannote_av.sharing.evaluation_tables import Evaluation
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.tasks.recordings import load_recordings
from pyannote_av.tasks.track_labels import load_runs
from pyannote_av.training.config import TrainingConfig

Case = tuple[Path, Callable[[Path], object]]
CASES: dict[str, Callable[[Path], Case]] = {}

MEGABYTE = 2**20


def case(name: str) -> Callable:
    """Add a function to the cases."""

    def add(write: Callable[[Path], Case]) -> Callable[[Path], Case]:
        CASES[name] = write
        return write

    return add


def text_case(name: str, file: str, content: str | bytes, reader: Callable) -> None:
    """Add a file of given content to the cases."""

    def write(folder: Path) -> Case:
        path = folder / file
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path, reader

    CASES[name] = write


def bomb(path: Path, begin: bytes, size: int, end: bytes = b"") -> Path:
    """Write a ``.gz`` that unpacks to `size` spaces between `begin` and `end`."""
    with open(path, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9) as file:
        file.write(begin)
        for _ in range(size // MEGABYTE):
            file.write(b" " * MEGABYTE)
        file.write(end)
    return path


def array(shape: tuple, descr: str = "<f8", content: bytes = b"", **header: object) -> bytes:
    """Content of a ``.npy`` file whose header says what it likes."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape, **header}) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1") + content


def archive(path: Path, **arrays: bytes) -> Path:
    """Write a ``.npz`` file of members of given content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return path


def zeros(path: Path, name: str, size: int, declared: int | None = None) -> Path:
    """Write a ``.npz`` file of one array of `size` zeros, which may declare fewer."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open(f"{name}.npy", "w", force_zip64=True) as member,
    ):
        member.write(array((size,), "|u1"))
        for _ in range(size // MEGABYTE):
            member.write(bytes(MEGABYTE))
    if declared is not None:
        content = path.read_bytes()
        with zipfile.ZipFile(path) as file:
            true = struct.pack("<Q", file.infolist()[0].file_size)
        path.write_bytes(content.replace(true, struct.pack("<Q", declared)))
    return path


def shard(folder: Path, **changes: object) -> Path:
    """Write a shard of three crops of one face, whose index says something else."""
    into = folder / "shards" / "a"
    into.mkdir(parents=True)
    np.save(into / "crops.npy", np.zeros((3, 112, 112), np.uint8))
    np.save(into / "present.npy", np.ones(3, bool))
    np.save(into / "waveform.npy", np.zeros(1920, np.int16))
    index = {"format": 1, "uri": "a", "source": {}, "samples": 1920, "problems": []}
    index |= {"pieces": [[0, 0, 3, 0]], "sha256": {}, **changes}
    (into / "index.json").write_text(json.dumps(index))
    return into


def use_shard(folder: Path) -> object:
    """Read all that a shard has."""
    one = Shard(folder)
    one.waveform(0, 3)
    one.verify()
    return [one.crops(track, *span) for track, span in one.tracks.items()]


def database(folder: Path, content: str, uris: str = "a\n") -> Case:
    """Write a ``database.yml`` with a list of files."""
    (folder / "all.lst").write_text(uris)
    path = folder / "database.yml"
    path.write_text(content)
    return path, partial(files_of, "Hostile.SpeakerDiarization.All", ("train",))


def protocol(entries: str) -> str:
    """Text of a ``database.yml`` of one subset."""
    return (
        "Protocols:\n  Hostile:\n    SpeakerDiarization:\n      All:\n        scope: file\n"
        f"        train: {{uri: all.lst, {entries}}}\n"
    )


# ---------------------------------------------------------------- YAML
LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)
DEEP = "[" * 100_000
text_case("configuration: a billion laughs", "a.yaml", LAUGHS, TrainingConfig.read)
text_case("configuration: a list in itself", "a.yaml", "a: &a [*a]\n", TrainingConfig.read)
text_case("configuration: a deep list", "a.yaml", DEEP, TrainingConfig.read)
text_case("configuration: nothing", "a.yaml", "", TrainingConfig.read)
text_case("YAML: merges of merges", "a.yaml", MERGES, read_yaml)
text_case("YAML: deep mappings", "a.yaml", "{a: " * 100_000, read_yaml)
text_case("YAML: a long number to base 60", "a.yaml", "1" + ":1" * 500_000, read_yaml)
text_case("YAML: a long number", "a.yaml", "9" * 900_000, read_yaml)
text_case("YAML: 100 MB", "a.yaml", "- a\n" * (25 * MEGABYTE), read_yaml)
text_case("YAML: many values", "a.yaml", "[" + "a," * 500_000 + "]", read_yaml)
text_case("YAML: an object", "a.yaml", "!!python/object/apply:os.getcwd []", read_yaml)
text_case("YAML: no such date", "a.yaml", "a: 2001-99-99", read_yaml)
text_case("YAML: an empty number", "a.yaml", "!!int ''", read_yaml)
text_case("YAML: a set as a key", "a.yaml", "{{a: 1}: 2}", read_yaml)
text_case("YAML: no UTF-8", "a.yaml", b"a: \xff\xfe\n", read_yaml)
text_case("YAML: NUL", "a.yaml", b"a: \0\n", read_yaml)
CONFIGURATIONS = {
    "numbers as keys": "1: 2\n",
    "a list": "stages: [{name: a, start: []}]",
    "stages with numbers as keys": "stages: [{1: 2, a: 3}]\n",
    "stages with text for a number": "stages: [{name: a, max_epochs: many}]\n",
    "stages with a number for a start": "stages: [{name: a, start: 1}]\n",
}
for name, content in CONFIGURATIONS.items():
    text_case(f"configuration: {name}", "a.yaml", content, TrainingConfig.read)

# ---------------------------------------------------------------- protocols
DATABASES = {
    "a billion laughs": LAUGHS,
    "a list": "- a\n",
    "nothing": "",
    "in itself": "Protocols: &a {X: *a}\n",
    "protocols are text": "Protocols: a\n",
    "tasks are a list": "Protocols: {Hostile: [a]}\n",
    "entries are text": "Protocols: {Hostile: {SpeakerDiarization: {All: {train: a}}}}\n",
    "entries are a list": "Protocols: {Hostile: {SpeakerDiarization: {All: {train: [a]}}}}\n",
    "no list": protocol("annotation: 'a{uri}.rttm'").replace("all.lst", "[1]"),
    "databases are numbers": "Databases: {Hostile: [1]}\n",
    "requires itself": "Requirements: [{a: 1}]\n",
    "a wide template": protocol("annotation: '{uri:>100000000000}.rttm'"),
    "attributes": protocol("annotation: '{uri.__class__}.rttm'"),
    "half a template": protocol("annotation: '{uri.rttm'"),
    "a terminal sequence": protocol("lab: 1")
    .replace("SpeakerD", '"\\e[2JSpeakerD')
    .replace("ion:\n", 'ion":\n'),
}
for name, content in DATABASES.items():
    CASES[f"protocols: {name}"] = partial(
        lambda folder, content: (lambda p, read: (p, lambda p: read(database=p)))(
            *database(folder, content)
        ),
        content=content,
    )


@case("protocols: names that lead out")
def _uris(folder: Path) -> Case:
    path, read = database(folder, protocol("annotation: '{uri}.rttm_strict'"), "../../etc/x\n")
    return path, lambda path: read(database=path)


# ---------------------------------------------------------------- JSON and CSV of face tracks
def tracks_case(name: str, **changes: object) -> None:
    """Add a file of one face, of which something is wrong."""
    entry = {"id": 1, "times": [0.0, 0.04], "boxes": [[0.1, 0.1, 0.2, 0.2]] * 2}
    content = {"uri": "a", "frame_size": [640, 480], "tracks": [entry]}
    entry |= {key: value for key, value in changes.items() if key not in content}
    content |= {key: value for key, value in changes.items() if key in content}
    text_case(f"tracks: {name}", "a.json", json.dumps(content), FaceTracks.read)


tracks_case("a huge track", id=1e300)
tracks_case("an endless track", id=float("inf"))
tracks_case("a long track number", id=10**30)
tracks_case("a track that is a list", id=[1])
tracks_case("late", times=[0.0, 1e308])
tracks_case("endless time", times=[0.0, float("inf")])
tracks_case("times that are text", times="ab")
tracks_case("times that are a number", times=3)
tracks_case("times that are long numbers", times=[0, 10**400])
tracks_case("boxes of one number", boxes=[1, 2])
tracks_case("boxes of three", boxes=[[0.1, 0.1, 0.2]] * 2)
tracks_case("boxes of unlike length", boxes=[[0.1], [0.1, 0.1, 0.2, 0.2]])
tracks_case("labels unheard of", label=[300, 1])
tracks_case("long labels", label=[1e300, 1])
tracks_case("a speaker that is a list", speaker=[["a"]])
tracks_case("a uri that is a list", uri=["a"])
tracks_case("a frame of nothing", frame_size=[0, 0])
tracks_case("a frame without an end", frame_size=[1e999, 1])
tracks_case("a huge frame", frame_size=[10**9, 10**9])
tracks_case("a frame that is a number", frame_size=3)
tracks_case("tracks that are text", tracks="abc")
tracks_case("tracks that are numbers", tracks=[1, 2])
tracks_case("no tracks", tracks=None)
text_case("tracks: a number", "a.json", "3", FaceTracks.read)
text_case("tracks: deep", "a.json", DEEP, FaceTracks.read)
text_case("tracks: no JSON", "a.json", '{"tracks": [', FaceTracks.read)
text_case("tracks: empty", "a.json", "", FaceTracks.read)
text_case("tracks: no gzip", "a.json.gz", b"not gzip", FaceTracks.read)
text_case("tracks: empty gzip", "a.json.gz", b"", FaceTracks.read)
text_case("tracks: half a gzip", "a.json.gz", gzip.compress(b"[1]" * 1000)[:20], FaceTracks.read)
text_case(
    "tracks: a damaged gzip",
    "a.json.gz",
    gzip.compress(b"")[:10] + zlib.compress(b"a")[::-1],
    FaceTracks.read,
)
text_case("tracks: many lists", "a.json", "[" + "[]," * (20 * MEGABYTE), FaceTracks.read)


@case("tracks: 1 MB of gzip, 1 GB of JSON")
def _json_bomb(folder: Path) -> Case:
    return bomb(folder / "a.json.gz", b'{"tracks": [', 1024 * MEGABYTE, b"]}"), FaceTracks.read


@case("tracks: 1 MB of gzip, one line of 1 GB")
def _csv_bomb(folder: Path) -> Case:
    return bomb(folder / "a.csv.gz", b"a,", 1024 * MEGABYTE), FaceTracks.read


@case("rows: 1 MB of gzip, one line of 1 GB")
def _rows_bomb(folder: Path) -> Case:
    return bomb(folder / "a.csv.gz", b"a,", 1024 * MEGABYTE), read_rows


ROW = "a,0.04,0.1,0.1,0.2,0.2,NOT_SPEAKING,a:1\n"
for name, old, new in (
    ("nan", "0.04", "nan"),
    ("endless", "0.04", "1e999"),
    ("late", "0.04", "1e308"),
    ("hexadecimal", "0.04", "0x10"),
    ("digits of another script", "0.04", "\u0664"),
    ("no label", "NOT_SPEAKING", "NOT"),
    ("a quote without an end", "a,0.04", '"a,0.04'),
):
    text_case(f"tracks: CSV, {name}", "a.csv", ROW.replace(old, new, 1) + ROW, FaceTracks.read)
    if name != "a quote without an end":
        text_case(f"rows: CSV, {name}", "a.csv", ROW.replace(old, new, 1) + ROW, read_rows)
text_case("tracks: CSV, NUL", "a.csv", ROW.replace("a:1", "a\0"), FaceTracks.read)
text_case("tracks: CSV, a long field", "a.csv", ROW + "a" * 200_000, FaceTracks.read)
text_case("tracks: CSV, no UTF-8", "a.csv", b"\xff\xfe" + ROW.encode(), FaceTracks.read)
text_case("rows: no UTF-8", "a.csv", b"\xff\xfe" + ROW.encode(), read_rows)
text_case("rows: empty", "a.csv", "", read_rows)
text_case("rows: NUL", "a.csv", b"\0" * 1000, read_rows)
text_case("rows: columns twice", "a.csv", "entity_id,entity_id\n1,2\n", read_rows)


# ---------------------------------------------------------------- arrays
READERS = {
    "tracks": FaceTracks.read,
    "labels": load_runs,
    "recordings": load_recordings,
    "arrays": read_npz,
}
for name, reader in READERS.items():
    CASES[f"{name}: 1 GB of zeros"] = partial(
        lambda folder, reader: (zeros(folder / "a.npz", "time", 1024 * MEGABYTE), reader),
        reader=reader,
    )
    text_case(f"{name}: no archive", "a.npz", "not an archive", reader)
    text_case(f"{name}: empty", "a.npz", "", reader)
HEADERS = {
    "objects": array((1,), "|O", b"\x80\x04N."),
    "too many": array((10**12,)),
    "beyond all numbers": array((10**30,)),
    "negative": array((-2, -3), content=bytes(48)),
    "of no width": array((10**12,), "|S0"),
    "true": array((True,), content=bytes(8)),
    "a float": array((1.0,), content=bytes(8)),
    "no type": array((1,), "nonsense", bytes(8)),
    "deep": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000,
    "a call": b"\x93NUMPY\1\0" + struct.pack("<H", 13) + b"os.getcwd()  ",
    "a long header": b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{",
    "half": array((4,), content=bytes(8)),
    "more": array((1,), content=bytes(16)),
    "empty": b"",
    "half a header": b"\x93NUMPY\1\0",
}
for name, content in HEADERS.items():
    text_case(f"array: {name}", "a.npy", content, read_npy)
    text_case(f"mapped array: {name}", "a.npy", content, partial(read_npy, mmap_mode="r"))
    CASES[f"array in an archive: {name}"] = partial(
        lambda folder, content: (archive(folder / "a.npz", time=content), read_npz),
        content=content,
    )


@case("arrays: a size that is a lie")
def _lie(folder: Path) -> Case:
    return zeros(folder / "a.npz", "time", 300 * MEGABYTE, 200), read_npz


@case("arrays: damaged")
def _flipped(folder: Path) -> Case:
    path = archive(folder / "a.npz", time=array((1000,), content=bytes(range(250)) * 32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path, read_npz


@case("arrays: compressed otherwise")
def _lzma(folder: Path) -> Case:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("time.npy", array((1,), content=bytes(8)))
    return folder / "a.npz", read_npz


def saved(folder: Path, reader: Callable, **arrays: object) -> Case:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz", reader


RUNS = {"protocol": "p", "train-uris": ["a"], "train-labels": np.zeros(3, np.int8)}
RUN = [("file", "i4"), ("track", "i8"), ("start", "i8"), ("length", "i8"), ("offset", "i8")]
for name, row in {
    "longer than its labels": (0, 1, 0, 10**12, 0),
    "of no file": (7, 1, 0, 3, 0),
    "before its labels": (0, 1, 0, 3, -5),
    "late": (0, 1, 2**62, 3, 0),
}.items():
    table = np.array([row], RUN)
    CASES[f"labels: a run {name}"] = partial(
        saved, reader=load_runs, **RUNS, **{"train-table": table}
    )
CASES["labels: a table of text"] = partial(
    saved, reader=load_runs, **RUNS, **{"train-table": ["a"]}
)
RECORDING = {
    "protocol": "p",
    "train/uris": ["a"],
    "train/speakers": [1],
    "train/persons": ["b"],
    "train/counts": [[1, 1, 1, 0]],
    "train/turns": [[0, 0, 10]],
    "train/regions": [[0, 10]],
    "train/faces": np.zeros((0, 4), int),
}
for name, changes in {
    "many speakers": {"train/speakers": [10**12]},
    "turns of nobody": {"train/turns": [[9, 0, 10]]},
    "late": {"train/turns": [[0, 0, 10**15]]},
    "other counts": {"train/counts": [[1, 1, 1, 9]]},
    "negative counts": {"train/counts": [[1, -1, 1, 0]]},
    "a flat table": {"train/turns": [0, 0, 10]},
    "text": {"train/turns": [["a", "b", "c"]]},
}.items():
    CASES[f"recordings: {name}"] = partial(
        saved, reader=load_recordings, **{**RECORDING, **changes}
    )


# ---------------------------------------------------------------- stores
SHARDS: dict[str, dict[str, object]] = {
    "a million million crops": {"pieces": [[0, 0, 10**12, 0]]},
    "more crops than there are": {"pieces": [[0, 0, 30, 0]]},
    "crops before the first": {"pieces": [[0, 0, 3, -3]]},
    "half a crop": {"pieces": [[0, 0, 2.5, 0]]},
    "a huge track": {"pieces": [[1e300, 0, 3, 0]]},
    "pieces of three": {"pieces": [[0, 0, 3]]},
    "pieces that are text": {"pieces": "abcd"},
    "more sound than there is": {"samples": 10**15},
    "sound that is text": {"samples": "a"},
    "a list for a name": {"uri": ["a"]},
    "problems that are numbers": {"problems": [1]},
    "checksums that are a list": {"sha256": [1]},
    "another version": {"format": 99},
    "a file that is elsewhere": {"sha256": {"../../../etc/passwd": "0"}},
    "a file at the root": {"sha256": {"/etc/passwd": "0"}},
}
for name, changes in SHARDS.items():
    CASES[f"store: {name}"] = partial(
        lambda folder, changes: (shard(folder, **changes), use_shard), changes=changes
    )


@case("store: a link that leads out")
def _link(folder: Path) -> Case:
    into = shard(folder)
    (into / "crops.npy").rename(folder / "crops.npy")
    (into / "crops.npy").symlink_to(folder / "crops.npy")
    return into, use_shard


@case("store: a link to itself")
def _circle(folder: Path) -> Case:
    into = shard(folder)
    (into / "crops.npy").unlink()
    (into / "crops.npy").symlink_to("crops.npy")
    return into, use_shard


def manifest(folder: Path, content: object) -> Case:
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder, lambda folder: ArrayStore(folder)["a"]


CASES["arrays by name: a list"] = partial(manifest, content=[])
CASES["arrays by name: files are a list"] = partial(manifest, content={"made_by": {}, "files": []})


@case("arrays by name: a link that leads out")
def _array_link(folder: Path) -> Case:
    inner = folder / "store"
    inner.mkdir()
    np.save(folder / "a.npy", np.zeros(3))
    (inner / "a.npy").symlink_to(folder / "a.npy")
    return manifest(inner, {"made_by": {}, "files": {"a": "0"}})


# ---------------------------------------------------------------- RTTM, UEM, LAB
def line(kind: str, start: str, end: str) -> str:
    """A line of a file of turns, stretches or regions."""
    forms = {
        "rttm": "SPEAKER a 1 {} {} <NA> <NA> b <NA> <NA>\n",
        "uem": "a 1 {} {}\n",
        "lab": "{} {} speech\n",
    }
    return forms[kind].format(start, end)


for kind, reader in {"rttm": read_rttm, "uem": read_uem, "lab": read_lab}.items():
    for name, times in {
        "nan": ("nan", "1"),
        "inf": ("0", "inf"),
        "1e999": ("0", "1e999"),
        "1e308": ("0", "1e308"),
        "negative": ("-1", "1"),
        "hexadecimal": ("0x1", "0x2"),
        "digits of another script": ("\u0661", "\u0662"),
        "digits with strokes": ("1_0", "2_0"),
    }.items():
        text_case(f"{kind}: {name}", f"a.{kind}", line(kind, *times), reader)
    text_case(f"{kind}: a line of 100 MB", f"a.{kind}", b"a " * (50 * MEGABYTE), reader)
    text_case(f"{kind}: NUL", f"a.{kind}", line(kind, "0", "1").replace("\n", "\0\n"), reader)
    text_case(f"{kind}: no UTF-8", f"a.{kind}", b"\xff\xfe\x00", reader)
    text_case(f"{kind}: 10 million lines", f"a.{kind}", b";\n" * 10**7, reader)


@case("rttm: a pipe")
def _pipe(folder: Path) -> Case:
    os.mkfifo(folder / "a.rttm")
    return folder / "a.rttm", read_rttm


@case("text: a device")
def _device(folder: Path) -> Case:
    (folder / "a.txt").symlink_to("/dev/zero")
    return folder / "a.txt", read_text


# ---------------------------------------------------------------- results and statistics
TOTAL = {"uri": "TOTAL", "rule": "Full", "system": "a", "vad": "b", "tracks": None, "jer": 1.0}
TOTAL |= {"der": 1.0, "false_alarm": 1.0, "missed": 1.0, "confusion": 1.0}
TOTAL |= {"files": 1, "speakers": 1}
RULES = {"Full": {"collar": 0.0, "overlap": True}}
for name, content in {
    "a list": [],
    "no figures": {"scores": [], "rules": RULES, "conditions": []},
    "text for a figure": {
        "scores": [TOTAL | {"der": "a"}],
        "rules": RULES,
        "conditions": [],
    },
    "a rule that is not there": {"scores": [TOTAL], "rules": {"a": 1}, "conditions": []},
    "a list for a name": {
        "scores": [TOTAL | {"system": ["a"]}],
        "rules": RULES,
        "conditions": [],
    },
    "conditions that are numbers": {"scores": [TOTAL], "rules": RULES, "conditions": [1]},
}.items():
    text_case(f"evaluation: {name}", "a.json", json.dumps(content), Evaluation.read)
text_case("JSON: NaN", "a.json", "[NaN]", read_json)
text_case("JSON: endless", "a.json", "[1e999]", read_json)
text_case("JSON: a long number", "a.json", "[" + "1" * 10_000 + "]", read_json)
text_case("JSON: 20 MB", "a.json", "[" + "1," * (10 * MEGABYTE) + "1]", read_json)


def statistics_case(name: str, **changes: object) -> None:
    """Add statistics of conversations of which something is wrong."""
    path = Path(__file__).parent.parent / "pyannote_av" / "simulation" / "fitted" / "ami.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    text_case(f"statistics: {name}", "a.json", json.dumps(content), ConversationStatistics.read)


statistics_case("a million million people", speakers={str(10**12): 1})
statistics_case("people that are no number", speakers={"many": 1})
statistics_case("nobody", speakers={})
statistics_case("endless turns", turn=[1e300] * 101)
statistics_case("turns that are text", turn=["a"] * 101)
statistics_case("a mapping", pause={"a": 1})
statistics_case("something else", other=1)
