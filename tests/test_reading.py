"""Data files of strangers are read with bounded memory and time, or refused by name"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hostile_data import CASES, MEGABYTE, array, shard, use_shard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyannote_av.core.checksums import model_files
from pyannote_av.core.reading import (
    ReadError,
    check_name,
    decimal,
    inside,
    parse_json,
    parse_yaml,
    read_json,
    read_lines,
    read_npy,
    read_npz,
    read_text,
    read_yaml,
)
from pyannote_av.core.tracks import FaceTracks
from pyannote_av.evaluation.matching import read_rows
from pyannote_av.formats.annotations import read_lab, read_rttm, read_uem
from pyannote_av.simulation.statistics import ConversationStatistics
from pyannote_av.tasks.recordings import load_recordings
from pyannote_av.tasks.track_labels import load_runs
from pyannote_av.training.config import TrainingConfig

#: those that would fill memory, or never come to an end: they get a process of their own
LARGE = ("billion", "merges", "GB", "100 MB", "million", "many", "base 60", "lie", "device", "wide")
LARGE = tuple(name for name in CASES if any(word in name for word in LARGE))


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(LARGE)))
def test_hostile_files_are_refused_by_name(tmp_path, name):
    path, read = CASES[name](tmp_path)
    with pytest.raises(ReadError) as caught:
        read(path)
    if not name.startswith("protocols"):
        assert path.name in str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


CHILD = """
import shutil
import sys
from pathlib import Path

def peak():
    # of this program: what getrusage tells begins with the size of the process that started it
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0])

sys.path.insert(0, sys.argv[1])
from hostile_data import CASES
from pyannote_av.core.reading import ReadError

for name in sys.argv[3:]:
    folder = Path(sys.argv[2]) / str(sys.argv.index(name))
    folder.mkdir()
    path, read = CASES[name](folder)
    before = peak()
    try:
        read(path)
        print("READ", name)
    except ReadError as error:
        pass
    shutil.rmtree(folder)
    grown = (peak() - before) // 1024
    if grown > (2000 if name == "tracks: many lists" else 600):
        print("MEMORY", name, grown, "MB")
print("done")
"""


@pytest.mark.slow
def test_large_files_are_refused_in_bounded_memory_and_time(tmp_path):
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), *LARGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    lines = [one for one in done.stdout.splitlines() if one.startswith(("READ", "MEMORY", "done"))]
    assert lines == ["done"], done.stdout + done.stderr


def test_what_memory_cannot_hold_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        file.write(array((800 * MEGABYTE,), "|u1"))
        file.truncate(file.tell() + 800 * MEGABYTE)  # a sparse file
    code = f"""
        import resource
        from pyannote_av.core.reading import ReadError, read_npy
        import numpy
        resource.setrlimit(resource.RLIMIT_AS, ({500 * MEGABYTE}, {500 * MEGABYTE}))
        try:
            read_npy({str(path)!r})
        except ReadError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert "a.npy: damaged (it does not fit into memory)" in done.stdout, done.stderr


READERS = {
    "a.json": (read_json, FaceTracks.read, ConversationStatistics.read),
    "a.json.gz": (read_json, FaceTracks.read),
    "a.yaml": (read_yaml, TrainingConfig.read),
    "a.csv": (FaceTracks.read, read_rows),
    "a.csv.gz": (FaceTracks.read, read_rows),
    "a.npz": (read_npz, FaceTracks.read, load_runs, load_recordings),
    "a.npy": (read_npy,),
    "a.rttm": (read_rttm,),
    "a.uem": (read_uem,),
    "a.lab": (read_lab,),
    "a.txt": (read_text, lambda path: list(read_lines(path))),
}
#: what files begin with, so that bytes behind are read
BEGINNINGS = [b"", b"PK\3\4", b"\x93NUMPY\1\0", b"\x1f\x8b\x08", b'{"tracks": [', b"- name: "]
BEGINNINGS += [b"SPEAKER a 1 0 1 <NA> <NA> b\n", b"a 1 0 1\n", b"0 1\n"]
BEGINNINGS += [b"a,0.04,0.1,0.1,0.2,0.2,NOT_SPEAKING,a:1\n", array((1,), content=bytes(8))]
relaxed = settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)


