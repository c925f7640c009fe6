"""Names of files and outputs as people have them: none is lost, replaced or misread."""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from conversations import voice, write_wav
from pyannote.core import Annotation, Segment

from pyannote_av import Video
from pyannote_av.batch.engines import Engine
from pyannote_av.batch.inputs import expand, unique_names
from pyannote_av.batch.jobs import Job, Made
from pyannote_av.batch.ledger import Ledger
from pyannote_av.batch.outputs import ForeignFileError, replaceable
from pyannote_av.batch.run import process
from pyannote_av.cli.apply import apply_all
from pyannote_av.core.atomic import write_text
from pyannote_av.core.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, MediaError
from pyannote_av.core.paths import no_such_file
from pyannote_av.core.reading import ReadError
from pyannote_av.formats.annotations import read_rttm
from pyannote_av.formats.rttm import to_rttm

HERE = Engine(workers=0)
COMPOSED, DECOMPOSED = "Ren\xe9", "Rene\u0301"


class Copy:
    """The simplest work: media are copied to outputs as those of `apply`."""

    verb, identity = "copying", "copy"

    def load(self):
        pass

    def outputs(self, name: str, every: bool = False) -> list[str]:
        return [f"{name}.rttm", f"{name}.json"]

    def process(self, job: Job, folder: Path) -> Made:
        for output in self.outputs(job.name):
            write_text(folder / output, job.media["audio"])
        return Made(self.outputs(job.name))


@pytest.fixture
def sound(tmp_path) -> Path:
    return write_wav(tmp_path / "media" / "sound.wav", voice(110, 0.6, 0))


def job(name: str, sound: Path) -> Job:
    return Job(name, {"audio": str(sound)})


def files(folder: Path) -> set[str]:
    """Relative paths of the results"""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != ".pyannote_av"}


# --- one run over odd names ----------------------------------------------------------------------

