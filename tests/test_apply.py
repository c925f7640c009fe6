"""``pyannote-av apply``: which files, where results go, what is said, progress within a file."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from media import Sound, write_media, write_streams
from pyannote.core import Annotation, Segment
from test_cli import run

from pyannote_av import FaceTracks
from pyannote_av.batch.diarization import Diarize
from pyannote_av.batch.inputs import expand
from pyannote_av.batch.jobs import Job
from pyannote_av.batch.progress import InFile, Progress, ProgressFile, read_progress
from pyannote_av.batch.run import plan
from pyannote_av.cli.apply import _complete_formats, apply_all
from pyannote_av.core.output import AVDiarizeOutput, Report
from pyannote_av.core.summary import in_one_line, summarize

SHORT = {"duration": 0.4}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A folder with twelve kinds of media, and other things."""
    folder = tmp_path_factory.mktemp("twelve")
    for name in ("mp4", "mkv", "mov", "MTS"):
        write_media(folder / f"video {name}.{name}", **SHORT)
    write_media(folder / "video avi.avi", **SHORT, audio_codec="libmp3lame")
    webm = {"video_codec": "libvpx", "audio_codec": "libopus"}
    write_media(folder / "video webm.webm", **SHORT, **webm)
    for name, codec in [
        ("wav", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libvorbis" if "libvorbis" in codecs() else "libopus"),
    ]:
        sound = Sound(duration=0.4, codec=codec)
        write_streams(folder / f"sound {name}.{name}", sound)
    os.rename(write_media(folder / "x.mp4", **SHORT), folder / "camera.lrv")
    os.rename(write_media(folder / "x.mkv", **SHORT), folder / "no suffix")
    write_media(folder / "talk.annotated.mp4", **SHORT)
    (folder / "notes.txt").write_text("notes")
    (folder / "unknown.dat").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "text.log2").write_text("words " * 100)
    (folder / "picture.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    return folder


def codecs():
    import av

    return av.codecs_available


def test_folders_are_searched_for_media_of_any_suffix(twelve):
    told = []
    found = expand([twelve], told.append)
    assert len(found) == 12
    assert {"camera.lrv", "no suffix"} <= {path.name for path in found}
    (line,) = told
    for name in ("talk.annotated.mp4", "notes.txt", "unknown.dat", "text.log2", "picture.jpg"):
        assert name in line


def test_dry_run_says_what_would_be_done_and_writes_nothing(twelve, monkeypatch, capsys, tmp_path):
    before = sorted(twelve.iterdir())
    into = tmp_path / "new"
    code = run(monkeypatch, "apply", twelve, "--into", into, "--pipeline", "audio", "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert sum("would be diarized" in line for line in lines) == 12
    assert any(str(into / "camera.rttm") in line for line in lines)
    assert not into.exists()
    assert sorted(twelve.iterdir()) == before


def test_dry_run_speaks_of_what_would_be_done(tmp_path, monkeypatch, capsys):
    audio = ("--pipeline", "audio", "--format", "rttm")
    for name in "ab":
        write_media(tmp_path / f"{name}.mp4", **SHORT)
    (tmp_path / "broken.mp4").write_bytes(bytes(500))
    assert run(monkeypatch, "apply", tmp_path / "a.mp4", *audio) == 0
    capsys.readouterr()
    assert run(monkeypatch, "apply", tmp_path, *audio, "--dry-run") == 1
    a, b, broken, last = capsys.readouterr().out.splitlines()[-4:]
    assert "a.mp4: already done, would be skipped" in a
    assert f"b.mp4: would be diarized -> {tmp_path / 'b.rttm'}" in b
    assert "broken.mp4: would be refused: " in broken
    assert last == "1 file would be refused"


def test_plan_tells_done_and_refused_files(tmp_path):
    video = write_media(tmp_path / "talk.mp4", **SHORT)
    (tmp_path / "mine.rttm").write_text("mine")
    (tmp_path / "broken.mp4").write_bytes(bytes(500))
    apply_all([video], tmp_path, "audio", formats=["rttm"])
    jobs = [
        Job(name, {"video": str(tmp_path / path)})
        for name, path in [("talk", "talk.mp4"), ("mine", "talk.mp4"), ("broken", "broken.mp4")]
    ]
    planned = list(plan(Diarize("audio", ["rttm"]), jobs, tmp_path))
    assert [one.verdict for one in planned] == ["done before", "refused", "refused"]
    assert "mine.rttm exists" in planned[1].why
    assert "broken.mp4" in planned[2].why


def test_results_go_next_to_the_input_by_default(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_media(folder / "talk.mp4", **SHORT)
    audio = ("--pipeline", "audio", "--workers", "0")
    videos = [folder / "talk.mp4" for folder in folders]
    assert run(monkeypatch, "apply", *videos, *audio) == 0
    for folder in folders:
        assert {"talk.rttm", "talk.json", ".pyannote_av"} <= {p.name for p in folder.iterdir()}
    capsys.readouterr()
    assert run(monkeypatch, "apply", *videos, *audio) == 0
    assert capsys.readouterr().out.count("skipped") == 2


def test_manifest_needs_a_folder(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "apply", "--manifest", tmp_path / "list.csv") == 2
    assert "--into" in capsys.readouterr().err


def output(speakers=2):
    turns, time = Annotation(uri="talk"), np.arange(50) / 25
    for i in range(speakers):
        turns[Segment(i, i + 1.5 + i), i] = f"SPEAKER_{i:02d}"
    tracks = FaceTracks(time, np.zeros(50, int), np.tile([0.1, 0.1, 0.2, 0.2], (50, 1)))
    tracks = tracks.with_speakers({0: "SPEAKER_01"})
    return AVDiarizeOutput(turns, turns, face_tracks=tracks, report=Report(changes=["one", "two"]))


def test_summary():
    assert summarize(output()) == [
        "SPEAKER_01: 2.5 s (1.0 s on screen, 1.5 s off screen)",
        "SPEAKER_00: 1.5 s (0.0 s on screen, 1.5 s off screen)",
        "changed by the picture: one, and 1 more changes",
    ]
    assert in_one_line(output()) == "4.0 s of speech, 3.0 s of it off screen"
    many = summarize(output(200))
    assert len(many) == 5
    assert many[3] == "197 more speakers"
    nothing = AVDiarizeOutput(Annotation(), Annotation())
    assert summarize(nothing) == []
    assert in_one_line(nothing) == "0.0 s of speech"


def test_progress_within_a_file_is_written_and_read(tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".progress").write_text("{")
    hook = ProgressFile(tmp_path / "stage", "talk", video=True)
    hook("face_tracking", None, total=10, completed=5)
    (found,) = read_progress(tmp_path)
    assert found == InFile("talk", "face_tracking", 0.5, pytest.approx(0.525))
    assert read_progress(tmp_path / "absent") == []


def test_share_never_falls(tmp_path):
    hook = ProgressFile(tmp_path, "talk", video=True)
    shares = []
    steps = [("segmentation", 1), ("speaker_counting", None), ("embeddings", 0), ("embeddings", 4)]
    steps += [("face_tracking", 2), ("fusion", None), ("segmentation", 2), ("segmentation", 4)]
    for step, done in steps:
        hook._next = 0.0
        hook(step, None, total=None if done is None else 4, completed=done)
        shares.append(json.loads((tmp_path / ".progress").read_text())["share"])
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_bar_shows_step_and_seconds():
    with Progress(False) as bars:
        bars.begin("diarizing", 2, 300.0)
        bars.show([InFile("talk", "face_tracking", 0.5, 0.6)], {"talk": 200.0})
        (task,) = bars._bars.tasks
        assert task.completed == pytest.approx(120.0)
        assert task.fields["files"] == "0/2 files, face tracking 100/200 s"
        bars.advance(200.0)
        assert task.completed == 200.0
        bars.show([], {})
        assert task.fields["files"] == "1/2 files"


def test_pipelines_report_their_progress(tmp_path, monkeypatch):
    video = write_media(tmp_path / "talk.mp4", duration=1.0)
    seen = []
    write = ProgressFile.__call__

    def note(self, step, *rest, **options):
        seen.append(step)
        write(self, step, *rest, **options)

    monkeypatch.setattr(ProgressFile, "__call__", note)
    assert apply_all([video], tmp_path / "out", "late_fusion") == {}
    assert {"segmentation", "face_tracking", "fusion"} <= set(seen)
    assert not list((tmp_path / "out" / ".pyannote_av" / "unfinished").iterdir())


def in_bash(command, home):
    """What bash prints for a command line; completion is for the shell that starts the program."""
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    environment = {**os.environ, "HOME": str(home), "SHELL": bash}
    # bash replaces itself by the last command, and would then not be found among the parents
    line = f"{shlex.join([sys.executable, '-m', 'pyannote_av'])} {command}; exit $?"
    done = subprocess.run([bash, "-c", line], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_completion(tmp_path):
    assert _complete_formats("rttm,j") == ["rttm,json"]
    assert "rttm" in _complete_formats("")
    assert "_PYANNOTE_AV_COMPLETE" in in_bash("--show-completion", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_completion_is_installed_and_completes(tmp_path, monkeypatch):
    assert "bash completion installed" in in_bash("--install-completion", tmp_path)
    (script,) = tmp_path.glob(".bash_completions/*.sh")
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert "complete" in script.read_text()
    monkeypatch.setenv("_PYANNOTE_AV_COMPLETE", "complete_bash")
    for words, found in (
        ("pyannote-av conv", "convert"),
        ("pyannote-av apply --pipeline hm", "hmsanet"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert found in in_bash("", tmp_path).split()


def default_interruptions() -> None:
    """A shell that starts tests in the background makes them ignore interruptions"""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


SLOW = """
import sys, time
from pathlib import Path
from pyannote_av.batch import diarization

def process(self, job, folder):
    (folder / f"{job.name}.rttm").write_text("")
    print(job.name, flush=True)
    time.sleep(0 if job.name == "a" or "fast" in sys.argv else 60)
    return diarization.Made([f"{job.name}.rttm"], "made")

diarization.Diarize.load = lambda self: None
diarization.Diarize.process = process
from pyannote_av.cli.apply import apply_all
into = Path(sys.argv[1])
for line in [] if apply_all([into / "a.mp4", into / "b.mp4"], None, "audio", ["rttm"]) else ["ok"]:
    print(line)
"""


@pytest.mark.slow
def test_interrupted_and_run_again(tmp_path):
    for name in "ab":
        write_media(tmp_path / f"{name}.mp4", **SHORT)
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    given = {"stdout": subprocess.PIPE, "text": True, "preexec_fn": default_interruptions}
    with subprocess.Popen(command, **given) as first:
        assert [first.stdout.readline().strip() for _ in "ab"] == ["a", "b"]
        time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) != 0
    assert (tmp_path / "a.rttm").is_file()
    assert not (tmp_path / "b.rttm").exists()
    again = subprocess.run([*command, "fast"], capture_output=True, text=True, timeout=120)
    assert again.stdout.split() == ["b", "ok"]
    assert (tmp_path / "b.rttm").is_file()
    assert not list((tmp_path / ".pyannote_av" / "unfinished").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_twelve_kinds_of_files_are_diarized_in_spite_of_an_interruption(twelve, workers, tmp_path):
    """Ctrl-C in the middle keeps what is done; the same command again does the rest."""
    command = [sys.executable, "-m", "pyannote_av", "apply", twelve, "--into", tmp_path]
    command += ["--pipeline", "audio", "--workers", workers]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # terminals send the signal to all processes of the command
    given["preexec_fn"] = default_interruptions
    with subprocess.Popen([*map(str, command)], start_new_session=True, **given) as first:
        while not (line := first.stdout.readline()).startswith("["):
            assert line, first.stderr.read()
        os.killpg(first.pid, signal.SIGINT)
        _, said = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "interrupted: run the same command again to continue" in said
    assert "Traceback" not in said
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*") if path.is_file()}
    assert 0 < len(done) < 36
    assert len(done) % 3 == 0  # all files of a result, or none
    again = subprocess.run([*map(str, command)], timeout=240, **given)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already done, skipped") == len(done) // 3
    assert {path: path.stat().st_mtime_ns for path in done} == done
    found = [path.suffix for path in tmp_path.iterdir() if path.is_file()]
    assert sorted(found) == sorted([".rttm", ".json", ".html"] * 12)
    assert not list((tmp_path / ".pyannote_av" / "unfinished").iterdir())