def accept(path: Path) -> None:
    """Read a file by all readers of its kind, which may refuse it"""
    for read in READERS[path.name]:
        with suppress(ValueError, OSError):
            read(path)


@relaxed
@given(st.sampled_from(sorted(READERS)), st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path, name, begin, content):
    (tmp_path / name).write_bytes(begin + content)
    accept(tmp_path / name)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Files that can be read"""
    folder = tmp_path_factory.mktemp("honest")
    tracks = FaceTracks(
        time=np.arange(3) / 25,
        track=[1, 1, 2],
        box=[[0.1, 0.1, 0.2, 0.2]] * 3,
        speaker={1: "b"},
        uri="a",
        frame_size=(640, 480),
    )
    for name in ("a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.npz"):
        tracks.write(folder / name)
    np.save(folder / "a.npy", np.arange(6).reshape(2, 3))
    (folder / "a.rttm").write_text("SPEAKER a 1 0 1 <NA> <NA> b <NA> <NA>\n" * 3)
    (folder / "a.uem").write_text("a 1 0 1\na 1 2 3\n")
    (folder / "a.lab").write_text("0 1 speech\n2 3\n")
    (folder / "a.yaml").write_text("- {name: a, max_epochs: 3}\n- {name: b, start: a}\n")
    (folder / "a.txt").write_text("a\nb\n")
    return folder


def test_honest_files_are_read(honest):
    for name, readers in READERS.items():
        assert readers[0](honest / name) is not None
    for name in ("a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.npz"):
        assert len(FaceTracks.read(honest / name)) == 3
    assert read_npy(honest / "a.npy", "r").tolist() == [[0, 1, 2], [3, 4, 5]]


@relaxed
@given(st.sampled_from(sorted(READERS)), st.data())
def test_files_with_bytes_changed_are_read_or_refused(honest, tmp_path, name, data):
    content = bytearray((honest / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    (tmp_path / name).write_bytes(content if data.draw(st.booleans()) else content[:cut])
    accept(tmp_path / name)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["id", "times", "boxes", "speaker", "label", "confidence", "landmarks"])


@settings(relaxed, max_examples=60)
@given(VALUES, VALUES, VALUES, st.dictionaries(KEYS, VALUES))
def test_any_values_make_tracks_or_are_refused(tmp_path, uri, frame_size, tracks, entry):
    good = {"id": 1, "times": [0.0], "boxes": [[0.1, 0.1, 0.2, 0.2]]}
    for some in (tracks, [{**good, **entry}]):
        content = {"uri": uri, "frame_size": frame_size, "tracks": some}
        (tmp_path / "a.json").write_text(json.dumps(content))
        accept(tmp_path / "a.json")


@relaxed
@given(st.sampled_from(["pieces", "samples", "uri", "problems", "sha256", "looks"]), VALUES)
def test_any_index_makes_a_shard_or_is_refused(tmp_path_factory, key, value):
    into = shard(tmp_path_factory.mktemp("store"), **{key: value})
    with suppress(ReadError):
        use_shard(into)


def test_plain_anchors_are_read():
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n"
    assert parse_yaml(text, "x") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }


def test_errors_name_the_line():
    with pytest.raises(ReadError, match="x, line 2: not valid YAML"):
        parse_yaml("a: 1\nb: ]\n", "x")
    with pytest.raises(ReadError, match="x, line 2: Expecting value"):
        parse_json("[1,\n", "x")


def test_messages_are_short_and_have_no_terminal_sequences():
    error = ReadError("a\x1b[2Jb" + "c" * 10_000_000)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 5000


def test_errors_of_the_file_system_stay_what_they_are(tmp_path):
    (tmp_path / "a.json").mkdir()
    for read in (read_text, read_json, read_yaml, read_npz, read_npy):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nothing")
        with pytest.raises(IsADirectoryError):
            read(tmp_path / "a.json")


def test_names_stay_inside(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "there").symlink_to(tmp_path)
    (folder / "near").symlink_to("inner")
    assert inside(folder, "inner/a") == folder / "inner" / "a"
    assert inside(folder, "near/a") == folder / "near" / "a"
    assert check_name("a..b") == "a..b"
    for name in ("", ".", "..", "a/../../b", "/etc/passwd", "a\0b", "..\\a", "there/a", None, 3):
        with pytest.raises(ReadError):
            inside(folder, name)


def test_a_folder_behind_a_link_is_a_folder(tmp_path):
    """Corpora are put together of links to folders"""
    made = shard(tmp_path / "made")
    (tmp_path / "linked").symlink_to(made)
    assert use_shard(tmp_path / "linked")


def test_decimal_numbers():
    assert decimal(" 1.5e3") == 1500
    for text in ("nan", "inf", "1e999", "0x1", "1_0", "\u0661", "", "one"):
        with pytest.raises(ValueError, match=r"not a finite number|could not convert"):
            decimal(text)


def test_overlapping_stretches_are_named_whatever_their_order(tmp_path):
    path = tmp_path / "a.uem"
    for lines, wrong in (("0 10\n20 30\n5 6", 3), ("5 6\n0 10\n20 30", 2), ("0 10\n1 2\n5 6", 2)):
        path.write_text("".join(f"a 1 {line}\n" for line in lines.split("\n")))
        with pytest.raises(ReadError, match=f"a.uem, line {wrong}: this region of 'a' overlaps"):
            read_uem(path)
    path.write_text("a 1 5 6\na 1 0 5\nb 1 0 9\n")
    assert {uri: len(one) for uri, one in read_uem(path).items()} == {"a": 2, "b": 1}


@pytest.mark.slow
def test_many_lines_take_time_that_grows_with_them(tmp_path):
    """Comparing all pairs of 50,000 lines would take minutes"""
    count = 50_000
    (tmp_path / "a.uem").write_text("".join(f"a 1 {3 * i} {3 * i + 2}\n" for i in range(count)))
    (tmp_path / "a.lab").write_text("".join(f"{3 * i} {3 * i + 2}\n" for i in range(count)))
    code = f"""
        from pyannote_av.formats.annotations import read_lab, read_uem
        print(len(read_uem({str(tmp_path / "a.uem")!r})["a"]))
        print(len(read_lab({str(tmp_path / "a.lab")!r})["a"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["50000", "50000"], done.stderr


def test_files_of_a_model(tmp_path):
    (tmp_path / "model" / "inner").mkdir(parents=True)
    for name in ("config.yaml", "inner/model.safetensors", "film.mp4"):
        (tmp_path / "model" / name).write_text("a")
    (tmp_path / "secret.json").write_text("a")
    (tmp_path / "model" / "out.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "model" / "back").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in model_files(tmp_path / "model")]
    assert names == ["model/config.yaml", "model/inner/model.safetensors"]
    assert model_files(tmp_path / "secret.json") == [tmp_path / "secret.json"]
    with pytest.raises(FileNotFoundError):
        model_files(tmp_path / "nothing")
    for number in range(10_001):
        (tmp_path / "model" / "inner" / str(number)).touch()
    with pytest.raises(ReadError, match="not the folder of a model"):
        model_files(tmp_path / "model")


def test_files_of_a_model_in_a_cache_of_the_hub(tmp_path):
    repository = tmp_path / "models--somebody--something"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / "0").write_text("a")
    (snapshot / "config.yaml").symlink_to("../../blobs/0")
    assert model_files(snapshot) == [snapshot / "config.yaml"]