ODD = {
    "emoji": "\U0001f600",
    "255 bytes": "\u4f1a\u8b70" * 41 + "abcd",  # 250 bytes, and .wav or .json
    "leading dash": "--help",
    "white space": "my  interview ",
    "line feed": "a\nerror: b",
    "escape sequence": "a\x1b[2Jb",
    "quotes": "a'b\"c",
    "percent": "a%20b",
    "NFD": DECOMPOSED,
    "right to left": "\u202egpj.wav",
    "drive": "C:talk",
    "backslash": "a\\b",
    "dots": "a..b",
    "hash": "#1",
    "reserved": "failures",
    "reserved, too": "files",
    "record": "records",
    "not UTF-8": os.fsdecode(b"Ren\xe9"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Results of `apply` on copies of one file under odd names"""
    folder = tmp_path_factory.mktemp("odd")
    write_wav(folder / "sound.wav", voice(110, 0.6, 0))
    media = folder / "media"
    media.mkdir()
    for name in ODD.values():
        shutil.copy(folder / "sound.wav", media / f"{name}.wav")
    lines: list[str] = []
    found = expand([media], lines.append)
    failed = apply_all(found, folder / "out", "audio", tell=lines.append)
    return folder / "out", found, failed, lines


def test_odd_names_are_all_done(odd):
    into, found, failed, _ = odd
    assert len(found) == len(ODD)
    assert failed == {}
    assert len(files(into)) == 3 * len(ODD)


@pytest.mark.parametrize("case", ODD)
def test_the_outputs_of_odd_names_are_theirs(odd, case):
    name = ODD[case].replace("..", "_").replace("\\", "_")
    into = odd[0]
    content = json.loads((into / f"{name}.json").read_text())
    assert content["uri"] == name
    assert len(read_rttm(into / f"{name}.rttm")) == 1


def test_messages_on_odd_names_stay_on_their_line(odd):
    for line in odd[3]:
        assert line.isprintable(), line
        line.encode()


def test_the_second_run_does_nothing(odd):
    into, found, _, _ = odd
    lines: list[str] = []
    assert apply_all(found, into, "audio", tell=lines.append) == {}
    assert all("skipped" in line for line in lines)
    assert len(lines) == len(ODD)


# --- which files ---------------------------------------------------------------------------------


def test_folders_give_all_media_and_tell_the_rest(tmp_path):
    names = ["a.MTS", "b.VOB", "c.3gp", "d.flv", "e.wmv", "f.m4v", "g.ts", "h.opus", "i.aac"]
    names += ["j.mka", "k.AMR", "l.wma", "m.caf", "n.aiff", "o.Mp4", "p.oga", "q.webm"]
    for name in (*names, "._a.MTS", ".DS_Store", ".hidden.wav", "notes.txt", "talk.json"):
        (tmp_path / name).touch()
    (tmp_path / "sub.mp4").mkdir()
    lines: list[str] = []
    assert [path.name for path in expand([tmp_path], lines.append)] == sorted(names)
    (line,) = lines
    assert "3 left out, not media files: notes.txt, sub.mp4/, talk.json" in line


def test_lists_that_cannot_be_read_are_named(tmp_path, monkeypatch, capsys):
    from pyannote_av.cli import main

    (tmp_path / "list.TXT").write_bytes(b"Ren\xe9.wav\n")
    arguments = ["apply", str(tmp_path / "list.TXT"), "--into", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["pyannote-av", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "list.TXT, line 1: neither UTF-8 (byte 0xe9)" in capsys.readouterr().err


def test_a_file_that_is_named_twice_is_listed_once(tmp_path, monkeypatch):
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").symlink_to("a.wav")
    monkeypatch.chdir(tmp_path)
    given = [Path("a.wav"), Path("./a.wav"), tmp_path / "a.wav", tmp_path, Path("b.wav")]
    assert expand(given) == [Path("a.wav"), tmp_path / "b.wav"]


def test_protocols_know_all_suffixes_in_both_cases(tmp_path, monkeypatch):
    """Read from pyproject.toml: what is installed may be older"""
    from pyannote.database import custom

    root = Path(__file__).resolve().parents[1]
    project = (root / "pyproject.toml").read_text()
    ours = dict(re.findall(r'^"(\.\w+)" = "(pyannote_av\.formats\.\S+)"$', project, re.MULTILINE))
    for suffix in (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES):
        assert {suffix, suffix.upper()} <= ours.keys()
    points = {name: EntryPoint(name, value, "loaders") for name, value in ours.items()}
    monkeypatch.setattr(custom, "LOADERS", {**custom.LOADERS, **points})
    for suffix in (".MTS", ".opus", ".MP4"):
        path = tmp_path / f"a{suffix}"
        path.touch()
        load = custom.Template(str(tmp_path / f"{{uri}}{suffix}"), tmp_path / "database.yml")
        assert load(_File(uri="a")) == str(path)


class _File(dict):
    """What pyannote.database fills templates with"""

    def __abs__(self):
        return self


# --- names of outputs ----------------------------------------------------------------------------


def test_names_that_some_disks_take_for_one_are_told_apart(tmp_path):
    paths = [tmp_path / name for name in ("Talk.mp4", "talk.wav", f"{COMPOSED}.wav")]
    paths += [tmp_path / f"{DECOMPOSED}.mp4", tmp_path / "TALK.mkv"]
    names = unique_names(paths)
    assert list(names.values()) == ["Talk", "talk.wav", COMPOSED, f"{DECOMPOSED}.mp4", "TALK.mkv"]


def test_names_of_earlier_runs_stay(tmp_path):
    paths = [tmp_path / "Talk.mp4", tmp_path / "talk.mp4"]
    known = {"Talk": str(paths[0].resolve()), "talk": str(paths[1].resolve())}
    assert list(unique_names(paths, known).values()) == ["Talk", "talk"]


def test_disks_that_ignore_case(sound, tmp_path):
    """A disk that does is told by the second name of our folder"""
    into = tmp_path / "out"
    jobs = [job(name, sound) for name in ("talk", "Talk", "other")]
    assert process(Copy(), jobs, into / "sensitive", HERE).done == ["talk", "Talk", "other"]
    (into / "blind" / ".PYANNOTE_AV").mkdir(parents=True)
    report = process(Copy(), jobs, into / "blind", HERE)
    assert report.done == ["talk", "other"]
    assert "would replace those of 'talk'" in report.failed["Talk"]


def test_folders_in_names_make_folders_of_outputs(sound, tmp_path):
    jobs = [job("session1/cam2", sound), job("session1/cam1", sound), job("session1", sound)]
    report = process(Copy(), jobs, tmp_path / "out", HERE)
    assert report.failed == {}
    assert files(tmp_path / "out") == {
        f"{one.name}.{kind}" for one in jobs for kind in ("rttm", "json")
    }
    again = process(Copy(), jobs, tmp_path / "out", HERE)
    assert sorted(again.kept) == sorted(one.name for one in jobs)


def test_an_output_in_the_way_of_a_folder_fails_alone(sound, tmp_path):
    jobs = [job("a", sound), job("a.rttm/b", sound), job("c", sound)]
    report = process(Copy(), jobs, tmp_path / "out", HERE)
    assert report.done == ["a", "c"]
    assert "a.rttm is a file, where a folder of outputs is needed" in report.failed["a.rttm/b"]
    with pytest.raises(ForeignFileError, match="is a file, where a folder"):
        replaceable(tmp_path / "out" / "a.rttm" / "b.rttm", None)


@pytest.mark.parametrize(
    "name", ["../a", "/etc/a", "a/../../b", ".pyannote_av/a", ".PYANNOTE_AV/a"]
)
def test_outputs_stay_in_their_folder(sound, tmp_path, name):
    report = process(Copy(), [job(name, sound), job("b", sound)], tmp_path / "out", HERE)
    assert report.done == ["b"]
    assert list(report.failed) == [name]
    assert files(tmp_path) == {"media/sound.wav", "out/b.rttm", "out/b.json"} | {
        one for one in files(tmp_path) if one.startswith("out/.pyannote_av")
    }


def test_outputs_of_others_stay_and_are_not_taken_for_done(sound, tmp_path):
    into = tmp_path / "out"
    into.mkdir()
    theirs = {"talk.json": '{"text": "an hour of work"}', "talk.rttm": "mine\n"}
    for name, text in theirs.items():
        (into / name).write_text(text)
    for _ in range(2):
        report = process(Copy(), [job("talk", sound), job("other", sound)], into, HERE)
        assert "was not written by pyannote-av" in report.failed["talk"]
        assert {name: (into / name).read_text() for name in theirs} == theirs
    assert (into / "other.rttm").is_file()


def test_too_long_names_are_refused_before_the_work(sound, tmp_path):
    report = process(Copy(), [job("x" * 251, sound), job("b", sound)], tmp_path / "out", HERE)
    assert report.done == ["b"]
    assert "is too long for names of files" in report.failed["x" * 251]
    assert process(Copy(), [job("x" * 250, sound)], tmp_path / "out", HERE).failed == {}


def test_temporary_names_fit_where_names_fit(tmp_path):
    path = tmp_path / ("x" * 255)
    write_text(path, "a")
    assert path.read_text() == "a"
    write_text(tmp_path / (f"{COMPOSED}" * 49 + ".rttm"), "a")


def test_two_runs_never_write_into_one_folder(sound, tmp_path):
    with (
        Ledger(tmp_path / "out", Copy()),
        pytest.raises(RuntimeError, match="another process is writing to"),
    ):
        process(Copy(), [job("a", sound)], tmp_path / "out", HERE)
    assert files(tmp_path / "out") == set()


# --- uris ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        ("session1/cam2", True),
        ("id10001/1zcIwhmdeo4/00001", True),
        (DECOMPOSED, True),
        ("-x", True),
        (3, True),
        ("", False),
        ("/a", False),
        ("a//b", False),
        ("a/", False),
        ("./a", False),
        ("a/../b", False),
        ("a\\b", False),
        ("a\0b", False),
        (" ", False),
    ],
)
def test_uris(sound, uri, accepted):
    if accepted:
        assert Video().validate_file({"audio": sound, "uri": uri})["uri"] == str(uri)
    else:
        with pytest.raises(MediaError, match="cannot be used"):
            Video().validate_file({"audio": sound, "uri": uri})


def test_names_that_are_no_text_are_written_with_a_mark():
    turns = Annotation(uri=os.fsdecode(b"Ren\xe9 1"))
    turns[Segment(0, 1)] = "A"
    assert to_rttm(turns).split()[1] == "Ren\ufffd_1"


# --- messages ------------------------------------------------------------------------------------

MISSING = {
    "talk.mp3": "its folder has 'talk.mp4'",
    "Talk.mp4": "its folder has 'talk.mp4'",
    "tlak.mp4": "its folder has 'talk.mp4'",
    f"{DECOMPOSED}.wav": r"this name in another Unicode form: 'Ren\xe9.wav'",
    "none/deep/talk.mp4": "has no folder 'none'",
    "talk.mp4/a.wav": "talk.mp4 is a file",
    "zzzzzz.flac": "has no similar name",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_files_are_named_with_what_is_there(tmp_path, name):
    for there in ("talk.mp4", f"{COMPOSED}.wav"):
        (tmp_path / there).write_bytes(b"x")
    with pytest.raises(MediaError, match="no such file") as error:
        Video().validate_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert MISSING[name] in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="these paths are ordinary there")
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (r"C:\Users\me\a b.mp4", "under WSL it is /mnt/c/Users/me/a b.mp4"),
        ("d:/films/a.mp4", "under WSL it is /mnt/d/films/a.mp4"),
        (r"films\a.mp4", "folders are separated by / on this machine"),
    ],
)
def test_paths_of_windows(path, hint):
    with pytest.raises(MediaError, match="no such file") as error:
        Video().validate_file(path)
    assert hint in str(error.value)
    assert "address" not in str(error.value)


def test_addresses_are_still_refused():
    for address in ("https://a.org/b.mp4", "rtsp://a/b", "file:/a.mp4"):
        with pytest.raises(MediaError, match="is an address: download it first"):
            Video().validate_file(address)


def test_line_feeds_in_names_never_forge_a_line(tmp_path):
    name = "a\nb: done.wav"
    assert "\n" not in no_such_file(tmp_path / name)
    (tmp_path / name).write_bytes(b"x" * 100)
    for make in (
        lambda: Video().probe(tmp_path / name),
        lambda: Video().validate_file(tmp_path / f"{name}.missing"),
        lambda: read_rttm(tmp_path / name),
    ):
        with pytest.raises((MediaError, ReadError)) as error:
            make()
        assert "\n" not in str(error.value)
        assert re.search(r"a\\nb: done", str(error.value))
