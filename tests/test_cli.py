"""``pyannote-av``: every command, and a batch in which something is wrong with some files."""

import json

import numpy as np
import pytest
from media import write_media
from pyannote.database.util import load_rttm

from pyannote_av.batch.inputs import expand, unique_names
from pyannote_av.cli.apply import apply_all


def run(monkeypatch, *arguments):
    from pyannote_av.cli import main

    monkeypatch.setattr("sys.argv", ["pyannote-av", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


@pytest.fixture
def clips(tmp_path):
    """Good ones and bad ones."""
    folder = tmp_path / "clips"
    (folder / "other").mkdir(parents=True)
    write_media(folder / "silent.mp4", duration=1.0, audio=False)
    write_media(folder / "tone one.mp4", duration=1.0)
    write_media(folder / "other" / "silent.mp4", duration=1.0, video=False)
    (folder / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def test_names_never_collide(tmp_path):
    files = [tmp_path / name for name in ("a/x.mp4", "b/x.mp4", "b/x.mkv", "c/x.mp4")]
    names = unique_names(files)
    assert len(set(names.values())) == 4
    assert unique_names(files[::-1], {name: str(path) for path, name in names.items()}) == names


def test_another_run_never_takes_a_name_that_is_taken(clips, tmp_path):
    into = tmp_path / "out"
    into.mkdir()
    for folder in (clips, clips / "other"):
        assert not apply_all([folder / "silent.mp4"], into, "audio", formats=["rttm"])
    assert (into / "silent.rttm").is_file()
    assert (into / "silent.mp4.rttm").is_file()


def test_one_bad_file_never_stops_the_others(clips, tmp_path, monkeypatch, capsys):
    into, audio = tmp_path / "out", ("--pipeline", "audio", "--workers", 0)
    code = run(monkeypatch, "apply", clips, clips / "other", "--into", into, *audio)
    assert code == 1
    assert sorted(p.name for p in into.iterdir()) == [
        ".pyannote_av",
        "silent.html",
        "silent.json",
        "silent.mp4.html",
        "silent.mp4.json",
        "silent.mp4.rttm",
        "silent.rttm",
        "tone one.html",
        "tone one.json",
        "tone one.rttm",
    ]
    failures = json.loads((into / ".pyannote_av" / "failures.json").read_text())
    assert {path.rsplit("/", 1)[-1] for path in failures} == {"broken.mp4", "empty.mp4"}
    capsys.readouterr()

    stamps = {p: p.stat().st_mtime_ns for p in into.glob("*.rttm")}
    run(monkeypatch, "apply", clips / "silent.mp4", "--into", into, *audio)
    assert "skipped" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in into.glob("*.rttm")} == stamps


def test_a_single_file_needs_no_other_process(clips, tmp_path, monkeypatch):
    def start(*_):
        raise AssertionError("another process was started")

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", start)
    monkeypatch.setattr("os.fork", start)
    code = run(
        monkeypatch, "apply", clips / "silent.mp4", "--into", tmp_path, "--pipeline", "audio"
    )
    assert code == 0
    assert (tmp_path / "silent.rttm").is_file()


def test_picture_without_sound_and_without_faces_is_empty_and_says_why(clips, tmp_path):
    assert apply_all([clips / "silent.mp4"], tmp_path) == {}
    content = json.loads((tmp_path / "silent.json").read_text())
    assert content["diarization"] == []
    assert content["report"]["video_used"] is False
    assert load_rttm(tmp_path / "silent.rttm") == {}


def test_lists_are_read(clips, tmp_path):
    (clips / "some.lst").write_text("silent.mp4\n\nother/silent.mp4\n")
    assert expand([clips / "some.lst"]) == [clips / "silent.mp4", clips / "other" / "silent.mp4"]


def test_info_and_doctor(clips, monkeypatch, capsys):
    assert run(monkeypatch, "info", clips / "tone one.mp4") == 0
    assert "sound" in capsys.readouterr().out
    assert run(monkeypatch, "info", clips / "broken.mp4") == 1
    assert "broken.mp4" in capsys.readouterr().err
    assert run(monkeypatch, "doctor") == 0
    assert "segmentation-3.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        *(
            "apply",
            "evaluate",
            "prepare",
            "simulate",
            "fit-statistics",
            "fit-plda",
            "info",
            "doctor",
        ),
        *("download", "import-checkpoint", "sample", "demo"),
    ],
)
def test_help(command, monkeypatch, capsys):
    assert run(monkeypatch, command, "--help") == 0
    assert "Usage" in capsys.readouterr().out
